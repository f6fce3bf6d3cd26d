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

#[cfg(test)]
mod tests {
    use async_std::net::TcpListener;
    use futures::{AsyncReadExt, AsyncWriteExt};
    use sluice_proto::job::{Identity, Kind, Priority};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use url::Url;

    use super::*;
    use crate::config::EgressConfig;
    use crate::shutdown::spawn_detached;

    /// A gateway for which the job's second dispatch counts.
    async fn gateway() -> ApiClient {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        spawn_detached(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = String::new();
                let mut chunk = [0; 4096];
                while !text.ends_with('}') {
                    let read = stream.read(&mut chunk).await.expect("a request");
                    text.push_str(&String::from_utf8_lossy(&chunk[..read]));
                }
                let began = r#""began":{"delivery":1,"dispatch":1}"#;
                let (status, body) = match text.contains("Bearer second") && text.contains(began) {
                    true => ("200 OK", r#"{"data":"done"}"#),
                    false => ("410 Gone", r#"{"error":"it is over"}"#),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let url = Url::parse(&format!("http://{addr}")).expect("an address");
        ApiClient::new(&url, &EgressConfig::default()).expect("a client")
    }

    fn job() -> Job {
        Job {
            id: "job".into(),
            kind: Kind::Event,
            priority: Priority::Normal,
            pool: "pool".into(),
            project: "project".into(),
            identity: Identity::Flow { flow: "f".into() },
            dispatch: 1,
            created_us: 0,
            timeout_ms: 60_000,
            expires_ms: None,
            block: None,
            token: "first".into(),
            traceparent: None,
            payload: Vec::new(),
        }
    }

    fn attempt(dispatch: u32) -> Attempt {
        Attempt {
            dispatch,
            delivery: 1,
        }
    }

    /// Asks; the second dispatch comes after so many looks.
    async fn ask(later_after: usize) -> (Answer, Came) {
        let (api, job, looks) = (gateway().await, job(), Arc::new(AtomicUsize::new(0)));
        let look: Look = Arc::new(move || {
            let is_later = looks.fetch_add(1, Ordering::Relaxed) >= later_after;
            let token = is_later.then(|| "second".to_owned());
            let attempt = attempt(if is_later { 2 } else { 1 });
            Papers { attempt, token }
        });
        let asked = Asked {
            job: &job,
            began: attempt(1),
            number: 0,
            method: "events.emit".into(),
            args: b"[]".to_vec(),
        };
        asked.ask(api, look).await
    }

    #[async_std::test]
    async fn a_call_waits_for_the_later_dispatch_of_its_job() {
        let (answer, came) = ask(3).await;
        assert_eq!(came, Came::Answered);
        assert!(matches!(answer, Answer::Value { json } if json == b"\"done\""));
    }

    #[async_std::test]
    async fn a_call_of_an_attempt_that_counts_no_more_says_so() {
        let (answer, came) = ask(usize::MAX).await;
        assert_eq!(came, Came::Over);
        assert!(matches!(answer, Answer::Error { message } if message.contains("it is over")));
    }
}
