//! Definitions of flows between a file and the gateway.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure};
use crate::cli::flow::EXIT_DEFINITION;
use crate::cli::print;
use crate::gateway::engine::definition::DEFINITION_BYTES_MAX;

/// What a flow should become.
pub struct Change {
    pub text: String,
    /// Key in the definition to installation.
    pub installations: BTreeMap<String, String>,
}

// === impl Change ===

impl Change {
    pub fn new(text: String) -> Self {
        Self {
            text,
            installations: BTreeMap::new(),
        }
    }

    /// `apply` or `plan`; answers with the operations.
    ///
    /// # Errors
    ///
    /// [`EXIT_DEFINITION`] with every complaint when the definition does not fit.
    pub async fn send(&self, admin: &Admin, flow: &str, how: &str) -> Result<Value, Failure> {
        let body = json!({"definition": self.text, "installations": self.installations});
        let path = format!("/api/v1/flows/{flow}/{how}");
        match admin.answer("POST", &path, Some(&body)).await? {
            (0..=399, plan) => Ok(plan),
            (400, sentence) => Err(refused(&print::text(&sentence))),
            (401 | 403, sentence) => Err(Failure::Refused(print::text(&sentence))),
            (_, sentence) => Err(anyhow::anyhow!("{}", print::text(&sentence)).into()),
        }
    }
}

/// The complaints of a refusal, each on its line.
pub fn refused(complaints: &str) -> Failure {
    let complaints = print::harmless(complaints).replace("; block `", "\nblock `");
    Failure::Exit(
        EXIT_DEFINITION,
        format!("the definition is refused, and nothing is changed:\n{complaints}"),
    )
}

/// The text of a file; `-` is standard input.
pub fn read(file: &Path) -> Result<String, Failure> {
    let most = u64::try_from(DEFINITION_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    read.with_context(|| format!("read {}", file.display()))?;
    Ok(text)
}

pub async fn export(admin: &Admin, flow: &str) -> Result<String, Failure> {
    let flow = admin.get(&format!("/api/v1/flows/{flow}")).await?;
    Ok(print::text(&flow["definition"]))
}

pub fn write(output: Option<PathBuf>, text: &str) -> Result<(), Failure> {
    match output {
        Some(file) => {
            Ok(std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?)
        }
        None => {
            print::line(text.trim_end());
            Ok(())
        }
    }
}

/// `key=what it means`.
pub fn parse_mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, what)) if !key.is_empty() && !what.is_empty() => {
            Ok((key.to_owned(), what.to_owned()))
        }
        _ => Err("write KEY=VALUE, where KEY stands in appInstallations".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_stand_on_lines_of_their_own() {
        let failure = refused("block `A`: wrong; really; block `B`: wrong\u{7}");
        assert_eq!(failure.code(), EXIT_DEFINITION);
        let text = failure.to_string();
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(lines, ["block `A`: wrong; really", "block `B`: wrong"]);
    }

    #[test]
    fn a_mapping_has_two_sides() {
        assert_eq!(parse_mapping("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_mapping("a").is_err());
        assert!(parse_mapping("=b").is_err());
        assert!(parse_mapping("a=").is_err());
    }
}
