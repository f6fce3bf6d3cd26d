//! The edge of an API: a sentence for the caller, a cause for the log.

/// Why a request was not done. Below this edge nobody knows a status code.
#[derive(Debug)]
pub struct ApiError {
    pub status: u16,
    /// One sentence for the caller.
    pub message: String,
    /// For the log alone.
    pub cause: Option<String>,
    /// Seconds after which the same may be tried again.
    pub retry_after_s: Option<u32>,
}

// === impl ApiError ===

impl ApiError {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            cause: None,
            retry_after_s: None,
        }
    }

    /// The request is not right.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(404, format!("{what} not found"))
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(409, message)
    }

    /// It was so once, and never will be again.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, message)
    }

    /// It could be done, but not now.
    pub fn later(status: u16, message: impl Into<String>, retry_after_s: u32) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(status, message)
        }
    }

    /// A fault of ours.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        Self {
            cause: Some(cause.to_string()),
            ..Self::new(
                500,
                "this could not be done, and it is a fault of ours; the log says why",
            )
        }
    }
}

impl From<anyhow::Error> for ApiError {
    fn from(error: anyhow::Error) -> Self {
        Self::internal(format!("{error:#}"))
    }
}
