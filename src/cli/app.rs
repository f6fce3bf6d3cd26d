//! `sluice app …`: apps and the bundles that are their versions.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use serde_json::json;

use crate::cli::admin::{Admin, Failure, object};
use crate::cli::{LookUp, print};

/// The largest bundle, in bytes, as the gateway takes it and workers fetch it.
const BUNDLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where an archive keeps the app's code: the name that is written, and the one that is documented.
const CODE_FILES: [&str; 2] = ["app.js", "main.js"];
const UI_FILE: &str = "ui.js";

#[derive(Debug, Subcommand)]
pub enum App {
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

struct Bundle {
    code: String,
    ui_code: Option<String>,
}

// === impl App ===

impl App {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        match self {
            Self::Create {
                name,
                project,
                json,
            } => {
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
                let bundle = Bundle::read(&file)?;
                let app = admin.app(&app).await?;
                let body = object(&[
                    ("version", Some(json!(version))),
                    ("code", Some(json!(bundle.code))),
                    ("ui_code", bundle.ui_code.map(|code| json!(code))),
                ]);
                let path = format!("/api/v1/apps/{app}/versions");
                let version = admin.post(&path, &body).await?;
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

// === impl Bundle ===

impl Bundle {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = std::fs::File::open(path).with_context(|| format!("read {shown}"))?;
        let mut bytes = Vec::new();
        file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BUNDLE_BYTES_MAX {
            bail!("{shown} is over the limit of {BUNDLE_BYTES_MAX} bytes");
        }
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Self::unpack(&bytes).with_context(|| format!("{shown}"));
        }
        let code = String::from_utf8(bytes).map_err(|_| {
            anyhow::anyhow!("{shown} is neither JavaScript in UTF-8 nor a gzip archive")
        })?;
        Ok(Self {
            code,
            ui_code: None,
        })
    }

    /// Takes the files out of an archive that may claim anything: by name, up to a size.
    fn unpack(gzip: &[u8]) -> anyhow::Result<Self> {
        let unzipped = flate2::read::GzDecoder::new(gzip).take(2 * BUNDLE_BYTES_MAX);
        let (mut code, mut ui_code) = (None, None);
        for entry in tar::Archive::new(unzipped).entries()? {
            let entry = entry.context("the archive is damaged")?;
            let path = entry.path()?.into_owned();
            let name = path.strip_prefix(".").unwrap_or(&path).to_owned();
            let slot = if CODE_FILES.iter().any(|file| name == Path::new(file)) {
                &mut code
            } else if name == Path::new(UI_FILE) {
                &mut ui_code
            } else {
                continue;
            };
            let mut text = String::new();
            entry
                .take(BUNDLE_BYTES_MAX + 1)
                .read_to_string(&mut text)
                .with_context(|| format!("{} is damaged, or no UTF-8", name.display()))?;
            if text.len() as u64 > BUNDLE_BYTES_MAX {
                bail!(
                    "{} is over the limit of {BUNDLE_BYTES_MAX} bytes",
                    name.display()
                );
            }
            *slot = Some(text);
        }
        Ok(Self {
            code: code.with_context(|| format!("the archive holds no {}", CODE_FILES[0]))?,
            ui_code,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, name, text.as_bytes())
                .expect("appended");
        }
        archive.into_inner().expect("tar").finish().expect("gzip")
    }

    #[test]
    fn text_and_archives_are_bundles() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bundle");
        std::fs::write(&file, "export const app = 1").expect("written");
        assert_eq!(
            Bundle::read(&file).expect("text").code,
            "export const app = 1"
        );
        std::fs::write(
            &file,
            archive(&[("app.js", "a"), ("ui.js", "u"), ("x/app.js", "no")]),
        )
        .expect("written");
        let bundle = Bundle::read(&file).expect("an archive");
        assert_eq!(
            (bundle.code.as_str(), bundle.ui_code.as_deref()),
            ("a", Some("u"))
        );
    }

    #[test]
    fn what_is_no_bundle_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bundle");
        for (bytes, says) in [
            (archive(&[("index.js", "a")]), "holds no app.js"),
            (b"\x1f\x8bnonsense".to_vec(), "bundle"),
            (vec![0xff, 0xfe], "neither JavaScript"),
        ] {
            std::fs::write(&file, bytes).expect("written");
            let error = Bundle::read(&file).err().expect("no bundle");
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    }
}
