//! The gateway's side of the bridge: one session after the other.
//!
//! ```text
//!  dialling ──▶ Hello ──▶ Welcome ──▶ inbound ∥ outbound ──▶ ended ──▶ backing off ──▶ dialling
//!     └── refused ──▶ exit 77              └── drained ──▶ exit 0
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::task;
use futures::future::{Either, select};
use sluice_proto::frame::{FromBridge, FromGateway, Hello};
use sluice_proto::ids::PoolId;
use sluice_proto::{PROTOCOL, check_protocol};

use crate::backoff::{Backoff, jitter};
use crate::bridge::policy::{self, End, Verdict};
use crate::bridge::state::Shared;
use crate::bridge::{Identity, inbound, outbound};
use crate::wire::{self, Receiver, Sender};

/// Connected again well within 5 s of the gateway's return; the jitter keeps
/// many agents from coming back at once.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
/// How long the gateway may take to answer a `Hello`.
const WELCOME_MAX: Duration = Duration::from_secs(8);
/// A session that lived this long shows that all is well, so the next wait is short again.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// Keeps the bridge connected until it drains or is refused; answers with the exit code.
pub async fn keep(shared: Arc<Shared>, identity: Identity) -> i32 {
    let (mut tries, mut refusals, mut connected_before) = (0, 0, false);
    loop {
        let mut connected_at = None;
        let end = one_session(&shared, &identity, &mut connected_at).await;
        let lived = connected_at.map(|at: Instant| at.elapsed());
        connected_before |= lived.is_some();
        refusals = match &end {
            End::Refused(_) => refusals + 1,
            _ => 0,
        };
        if lived.is_some_and(|lived| lived >= LONG_ENOUGH) {
            tries = 0;
        }
        match policy::verdict(&end, connected_before, refusals) {
            Verdict::Exit(code) => {
                say_exit(&shared, &end);
                return code;
            }
            Verdict::Retry => {
                let wait = BACKOFF.delay(tries, jitter());
                tries += 1;
                say_retry(&end, lived.is_some(), wait);
                let pause = Box::pin(task::sleep(wait));
                let draining = Box::pin(shared.shutdown.draining());
                if let Either::Left(_) = select(draining, pause).await {
                    return 0;
                }
            }
        }
    }
}

async fn one_session(
    shared: &Shared,
    identity: &Identity,
    connected_at: &mut Option<Instant>,
) -> End {
    // Nothing is held towards the gateway yet, so a drain needs no more than to stop here.
    let opening = open(shared, identity);
    let draining = shared.shutdown.draining();
    let opened = match select(Box::pin(draining), Box::pin(opening)).await {
        Either::Left(_) => return End::Drained,
        Either::Right((opened, _)) => opened,
    };
    let (mut sender, mut receiver) = match opened {
        Ok(halves) => halves,
        Err(end) => return end,
    };
    *connected_at = Some(Instant::now());
    // What the last session was not answered for is sent again.
    shared.outbox().rewind();
    drop(shared.take_answers());
    let busy = AtomicUsize::new(0);
    let read = inbound::run(shared, &mut receiver, &busy);
    let write = outbound::run(shared, &mut sender, &busy);
    let end = match select(std::pin::pin!(read), std::pin::pin!(write)).await {
        Either::Left((end, _)) | Either::Right((end, _)) => end,
    };
    if let End::Lost(reason) = &end {
        sender.close(reason).await;
    }
    end
}

type Halves = (Sender<FromBridge>, Receiver<FromGateway>);

/// Dials, and introduces itself.
async fn open(shared: &Shared, identity: &Identity) -> Result<Halves, End> {
    let config = &shared.config;
    let (pool, token) = (&config.pool_id, &config.pool_token);
    let dialled = wire::dial(&config.gateway, pool, token, &config.egress).await;
    let (mut sender, mut receiver) = dialled.map_err(|error| match error {
        wire::Error::Refused { status, reason } => {
            End::Refused(format!("{reason} (status {status})"))
        }
        wire::Error::Address(why) => End::Unusable(why),
        other => End::Lost(other.to_string()),
    })?;
    let hello = Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pool: PoolId::from(pool.as_str()),
        agent: identity.agent.clone(),
        host: identity.host.clone(),
        started_ms: identity.started_ms,
        status: policy::status(&shared.facts()),
    };
    let lost = |error: wire::Error| End::Lost(error.to_string());
    sender.send(&FromBridge::Hello(hello)).await.map_err(lost)?;
    let answer = timeout(WELCOME_MAX, receiver.next())
        .await
        .map_err(|_| End::Lost("the gateway does not answer a Hello".into()))?
        .map_err(lost)?;
    match answer {
        Some(FromGateway::Welcome {
            protocol,
            session,
            version,
        }) => {
            check_protocol(protocol).map_err(End::Refused)?;
            tracing::info!(
                session.id = session.as_str(),
                pool.id = pool.as_str(),
                gateway.version = version,
                "Connected to the server"
            );
            Ok((sender, receiver))
        }
        Some(FromGateway::Refused { reason, retry }) => Err(if retry {
            End::Lost(reason)
        } else {
            End::Refused(reason)
        }),
        Some(_) => Err(End::Lost(
            "the gateway answers a Hello with something else".into(),
        )),
        None => {
            let why = receiver.parting().unwrap_or("without a reason");
            Err(End::Lost(format!("the gateway closed the session: {why}")))
        }
    }
}

fn say_retry(end: &End, was_connected: bool, wait: Duration) {
    let retry_ms = wait.as_millis() as u64;
    let (End::Lost(error) | End::Refused(error)) = end else {
        return;
    };
    if was_connected {
        tracing::warn!(
            error,
            retry_ms,
            "The session with the server ended; connecting again"
        );
    } else {
        tracing::warn!(error, retry_ms, "No session with the server; trying again");
    }
}

fn say_exit(shared: &Shared, end: &End) {
    let pool = shared.config.pool_id.as_str();
    match end {
        End::Refused(error) => tracing::error!(
            pool.id = pool,
            error,
            "The server refuses pool {pool}: {error} Set FLOWS_AGENT_POOL_ID and FLOWS_AGENT_POOL_TOKEN to a pool and its current token; the bridge ends"
        ),
        End::Unusable(error) => tracing::error!(
            error,
            "FLOWS_GATEWAY_ENDPOINT is not usable; the bridge ends"
        ),
        End::Drained | End::Lost(_) => tracing::info!(pool.id = pool, "The bridge has drained"),
    }
}
