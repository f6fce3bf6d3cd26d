//! `sluice app …`: apps and the bundles that are their versions.

mod build;
mod bundle;
mod install;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::cli::admin::{Admin, Failure};
use crate::cli::installed;
use crate::cli::{LookUp, print};

pub use crate::cli::app::bundle::Bundle;
pub use crate::cli::app::install::load;

#[derive(Debug, Subcommand)]
pub enum App {
    Build(build::Build),
    Install(install::Install),
    /// Make an app.
    ///
    /// Example: sluice app create mailer --project billing
    Create {
        name: String,
        /// The project it belongs to, by id or name.
        #[arg(long)]
        project: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Upload a version: a bundle's text, or a `.tar.gz` with `app.js` and perhaps `ui.js`.
    ///
    /// Example: sluice app upload mailer bundle.tar.gz --as 1.4.0
    Upload {
        /// The app's id or name.
        app: String,
        file: PathBuf,
        /// The version's name.
        #[arg(long = "as", value_name = "VERSION")]
        version: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all apps, or the versions of one.
    ///
    /// Example: sluice app list mailer
    List {
        /// An app's id or name: list its versions.
        app: Option<String>,
        /// Only apps of this project, by id or name.
        #[arg(long, conflicts_with = "app")]
        project: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

// === impl App ===

impl App {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        match self {
            Self::Build(build) => return build.run(look_up).await,
            Self::Install(install) => return install.run(look_up).await,
            Self::Create {
                name,
                project,
                json,
            } => {
                let admin = Admin::open(look_up)?;
                let project = admin.project(&project).await?;
                let body = json!({"project": project, "name": name});
                let app = admin.post("/api/v1/apps", &body).await?;
                print::record(json, &app, &[("id", "/id"), ("name", "/name")]);
            }
            Self::Upload {
                app,
                file,
                version,
                json,
            } => {
                let admin = Admin::open(look_up)?;
                let bundle = Bundle::read(&file)?;
                let app = admin.app(&app).await?;
                let version = installed::upload(&admin, &app, &version, &bundle).await?;
                let fields = [
                    ("id", "/id"),
                    ("version", "/version"),
                    ("digest", "/digest"),
                ];
                print::record(json, &version, &fields);
            }
            Self::List {
                app: None,
                project,
                json,
            } => {
                let admin = Admin::open(look_up)?;
                let mut apps = admin.get("/api/v1/apps").await?;
                if let Some(project) = project {
                    let project = admin.project(&project).await?;
                    if let Some(apps) = apps.as_array_mut() {
                        apps.retain(|app| app["project"] == project);
                    }
                }
                let columns = [("ID", "/id"), ("NAME", "/name"), ("PROJECT", "/project")];
                print::list(json, &apps, &columns);
            }
            Self::List {
                app: Some(app),
                json,
                ..
            } => {
                let admin = Admin::open(look_up)?;
                let app = admin.app(&app).await?;
                let versions = admin.get(&format!("/api/v1/apps/{app}/versions")).await?;
                let columns = [
                    ("ID", "/id"),
                    ("VERSION", "/version"),
                    ("DIGEST", "/digest"),
                ];
                print::list(json, &versions, &columns);
            }
        }
        Ok(0)
    }
}
