//! What a person or a program is told of a run: progress, events, the end.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::admin::{Admin, Failure};
use crate::cli::flow::chain::News;
use crate::cli::print;

/// How much of a body is shown, in characters.
const BODY_CHARS_MAX: usize = 100;
/// How far a line is indented, in levels; a deeper chain goes on straight down.
const INDENT_MAX: usize = 12;
/// What stands for the block of an event that came through the API.
const OUTSIDE: &str = "(from outside)";

/// Names of blocks by id.
pub type Names = BTreeMap<String, String>;

/// Lines for a person (progress on standard error, events on standard output),
/// or one JSON object a line on standard output.
pub struct Teller {
    json: bool,
    started: Instant,
    names: OnceLock<Names>,
    /// When the root was made, in milliseconds since 1970.
    root_ms: OnceLock<i64>,
}

pub async fn names(admin: &Admin, flow: &str) -> Result<Names, Failure> {
    let blocks = admin.get(&format!("/api/v1/flows/{flow}/blocks")).await?;
    let blocks = blocks.as_array().into_iter().flatten();
    let pair = |block: &Value| (print::text(&block["id"]), print::text(&block["name"]));
    Ok(blocks.map(pair).collect())
}

// === impl Teller ===

impl Teller {
    pub fn new(json: bool) -> Self {
        Self {
            json,
            started: Instant::now(),
            names: OnceLock::new(),
            root_ms: OnceLock::new(),
        }
    }

    /// What blocks are called from now on.
    pub fn know(&self, names: Names) {
        // A second time would be another flow, which a run does not have.
        let _ = self.names.set(names);
    }

    pub fn progress(&self, text: &str) {
        let text = print::harmless(text);
        let seconds = self.started.elapsed().as_secs_f64();
        if self.json {
            let rounded = (seconds * 1_000.0).round() / 1_000.0;
            print::line(json!({"kind": "progress", "at_s": rounded, "text": text}));
        } else {
            eprintln!("[{seconds:6.2} s] {text}");
        }
    }

    pub fn news(&self, news: &News<'_>) {
        if self.json {
            print::line(self.object(news));
        } else {
            print::line(self.line(news));
        }
    }

    /// The last line.
    pub fn end(&self, told: &Value, sentence: &str) {
        if self.json {
            let mut told = told.clone();
            told["kind"] = "end".into();
            print::line(told);
        } else {
            print::line(sentence);
        }
    }

    fn object(&self, news: &News<'_>) -> Value {
        match news {
            News::Event { depth, event } => {
                let mut told = (*event).clone();
                if let Some(fields) = told.as_object_mut() {
                    fields.remove("deliveries");
                }
                told["kind"] = "event".into();
                told["depth"] = json!(depth);
                told["block_name"] = json!(self.name(&event["block"]));
                told
            }
            News::Failure {
                depth,
                event,
                delivery,
            } => {
                let at = delivery.unwrap_or(event);
                json!({
                    "kind": "failure",
                    "depth": depth,
                    "event": event["id"],
                    "delivery": delivery.map(|delivery| &delivery["id"]),
                    "block": at["block"],
                    "block_name": self.name(&at["block"]),
                    "input": delivery.map(|delivery| &delivery["input"]),
                    "error": at["error"],
                })
            }
        }
    }

    fn line(&self, news: &News<'_>) -> String {
        let (depth, at_ms) = match news {
            News::Event { depth, event } => (*depth, event["created_ms"].as_i64()),
            News::Failure {
                depth,
                event,
                delivery,
            } => {
                let ended = delivery.and_then(|delivery| delivery["ended_ms"].as_i64());
                (*depth + 1, ended.or(event["created_ms"].as_i64()))
            }
        };
        let at_ms = at_ms.unwrap_or_default();
        let root_ms = *self.root_ms.get_or_init(|| at_ms);
        #[expect(clippy::cast_precision_loss, reason = "a time that is shown")]
        let at_s = (at_ms - root_ms) as f64 / 1_000.0;
        let indent = "  ".repeat(depth.min(INDENT_MAX));
        format!("{at_s:>9.3} s  {indent}{}", self.words(news))
    }

    fn words(&self, news: &News<'_>) -> String {
        match news {
            News::Event { event, .. } => {
                let block = self.name(&event["block"]);
                let output = event["output"].as_str();
                let output = output.map(|output| format!(" › {output}"));
                let body = body(&event["body"]);
                format!("{block}{}  {body}", output.unwrap_or_default())
            }
            News::Failure {
                event,
                delivery: None,
                ..
            } => format!("✗ this event goes nowhere: {}", error(event)),
            News::Failure {
                delivery: Some(delivery),
                ..
            } => format!(
                "✗ {}, input {}: {} (sluice flow replay {})",
                self.name(&delivery["block"]),
                print::cell(delivery.get("input")),
                error(delivery),
                print::cell(delivery.get("id")),
            ),
        }
    }

    fn name(&self, block: &Value) -> String {
        match self.names.get() {
            Some(names) => name_of(block, names),
            None => name_of(block, &Names::new()),
        }
    }
}

/// Events as rows, with what became of them.
pub fn table(events: &[Value], names: &Names) -> String {
    let titles = ["SEQ", "AT", "BLOCK", "OUTPUT", "BODY", "DELIVERIES"];
    let titles = titles.map(str::to_owned).to_vec();
    let rows = events.iter().map(|event| {
        let us = event["created_ms"].as_i64().map(|ms| ms * 1_000);
        let deliveries = event["deliveries"].as_array().into_iter().flatten();
        let deliveries: Vec<_> = deliveries.map(|it| delivery(it, names)).collect();
        let became = match event["state"].as_str() {
            Some("failed") => format!("goes nowhere: {}", error(event)),
            _ if deliveries.is_empty() => "-".to_owned(),
            _ => deliveries.join(", "),
        };
        vec![
            print::cell(event.get("seq")),
            print::moment(us),
            name_of(&event["block"], names),
            print::cell(event.get("output")),
            body(&event["body"]),
            became,
        ]
    });
    print::table(std::iter::once(titles).chain(rows).collect())
}

fn delivery(it: &Value, names: &Names) -> String {
    let name = name_of(&it["block"], names);
    match it["state"].as_str().unwrap_or_default() {
        "failed" => format!(
            "{name} failed: {} (delivery {})",
            error(it),
            print::cell(it.get("id"))
        ),
        state => format!("{name} {state}"),
    }
}

fn name_of(block: &Value, names: &Names) -> String {
    match block.as_str() {
        Some(id) => print::harmless(names.get(id).map_or(id, String::as_str)),
        None => OUTSIDE.to_owned(),
    }
}

fn error(of: &Value) -> String {
    let text = of["error"].as_str().unwrap_or("no reason given");
    print::harmless(text).replace('\n', " ")
}

fn body(body: &Value) -> String {
    // JSON escapes control characters.
    let text = body.to_string();
    if text.chars().count() <= BODY_CHARS_MAX {
        return text;
    }
    let start: String = text.chars().take(BODY_CHARS_MAX - 1).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn teller() -> Teller {
        let teller = Teller::new(false);
        teller.know(Names::from([("b".to_owned(), "Greet".to_owned())]));
        teller
    }

    #[test]
    fn an_event_is_a_line_with_its_time_and_a_short_body() {
        let teller = teller();
        let root =
            json!({"id": "1", "block": null, "output": null, "body": 1, "created_ms": 1_000});
        let line = teller.line(&News::Event {
            depth: 0,
            event: &root,
        });
        assert_eq!(line, "    0.000 s  (from outside)  1");
        let event = json!({"id": "2", "block": "b", "output": "default", "body": "x".repeat(200), "created_ms": 1_250});
        let line = teller.line(&News::Event {
            depth: 1,
            event: &event,
        });
        assert!(
            line.starts_with("    0.250 s    Greet › default  \"xxx"),
            "{line}"
        );
        assert!(line.ends_with("x…") && line.chars().count() < 140, "{line}");
    }

    #[test]
    fn a_failure_names_block_and_delivery_and_obeys_nothing() {
        let event = json!({"id": "1", "created_ms": 0});
        let delivery = json!({"id": "7", "block": "b", "input": "default", "error": "no\u{1b}[2J\nway", "ended_ms": 0});
        let news = News::Failure {
            depth: 0,
            event: &event,
            delivery: Some(&delivery),
        };
        let line = teller().line(&news);
        assert!(
            line.ends_with("✗ Greet, input default: no[2J way (sluice flow replay 7)"),
            "{line}"
        );
        assert_eq!(teller().object(&news)["block_name"], "Greet");
    }

    #[test]
    fn a_table_says_what_became_of_each_event() {
        let events = [json!({
            "seq": 3, "id": "1", "block": "b", "output": "default", "body": {}, "created_ms": 0, "state": "sent",
            "deliveries": [{"id": "7", "block": "b", "state": "failed", "error": "no"}],
        })];
        let names = Names::from([("b".to_owned(), "Greet".to_owned())]);
        let text = table(&events, &names);
        assert!(text.contains("Greet failed: no (delivery 7)"), "{text}");
    }
}
