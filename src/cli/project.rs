//! `sluice project …`.

use clap::Subcommand;
use serde_json::json;

use crate::cli::admin::{Admin, Failure};
use crate::cli::{LookUp, print};

#[derive(Debug, Subcommand)]
pub enum Project {
    /// Make a project.
    ///
    /// Example: sluice project create billing
    Create {
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all projects.
    ///
    /// Example: sluice project list --json
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

// === impl Project ===

impl Project {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        match self {
            Self::Create { name, json } => {
                let project = admin
                    .post("/api/v1/projects", &json!({"name": name}))
                    .await?;
                print::record(json, &project, &[("id", "/id"), ("name", "/name")]);
            }
            Self::List { json } => {
                let projects = admin.get("/api/v1/projects").await?;
                print::list(json, &projects, &[("ID", "/id"), ("NAME", "/name")]);
            }
        }
        Ok(0)
    }
}
