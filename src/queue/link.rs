//! One generation of connections to the broker.
//!
//! ```text
//!  connect ──▶ alive ──any failure, or close──▶ dead     (never back: the role makes a new link)
//! ```
//!
//! Two connections: what is published and what is consumed never wait for each
//! other, also while the broker blocks publishers for want of memory or disk.

use std::sync::{Arc, Mutex, PoisonError};

use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties};

use sluice_proto::queue::Names;

use crate::queue::health::Health;
use crate::queue::{ANSWER_MAX, Error, executor, topology, within};
use crate::shutdown;

/// How often both sides of a connection say they are alive, in seconds. After
/// two missed ones the connection counts as lost.
const HEARTBEAT_S: u16 = 10;
/// How long a connection may take to be made, in milliseconds.
const CONNECT_MS_MAX: u64 = 8_000;
/// The largest AMQP frame asked for, in bytes. lapin keeps two buffers of 32
/// frames per connection, so the broker's own 128 KiB would hold 16 MiB for two
/// idle connections; longer messages merely take more frames.
const FRAME_BYTES_MAX: u32 = 32 * 1024;

/// A live way to the broker. Cheap to clone; all clones share its fate.
#[derive(Clone)]
pub struct Link {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) names: Names,
    /// Names this process on the broker, and in the reports the door itself writes.
    pub(super) client: String,
    pub(super) health: Arc<Health>,
    pub(super) publishing: Connection,
    pub(super) consuming: Connection,
    /// Publishes on it are confirmed.
    pub(super) confirmed: Channel,
    /// Publishes on it are not; whoever is not there does not hear them.
    pub(super) loose: Channel,
    /// For looks at queues. A failure on it is a failure of the link.
    side: Channel,
    /// Keeps the bridge lock's channel, once held.
    lock: Mutex<Option<Channel>>,
}

/// Messages ready in each queue of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depths {
    pub jobs: u64,
    pub jobs_high: u64,
    pub reports: u64,
    pub retry: u64,
    pub dead: u64,
    pub given_up: u64,
    /// Consumers of `jobs`: one per worker that takes work.
    pub consumers: u32,
}

// === impl Link ===

impl Link {
    /// Connects and declares the pool's topology, whoever else did so before.
    /// `client` names this process to people who look at the broker.
    pub async fn connect(amqp_url: &str, client: &str, names: &Names) -> Result<Self, Error> {
        let uri = parse(amqp_url)?;
        let health = Health::new();
        let publishing = open(&uri, &format!("{client}, publishing"), &health).await?;
        let consuming = open(&uri, &format!("{client}, consuming"), &health).await?;
        let side = within("opening a channel", consuming.create_channel()).await?;
        topology::declare(&side, names).await?;
        let log = within("opening a channel", consuming.create_channel()).await?;
        topology::declare_log(&log, names).await?;
        let confirmed = within("opening a channel", publishing.create_channel()).await?;
        let select = confirmed.confirm_select(ConfirmSelectOptions::default());
        within("asking for confirms", select).await?;
        let loose = within("opening a channel", publishing.create_channel()).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                names: names.clone(),
                client: client.to_owned(),
                health,
                publishing,
                consuming,
                confirmed,
                loose,
                side,
                lock: Mutex::new(None),
            }),
        })
    }

    /// What this link's pool uses on the broker.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// Takes the pool's bridge lock for as long as this link lives.
    /// [`Error::LockHeld`] when another connection has it; the link lives on.
    pub async fn hold_bridge_lock(&self) -> Result<(), Error> {
        self.inner.health.check()?;
        let opening = self.inner.consuming.create_channel();
        let channel = within("opening a channel", opening).await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let queue = topology::name(&self.inner.names.bridge_lock)?;
        let declared = channel.queue_declare(queue, options, FieldTable::default());
        match async_std::future::timeout(ANSWER_MAX, declared).await {
            Ok(Ok(_)) => {
                let mut lock = self
                    .inner
                    .lock
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *lock = Some(channel);
                Ok(())
            }
            Ok(Err(error)) if Error::soft(&error) == Some(AMQPSoftError::RESOURCELOCKED) => {
                Err(Error::LockHeld)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::TimedOut("taking the bridge lock")),
        }
    }

    /// Why the broker takes no publishes at present (memory or disk alarm), if
    /// so. It says so to those who publish, so the first one finds out.
    pub fn blocked(&self) -> Option<String> {
        self.inner.health.blocked()
    }

    /// Resolves when the link is dead, with the first cause. Any number may wait.
    pub async fn failed(&self) -> Error {
        self.inner.health.failed().await
    }

    /// How many messages are ready in each queue.
    pub async fn depth(&self) -> Result<Depths, Error> {
        let names = &self.inner.names;
        let look = async |queue: &str| {
            self.inner.health.check()?;
            let seen = topology::look(&self.inner.side, queue).await;
            seen.inspect_err(|error| self.inner.health.kill(error.clone()))
        };
        let (jobs, consumers) = look(&names.jobs).await?;
        Ok(Depths {
            jobs,
            jobs_high: look(&names.jobs_high).await?.0,
            reports: look(&names.reports).await?.0,
            retry: look(&names.retry).await?.0 + look(&names.retry_high).await?.0,
            dead: look(&names.dead).await?.0,
            given_up: look(&names.given_up).await?.0,
            consumers,
        })
    }

    /// Ends a link that failed, in the background: its connections may live on,
    /// and then hold what the next link wants, the bridge lock among it.
    pub fn abandon(self) {
        shutdown::spawn_detached(async move { self.close().await });
    }

    /// Ends the link in good order. What is unsettled goes back to its queue.
    pub async fn close(&self) {
        let health = &self.inner.health;
        if health.check().is_ok() {
            async_std::task::sleep(health.settling()).await;
        }
        health.kill(Error::Closed);
        for connection in [&self.inner.consuming, &self.inner.publishing] {
            // A broker that is gone needs no goodbye.
            let _ = within("closing", connection.close(REPLY_SUCCESS, "closed".into())).await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Ends the watchdogs; lapin closes the connections as they are dropped.
        self.health.kill(Error::Closed);
    }
}

/// Parses an address and puts our heartbeat in, where it says none.
pub(super) fn parse(amqp_url: &str) -> Result<AMQPUri, Error> {
    let mut uri: AMQPUri = amqp_url.parse().map_err(Error::Address)?;
    if uri.scheme != AMQPScheme::AMQP {
        let hint = "amqps:// is not built in: use amqp:// on a trusted network or through a tunnel";
        return Err(Error::Address(hint.into()));
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
    uri.query.connection_timeout.get_or_insert(CONNECT_MS_MAX);
    uri.query.frame_max.get_or_insert(FRAME_BYTES_MAX);
    Ok(uri)
}

/// Opens one watched connection that never recovers by itself.
pub(super) async fn open(
    uri: &AMQPUri,
    client: &str,
    health: &Arc<Health>,
) -> Result<Connection, Error> {
    let properties = ConnectionProperties::default().with_connection_name(client.into());
    let connecting =
        Connection::connect_uri_with_runtime(uri.clone(), properties, executor::runtime());
    let connection = match async_std::future::timeout(ANSWER_MAX, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) if error.is_io_error() => {
            return Err(Error::Unreachable(format!(
                "{}:{}: {error}",
                uri.authority.host, uri.authority.port
            )));
        }
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => {
            return Err(Error::Unreachable(format!(
                "{}:{} does not answer in {} s",
                uri.authority.host,
                uri.authority.port,
                ANSWER_MAX.as_secs()
            )));
        }
    };
    health.watch(&connection);
    Ok(connection)
}
