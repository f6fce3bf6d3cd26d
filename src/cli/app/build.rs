//! `sluice app build`: TypeScript or JavaScript to a bundle, by esbuild.
//!
//! Owns a directory below the data directory with one pinned esbuild in it,
//! installed by npm at the first use. Its options are `bundler/options.mjs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use async_process::Command;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::cli::admin::Failure;
use crate::cli::app::Bundle;
use crate::cli::{LookUp, configure, print};
use crate::shutdown::unblock;

/// What is installed: changes with the version of esbuild that the lock file names.
const FILES: [(&str, &str); 4] = [
    ("package.json", include_str!("bundler/package.json")),
    (
        "package-lock.json",
        include_str!("bundler/package-lock.json"),
    ),
    ("options.mjs", include_str!("bundler/options.mjs")),
    ("bundle.mjs", include_str!("bundler/bundle.mjs")),
];
/// How much of what npm said is quoted when it failed.
const TAIL_LINES: usize = 8;

/// Bundle an app for upload: TypeScript or JavaScript to one archive.
///
/// The archive holds `app.js` and, with `-u`, `ui.js`. The app's own dependencies
/// are what `npm install` has put beside its entry; all of them are taken in.
/// Needs Node.js; esbuild is fetched by npm at the first use.
///
/// Example: sluice app build main.ts -o bundle.tar.gz
#[derive(Debug, clap::Args)]
pub struct Build {
    /// The file that exports the app.
    entry: PathBuf,
    /// The entry of its UI.
    #[arg(long, short = 'u', value_name = "FILE")]
    ui: Option<PathBuf>,
    /// Where the archive goes; a name without `.gz` gets the code alone.
    #[arg(
        long,
        short = 'o',
        value_name = "FILE",
        default_value = "bundle.tar.gz"
    )]
    output: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A directory with esbuild in it.
struct Bundler {
    dir: PathBuf,
}

// === impl Build ===

impl Build {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let data_dir = configure(look_up, |reader| reader.data_dir())?;
        let bundle = build(&data_dir, &self.entry, self.ui.as_deref()).await?;
        let is_archive = self
            .output
            .extension()
            .is_some_and(|extension| extension == "gz" || extension == "tgz");
        let bytes = match (is_archive, &bundle.ui_code) {
            (true, _) => bundle.pack()?,
            (false, None) => bundle.code.clone().into_bytes(),
            (false, Some(_)) => {
                let sentence =
                    "an app with a UI is two files: name an archive, such as -o app.tar.gz";
                return Err(Failure::Usage(sentence.to_owned()));
            }
        };
        std::fs::write(&self.output, &bytes)
            .with_context(|| format!("write {}", self.output.display()))?;
        let told = json!({
            "file": self.output.display().to_string(),
            "bytes": bytes.len(),
            "code_bytes": bundle.code.len(),
        });
        let fields = [
            ("file", "/file"),
            ("bytes", "/bytes"),
            ("bytes of code", "/code_bytes"),
        ];
        print::record(self.json, &told, &fields);
        Ok(0)
    }
}

/// Bundles an app from its entry file, and its UI.
pub async fn build(
    data_dir: &Path,
    entry: &Path,
    ui: Option<&Path>,
) -> Result<Bundle, anyhow::Error> {
    for file in [Some(entry), ui].into_iter().flatten() {
        if !file.is_file() {
            bail!("{} is no file", file.display());
        }
    }
    let bundler = Bundler::ready(data_dir).await?;
    let code = bundler.bundle("app", entry).await?;
    let ui_code = match ui {
        Some(ui) => Some(bundler.bundle("ui", ui).await?),
        None => None,
    };
    Ok(Bundle { code, ui_code })
}

// === impl Bundler ===

impl Bundler {
    /// The bundler, installed if it is not yet.
    async fn ready(data_dir: &Path) -> anyhow::Result<Self> {
        let mut digest = Sha256::new();
        FILES.iter().for_each(|(_, text)| digest.update(text));
        let digest: String = digest.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let above = data_dir.join("bundler");
        let dir = above.join(digest);
        if dir.is_dir() {
            return Ok(Self { dir });
        }
        std::fs::create_dir_all(&above).with_context(|| format!("make {}", above.display()))?;
        // Made beside its place and moved there whole: half an installation is none,
        // and of two first uses at once one takes the other's.
        let new = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(&above)
            .with_context(|| format!("make a directory in {}", above.display()))?;
        for (name, text) in FILES {
            std::fs::write(new.path().join(name), text)?;
        }
        eprintln!("Fetching the bundler with npm; this happens once");
        let install = [
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ];
        run(new.path(), "npm", &install).await?;
        if let Err(error) = std::fs::rename(new.path(), &dir)
            && !dir.is_dir()
        {
            bail!("put the bundler into {}: {error}", dir.display());
        }
        Ok(Self { dir })
    }

    async fn bundle(&self, kind: &str, entry: &Path) -> anyhow::Result<String> {
        let entry = std::path::absolute(entry)?;
        let out = tempfile::tempdir().context("make a scratch directory")?;
        let file = out.path().join("bundle.js");
        let (entry, to) = (entry.display().to_string(), file.display().to_string());
        run(&self.dir, "node", &["bundle.mjs", kind, &entry, &to]).await?;
        let text = unblock(move || std::fs::read_to_string(file)).await;
        text.context("read what the bundler wrote")
    }
}

/// Runs a program of Node.js; what it says is part of the error.
async fn run(dir: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .output()
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => anyhow::anyhow!(
                "`{program}` is not installed: building an app needs Node.js 18 or later with npm"
            ),
            _ => anyhow::anyhow!("`{program}` does not start: {error}"),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().collect();
    let tail = match program {
        "npm" => &lines[lines.len().saturating_sub(TAIL_LINES)..],
        _ => &lines[..],
    };
    bail!(
        "`{program} {}` failed:\n{}",
        arguments.first().unwrap_or(&""),
        print::harmless(&tail.join("\n"))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[async_std::test]
    async fn what_is_missing_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let absent = dir.path().join("main.ts");
        let error = build(dir.path(), &absent, None).await.err();
        assert!(format!("{error:?}").contains("is no file"), "{error:?}");
        let error = run(dir.path(), "no-such-program", &[]).await;
        let error = format!("{error:?}");
        assert!(error.contains("is not installed: building"), "{error}");
    }

    #[test]
    fn one_version_of_the_bundler_is_pinned() {
        let wanted: serde_json::Value = serde_json::from_str(FILES[0].1).expect("JSON");
        let locked: serde_json::Value = serde_json::from_str(FILES[1].1).expect("JSON");
        let version = &wanted["dependencies"]["esbuild"];
        assert_eq!(
            &locked["packages"]["node_modules/esbuild"]["version"],
            version
        );
        assert!(
            version
                .as_str()
                .is_some_and(|text| !text.starts_with(['^', '~']))
        );
    }
}
