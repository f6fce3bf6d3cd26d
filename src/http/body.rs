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

/// What all bodies together may take, and how long each of them.
pub struct Budget {
    taken: Arc<AtomicU64>,
    patience: Duration,
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

impl Default for Budget {
    fn default() -> Self {
        Self {
            taken: Arc::default(),
            patience: BODY_MAX,
        }
    }
}

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
        match limit::timeout(self.patience, body.read_bytes()).await {
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
                let seconds = self.patience.as_secs_f64();
                let sentence = format!("the body did not arrive within {seconds} s");
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
    use async_std::net::TcpStream;
    use futures::future::BoxFuture;
    use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};

    use super::*;
    use crate::http::{Listener, Reply, Request, Routes, serve_with};

    /// Answers how long the body is.
    struct Measure;

    impl Routes for Measure {
        const BODY_BYTES_MAX: u64 = 100;

        fn route<'a>(&'a self, mut request: Request<'a>) -> BoxFuture<'a, Result<Reply, ApiError>> {
            async move {
                let body = request.body(Self::BODY_BYTES_MAX).await?;
                Ok(Reply::data(&body.len()))
            }
            .boxed()
        }
    }

    #[async_std::test]
    async fn a_body_that_never_ends_is_given_up_and_its_place_is_free() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let addr = listener.local_addr().expect("an address");
        let budget = Budget {
            patience: Duration::from_millis(50),
            ..Budget::default()
        };
        let taken = budget.taken.clone();
        let server = serve_with(Measure, Listener::Tcp(listener), budget);
        let ask = async |body: &str| {
            let mut stream = TcpStream::connect(addr).await.expect("it listens");
            let head =
                "POST / HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";
            let request = format!("{head}{body}");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut said = String::new();
            stream.read_to_string(&mut said).await.expect("an answer");
            said
        };
        let said = ask("ha").await;
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
        assert!(said.contains("did not arrive within 0.05 s"), "{said}");
        assert_eq!(taken.load(Ordering::SeqCst), 0);
        let said = ask("half").await;
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        assert!(
            server.drain(Duration::from_secs(5)).await,
            "nothing is in flight"
        );
    }

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
