//! What a job of the engine is for. It stands with the job, so that whoever
//! finds its end, now or after a restart, knows what to do with it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Purpose {
    /// A bundle says what is in it.
    Describe { digest: String },
    /// The static config of a component is evaluated.
    Config { component: String, number: i64 },
    /// `onSync` or `onDrain`.
    Run {
        component: String,
        flow: Option<String>,
        run: u64,
    },
    /// The config of an input is evaluated for a delivery.
    Inputs { delivery: i64 },
    /// The customization of an output is evaluated for an event.
    Customize { event: String },
    /// `onEvent`.
    Handle {
        delivery: i64,
        event: String,
        flow: String,
        component: String,
    },
    /// An HTTP request block's request.
    Request { delivery: i64 },
    /// `http.onRequest`.
    Http {
        component: String,
        flow: Option<String>,
        request: String,
    },
    /// `suggestValues` of a config field.
    Suggest {
        component: String,
        flow: Option<String>,
    },
    /// A handler that nobody waits for: a timer, a message, a schedule.
    Tell {
        component: String,
        flow: Option<String>,
    },
}

/// For whom a job makes its SDK calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speaker<'p> {
    pub component: &'p str,
    /// `None` for an app's own handlers.
    pub flow: Option<&'p str>,
    /// The event that is handled.
    pub event: Option<&'p str>,
}

// === impl Purpose ===

impl Purpose {
    pub fn read(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("a purpose has string keys")
    }

    /// `None` for jobs that run expressions or describe: they have nobody to speak for.
    pub fn speaker(&self) -> Option<Speaker<'_>> {
        match self {
            Self::Describe { .. }
            | Self::Config { .. }
            | Self::Inputs { .. }
            | Self::Request { .. }
            | Self::Customize { .. } => None,
            Self::Run {
                component, flow, ..
            }
            | Self::Http {
                component, flow, ..
            }
            | Self::Suggest { component, flow }
            | Self::Tell { component, flow } => Some(Speaker {
                component,
                flow: flow.as_deref(),
                event: None,
            }),
            Self::Handle {
                event,
                flow,
                component,
                ..
            } => Some(Speaker {
                component,
                flow: Some(flow),
                event: Some(event),
            }),
        }
    }
}
