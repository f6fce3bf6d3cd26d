//! `sluice secret …`: secrets of projects. A value is read from a file or from
//! standard input, never from the command line, and is never shown again.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;

use crate::cli::admin::{Admin, Failure, segment};
use crate::cli::{LookUp, print};

/// The largest value, in bytes: as much as a key file with its chain.
const VALUE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub enum Secret {
    /// List the secrets of a project, without their values.
    ///
    /// Example: sluice secret list --project billing
    #[command(visible_alias = "ls")]
    List {
        /// The project, by id or name.
        #[arg(long)]
        project: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a secret a value, read from standard input or a file.
    ///
    /// One line break at the end is no part of it.
    ///
    /// Example: sluice secret set API_TOKEN --project billing --from token.txt
    Set {
        /// What expressions call it: `secrets.API_TOKEN`.
        key: String,
        /// The project, by id or name.
        #[arg(long)]
        project: String,
        /// The file with the value; without it standard input.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
    /// Remove a secret.
    ///
    /// Example: sluice secret delete API_TOKEN --project billing
    Delete {
        key: String,
        /// The project, by id or name.
        #[arg(long)]
        project: String,
    },
}

// === impl Secret ===

impl Secret {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let admin = Admin::open(look_up)?;
        let path = async |project: &str, key: &str| {
            let project = admin.project(project).await?;
            let key = segment(key);
            Ok::<_, Failure>(format!("/api/v1/projects/{project}/secrets/{key}"))
        };
        match self {
            Self::List { project, json } => {
                let project = admin.project(&project).await?;
                let path = format!("/api/v1/projects/{project}/secrets");
                let mut secrets = admin.get(&path).await?;
                for secret in secrets.as_array_mut().into_iter().flatten() {
                    let us = secret["updated_ms"].as_i64().map(|ms| ms * 1_000);
                    if !json {
                        secret["updated"] = print::moment(us).into();
                    }
                }
                let columns = [("KEY", "/key"), ("UPDATED", "/updated")];
                print::list(json, &secrets, &columns);
            }
            Self::Set { key, project, from } => {
                let value = value(from)?;
                let body = json!({"value": value});
                let path = path(&project, &key).await?;
                admin.call("PUT", &path, Some(&body)).await?;
                print::line(format!("Secret {key} has a new value."));
            }
            Self::Delete { key, project } => {
                let path = path(&project, &key).await?;
                admin.call("DELETE", &path, None).await?;
                print::line(format!("Secret {key} is gone."));
            }
        }
        Ok(0)
    }
}

fn value(from: Option<PathBuf>) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match &from {
        Some(file) => std::fs::File::open(file)
            .and_then(|file| file.take(VALUE_BYTES_MAX + 1).read_to_string(&mut text)),
        None => std::io::stdin()
            .take(VALUE_BYTES_MAX + 1)
            .read_to_string(&mut text),
    };
    read.context("read the secret's value")?;
    if text.len() as u64 > VALUE_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "the value has more than {VALUE_BYTES_MAX} bytes"
        )));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_loses_one_line_break_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("value");
        for (text, expected) in [("a b\n", "a b"), ("a\r\n", "a"), (" a\n\n", " a\n")] {
            std::fs::write(&file, text).expect("written");
            assert_eq!(value(Some(file.clone())).expect("a value"), expected);
        }
        std::fs::write(&file, vec![b'x'; 64 * 1024 + 1]).expect("written");
        assert!(value(Some(file)).is_err());
    }
}
