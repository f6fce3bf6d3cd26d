//! `sluice flow …`: flows, their definitions, their events.
//!
//! ```text
//!  run: definition ▶ gateway, or one of its own ▶ apps ▶ apply ▶ blocks ready ▶ trigger ▶ follow
//! ```

mod chain;
mod definition;
mod entry;
mod follow;
mod house;
mod run;
mod tell;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure, query, segment};
use crate::cli::flow::definition::{Change, parse_mapping};
use crate::cli::{LookUp, print};

/// The gateway refuses the definition, or it is none.
pub const EXIT_DEFINITION: i32 = 4;

#[derive(Debug, Subcommand)]
pub enum Flow {
    Run(Box<run::Run>),
    /// Make an empty flow.
    ///
    /// Example: sluice flow create nightly --project billing
    Create {
        name: String,
        /// The project it belongs to, by id or name.
        #[arg(long)]
        project: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List flows.
    ///
    /// Example: sluice flow list --project billing
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this project, by id or name.
        #[arg(long)]
        project: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Bring a flow to a definition, whole or not at all.
    ///
    /// Exits with 4 when the definition is refused.
    ///
    /// Example: sluice flow apply nightly flow.yaml --installation db=postgresql
    Apply {
        /// The flow's id or name.
        flow: String,
        /// The definition; `-` is standard input.
        file: PathBuf,
        /// Which installation, by id or name, a key of the definition means; repeat it for more.
        #[arg(long = "installation", value_name = "KEY=INSTALLATION", value_parser = parse_mapping)]
        installations: Vec<(String, String)>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what applying a definition would do.
    ///
    /// Exits with 4 when the definition would be refused.
    ///
    /// Example: sluice flow plan nightly flow.yaml
    Plan {
        /// The flow's id or name.
        flow: String,
        /// The definition; `-` is standard input.
        file: PathBuf,
        /// Which installation, by id or name, a key of the definition means; repeat it for more.
        #[arg(long = "installation", value_name = "KEY=INSTALLATION", value_parser = parse_mapping)]
        installations: Vec<(String, String)>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a flow's definition; applying it plans nothing.
    ///
    /// Example: sluice flow export nightly -o flow.yaml
    Export {
        /// The flow's id or name.
        flow: String,
        /// Where it goes; without it to standard output.
        #[arg(long, short = 'o', value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Remove a flow; its blocks drain.
    ///
    /// Example: sluice flow delete nightly
    Delete {
        /// The flow's id or name.
        flow: String,
    },
    /// Show a flow's newest events and what became of them.
    ///
    /// Example: sluice flow events nightly --limit 20
    Events {
        /// The flow's id or name.
        flow: String,
        /// At most this many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Only those older than the one with this number.
        #[arg(long, value_name = "SEQ")]
        before: Option<i64>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Bring an event to an input of a block; prints the event's id.
    ///
    /// Example: sluice flow trigger nightly Start --body '{"day": 1}'
    Trigger {
        /// The flow's id or name.
        flow: String,
        /// The block's id or name.
        block: String,
        /// The input's key.
        #[arg(long, default_value = "default")]
        input: String,
        /// The event's body: JSON, or @ and the name of a file with JSON.
        #[arg(long, value_name = "JSON|@FILE", value_parser = parse_body)]
        body: Option<Value>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Do a failed delivery once more; `flow events` shows its id.
    ///
    /// Example: sluice flow replay 1234
    Replay {
        /// The delivery's id.
        delivery: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

// === impl Flow ===

impl Flow {
    pub async fn run(self, look_up: LookUp<'_>) -> Result<i32, Failure> {
        let this = match self {
            Self::Run(run) => return run.run(look_up).await,
            this => this,
        };
        this.manage(&Admin::open(look_up)?).await?;
        Ok(0)
    }

    async fn manage(self, admin: &Admin) -> Result<(), Failure> {
        match self {
            Self::Run(_) => {}
            Self::Create {
                name,
                project,
                json,
            } => {
                let project = admin.project(&project).await?;
                let body = json!({"project": project, "name": name});
                let flow = admin.post("/api/v1/flows", &body).await?;
                print::record(json, &flow, &[("id", "/id"), ("name", "/name")]);
            }
            Self::List { project, json } => list(admin, project, json).await?,
            Self::Apply {
                flow,
                file,
                installations,
                json,
            } => change(admin, &flow, file, installations, ("apply", json)).await?,
            Self::Plan {
                flow,
                file,
                installations,
                json,
            } => change(admin, &flow, file, installations, ("plan", json)).await?,
            Self::Export { flow, output } => {
                let text = definition::export(admin, &admin.flow(&flow).await?).await?;
                definition::write(output, &text)?;
            }
            Self::Delete { flow } => {
                let id = admin.flow(&flow).await?;
                admin
                    .call("DELETE", &format!("/api/v1/flows/{id}"), None)
                    .await?;
                print::line(format!("Flow {flow} is gone."));
            }
            Self::Events {
                flow,
                limit,
                before,
                json,
            } => events(admin, &flow, limit, before, json).await?,
            Self::Trigger {
                flow,
                block,
                input,
                body,
                json,
            } => {
                let id = admin.flow(&flow).await?;
                let event = trigger(admin, &id, &block, &input, &body.unwrap_or_default()).await?;
                if json {
                    print::line(json!({"id": event}));
                } else {
                    print::line(event);
                }
            }
            Self::Replay { delivery, json } => {
                let path = format!("/api/v1/deliveries/{}/replay", segment(&delivery));
                let replayed = admin.post(&path, &json!({})).await?;
                if json {
                    print::line(replayed);
                } else {
                    print::line(format!("Delivery {delivery} is done once more."));
                }
            }
        }
        Ok(())
    }
}

async fn list(admin: &Admin, project: Option<String>, json: bool) -> Result<(), Failure> {
    let project = match &project {
        Some(project) => Some(admin.project(project).await?),
        None => None,
    };
    let path = format!("/api/v1/flows{}", query(&[("project", project)]));
    let columns = [("ID", "/id"), ("NAME", "/name"), ("PROJECT", "/project")];
    print::list(json, &admin.get(&path).await?, &columns);
    Ok(())
}

/// Applies a definition, or plans that; `how` is the word of the path and whether to print JSON.
async fn change(
    admin: &Admin,
    flow: &str,
    file: PathBuf,
    installations: Vec<(String, String)>,
    how: (&str, bool),
) -> Result<(), Failure> {
    let flow = admin.flow(flow).await?;
    let mut change = Change::new(definition::read(&file)?);
    for (key, text) in installations {
        let id = admin.installation(&text).await?;
        change.installations.insert(key, id);
    }
    let plan = change.send(admin, &flow, how.0).await?;
    if how.1 {
        print::line(plan);
    } else {
        let readable = print::text(&plan["readable"]);
        print::line(print::harmless(readable.trim_end()));
    }
    Ok(())
}

async fn events(
    admin: &Admin,
    flow: &str,
    limit: u32,
    before: Option<i64>,
    json: bool,
) -> Result<(), Failure> {
    let flow = admin.flow(flow).await?;
    let filter = query(&[
        ("limit", Some(limit.to_string())),
        ("before", before.map(|seq| seq.to_string())),
    ]);
    let events = admin
        .get(&format!("/api/v1/flows/{flow}/events{filter}"))
        .await?;
    if json {
        print::line(events);
        return Ok(());
    }
    let names = tell::names(admin, &flow).await?;
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    print::line(tell::table(events, &names));
    Ok(())
}

/// Brings an event to an input; answers its id.
async fn trigger(
    admin: &Admin,
    flow: &str,
    block: &str,
    input: &str,
    body: &Value,
) -> Result<String, Failure> {
    let (block, input) = (segment(block), segment(input));
    let path = format!("/api/v1/flows/{flow}/blocks/{block}/inputs/{input}/events");
    let event = admin.post(&path, body).await?;
    Ok(print::text(&event["id"]))
}

/// JSON, or `@` and the name of a file with JSON.
fn parse_body(text: &str) -> Result<Value, String> {
    let parse = |text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
    match text.strip_prefix('@') {
        None => parse(text).map_err(|error| format!("this is no JSON: {error}")),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            parse(&text).map_err(|error| format!("{file} is no JSON: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_or_a_file_of_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("body.json");
        std::fs::write(&file, "[1]").expect("written");
        assert_eq!(parse_body("{\"a\": 1}"), Ok(json!({"a": 1})));
        assert_eq!(parse_body(&format!("@{}", file.display())), Ok(json!([1])));
        assert!(parse_body("nonsense").is_err());
        assert!(parse_body("@/nowhere/body.json").is_err());
    }
}
