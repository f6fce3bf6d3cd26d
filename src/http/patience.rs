//! Patience with clients: a connection whose peer neither sends what is waited
//! for nor takes what is sent is closed. trillium itself waits for ever.
//!
//! ```text
//!  a read (or write) is pending ──since──▶ … ──longer than its limit──▶ TimedOut, closed
//!         └─ it goes on, or nothing is asked of it (a handler works): the clock stands at nought
//! ```
//!
//! One timer per connection and direction is armed now and then, not one per
//! read: when it fires the time since which the operation is pending decides.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite};
use trillium::Transport;
use trillium_server_common::Acceptor;

/// How long a client may be silent while the gateway reads: in the middle of a
/// request, or between two on one connection.
const READ_MAX: Duration = Duration::from_secs(75);
/// How long a client may refuse to take an answer.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// Wraps every accepted connection.
#[derive(Debug, Clone, Copy)]
pub struct Patience;

/// A connection with limits on waiting.
pub struct Patient<T> {
    inner: T,
    read: Clock,
    write: Clock,
}

struct Clock {
    limit: Duration,
    /// Since when the operation is pending.
    since: Option<Instant>,
    // In a mutex that is never locked, because a transport must be `Sync` and a timer need not be.
    timer: Mutex<Option<BoxFuture<'static, ()>>>,
}

// === impl Patience ===

impl<T: Transport> Acceptor<T> for Patience {
    type Output = Patient<T>;
    type Error = std::convert::Infallible;

    async fn accept(&self, inner: T) -> std::result::Result<Patient<T>, Self::Error> {
        Ok(Patient {
            inner,
            read: Clock::new(READ_MAX),
            write: Clock::new(WRITE_MAX),
        })
    }

    fn is_secure(&self) -> bool {
        false
    }
}

// === impl Clock ===

impl Clock {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            timer: Mutex::new(None),
        }
    }

    /// Passes on what an operation said, unless it has been pending for too long.
    fn watch<V>(&mut self, cx: &mut Context<'_>, said: Poll<Result<V>>) -> Poll<Result<V>> {
        if said.is_ready() {
            self.since = None;
            return said;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let timer = self.timer.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = self.limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                let error = Error::new(ErrorKind::TimedOut, "the client was silent for too long");
                return Poll::Ready(Err(error));
            }
            let armed = timer.get_or_insert_with(|| Box::pin(async_std::task::sleep(left)));
            ready!(armed.as_mut().poll(cx));
            // It was armed for this operation or an earlier one; the time left decides.
            *timer = None;
        }
    }
}

// === impl Patient ===

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<Result<usize>> {
        let said = Pin::new(&mut self.inner).poll_read(cx, bytes);
        self.read.watch(cx, said)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize>> {
        let said = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.write.watch(cx, said)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let said = Pin::new(&mut self.inner).poll_flush(cx);
        self.write.watch(cx, said)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let said = Pin::new(&mut self.inner).poll_close(cx);
        self.write.watch(cx, said)
    }
}

impl<T: Transport> Transport for Patient<T> {
    fn set_linger(&mut self, linger: Option<Duration>) -> Result<()> {
        self.inner.set_linger(linger)
    }

    fn set_nodelay(&mut self, nodelay: bool) -> Result<()> {
        self.inner.set_nodelay(nodelay)
    }

    fn set_ip_ttl(&mut self, ttl: u32) -> Result<()> {
        self.inner.set_ip_ttl(ttl)
    }

    fn peer_addr(&self) -> Result<Option<SocketAddr>> {
        self.inner.peer_addr()
    }
}

#[cfg(test)]
mod tests {
    use futures::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Gives one byte per read for so many reads, and then nothing for ever.
    struct Silent(usize);

    impl AsyncRead for Silent {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<Result<usize>> {
            if self.0 == 0 {
                return Poll::Pending;
            }
            self.0 -= 1;
            Poll::Ready(Ok(1))
        }
    }

    impl AsyncWrite for Silent {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn patient(reads: usize) -> Patient<Silent> {
        Patient {
            inner: Silent(reads),
            read: Clock::new(Duration::from_millis(30)),
            write: Clock::new(Duration::from_millis(30)),
        }
    }

    #[async_std::test]
    async fn a_silent_peer_is_given_up_on_and_a_busy_one_is_not() {
        let mut connection = patient(3);
        let mut byte = [0];
        for _ in 0..3 {
            connection.read_exact(&mut byte).await.expect("it is there");
        }
        let start = Instant::now();
        let error = connection.read(&mut byte).await.expect_err("silence");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(30));
        let error = connection.write(b"x").await.expect_err("it takes nothing");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
