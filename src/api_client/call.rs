//! One SDK call of a job, as it is sent.

use serde::de::IgnoredAny;
use serde_json::json;
use sluice_proto::ids::JobId;
use sluice_proto::job::Attempt;

/// One SDK call of a job.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub job: &'a JobId,
    /// The attempt that the job is at now: an older one is refused.
    pub attempt: Attempt,
    /// The attempt as which the invocation began. What it says is compared with
    /// what earlier invocations of the job said.
    pub began: Attempt,
    /// Unique within the invocation. The gateway answers a repeat of the same
    /// number with what it answered before, so a call may be sent again.
    pub number: u32,
    /// `kv.block.get`, …
    pub method: &'a str,
    /// A JSON array.
    pub args: &'a [u8],
}

// === impl Call ===

impl Call<'_> {
    /// `None` when the arguments are no JSON array. They are sent byte for byte.
    pub(super) fn to_json(self) -> Option<Vec<u8>> {
        serde_json::from_slice::<Vec<IgnoredAny>>(self.args).ok()?;
        let mut body = json!({
            "job": self.job,
            "attempt": self.attempt,
            "began": self.began,
            "number": self.number,
            "method": self.method,
        })
        .to_string()
        .into_bytes();
        body.pop();
        body.extend_from_slice(b",\"args\":");
        body.extend_from_slice(self.args);
        body.push(b'}');
        Some(body)
    }
}
