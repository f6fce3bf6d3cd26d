//! `sluice pool …`: where jobs wait, and the token its agents connect with.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure, object};
use crate::cli::{LookUp, print};

#[derive(Debug, Subcommand)]
pub enum Pool {
    /// Make an agent pool; its token is shown this once.
    ///
    /// Example: sluice pool create datacenter
    Create {
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all pools.
    ///
    /// Example: sluice pool list --json
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one pool and its connected agents.
    ///
    /// Example: sluice pool show datacenter
    Show {
        /// Its id or name.
        pool: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let a project use a pool.
    ///
    /// Example: sluice pool expose datacenter billing
    Expose {
        /// The pool's id or name.
        pool: String,
        /// The project's id or name.
        project: String,
    },
    /// Let a project no longer use a pool.
    ///
    /// Example: sluice pool hide datacenter billing
    Hide {
        /// The pool's id or name.
        pool: String,
        /// The project's id or name.
        project: String,
    },
    /// Make a new token; the old ones stay valid for a while.
    ///
    /// Example: sluice pool rotate datacenter --overlap 3600
    Rotate {
        /// The pool's id or name.
        pool: String,
        /// How many seconds the old tokens stay valid; the gateway decides if it is not said.
        #[arg(long, value_name = "SECONDS")]
        overlap: Option<u32>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make all tokens of a pool useless and disconnect its agents, now.
    ///
    /// Example: sluice pool revoke datacenter
    Revoke {
        /// The pool's id or name.
        pool: String,
    },
}

// === impl Pool ===

impl Pool {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        match self {
            Self::Create { name, json } => {
                let pool = admin.post("/api/v1/pools", &json!({"name": name})).await?;
                token(json, &pool, pool["id"].as_str().unwrap_or_default());
            }
            Self::List { json } => {
                let pools = admin.get("/api/v1/pools").await?;
                let columns = [
                    ("ID", "/id"),
                    ("NAME", "/name"),
                    ("DEFAULT", "/default"),
                    ("AGENTS", "/connected_agents"),
                    ("QUEUED", "/queued"),
                ];
                print::list(json, &pools, &columns);
            }
            Self::Show { pool, json } => {
                let id = admin.pool(&pool).await?;
                show(json, &admin.get(&format!("/api/v1/pools/{id}")).await?);
            }
            Self::Expose { pool, project } => {
                expose(&admin, "PUT", &pool, &project).await?;
                print::line(format!("Project {project} can use pool {pool}."));
            }
            Self::Hide { pool, project } => {
                expose(&admin, "DELETE", &pool, &project).await?;
                print::line(format!("Project {project} can no longer use pool {pool}."));
            }
            Self::Rotate {
                pool,
                overlap,
                json,
            } => {
                let id = admin.pool(&pool).await?;
                let body = object(&[("overlap_s", overlap.map(|seconds| json!(seconds)))]);
                let path = format!("/api/v1/pools/{id}/rotate");
                token(json, &admin.post(&path, &body).await?, &id);
            }
            Self::Revoke { pool } => {
                let id = admin.pool(&pool).await?;
                let path = format!("/api/v1/pools/{id}/revoke");
                admin.post(&path, &json!({})).await?;
                print::line(format!(
                    "No token of pool {pool} works any more: `sluice pool rotate {pool}` makes a new one."
                ));
            }
        }
        Ok(0)
    }
}

async fn expose(admin: &Admin, method: &str, pool: &str, project: &str) -> Result<(), Failure> {
    let (pool, project) = (admin.pool(pool).await?, admin.project(project).await?);
    let path = format!("/api/v1/pools/{pool}/projects/{project}");
    admin.call(method, &path, None).await.map(drop)
}

/// A new token, in the form an agent's environment takes.
fn token(json: bool, reply: &Value, pool: &str) {
    if json {
        return print::line(reply);
    }
    print::line(format!("FLOWS_AGENT_POOL_ID={pool}"));
    print::line(format!(
        "FLOWS_AGENT_POOL_TOKEN={}",
        reply["token"].as_str().unwrap_or_default()
    ));
    if let Some(until) = reply["old_valid_until_ms"].as_i64() {
        eprintln!(
            "Older tokens are valid until {}.",
            print::moment(Some(until * 1_000))
        );
    }
    eprintln!("This token is not shown again.");
}

fn show(json: bool, pool: &Value) {
    let fields = [
        ("id", "/id"),
        ("name", "/name"),
        ("default", "/default"),
        ("revoked", "/revoked"),
        ("projects", "/projects"),
        ("queued", "/queued"),
        ("connected agents", "/connected_agents"),
    ];
    print::record(json, pool, &fields);
    if json || pool["agents"].as_array().is_none_or(Vec::is_empty) {
        return;
    }
    let columns = [
        ("AGENT", "/agent"),
        ("HOST", "/host"),
        ("VERSION", "/version"),
        ("WORKERS", "/workers"),
        ("IN FLIGHT", "/in_flight"),
        ("QUEUED", "/queued"),
        ("REFUSING", "/refusing"),
    ];
    print::line("");
    print::list(false, &pool["agents"], &columns);
}
