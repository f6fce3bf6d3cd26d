//! `sluice registry …`: where published apps come from.

use clap::Subcommand;
use serde_json::json;

use crate::cli::admin::{Admin, Failure, object, segment};
use crate::cli::{LookUp, print};

#[derive(Debug, Subcommand)]
pub enum Registry {
    /// Follow a registry.
    ///
    /// Example: sluice registry add core https://registry.useflows.com/core/registry.json
    Add {
        name: String,
        /// Of its `registry.json`.
        url: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the registries that are followed.
    ///
    /// Example: sluice registry list
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Follow a registry no longer; what was fetched from it stays.
    ///
    /// Example: sluice registry remove core
    Remove {
        /// The registry's id or name.
        registry: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask a registry now what it lists.
    ///
    /// Example: sluice registry refresh core
    Refresh {
        /// The registry's id or name.
        registry: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List a registry's apps.
    ///
    /// Example: sluice registry apps core
    Apps {
        /// The registry's id or name.
        registry: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the versions of an app in a registry.
    ///
    /// Example: sluice registry versions core slack
    Versions {
        /// The registry's id or name.
        registry: String,
        /// The app's key there.
        app: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Fetch a version of an app, so that it can be installed in a project.
    ///
    /// Example: sluice registry install core slack --version 0.2.1
    Install {
        /// The registry's id or name.
        registry: String,
        /// The app's key or name there.
        app: String,
        /// Without it the newest release.
        #[arg(long)]
        version: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

const REGISTRY: [(&str, &str); 4] = [
    ("id", "/id"),
    ("name", "/name"),
    ("url", "/url"),
    ("error", "/error"),
];

// === impl Registry ===

impl Registry {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        let of = |registry: &str| format!("/api/v1/registries/{}", segment(registry));
        match self {
            Self::Add { name, url, json } => {
                let body = json!({"name": name, "url": url});
                let registry = admin.post("/api/v1/registries", &body).await?;
                print::record(json, &registry, &REGISTRY);
            }
            Self::List { json } => {
                let registries = admin.get("/api/v1/registries").await?;
                let columns = [
                    ("ID", "/id"),
                    ("NAME", "/name"),
                    ("URL", "/url"),
                    ("ERROR", "/error"),
                ];
                print::list(json, &registries, &columns);
            }
            Self::Remove { registry, json } => {
                let gone = admin.call("DELETE", &of(&registry), None).await?;
                if json {
                    print::line(&gone);
                }
            }
            Self::Refresh { registry, json } => {
                let path = format!("{}/refresh", of(&registry));
                let registry = admin.post(&path, &json!({})).await?;
                print::record(json, &registry, &REGISTRY);
                return Ok(i32::from(!registry["error"].is_null()));
            }
            listed @ (Self::Apps { .. } | Self::Versions { .. }) => listed.list(&admin).await?,
            Self::Install {
                registry,
                app,
                version,
                json,
            } => {
                let body = object(&[
                    ("app", Some(json!(app))),
                    ("version", version.map(|version| json!(version))),
                ]);
                let path = format!("{}/install", of(&registry));
                let version = admin.post(&path, &body).await?;
                let fields = [
                    ("id", "/id"),
                    ("app", "/app"),
                    ("version", "/version"),
                    ("digest", "/digest"),
                ];
                print::record(json, &version, &fields);
            }
        }
        Ok(0)
    }

    /// What a registry lists.
    async fn list(self, admin: &Admin) -> Result<(), Failure> {
        let of = |registry: &str| format!("/api/v1/registries/{}", segment(registry));
        match self {
            Self::Apps { registry, json } => {
                let apps = admin.get(&format!("{}/apps", of(&registry))).await?;
                let columns = [
                    ("KEY", "/key"),
                    ("NAME", "/name"),
                    ("DESCRIPTION", "/description"),
                    ("ERROR", "/error"),
                ];
                print::list(json, &apps, &columns);
            }
            Self::Versions {
                registry,
                app,
                json,
            } => {
                let path = format!("{}/apps/{}/versions", of(&registry), segment(&app));
                let columns = [
                    ("VERSION", "/version"),
                    ("STATE", "/state"),
                    ("CHECKSUM", "/checksum"),
                    ("ID", "/id"),
                ];
                print::list(json, &admin.get(&path).await?, &columns);
            }
            _ => {}
        }
        Ok(())
    }
}
