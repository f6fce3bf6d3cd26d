//! One SDK call on its way to the gateway and back, while the job may be handed
//! out again.
//!
//! ```text
//!  ask ──▶ answered
//!   ▲ └──▶ over: a later dispatch counts ──▶ it comes here too: ask with its token
//!   └──────────────────────────────────────┘ └ it does not: the invocation counts for nothing
//! ```
//!
//! A gateway that was killed may hand a job out again that runs here already.
//! The code is not told: its call waits until the later dispatch has come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::harness::Answer;
use sluice_proto::job::{Attempt, Job};

use crate::api_client::{ApiClient, Call, Error};
use crate::limit;

/// How long a later dispatch may take from the gateway to this worker, through a
/// bridge that has just come back. One that comes later is begun anew.
const LATER_MAX: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a job's calls are made with at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Papers {
    pub attempt: Attempt,
    /// Of the newest dispatch that is here; `None`: of the one that runs.
    pub token: Option<String>,
}

/// Looks at a job's papers.
pub type Look = Arc<dyn Fn() -> Papers + Send + Sync>;

/// One call.
pub struct Asked<'a> {
    pub job: &'a Job,
    /// The attempt as which the invocation began.
    pub began: Attempt,
    pub number: u32,
    pub method: String,
    pub args: Vec<u8>,
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    Answered,
    /// The gateway could not be asked. Another try of the job may end otherwise.
    Unanswered,
    /// The job goes on elsewhere, or has ended.
    Over,
}

// === impl Asked ===

impl Asked<'_> {
    /// Asks until there is an answer that counts.
    pub async fn ask(self, api: ApiClient, look: Look) -> (Answer, Came) {
        let since = Instant::now();
        loop {
            let papers = look();
            let error = match self.once(&api, &papers).await {
                Ok(answer) => return (answer, Came::Answered),
                Err(error) => error,
            };
            let is_over = matches!(error, Error::Over { .. });
            if is_over && self.is_handed_out_again(&papers, &look, since).await {
                continue;
            }
            let (job, attempt) = (&self.job.id, papers.attempt);
            tracing::warn!(job.id = %job, %attempt, %error, "An SDK call of a job has no answer");
            let came = if is_over {
                Came::Over
            } else {
                Came::Unanswered
            };
            let message = error.to_string();
            return (Answer::Error { message }, came);
        }
    }

    async fn once(&self, api: &ApiClient, papers: &Papers) -> Result<Answer, Error> {
        let call = Call {
            job: &self.job.id,
            attempt: papers.attempt,
            began: self.began,
            number: self.number,
            method: &self.method,
            args: &self.args,
        };
        let token = papers.token.as_ref().unwrap_or(&self.job.token);
        api.call(token, &call).await
    }

    /// Waits for other papers.
    async fn is_handed_out_again(&self, papers: &Papers, look: &Look, since: Instant) -> bool {
        while since.elapsed() < LATER_MAX {
            if look() != *papers {
                return true;
            }
            limit::after(LOOK_EVERY).await;
        }
        false
    }
}
