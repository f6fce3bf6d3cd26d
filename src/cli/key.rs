//! `sluice key …`: API keys of the gateway.

use clap::Subcommand;
use serde_json::json;

use crate::cli::admin::{Admin, Failure, object, segment};
use crate::cli::{LookUp, print};

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make an API key, which is shown this once.
    ///
    /// Example: sluice key create ci --project billing --scope api --scope flows:edit
    Create {
        /// What it is for.
        name: String,
        /// A project it may use, by id or name; repeat it for more. Without any it may use all.
        #[arg(long = "project", value_name = "PROJECT")]
        projects: Vec<String>,
        /// A part of the API it is good for: api, apps:view, apps:admin, flows:edit or
        /// org:admin; repeat it for more. Without any it has those of the key that makes it.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// When it stops working: a time such as 2027-01-01T00:00:00Z.
        #[arg(long, value_name = "TIME")]
        expires: Option<jiff::Timestamp>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all keys, without their secret part.
    ///
    /// Example: sluice key list --json
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a key useless.
    ///
    /// Example: sluice key revoke 0198c0de-0000-7000-8000-000000000000
    Revoke {
        /// Its id.
        key: String,
    },
}

// === impl Key ===

impl Key {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        match self {
            Self::Create {
                name,
                projects,
                scopes,
                expires,
                json,
            } => {
                let mut ids = Vec::new();
                for project in &projects {
                    ids.push(admin.project(project).await?);
                }
                let body = object(&[
                    ("name", Some(json!(name))),
                    ("projects", (!ids.is_empty()).then(|| json!(ids))),
                    ("scopes", (!scopes.is_empty()).then(|| json!(scopes))),
                    ("expires", expires.map(|at| json!(at.as_millisecond()))),
                ]);
                let key = admin.post("/api/v1/keys", &body).await?;
                print::record(
                    json,
                    &key,
                    &[("id", "/id"), ("key", "/key"), ("scopes", "/scopes")],
                );
            }
            Self::List { json } => {
                let keys = admin.get("/api/v1/keys").await?;
                let columns = [
                    ("ID", "/id"),
                    ("NAME", "/name"),
                    ("PROJECTS", "/projects"),
                    ("SCOPES", "/scopes"),
                    ("EXPIRES (ms since 1970)", "/expires_ms"),
                ];
                print::list(json, &keys, &columns);
            }
            Self::Revoke { key } => {
                let path = format!("/api/v1/keys/{}", segment(&key));
                admin.call("DELETE", &path, None).await?;
                print::line(format!("Key {key} works no more."));
            }
        }
        Ok(0)
    }
}
