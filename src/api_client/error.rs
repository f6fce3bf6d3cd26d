//! Why a request was not answered, in sentences that hold no token and no password.

use crate::api_client::busy;

/// Why a request was not answered. `what` says what was attempted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{what} failed: the HTTP client cannot be set up: {why}")]
    Setup { what: String, why: String },
    #[error("{what} failed: no connection: {why}")]
    Unreachable { what: String, why: String },
    #[error("{what} failed: the server's certificate is not trusted: {why}")]
    Untrusted { what: String, why: String },
    #[error("{what} failed: no answer within {limit_s} s")]
    TimedOut { what: String, limit_s: u64 },
    #[error("{what} failed: the connection broke: {why}")]
    Broken { what: String, why: String },
    #[error("{what} failed: the gateway answered {status}: {why}")]
    Status {
        what: String,
        status: u16,
        why: String,
    },
    /// A download that a server does not give.
    #[error("{what} failed: the server answered {status}")]
    NotGiven { what: String, status: u16 },
    #[error("{what} failed: the answer is over the limit of {bytes_max} bytes")]
    TooLarge { what: String, bytes_max: usize },
    #[error("{what} failed: the answer is not what the gateway's API says: {why}")]
    Malformed { what: String, why: String },
    #[error("{what} failed: what came has the digest {found}")]
    DigestMismatch { what: String, found: String },
    /// A later attempt of the job counts, or the job has ended.
    #[error("{what} failed: {why}")]
    Over { what: String, why: String },
    #[error("{what} is not possible: {why}")]
    Invalid { what: String, why: String },
}

// === impl Error ===

impl Error {
    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } | Self::NotGiven { status, .. } => {
                busy(*status) || *status == 500
            }
            Self::Setup { .. }
            | Self::Untrusted { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::DigestMismatch { .. }
            | Self::Over { .. }
            | Self::Invalid { .. } => false,
        }
    }
}
