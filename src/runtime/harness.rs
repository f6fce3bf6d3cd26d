//! The socket of one runtime: framing, one reader and one writer.
//!
//! Owns the bytes. What a message means is `table`'s business.
//!
//! ```text
//! invoke, answer, abort ──▶ Outgoing (one buffer) ──▶ writer ══▶ Node
//!           mailboxes ◀── table ◀── reader ◀══════════════════ Node
//! ```
//!
//! Callers append whole frames to one buffer under a short lock; the writer
//! takes the whole buffer at once, so frames batch by themselves under load
//! and cost one wake-up when there is none. The reader never waits for anyone
//! but the socket. End of file, a violation or an error ends both, once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_std::channel;
use async_std::future::timeout;
use async_std::io::{ReadExt, WriteExt};
use async_std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use sluice_proto::codec::{self, HARNESS_MESSAGE_BYTES_MAX};
use sluice_proto::harness::{Answer, FromRuntime, ToRuntime};
use sluice_proto::report::{Cause, Failure};

use crate::process::Process;
use crate::runtime::death::Verdict;
use crate::runtime::invocation::{Invocation, Mailbox};
use crate::runtime::table::{Due, Table};
use crate::shutdown::spawn_detached;
use crate::telemetry::now_us;

/// How much may lie unwritten before an invocation waits: two of the largest messages.
const OUTGOING_BYTES_SOFT_MAX: usize = 2 * HARNESS_MESSAGE_BYTES_MAX;

/// How much may lie unwritten before the runtime is taken for dead: it does
/// not read, and answers to SDK calls cannot wait.
const OUTGOING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a paused runtime may take to answer: it needs less than a
/// millisecond, and a job waits meanwhile.
const WAKE_MAX: Duration = Duration::from_secs(1);

/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// One runtime's conversation, shared by everyone who talks to it.
pub struct Conversation {
    container: String,
    /// In this process's own view, where it has one.
    process: Option<Process>,
    table: Mutex<Table>,
    outgoing: Mutex<Outgoing>,
    wake_writer: channel::Sender<()>,
    drained: (channel::Sender<()>, channel::Receiver<()>),
    signals: Signals,
}

#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    closed: bool,
}

/// What the conversation tells its keeper. Called outside every lock.
pub(super) struct Signals {
    /// The runtime must not get new invocations.
    pub(super) doubt: Box<dyn Fn() + Send + Sync>,
    /// It is over: `None` is the end of the file, the rest is why we end it.
    pub(super) over: Box<dyn Fn(Option<Verdict>) + Send + Sync>,
}

/// A runtime that has said Hello and is sealed.
pub(super) struct Greeted {
    stream: UnixStream,
    pub(super) node: String,
}

// === impl Conversation ===

impl Conversation {
    /// Starts reader and writer. They end with the socket.
    pub(super) fn start(
        greeted: Greeted,
        container: String,
        pid: Option<i32>,
        signals: Signals,
    ) -> Arc<Self> {
        let (wake_writer, woken) = channel::bounded(1);
        let conversation = Arc::new(Self {
            container,
            process: pid.and_then(Process::of),
            table: Mutex::default(),
            outgoing: Mutex::default(),
            wake_writer,
            drained: channel::bounded(1),
            signals,
        });
        let (reader, writer) = (greeted.stream.clone(), greeted.stream);
        spawn_detached(read(Arc::clone(&conversation), reader));
        spawn_detached(write(Arc::clone(&conversation), writer, woken));
        conversation
    }

    pub(super) fn container(&self) -> &str {
        &self.container
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Gives the runtime its identity. `bundle` is a path inside the container.
    pub(super) async fn load(&self, bundle: Option<String>) -> Result<(), Failure> {
        let answer = self.table().load();
        self.send(&ToRuntime::Load { bundle });
        answer.await.unwrap_or_else(|_| {
            Err(Failure::new(
                Cause::Crashed,
                "the runtime ended while it was loading",
            ))
        })
    }

    /// Opens an invocation; `None` if it ended at once because the runtime is over.
    pub(super) async fn invoke(
        &self,
        invocation: Invocation,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Option<u32>, Failure> {
        while self.outgoing().bytes.len() > OUTGOING_BYTES_SOFT_MAX {
            // The writer puts a token in after each buffer, and closing it ends the wait.
            if self.drained.1.recv().await.is_err() {
                break;
            }
        }
        // Opened before it is sent, so that the answer always finds its entry.
        let Some(number) = self.table().open(&invocation, mailbox, Instant::now()) else {
            return Ok(None);
        };
        let message = ToRuntime::Invoke {
            invocation: number,
            kind: invocation.kind,
            log_bytes_max: invocation.log_bytes_max,
            payload: invocation.payload,
        };
        match codec::encode(&message, HARNESS_MESSAGE_BYTES_MAX) {
            Ok(frame) => {
                self.append(&frame);
                Ok(Some(number))
            }
            Err(error) => {
                self.table().forget(number);
                Err(Failure::new(Cause::Unacceptable, error.to_string()))
            }
        }
    }

    pub(super) fn answer(&self, invocation: u32, call: u32, answer: Answer) {
        let message = self.table().answered(invocation, call, answer);
        if let Some(message) = message {
            self.send(&message);
        }
    }

    pub(super) fn abort(&self, invocation: u32) {
        let due = self.table().abort(invocation, Instant::now());
        self.act(due);
    }

    /// Stops every thread of it until [`Conversation::wake`].
    pub(super) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on, and says whether it echoes in time.
    pub(super) async fn wake(&self) -> bool {
        self.signal(Signal::SIGCONT);
        let (ping, echo) = self.table().probe();
        self.send(&ping);
        matches!(timeout(WAKE_MAX, echo).await, Ok(Ok(())))
    }

    /// Signals its first process, which is this user's to signal as the owner
    /// of its user namespace; never another that has its number now.
    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process.as_ref().filter(|it| it.is_alive()) {
            // Refused means that it goes on as it is, which the echo will tell.
            let _ = kill(Pid::from_raw(process.pid), signal);
        }
    }

    /// Asks for its end, as soon as nobody uses it.
    pub(super) fn retire(&self) {
        (self.signals.doubt)();
    }

    /// Ends invocations whose time is over.
    pub(super) fn tick(&self, now: Instant) {
        let due = self.table().due(now);
        self.act(due);
    }

    /// Ends every invocation because the runtime is to be killed, and says so to the keeper.
    pub(super) fn condemn(&self, verdict: Verdict, culprit: Option<u32>) {
        // First, so that whoever hears of the end and claims again gets another.
        (self.signals.doubt)();
        self.table().condemn(&verdict, culprit);
        self.close();
        (self.signals.over)(Some(verdict));
    }

    /// Ends every invocation because the runtime is dead.
    pub(super) fn bury(&self, failure: Failure) {
        self.table().bury(failure);
        self.close();
    }

    /// The runtime is gone, and no invocation is to blame for it.
    pub(super) fn bury_blameless(&self, failure: Failure) {
        self.table().bury_blameless(failure);
        self.close();
    }

    fn act(&self, due: Due) {
        if due.blocked {
            return self.condemn(Verdict::EventLoopBlocked, None);
        }
        if due.doubt {
            // Before the Abort goes out, and so before its answer is heard.
            (self.signals.doubt)();
        }
        for message in &due.frames {
            self.send(message);
        }
    }

    fn send(&self, message: &ToRuntime) {
        match codec::encode(message, HARNESS_MESSAGE_BYTES_MAX) {
            Ok(frame) => self.append(&frame),
            // The only one that can be too large is the answer to a call.
            Err(error) => {
                if let ToRuntime::Called {
                    invocation, call, ..
                } = *message
                {
                    let answer = Answer::Error {
                        message: error.to_string(),
                    };
                    self.send(&ToRuntime::Called {
                        invocation,
                        call,
                        answer,
                    });
                }
            }
        }
    }

    fn append(&self, frame: &[u8]) {
        let mut outgoing = self.outgoing();
        if outgoing.closed {
            return;
        }
        let was_empty = outgoing.bytes.is_empty();
        let length = u32::try_from(frame.len()).expect("a frame is far below 4 GiB");
        outgoing.bytes.extend_from_slice(&length.to_be_bytes());
        outgoing.bytes.extend_from_slice(frame);
        let too_much = outgoing.bytes.len() > OUTGOING_BYTES_MAX;
        drop(outgoing);
        if too_much {
            self.condemn(
                Verdict::Violation("it does not read what is sent to it".into()),
                None,
            );
        } else if was_empty {
            // A full channel holds a wake-up already.
            let _ = self.wake_writer.try_send(());
        }
    }

    fn close(&self) {
        let mut outgoing = self.outgoing();
        outgoing.closed = true;
        outgoing.bytes = Vec::new();
        drop(outgoing);
        self.wake_writer.close();
        self.drained.0.close();
    }

    /// Takes everything unwritten, if there is anything.
    fn take_outgoing(&self, spare: &mut Vec<u8>) -> bool {
        let mut outgoing = self.outgoing();
        std::mem::swap(&mut outgoing.bytes, spare);
        !spare.is_empty()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conversation({})", self.container)
    }
}

/// Tells the keeper of the end however the reader ends, also by a panic.
struct LastWord(Arc<Conversation>);

impl Drop for LastWord {
    fn drop(&mut self) {
        (self.0.signals.doubt)();
        self.0.table().dying();
        (self.0.signals.over)(None);
    }
}

async fn read(conversation: Arc<Conversation>, mut stream: UnixStream) {
    let _last_word = LastWord(Arc::clone(&conversation));
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let mut filled = 0;
    loop {
        if bytes.len() < filled + READ_BYTES {
            bytes.resize(filled + READ_BYTES, 0);
        }
        match stream.read(&mut bytes[filled..]).await {
            Ok(0) | Err(_) => return,
            Ok(count) => filled += count,
        }
        match take_frames(&conversation, &bytes[..filled]) {
            Ok(taken) => {
                bytes.copy_within(taken..filled, 0);
                filled -= taken;
            }
            Err((violation, culprit)) => {
                conversation.condemn(Verdict::Violation(violation), culprit);
                return;
            }
        }
        // One large message must not hold its memory for ever.
        if filled < READ_BYTES && bytes.len() > 4 * READ_BYTES {
            bytes.truncate(2 * READ_BYTES);
            bytes.shrink_to_fit();
        }
    }
}

/// Applies every whole frame in `bytes` and says how many bytes they took; or
/// what is wrong with one, and whose it was.
fn take_frames(conversation: &Conversation, bytes: &[u8]) -> Result<usize, (String, Option<u32>)> {
    let mut taken = 0;
    let now_us = now_us();
    while let Some(head) = bytes.get(taken..taken + 4) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > HARNESS_MESSAGE_BYTES_MAX {
            return Err((format!("a message of {length} bytes"), None));
        }
        let Some(frame) = bytes.get(taken + 4..taken + 4 + length) else {
            break;
        };
        let message: FromRuntime = codec::decode(frame, HARNESS_MESSAGE_BYTES_MAX)
            .map_err(|error| (error.to_string(), None))?;
        let whose = subject(&message);
        conversation
            .table()
            .apply(message, now_us)
            .map_err(|violation| (violation, whose))?;
        taken += 4 + length;
    }
    Ok(taken)
}

fn subject(message: &FromRuntime) -> Option<u32> {
    match *message {
        FromRuntime::Done { invocation, .. }
        | FromRuntime::Failed { invocation, .. }
        | FromRuntime::Call { invocation, .. }
        | FromRuntime::Log { invocation, .. } => Some(invocation),
        FromRuntime::Hello { .. }
        | FromRuntime::Loaded
        | FromRuntime::LoadFailed { .. }
        | FromRuntime::Pong { .. } => None,
    }
}

async fn write(
    conversation: Arc<Conversation>,
    mut stream: UnixStream,
    woken: channel::Receiver<()>,
) {
    let mut spare = Vec::new();
    while woken.recv().await.is_ok() {
        while conversation.take_outgoing(&mut spare) {
            if stream.write_all(&spare).await.is_err() {
                // The reader meets the same end and tells it.
                return;
            }
            spare.clear();
            if spare.capacity() > 16 * READ_BYTES {
                spare = Vec::new();
            }
            let _ = conversation.drained.0.try_send(());
        }
    }
    // Ends the reader too, whoever closed us.
    let _ = stream.shutdown(std::net::Shutdown::Both);
}

pub(super) mod greet;
