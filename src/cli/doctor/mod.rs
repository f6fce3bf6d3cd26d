//! `sluice doctor`: what an agent needs of this host, and what mends what is missing.
//!
//! [`facts`] looks, [`judge`] decides, this file prints.

mod facts;
mod judge;

use serde_json::json;

use crate::cli::doctor::judge::Grade;

/// Check everything an agent needs on this host, and say what to do.
///
/// Reads the same settings as `sluice agent`. Exits with 0 when an agent can
/// work here, 1 when it cannot.
///
/// Example: sluice doctor --json
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Print the verdicts as one JSON object.
    #[arg(long)]
    json: bool,
}

// === impl Doctor ===

impl Doctor {
    pub async fn run(self, look_up: &dyn Fn(&str) -> Option<String>) -> i32 {
        let facts = facts::gather(look_up).await;
        let verdicts = judge::judge(&facts);
        let healthy = verdicts.iter().all(|verdict| verdict.grade != Grade::Fault);
        if self.json {
            println!("{}", json!({"ok": healthy, "verdicts": verdicts}));
        } else {
            for verdict in &verdicts {
                let mark = match verdict.grade {
                    Grade::Ok => "ok     ",
                    Grade::Warning => "warning",
                    Grade::Fault => "FAULT  ",
                };
                println!("{mark}  {:<20} {}", verdict.name, verdict.found);
                if let Some(mend) = &verdict.mend {
                    println!("{:>30} {mend}", "→");
                }
            }
        }
        i32::from(!healthy)
    }
}
