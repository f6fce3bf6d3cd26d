//! The session between bridge and gateway: websocket messages ⇄ frames.
//!
//! ```text
//!  dial ─▶ [CONNECT proxy] ─▶ [TLS] ─▶ HTTP upgrade ─┐            ┌─▶ Sender<T>
//!                                                    ├─▶ session ─┤
//!  accept ─▶ HTTP head ─▶ Pending ─▶ accept, refuse ─┘            └─▶ Receiver<T>
//! ```
//!
//! Owns the way out of the host (proxy, TLS, roots), the upgrade, the limits of
//! a message, and the close codes. Knows nothing of what frames mean.
//!
//! Promises: a receiver hands out whole, decoded frames of its direction only;
//! a message that is no such frame, or too large, closes the session with a
//! code and one sentence, and is told as an error here.

mod accept;
mod dial;
mod egress;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use async_std::future::timeout;
use async_std::sync::Mutex;
use async_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error as WsError, Message};
use async_tungstenite::{WebSocketReceiver, WebSocketSender, WebSocketStream};
use futures::{AsyncRead, AsyncWrite, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use sluice_proto::codec::{self, FRAME_BYTES_MAX, decode, encode};
use sluice_proto::frame::SILENCE_MS_MAX;

use crate::limit;

pub use accept::{Pending, accept};
pub use dial::dial;

/// How long one frame may take to be written: a peer that reads nothing for as
/// long as silence is allowed is gone.
const SEND_MAX: Duration = Duration::from_millis(SILENCE_MS_MAX);
/// How long a goodbye may take. The peer notices the end of the stream anyway.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// The longest reason that fits a close message (RFC 6455 section 5.5), in bytes.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// What went wrong with a session, or on the way to one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Address(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("the proxy {0}")]
    Proxy(String),
    #[error("TLS with {host}: {reason}")]
    Tls { host: String, reason: String },
    /// 401 or 403: the credentials are wrong, and trying again changes nothing.
    #[error("refused with status {status}: {reason}")]
    Refused { status: u16, reason: String },
    /// Something else answers there, or not in a state to open a session.
    #[error("no session, but status {status}: {reason}")]
    Unwilling { status: u16, reason: String },
    #[error("the peer broke the protocol: {0}")]
    Malformed(String),
    #[error("a message is too large: {0}")]
    TooLarge(String),
    #[error("the peer took too long to {0}")]
    TimedOut(&'static str),
    #[error("the connection is lost: {0}")]
    Lost(String),
}

/// A byte stream of any make: TCP, TLS over it, TLS over a proxy's tunnel.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

type AnyIo = Box<dyn Io>;

/// The writing half of a session.
pub struct Sender<T> {
    sink: Arc<Mutex<WebSocketSender<AnyIo>>>,
    frame: PhantomData<fn(T)>,
}

/// The reading half of a session.
pub struct Receiver<T> {
    stream: WebSocketReceiver<AnyIo>,
    /// To close with a code when something unreadable arrives.
    sink: Arc<Mutex<WebSocketSender<AnyIo>>>,
    parting: Option<String>,
    frame: PhantomData<fn() -> T>,
}

// === impl Error ===

impl Error {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address(_) | Self::Refused { .. } => false,
            Self::Unreachable(_)
            | Self::Proxy(_)
            | Self::Tls { .. }
            | Self::Unwilling { .. }
            | Self::Malformed(_)
            | Self::TooLarge(_)
            | Self::TimedOut(_)
            | Self::Lost(_) => true,
        }
    }
}

impl From<WsError> for Error {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                Self::TooLarge(format!("{size} bytes, over the limit of {max_size}"))
            }
            WsError::Capacity(other) => Self::TooLarge(other.to_string()),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Lost("it ended without a goodbye".into())
            }
            WsError::Protocol(error) => Self::Malformed(error.to_string()),
            WsError::Utf8(error) => Self::Malformed(error),
            other => Self::Lost(other.to_string()),
        }
    }
}

// === impl Sender ===

impl<T: Serialize> Sender<T> {
    /// Writes one frame. [`Error::TooLarge`] leaves the session alive; after any
    /// other error it is over. Dropping the future loses at most this frame.
    pub async fn send(&mut self, frame: &T) -> Result<(), Error> {
        let bytes = encode(frame, FRAME_BYTES_MAX).map_err(|error| match error {
            codec::Error::TooLarge { .. } => Error::TooLarge(error.to_string()),
            other => Error::Malformed(other.to_string()),
        })?;
        let mut sink = self.sink.lock().await;
        match limit::timeout(SEND_MAX, sink.send(Message::binary(bytes))).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Error::TimedOut("read a frame")),
        }
    }

    /// Says goodbye with a sentence. Never fails: a peer that is gone needs none.
    pub async fn close(&mut self, reason: &str) {
        close(&self.sink, CloseCode::Normal, reason).await;
    }
}

// === impl Receiver ===

impl<T: DeserializeOwned> Receiver<T> {
    /// The next frame; `None` once the peer has closed in good order. Dropping
    /// the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            let message = match self.stream.next().await {
                None => return Ok(None),
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(self.give_up(error.into()).await),
            };
            match message {
                Message::Binary(bytes) => match decode(&bytes, FRAME_BYTES_MAX) {
                    Ok(frame) => return Ok(Some(frame)),
                    Err(error) => {
                        let error = Error::Malformed(format!("it sent no frame: {error}"));
                        return Err(self.give_up(error).await);
                    }
                },
                Message::Text(_) => {
                    let error = Error::Malformed("it sent text; frames are binary".into());
                    return Err(self.give_up(error).await);
                }
                Message::Close(parting) => {
                    self.parting = parting.map(|frame| frame.reason.to_string());
                }
                // Answered by the protocol layer itself.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// What the peer said as it closed, if it did.
    pub fn parting(&self) -> Option<&str> {
        self.parting.as_deref().filter(|reason| !reason.is_empty())
    }

    /// Tells the peer what it did wrong, as far as it still listens.
    async fn give_up(&mut self, error: Error) -> Error {
        let code = match error {
            Error::TooLarge(_) => CloseCode::Size,
            Error::Malformed(_) => CloseCode::Protocol,
            _ => return error,
        };
        close(&self.sink, code, &error.to_string()).await;
        error
    }
}

async fn close(sink: &Mutex<WebSocketSender<AnyIo>>, code: CloseCode, reason: &str) {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame {
        code,
        reason: reason[..end].into(),
    };
    let _ = timeout(CLOSE_MAX, async {
        sink.lock().await.close(Some(frame)).await
    })
    .await;
}

/// Both halves of an upgraded stream.
fn halves<Out, In>(stream: WebSocketStream<AnyIo>) -> (Sender<Out>, Receiver<In>) {
    let (sink, stream) = stream.split();
    let sink = Arc::new(Mutex::new(sink));
    let sender = Sender {
        sink: sink.clone(),
        frame: PhantomData,
    };
    let receiver = Receiver {
        stream,
        sink,
        parting: None,
        frame: PhantomData,
    };
    (sender, receiver)
}

/// Neither side accepts, or buffers for, more than a frame may have.
fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}
