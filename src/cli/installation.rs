//! `sluice installation …`: apps that are installed in projects.

use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::cli::admin::{Admin, Failure, query};
use crate::cli::installed::{self, Wanted, parse_field};
use crate::cli::{LookUp, print};

#[derive(Debug, Subcommand)]
pub enum Installation {
    /// List app installations.
    ///
    /// Example: sluice installation list --project billing
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this project, by id or name.
        #[arg(long)]
        project: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Install a version of an app, and wait until it is ready.
    ///
    /// Example: sluice installation create mailer --project billing --app mailer --as 1.4.0
    Create {
        name: String,
        /// The project, by id or name.
        #[arg(long)]
        project: String,
        /// The app, by id or name.
        #[arg(long)]
        app: String,
        /// The version, by name or id; without it the newest.
        #[arg(long = "as", value_name = "VERSION")]
        version: Option<String>,
        /// The pool, by id or name; without it the default pool.
        #[arg(long)]
        pool: Option<String>,
        /// A field of the config, as JavaScript; repeat it for more.
        #[arg(long = "config", value_name = "FIELD=JAVASCRIPT", value_parser = parse_field)]
        config: Vec<(String, String)>,
        /// Leave it a draft, which runs nothing until it is confirmed.
        #[arg(long)]
        draft: bool,
        /// How many seconds to wait until it is ready; 0 does not wait.
        #[arg(long, value_name = "SECONDS", default_value_t = 120)]
        wait: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change fields of the config.
    ///
    /// Example: sluice installation configure mailer --config 'host="mail.example"' --unset port
    Configure {
        /// Its id or name.
        installation: String,
        /// A field and its value as JavaScript; repeat it for more.
        #[arg(long = "config", value_name = "FIELD=JAVASCRIPT", value_parser = parse_field)]
        config: Vec<(String, String)>,
        /// A field that is taken away; repeat it for more.
        #[arg(long = "unset", value_name = "FIELD")]
        unset: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Confirm a draft.
    ///
    /// Example: sluice installation confirm mailer
    Confirm {
        /// Its id or name.
        installation: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one: its status, signals, prompts and endpoint.
    ///
    /// Example: sluice installation status mailer --json
    Status {
        /// Its id or name.
        installation: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give it the code of another version of its app.
    ///
    /// Example: sluice installation upgrade mailer --app mailer --as 1.5.0
    Upgrade {
        /// Its id or name.
        installation: String,
        /// The app, by id or name.
        #[arg(long)]
        app: String,
        /// The version, by name or id; without it the newest.
        #[arg(long = "as", value_name = "VERSION")]
        version: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Drain an installation and remove it.
    ///
    /// Example: sluice installation delete mailer
    Delete {
        /// Its id or name.
        installation: String,
    },
}

// === impl Installation ===

impl Installation {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        match self {
            Self::List { project, json } => list(&admin, project, json).await?,
            Self::Create { .. } => self.create(&admin).await?,
            Self::Configure {
                installation,
                config,
                unset,
                json,
            } => {
                let unset = unset.into_iter().map(|field| (field, Value::Null));
                let set = config
                    .into_iter()
                    .map(|(field, source)| (field, json!(source)));
                let config: Map<_, _> = set.chain(unset).collect();
                let path = one(&admin, &installation, "/config").await?;
                let body = json!({"config": config});
                show(json, &admin.call("PATCH", &path, Some(&body)).await?);
            }
            Self::Confirm { installation, json } => {
                let id = admin.installation(&installation).await?;
                show(
                    json,
                    &installed::confirm(&admin, "installations", &id).await?,
                );
            }
            Self::Status { installation, json } => {
                let path = one(&admin, &installation, "").await?;
                show(json, &admin.get(&path).await?);
            }
            Self::Upgrade {
                installation,
                app,
                version,
                json,
            } => {
                let version = found(&admin, &app, version.as_deref()).await?;
                let path = one(&admin, &installation, "/version").await?;
                let body = json!({"version": version});
                show(json, &admin.post(&path, &body).await?);
            }
            Self::Delete { installation } => {
                let path = one(&admin, &installation, "").await?;
                admin.call("DELETE", &path, None).await?;
                print::line(format!(
                    "Installation {installation} is drained and removed."
                ));
            }
        }
        Ok(0)
    }

    async fn create(self, admin: &Admin) -> Result<(), Failure> {
        let Self::Create {
            name,
            project,
            app,
            version,
            pool,
            config,
            draft,
            wait,
            json,
        } = self
        else {
            return Ok(());
        };
        let project = admin.project(&project).await?;
        let version = found(admin, &app, version.as_deref()).await?;
        let pool = match &pool {
            Some(pool) => Some(admin.pool(pool).await?),
            None => None,
        };
        let wanted = Wanted {
            project: &project,
            name: &name,
            version: &version,
            pool: pool.as_deref(),
            config: &config.into_iter().collect(),
        };
        let made = installed::create(admin, &wanted, !draft).await?;
        if draft || wait == 0 {
            show(json, &made);
            return Ok(());
        }
        let until = Instant::now() + Duration::from_secs(wait);
        let id = print::text(&made["id"]);
        let ready = installed::ready(admin, &id, until, |name, status| {
            eprintln!("{name} is {status}");
        })
        .await?;
        show(json, &ready);
        Ok(())
    }
}

/// The id of a version of an app.
async fn found(admin: &Admin, app: &str, version: Option<&str>) -> Result<String, Failure> {
    let id = admin.app(app).await?;
    match installed::version(admin, &id, version).await? {
        Some(version) => Ok(print::text(&version["id"])),
        None => Err(Failure::Usage(format!(
            "the app `{app}` has no version {}: `sluice app list {app}` shows all",
            version.unwrap_or("at all")
        ))),
    }
}

/// The path of one installation that a person names.
async fn one(admin: &Admin, text: &str, below: &str) -> Result<String, Failure> {
    let id = admin.installation(text).await?;
    Ok(format!("/api/v1/installations/{id}{below}"))
}

async fn list(admin: &Admin, project: Option<String>, json: bool) -> Result<(), Failure> {
    let project = match &project {
        Some(project) => Some(admin.project(project).await?),
        None => None,
    };
    let path = format!("/api/v1/installations{}", query(&[("project", project)]));
    let columns = [
        ("ID", "/id"),
        ("NAME", "/name"),
        ("STATUS", "/status"),
        ("ABOUT IT", "/status_text"),
    ];
    print::list(json, &admin.get(&path).await?, &columns);
    Ok(())
}

fn show(json: bool, it: &Value) {
    let fields = [
        ("id", "/id"),
        ("name", "/name"),
        ("status", "/status"),
        ("about it", "/status_text"),
        ("version", "/version"),
        ("pool", "/pool"),
        ("signals", "/signals"),
        ("prompts", "/prompts"),
        ("endpoint", "/url"),
    ];
    print::record(json, it, &fields);
    if let (false, Some(text)) = (json, it["instructions"].as_str()) {
        print::line(format!("\n{}", print::harmless(text.trim())));
    }
}
