//! Bodies of requests: read whole, within a limit of size and time, and within
//! what all bodies together may take of memory.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use trillium::Conn;

use crate::http::ApiError;
use crate::limit;

/// How long a body may take to arrive.
const BODY_MAX: Duration = Duration::from_secs(60);
/// Bytes of all bodies that are being read or are not yet committed. Fifty jobs
/// of the greatest size at once, and any number of small ones.
const BODIES_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long a client that was turned away should wait, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// What all bodies together may take.
#[derive(Default)]
pub struct Budget {
    taken: Arc<AtomicU64>,
}

/// A body, and its share of the budget until it is dropped.
pub struct Body {
    bytes: Vec<u8>,
    _share: Share,
}

struct Share {
    taken: Arc<AtomicU64>,
    bytes: u64,
}

// === impl Budget ===

impl Budget {
    /// Reads the request's body, of at most `bytes_max`.
    pub async fn read(&self, conn: &mut Conn, bytes_max: u64) -> Result<Body, ApiError> {
        let too_large = || {
            let sentence =
                format!("the body has more than {bytes_max} bytes, which is the limit here");
            ApiError::new(413, sentence)
        };
        let body = conn.request_body().with_max_len(bytes_max);
        let length = body.content_length().unwrap_or(bytes_max);
        if length > bytes_max {
            return Err(too_large());
        }
        let share = self.take(length)?;
        match limit::timeout(BODY_MAX, body.read_bytes()).await {
            Ok(Ok(bytes)) => Ok(Body {
                bytes,
                _share: share,
            }),
            Ok(Err(trillium::Error::ReceivedBodyTooLong(_))) => Err(too_large()),
            // The same, when it is found out in the middle of a body without a length.
            Ok(Err(trillium::Error::Io(error))) if error.to_string().contains("too long") => {
                Err(too_large())
            }
            Ok(Err(error)) => Err(ApiError::bad(format!(
                "the body could not be read: {error}"
            ))),
            Err(_) => {
                let sentence = format!("the body did not arrive within {} s", BODY_MAX.as_secs());
                Err(ApiError::new(408, sentence))
            }
        }
    }

    fn take(&self, bytes: u64) -> Result<Share, ApiError> {
        let before = self.taken.fetch_add(bytes, Ordering::SeqCst);
        // A share over the budget is dropped here and given back.
        let share = Share {
            taken: self.taken.clone(),
            bytes,
        };
        if before + bytes <= BODIES_BYTES_MAX {
            return Ok(share);
        }
        Err(ApiError::later(
            503,
            "too many large requests are in flight: try again shortly",
            RETRY_AFTER_S,
        ))
    }
}

// === impl Body ===

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Share ===

impl Drop for Share {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_a_budget_and_give_it_back() {
        let budget = Budget::default();
        let most = budget.take(BODIES_BYTES_MAX - 1).expect("room");
        let refused = budget.take(2).err().expect("over the budget");
        assert_eq!((refused.status, refused.retry_after_s), (503, Some(1)));
        budget.take(1).expect("the refusal took nothing");
        drop(most);
        budget.take(BODIES_BYTES_MAX).expect("all of it again");
    }
}
