//! A TCP proxy that understands just enough of the websocket and of AMQP to
//! cut a connection, or run any other mischief, just before or just after a
//! certain message passes.
//!
//! Owns the parsing of message borders. Does not decode payloads: a websocket
//! message is named by the variant of its frame (`dispatch`, `accepted`, …), an
//! AMQP unit by its method and routing (`publish:…jobs`, `ack`, …).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_std::io::{ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use async_std::task;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Websocket,
    Amqp,
}

/// Seen from whoever dialled: `Up` leaves the client, `Down` comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The message is swallowed.
    Before,
    /// The message has been passed on.
    After,
}

/// Something that happens once, at one message.
pub struct Trigger {
    pub direction: Direction,
    /// A part of the message's name.
    pub what: String,
    pub when: When,
    /// How many such messages pass unharmed first.
    pub skip: u64,
    /// What happens beside the cut of all connections.
    pub mischief: Box<dyn FnOnce() + Send>,
}

pub struct Chaos {
    pub addr: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    wire: Wire,
    upstream: Mutex<SocketAddr>,
    trigger: Mutex<Option<Trigger>>,
    fired: AtomicBool,
    /// While set, nothing is forwarded either way, but connections stay open.
    stalled: AtomicBool,
    refusing: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    generation: AtomicU64,
}

// === impl Chaos ===

impl Chaos {
    pub async fn start(wire: Wire, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let inner = Arc::new(Inner {
            wire,
            upstream: Mutex::new(upstream),
            trigger: Mutex::new(None),
            fired: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            streams: Mutex::new(Vec::new()),
            generation: AtomicU64::new(0),
        });
        let shared = inner.clone();
        spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let upstream = *shared.upstream.lock().expect("not poisoned");
                let Ok(server) = TcpStream::connect(upstream).await else {
                    continue;
                };
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                let mut streams = shared.streams.lock().expect("not poisoned");
                streams.extend([client.clone(), server.clone()]);
                drop(streams);
                let generation = shared.generation.load(Ordering::SeqCst);
                spawn(pump(
                    shared.clone(),
                    generation,
                    Direction::Up,
                    client.clone(),
                    server.clone(),
                ));
                spawn(pump(
                    shared.clone(),
                    generation,
                    Direction::Down,
                    server,
                    client,
                ));
            }
        });
        Self { addr, inner }
    }

    /// Arms one trigger; a trigger that was armed before is forgotten.
    pub fn arm(&self, trigger: Trigger) {
        self.inner.fired.store(false, Ordering::SeqCst);
        *self.inner.trigger.lock().expect("not poisoned") = Some(trigger);
    }

    /// Whether the armed trigger has gone off.
    pub fn fired(&self) -> bool {
        self.inner.fired.load(Ordering::SeqCst)
    }

    /// Cuts every connection; new ones are taken.
    pub fn cut(&self) {
        self.inner.cut();
    }

    /// Holds all traffic while leaving the connections open, or lets it flow again.
    pub fn stall(&self, on: bool) {
        self.inner.stalled.store(on, Ordering::SeqCst);
    }

    /// Closes new connections at once while set.
    pub fn refuse(&self, on: bool) {
        self.inner.refusing.store(on, Ordering::SeqCst);
    }

    /// Sends connections made from now on elsewhere.
    pub fn redirect(&self, upstream: SocketAddr) {
        *self.inner.upstream.lock().expect("not poisoned") = upstream;
    }
}

// === impl Inner ===

impl Inner {
    fn cut(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        let streams = std::mem::take(&mut *self.streams.lock().expect("not poisoned"));
        for stream in streams {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Takes the trigger if this message sets it off.
    fn matching(&self, direction: Direction, name: &str) -> Option<Trigger> {
        let mut armed = self.trigger.lock().expect("not poisoned");
        let trigger = armed.as_mut()?;
        if trigger.direction != direction || !name.contains(&trigger.what) {
            return None;
        }
        if trigger.skip > 0 {
            trigger.skip -= 1;
            return None;
        }
        armed.take()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests own their tasks by ending the process"
)]
fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(task::spawn(future));
}

/// Forwards one direction message by message until either side ends.
async fn pump(
    inner: Arc<Inner>,
    generation: u64,
    direction: Direction,
    mut from: TcpStream,
    mut to: TcpStream,
) {
    let mut parser = Parser::new(inner.wire, direction);
    let mut chunk = vec![0u8; 64 * 1024];
    loop {
        let read = from.read(&mut chunk).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        parser.pending.extend_from_slice(&chunk[..read]);
        while let Some((name, bytes)) = parser.next_unit() {
            while inner.stalled.load(Ordering::SeqCst) {
                task::sleep(std::time::Duration::from_millis(20)).await;
            }
            // A connection cut meanwhile must not carry one message more.
            if inner.generation.load(Ordering::SeqCst) != generation {
                return;
            }
            let trigger = inner.matching(direction, &name);
            if !matches!(&trigger, Some(t) if t.when == When::Before)
                && to.write_all(&bytes).await.is_err()
            {
                break;
            }
            if let Some(trigger) = trigger {
                (trigger.mischief)();
                inner.cut();
                inner.fired.store(true, Ordering::SeqCst);
                return;
            }
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// Cuts a byte stream into named units.
struct Parser {
    wire: Wire,
    direction: Direction,
    pending: Vec<u8>,
    /// The websocket's HTTP head or AMQP's protocol header is still to come.
    preamble: bool,
}

// === impl Parser ===

impl Parser {
    fn new(wire: Wire, direction: Direction) -> Self {
        Self {
            wire,
            direction,
            pending: Vec::new(),
            preamble: true,
        }
    }

    /// The next whole unit, with its name, or nothing until more bytes come.
    fn next_unit(&mut self) -> Option<(String, Vec<u8>)> {
        let (name, length) = match (self.wire, self.preamble) {
            (Wire::Websocket, true) => ("head".to_owned(), find(&self.pending, b"\r\n\r\n")? + 4),
            (Wire::Websocket, false) => websocket_unit(&self.pending)?,
            (Wire::Amqp, true) if self.direction == Direction::Up => {
                ("header".to_owned(), (self.pending.len() >= 8).then_some(8)?)
            }
            (Wire::Amqp, _) => amqp_unit(&self.pending)?,
        };
        self.preamble = false;
        let rest = self.pending.split_off(length);
        Some((name, std::mem::replace(&mut self.pending, rest)))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// RFC 6455 section 5.2; fragmented messages are not used by either side.
fn websocket_unit(bytes: &[u8]) -> Option<(String, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mut at) = match second & 0x7f {
        126 => (
            u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize,
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
            10,
        ),
        short => (short as usize, 2),
    };
    let mask = if second & 0x80 == 0 {
        [0; 4]
    } else {
        at += 4;
        bytes.get(at - 4..at)?.try_into().ok()?
    };
    let payload = bytes.get(at..at + length)?;
    let name = match first & 0x0f {
        2 => frame_name(
            &payload
                .iter()
                .take(40)
                .zip(mask.iter().cycle())
                .map(|(b, m)| b ^ m)
                .collect::<Vec<_>>(),
        ),
        8 => "close".to_owned(),
        9 => "ping".to_owned(),
        10 => "pong".to_owned(),
        _ => "other".to_owned(),
    };
    Some((name, at + length))
}

/// A frame is a map of one entry, or a bare string: `{"dispatch": …}`, `"heartbeat"`.
fn frame_name(payload: &[u8]) -> String {
    let text = match payload {
        [0x81, head, rest @ ..] | [head, rest @ ..] if head & 0xe0 == 0xa0 => {
            rest.get(..(head & 0x1f) as usize)
        }
        _ => None,
    };
    text.map_or_else(
        || "unreadable".to_owned(),
        |name| String::from_utf8_lossy(name).into_owned(),
    )
}

/// AMQP 0-9-1 section 4.2.3. A method that carries content is one unit with its
/// header and body frames.
fn amqp_unit(bytes: &[u8]) -> Option<(String, usize)> {
    let (kind, payload, mut end) = amqp_frame(bytes)?;
    if kind != 1 {
        return Some(("heartbeat".to_owned(), end));
    }
    let class = u16::from_be_bytes(payload.get(..2)?.try_into().ok()?);
    let method = u16::from_be_bytes(payload.get(2..4)?.try_into().ok()?);
    let name = match (class, method) {
        (60, 40) => format!("publish:{}", routing(payload.get(6..)?)?),
        (60, 60) => {
            let tag = *payload.get(4)? as usize;
            format!("deliver:{}", routing(payload.get(4 + 1 + tag + 9..)?)?)
        }
        (60, 80) => "ack".to_owned(),
        (60, 120) => "nack".to_owned(),
        _ => return Some((format!("{class}.{method}"), end)),
    };
    if name.starts_with("publish") || name.starts_with("deliver") {
        let (_, header, length) = amqp_frame(bytes.get(end..)?)?;
        let mut left = u64::from_be_bytes(header.get(4..12)?.try_into().ok()?);
        end += length;
        while left > 0 {
            let (_, body, length) = amqp_frame(bytes.get(end..)?)?;
            left = left.saturating_sub(body.len() as u64);
            end += length;
        }
    }
    Some((name, end))
}

/// Kind, payload and whole length of the first frame.
fn amqp_frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let size = u32::from_be_bytes(bytes.get(3..7)?.try_into().ok()?) as usize;
    let payload = bytes.get(7..7 + size)?;
    bytes.get(7 + size)?;
    Some((bytes[0], payload, 8 + size))
}

/// `exchange/routing-key` from two short strings.
fn routing(bytes: &[u8]) -> Option<String> {
    let exchange_length = *bytes.first()? as usize;
    let exchange = bytes.get(1..1 + exchange_length)?;
    let rest = bytes.get(1 + exchange_length..)?;
    let key = rest.get(1..1 + *rest.first()? as usize)?;
    Some(format!(
        "{}/{}",
        String::from_utf8_lossy(exchange),
        String::from_utf8_lossy(key)
    ))
}

#[test]
fn units_are_named_and_cut_at_their_borders() {
    // {"accepted": {}} masked with 1,2,3,4, then an unmasked "heartbeat".
    let plain: Vec<u8> = [&[0x81, 0xa8][..], b"accepted", &[0x80]].concat();
    let masked = plain
        .iter()
        .zip([1u8, 2, 3, 4].iter().cycle())
        .map(|(b, m)| b ^ m);
    let mut parser = Parser::new(Wire::Websocket, Direction::Up);
    parser.pending = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    parser
        .pending
        .extend([0x82, 0x80 | plain.len() as u8, 1, 2, 3, 4]);
    parser.pending.extend(masked);
    parser.pending.extend([0x82, 10, 0xa9]);
    parser.pending.extend(b"heartbea");
    let names: Vec<_> = std::iter::from_fn(|| parser.next_unit())
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["head", "accepted"]);
    parser.pending.push(b't');
    assert_eq!(parser.next_unit().expect("whole now").0, "heartbeat");
}
