//! `sluice app install`: from a file, or from an app that is there, to a
//! version and, when a name is given for it, a ready installation.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure};
use crate::cli::app::{Bundle, build};
use crate::cli::installed::{self, Wanted, parse_field};
use crate::cli::{LookUp, configure, print};

/// Ends of names of files that are bundled first.
const SOURCES: [&str; 3] = ["ts", "tsx", "mts"];

/// Publish an app, and install it where that is asked for.
///
/// WHAT is a bundle (`.tar.gz`, `.js`, `.mjs`), TypeScript that is bundled first,
/// or the name of an app that is there already. The app is made if there is none.
///
/// Example: sluice app install main.ts --project default --name greeter --installation greeter
#[derive(Debug, clap::Args)]
pub struct Install {
    /// A file, or the name or id of an app.
    what: String,
    /// The project it belongs to, by id or name.
    #[arg(long)]
    project: String,
    /// The app's name; without it that of the file.
    #[arg(long)]
    name: Option<String>,
    /// The version's name; without it one that is derived from the code, and of
    /// an app that is there the newest.
    #[arg(long = "as", value_name = "VERSION")]
    version: Option<String>,
    /// The entry of its UI, of an app that is bundled first.
    #[arg(long, short = 'u', value_name = "FILE")]
    ui: Option<PathBuf>,
    /// Make or upgrade the installation of this name, and wait until it is ready.
    #[arg(long, value_name = "NAME")]
    installation: Option<String>,
    /// A field of the installation's config, as JavaScript; repeat it for more.
    #[arg(long = "config", value_name = "FIELD=JAVASCRIPT", value_parser = parse_field, requires = "installation")]
    config: Vec<(String, String)>,
    /// The installation's pool, by id or name; without it the default pool.
    #[arg(long, requires = "installation")]
    pool: Option<String>,
    /// How many seconds to wait until it is ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

// === impl Install ===

impl Install {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let data_dir = configure(look_up, |reader| reader.data_dir())?;
        let admin = Admin::open(look_up)?;
        let project = admin.project(&self.project).await?;
        let file = Path::new(&self.what);
        let (app, version) = if file.is_file() {
            let bundle = load(&data_dir, file, self.ui.as_deref()).await?;
            let name = self.name.clone().unwrap_or_else(|| name_of(file));
            let app = installed::app(&admin, &project, &name).await?;
            let version = match &self.version {
                Some(version) => installed::upload(&admin, &app, version, &bundle).await?,
                None => installed::publish(&admin, &app, &bundle).await?,
            };
            (app, version)
        } else {
            self.known(&admin, &project).await?
        };
        let mut told =
            json!({"app": app, "version": version["version"], "version_id": version["id"]});
        if let Some(name) = &self.installation {
            let it = self.install(&admin, &project, name, &version).await?;
            told["installation"] = it["id"].clone();
            told["status"] = it["status"].clone();
            told["url"] = it["url"].clone();
        }
        let fields = [
            ("app", "/app"),
            ("version", "/version"),
            ("version's id", "/version_id"),
            ("installation", "/installation"),
            ("status", "/status"),
            ("endpoint", "/url"),
        ];
        print::record(self.json, &told, &fields);
        Ok(0)
    }

    /// An app that is there, and its version.
    async fn known(&self, admin: &Admin, project: &str) -> Result<(String, Value), Failure> {
        let apps = admin.get("/api/v1/apps").await?;
        let known = apps.as_array().into_iter().flatten();
        let known = known
            .filter(|app| app["project"] == project)
            .find(|app| app["name"] == self.what.as_str() || app["id"] == self.what.as_str());
        let Some(known) = known else {
            let what = &self.what;
            return Err(Failure::Usage(format!(
                "`{what}` is neither a file nor an app of this project: `sluice app list` shows all"
            )));
        };
        let app = print::text(&known["id"]);
        let version = installed::version(admin, &app, self.version.as_deref()).await?;
        let version = version.ok_or_else(|| {
            let wanted = self.version.as_deref().unwrap_or("at all");
            Failure::Usage(format!(
                "the app `{}` has no version {wanted}: `sluice app list {}` shows all",
                self.what, self.what
            ))
        })?;
        Ok((app, version))
    }

    async fn install(
        &self,
        admin: &Admin,
        project: &str,
        name: &str,
        version: &Value,
    ) -> Result<Value, Failure> {
        let pool = match &self.pool {
            Some(pool) => Some(admin.pool(pool).await?),
            None => None,
        };
        let wanted = Wanted {
            project,
            name,
            version: version["id"].as_str().unwrap_or_default(),
            pool: pool.as_deref(),
            config: &self.config.iter().cloned().collect(),
        };
        let id = installed::install(admin, &wanted).await?;
        let until = Instant::now() + Duration::from_secs(self.wait);
        installed::ready(admin, &id, until, |name, status| {
            eprintln!("{name} is {status}");
        })
        .await
    }
}

/// The bundle in a file, built from it if it is TypeScript.
pub async fn load(data_dir: &Path, file: &Path, ui: Option<&Path>) -> anyhow::Result<Bundle> {
    if is_source(file) {
        build::build(data_dir, file, ui).await
    } else {
        Bundle::read(file)
    }
}

fn is_source(file: &Path) -> bool {
    file.extension()
        .is_some_and(|end| SOURCES.iter().any(|source| end == *source))
}

/// What an app from this file is called: its name up to the first dot, or its
/// folder's, as an entry file has the same name everywhere.
fn name_of(file: &Path) -> String {
    let stem = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let stem = name.split('.').next().unwrap_or_default();
        stem.to_owned()
    };
    let name = stem(file);
    if !["main", "index", "app", "bundle"].contains(&name.as_str()) {
        return name;
    }
    let full = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let folder = full.parent().map(stem).unwrap_or_default();
    if folder.is_empty() { name } else { folder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_called_like_its_file_or_its_folder() {
        assert_eq!(name_of(Path::new("x/mailer.tar.gz")), "mailer");
        assert_eq!(name_of(Path::new("/apps/mailer/main.ts")), "mailer");
        assert_eq!(name_of(Path::new("/main.ts")), "main");
        assert!(is_source(Path::new("main.ts")) && !is_source(Path::new("main.mjs")));
    }
}
