//! The agents' websocket: one session per bridge.
//!
//! ```text
//!  Handshake ──token right──▶ Greeting ──Hello understood──▶ Open ──silence, goodbye,──▶ Closed
//!     └─ 401, 403, 503           └─ Refused{reason}            │    revoked, replaced       └ its unaccepted
//!                                                              │                              jobs wait again
//!                          reader: frames ▶ line ──────────────┤
//!                          writer: line's outbox ▶ frames, and a heartbeat when there is nothing else
//! ```
//!
//! Owns the conversation. Does not own a job: what a frame means for one is the line's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_std::channel;
use async_std::future::timeout;
use async_std::net::{TcpListener, TcpStream};
use futures::FutureExt;
use futures::future::{Either, select};
use sluice_proto::frame::{
    BATCH_MAX, FromBridge, FromGateway, HEARTBEAT_MS, Hello, SILENCE_MS_MAX,
};
use sluice_proto::ids::{JobId, SessionId};
use sluice_proto::job::Job;
use sluice_proto::{PROTOCOL, check_protocol};

use crate::gateway::Gateway;
use crate::gateway::directory::new_id;
use crate::gateway::line::{Handed, Outbox, Peer};
use crate::gateway::secrets::CREDENTIAL_BYTES_MAX;
use crate::limit;
use crate::shutdown;
use crate::wire::{self, Receiver, Sender};

/// Connections that have not shown a good token yet. Each may take 10 s for its head.
const HANDSHAKES_MAX: usize = 64;
/// How long a bridge may take to say Hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Payload in one Dispatch frame, in bytes, above which another is begun: one
/// payload of the greatest size still fits a frame beside what is there.
const DISPATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Names an agent may give itself, in bytes each.
const HELLO_TEXT_BYTES_MAX: usize = 256;

/// Report frames of one session whose commit is awaited at once. Above it the
/// session is not read: a store that is slow slows the agents down, and no
/// memory fills.
const REPORTS_UNCOMMITTED_MAX: usize = 64;

const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);
const SILENCE_MAX: Duration = Duration::from_millis(SILENCE_MS_MAX);

/// Counts something that is under way; the count falls when this is dropped.
struct Permit(Arc<AtomicUsize>);

/// An open session's facts.
struct Session {
    id: String,
    pool: String,
    agent: String,
}

/// Takes connections until the gateway drains.
pub async fn accept(gateway: Arc<Gateway>, listener: TcpListener, open: channel::Sender<()>) {
    let handshakes = Arc::new(AtomicUsize::new(0));
    let draining = gateway.shutdown.clone();
    loop {
        // Dropping `accept` loses nothing: a connection not yet taken stays with the socket.
        let next = select(Box::pin(listener.accept()), Box::pin(draining.draining()));
        let stream = match next.await {
            Either::Left((Ok((stream, _)), _)) => stream,
            Either::Left((Err(error), _)) => {
                tracing::warn!(%error, "A connection of an agent could not be taken");
                // Out of file descriptors, most likely: a moment lets some close.
                async_std::task::sleep(Duration::from_millis(50)).await;
                continue;
            }
            Either::Right(_) => return,
        };
        let Some(permit) = Permit::take(&handshakes, HANDSHAKES_MAX) else {
            continue;
        };
        let (gateway, open) = (gateway.clone(), open.clone());
        // Detached: it holds nothing but its session, and `open` tells the drain of its end.
        shutdown::spawn_detached(async move {
            let caught = std::panic::AssertUnwindSafe(serve(&gateway, stream, permit))
                .catch_unwind()
                .await;
            if caught.is_err() {
                tracing::error!("A session panicked; the gateway ends");
                gateway.shutdown.cancel();
            }
            drop(open);
        });
    }
}

async fn serve(gateway: &Arc<Gateway>, stream: TcpStream, permit: Permit) {
    let pending = match wire::accept(stream).await {
        Ok(pending) => pending,
        Err(error) => {
            tracing::debug!(%error, "A connection to the agents' listener is no session");
            return;
        }
    };
    let (pool, peer) = (pending.pool.clone(), pending.peer.clone());
    let checked = if pending.pool.len() > CREDENTIAL_BYTES_MAX
        || pending.token.len() > CREDENTIAL_BYTES_MAX
    {
        Err((
            401,
            "the pool id or the token is longer than any the gateway gives out".to_owned(),
        ))
    } else {
        gateway
            .directory
            .check_pool_token(&pool, &pending.token)
            .map_err(|refusal| (refusal.status(), refusal.sentence(&pool)))
    };
    if let Err((status, sentence)) = checked {
        tracing::warn!(
            pool.id = pool,
            peer,
            status,
            "A session is refused: {sentence}"
        );
        pending.refuse(status, &sentence).await;
        return;
    }
    let (mut sender, mut receiver) = match pending.accept().await {
        Ok(halves) => halves,
        Err(error) => {
            tracing::debug!(pool.id = pool, peer, %error, "A session ended before it began");
            return;
        }
    };
    let hello = match greet(&pool, &mut receiver).await {
        Ok(hello) => hello,
        Err(reason) => {
            tracing::warn!(pool.id = pool, peer, "A session is refused: {reason}");
            let refused = FromGateway::Refused {
                reason: reason.clone(),
                retry: false,
            };
            // It may be gone already, and then needs no answer.
            drop(sender.send(&refused).await);
            sender.close(&reason).await;
            return;
        }
    };
    drop(permit);
    converse(gateway, pool, hello, sender, receiver).await;
}

/// Hears the bridge's Hello; else the sentence to refuse it with.
async fn greet(pool: &str, receiver: &mut Receiver<FromBridge>) -> Result<Hello, String> {
    let hello = match timeout(HELLO_MAX, receiver.next()).await {
        Ok(Ok(Some(FromBridge::Hello(hello)))) => hello,
        Ok(Ok(Some(_))) => return Err("the first frame of a session must be Hello".to_owned()),
        Ok(Ok(None)) => return Err("the bridge closed before it said Hello".to_owned()),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no Hello within {} s", HELLO_MAX.as_secs())),
    };
    check_protocol(hello.protocol)?;
    if hello.pool.as_str() != pool {
        return Err(format!(
            "Hello names pool {}, the request named {pool}",
            hello.pool
        ));
    }
    let texts = [&hello.agent, &hello.host, &hello.version];
    if hello.agent.is_empty() || texts.iter().any(|text| text.len() > HELLO_TEXT_BYTES_MAX) {
        return Err(format!(
            "agent, host and version in Hello must not be longer than {HELLO_TEXT_BYTES_MAX} bytes, and agent not empty"
        ));
    }
    Ok(hello)
}

async fn converse(
    gateway: &Arc<Gateway>,
    pool: String,
    hello: Hello,
    mut sender: Sender<FromGateway>,
    mut receiver: Receiver<FromBridge>,
) {
    let session = Session {
        id: new_id(),
        pool,
        agent: hello.agent.clone(),
    };
    let welcome = FromGateway::Welcome {
        protocol: PROTOCOL,
        session: SessionId(session.id.clone()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    if sender.send(&welcome).await.is_err() {
        return;
    }
    let joined = match gateway.line.join(&session.pool, &session.id, &hello) {
        Ok(joined) => joined,
        Err(reason) => {
            tracing::warn!(pool.id = session.pool, "A session is refused: {reason}");
            let refused = FromGateway::Refused {
                reason: reason.clone(),
                retry: true,
            };
            drop(sender.send(&refused).await);
            sender.close(&reason).await;
            return;
        }
    };
    let peer = Peer::of(&hello);
    tracing::info!(
        pool.id = session.pool,
        session.id = session.id,
        agent = session.agent,
        host = peer.host,
        version = peer.version,
        "An agent has connected"
    );
    // Whichever of the two ends first ends the session; neither holds anything
    // that the other half or the line does not know.
    let read = read(gateway, &session, &mut receiver);
    let write = write(gateway, joined.outbox, sender);
    let reason = match select(Box::pin(read), Box::pin(write)).await {
        Either::Left((reason, _)) | Either::Right((reason, _)) => reason,
    };
    gateway.line.leave(&session.pool, &session.id);
    tracing::info!(
        pool.id = session.pool,
        session.id = session.id,
        agent = session.agent,
        "An agent's session has ended: {reason}"
    );
}

/// Hands frames to the line until the session ends; says why it did.
async fn read(
    gateway: &Arc<Gateway>,
    session: &Session,
    receiver: &mut Receiver<FromBridge>,
) -> String {
    let line = &gateway.line;
    let (pool, id) = (session.pool.as_str(), session.id.as_str());
    let mut uncommitted = VecDeque::new();
    loop {
        let frame = match limit::timeout(SILENCE_MAX, receiver.next()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return "the bridge closed the connection".to_owned(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("the bridge was silent for {} s", SILENCE_MAX.as_secs()),
        };
        match frame {
            FromBridge::Hello(_) => return "the bridge said Hello twice".to_owned(),
            FromBridge::Window { jobs, reason } => line.window(pool, id, jobs, reason),
            FromBridge::Accepted { jobs } => line.accepted(pool, id, &jobs),
            FromBridge::Rejected {
                job,
                dispatch,
                reason,
            } => line.rejected(pool, id, job.as_str(), dispatch, reason),
            FromBridge::Reports { items } => {
                uncommitted.extend(line.reports(pool, id, items));
                if uncommitted.len() > REPORTS_UNCOMMITTED_MAX
                    && let Some(oldest) = uncommitted.pop_front()
                {
                    // An answer that never comes means that the store is closed, as the process ends.
                    let _ = oldest.await;
                }
            }
            FromBridge::Heartbeat(status) => line.status(pool, id, status),
            FromBridge::Goodbye { reason } => return format!("the bridge said goodbye: {reason}"),
        }
    }
}

/// Sends what the line has for the session, in batches; says why it ended.
async fn write(
    gateway: &Arc<Gateway>,
    outbox: channel::Receiver<Outbox>,
    mut sender: Sender<FromGateway>,
) -> String {
    let mut beat = Instant::now();
    loop {
        let left = HEARTBEAT.saturating_sub(beat.elapsed());
        let first = match limit::timeout(left, outbox.recv()).await {
            Err(_) => {
                beat = Instant::now();
                match sender.send(&FromGateway::Heartbeat).await {
                    Ok(()) => continue,
                    Err(error) => return error.to_string(),
                }
            }
            Ok(Err(_)) => return "the line has let the session go".to_owned(),
            Ok(Ok(first)) => first,
        };
        let mut batch = Batch::default();
        batch.add(first);
        while batch.len() < BATCH_MAX
            && let Ok(next) = outbox.try_recv()
        {
            batch.add(next);
        }
        if let Err(error) = batch.send(gateway, &mut sender).await {
            return error;
        }
        if let Some(reason) = batch.close {
            // It may be gone already, and then needs no goodbye.
            let goodbye = FromGateway::Goodbye {
                reason: reason.clone(),
            };
            drop(sender.send(&goodbye).await);
            sender.close(&reason).await;
            return reason;
        }
    }
}

/// What one turn of the writer sends. The order between kinds does not matter:
/// a cancel that overtakes its dispatch finds nothing and is sent again when
/// the job is asked about, or ends by its deadline.
#[derive(Default)]
struct Batch {
    jobs: Vec<Handed>,
    received: Vec<u64>,
    cancels: Vec<(JobId, Arc<str>)>,
    close: Option<String>,
}

// === impl Batch ===

impl Batch {
    fn add(&mut self, item: Outbox) {
        match item {
            Outbox::Dispatch(handed) => self.jobs.push(*handed),
            Outbox::Received(numbers) => self.received.extend(numbers),
            Outbox::Cancel { job, reason } => self.cancels.push((job, reason)),
            Outbox::Close(reason) => self.close = Some(reason),
        }
    }

    fn len(&self) -> usize {
        self.jobs.len() + self.received.len() + self.cancels.len()
    }

    async fn send(
        &mut self,
        gateway: &Arc<Gateway>,
        sender: &mut Sender<FromGateway>,
    ) -> Result<(), String> {
        let failed = |error: wire::Error| error.to_string();
        if !self.received.is_empty() {
            let numbers = std::mem::take(&mut self.received);
            sender
                .send(&FromGateway::Received { numbers })
                .await
                .map_err(failed)?;
        }
        let mut jobs = Vec::new();
        let mut bytes = 0;
        for handed in self.jobs.drain(..) {
            let Some(job) = complete(gateway, handed).await? else {
                continue;
            };
            bytes += job.payload.len();
            jobs.push(job);
            if bytes >= DISPATCH_BYTES_MAX {
                let jobs = std::mem::take(&mut jobs);
                sender
                    .send(&FromGateway::Dispatch { jobs })
                    .await
                    .map_err(failed)?;
                bytes = 0;
            }
        }
        if !jobs.is_empty() {
            sender
                .send(&FromGateway::Dispatch { jobs })
                .await
                .map_err(failed)?;
        }
        for (job, reason) in self.cancels.drain(..) {
            let frame = FromGateway::Cancel {
                jobs: vec![job],
                reason: reason.to_string(),
            };
            sender.send(&frame).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// Gives a job its payload, from the store if memory had no room for it.
async fn complete(gateway: &Arc<Gateway>, handed: Handed) -> Result<Option<Job>, String> {
    let mut job = handed.job;
    job.payload = match handed.payload {
        Some(payload) => payload.to_vec(),
        None => match gateway.store.payload(handed.seq).await {
            Ok(Some(payload)) => payload,
            Ok(None) => {
                let sentence = "the job's payload is missing from the gateway's store";
                gateway
                    .line
                    .give_up(job.id.as_str(), job.dispatch, sentence);
                return Ok(None);
            }
            // The session ends and its jobs wait again: the store may do better then.
            Err(error) => return Err(format!("a payload cannot be read: {error}")),
        },
    };
    Ok(Some(job))
}

// === impl Permit ===

impl Permit {
    fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::SeqCst);
        let permit = Self(count.clone());
        // A permit over the limit is dropped here and gives its place back.
        (before < max).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Peer ===

impl Peer {
    fn of(hello: &Hello) -> Self {
        Self {
            host: hello.host.clone(),
            version: hello.version.clone(),
            started_ms: hello.started_ms,
        }
    }
}
