//! An engine without containers, for unit tests: a task plays Node on the real
//! socket, so that everything on this side of it is real.
//!
//! Its bundles and payloads are orders: a bundle `syntax` does not load, one
//! `never` gives no answer, and a payload is one of the words of [`Node::invoke`].

use std::collections::{HashMap, HashSet};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_std::channel;
use async_std::io::{ReadExt, WriteExt};
use async_std::os::unix::net::UnixStream;
use futures::FutureExt;

use sluice_proto::codec::{self, HARNESS_MESSAGE_BYTES_MAX};
use sluice_proto::harness::{FromRuntime, Posture, SOCKET_NAME, ToRuntime};
use sluice_proto::report::{Cause, Failure, Level};

use crate::runtime::death::Exit;
use crate::runtime::sandbox::{Host, Spec};
use crate::runtime::{Error, Owner, Runtime};
use crate::shutdown::spawn_detached;

/// Clones are the same engine.
#[derive(Clone, Default)]
pub struct Fake {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Why nothing works at present.
    away: Option<String>,
    capabilities: u64,
    running: HashMap<String, channel::Sender<()>>,
    exits: HashMap<String, Exit>,
    /// No list comes to an end.
    unlisted: bool,
    /// Containers ever started, and the most at once.
    started: usize,
    most: usize,
}

/// What plays Node.
struct Node {
    stream: UnixStream,
    run_dir: PathBuf,
    deaf: bool,
    open: HashSet<u32>,
}

// === impl Fake ===

impl Fake {
    /// From now on nothing works, for this reason; or all does again.
    pub fn away(&self, reason: Option<&str>) {
        self.lock().away = reason.map(str::to_owned);
    }

    /// Runtimes started from now on have these capabilities.
    pub fn leak_capabilities(&self, capabilities: u64) {
        self.lock().capabilities = capabilities;
    }

    /// A container of `owner` that nobody holds. The fake knows one owner.
    pub fn leave(&self, name: &str) {
        self.lock()
            .running
            .insert(name.to_owned(), channel::bounded(1).0);
    }

    /// Whether lists are answered from now on.
    pub fn list_again(&self, answered: bool) {
        self.lock().unlisted = !answered;
    }

    pub fn running(&self) -> usize {
        self.lock().running.len()
    }

    /// Containers ever started, and the most that ran at once.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.started, inner.most)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), Error> {
        match &self.lock().away {
            Some(reason) => Err(Error::Engine {
                what: "work",
                message: reason.clone(),
                transient: true,
            }),
            None => Ok(()),
        }
    }
}

impl Runtime for Fake {
    async fn ready(&self, _image: &str) -> Result<(), Error> {
        self.check()
    }

    async fn host(&self) -> Result<Host, Error> {
        self.check().map(|()| Host::default())
    }

    async fn start(&self, spec: &Spec, _host: &Host) -> Result<(), Error> {
        self.check()?;
        let (kill, killed) = channel::bounded(1);
        let capabilities = {
            let mut inner = self.lock();
            inner.running.insert(spec.name.clone(), kill);
            inner.started += 1;
            inner.most = inner.most.max(inner.running.len());
            inner.capabilities
        };
        let (fake, name, run_dir) = (self.clone(), spec.name.clone(), spec.run_dir.clone());
        spawn_detached(async move {
            let exit = futures::select! {
                exit = play(&run_dir, capabilities).fuse() => exit,
                _ = killed.recv().fuse() => Exit { code: Some(137), ..Exit::default() },
            };
            fake.lock().exits.insert(name, exit);
        });
        Ok(())
    }

    async fn process(&self, _name: &str) -> Result<Option<i32>, Error> {
        Ok(None)
    }

    async fn wait(&self, name: &str) -> Result<Exit, Error> {
        loop {
            if let Some(exit) = self.lock().exits.get(name) {
                return Ok(exit.clone());
            }
            async_std::task::yield_now().await;
        }
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        self.check()?;
        self.lock().running.remove(name);
        Ok(())
    }

    async fn list(&self, _owner: &Owner) -> Result<Vec<String>, Error> {
        self.check()?;
        while self.lock().unlisted {
            async_std::task::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(self.lock().running.keys().cloned().collect())
    }
}

async fn play(run_dir: &Path, capabilities: u64) -> Exit {
    // Through the open directory, as the path may be too long for an address.
    let open = std::fs::File::open(run_dir).expect("the directory is there");
    let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", open.as_raw_fd());
    let stream = UnixStream::connect(short)
        .await
        .expect("the worker listens");
    let mut node = Node {
        stream,
        run_dir: run_dir.to_owned(),
        deaf: false,
        open: HashSet::new(),
    };
    let posture = Posture {
        uid: 1000,
        no_new_privileges: true,
        capabilities,
        seccomp: 2,
        root_writable: false,
        gvisor: false,
    };
    node.say(FromRuntime::Hello {
        protocol: sluice_proto::PROTOCOL,
        node: "fake".into(),
        posture,
    })
    .await;
    loop {
        let Some(message) = node.hear().await else {
            return Exit::default();
        };
        if let Some(exit) = node.answer(message).await {
            return exit;
        }
    }
}

// === impl Node ===

impl Node {
    async fn answer(&mut self, message: ToRuntime) -> Option<Exit> {
        match message {
            ToRuntime::Load { bundle } => {
                let bundle = bundle.map(|_| std::fs::read_to_string(self.run_dir.join("app.mjs")));
                let answer = match bundle {
                    Some(Ok(text)) if text == "syntax" => FromRuntime::LoadFailed {
                        failure: Failure::new(Cause::Syntax, "as the test wants"),
                    },
                    Some(Ok(text)) if text == "never" => return None,
                    Some(Err(error)) => panic!("the bundle is not there: {error}"),
                    _ => FromRuntime::Loaded,
                };
                self.say(answer).await;
            }
            ToRuntime::Invoke {
                invocation,
                payload,
                ..
            } => return self.invoke(invocation, &payload).await,
            ToRuntime::Abort { invocation } => {
                if !self.deaf && self.open.remove(&invocation) {
                    self.fail(invocation).await;
                }
            }
            ToRuntime::Called { invocation, .. } => {
                if self.open.remove(&invocation) {
                    self.done(invocation, b"\"answered\"").await;
                }
            }
            ToRuntime::Ping { number } if !self.deaf => {
                self.say(FromRuntime::Pong { number }).await;
            }
            ToRuntime::Ping { .. } => {}
        }
        None
    }

    async fn invoke(&mut self, invocation: u32, payload: &[u8]) -> Option<Exit> {
        match std::str::from_utf8(payload).expect("a word") {
            "hang" => drop(self.open.insert(invocation)),
            "block" => self.deaf = true,
            "exit" => {
                return Some(Exit {
                    code: Some(3),
                    ..Exit::default()
                });
            }
            "call" => self.call(invocation).await,
            "log" => {
                let text = "a line".to_owned();
                let level = Level::Info;
                self.say(FromRuntime::Log {
                    invocation,
                    level,
                    text,
                })
                .await;
                self.done(invocation, b"null").await;
            }
            "chatter" => {
                self.chatter(invocation).await;
                self.done(invocation, b"null").await;
            }
            "chatter and call" => {
                self.chatter(invocation).await;
                self.call(invocation).await;
            }
            "twice" => {
                self.done(invocation, b"1").await;
                self.done(invocation, b"2").await;
            }
            "forge" => self.done(invocation ^ 0x4000, b"1").await,
            word => self.done(invocation, format!("{word:?}").as_bytes()).await,
        }
        None
    }

    async fn call(&mut self, invocation: u32) {
        self.open.insert(invocation);
        self.say(FromRuntime::Call {
            invocation,
            call: 1,
            method: "kv.app.get".into(),
            args: b"[\"key\"]".to_vec(),
        })
        .await;
    }

    /// 300 lines, more than fits into a few reports.
    async fn chatter(&mut self, invocation: u32) {
        for _ in 0..300 {
            self.say(FromRuntime::Log {
                invocation,
                level: Level::Info,
                text: "x".repeat(1_000),
            })
            .await;
        }
    }

    async fn done(&mut self, invocation: u32, result: &[u8]) {
        self.say(FromRuntime::Done {
            invocation,
            log_bytes_dropped: 0,
            result: result.to_vec(),
        })
        .await;
    }

    async fn fail(&mut self, invocation: u32) {
        self.say(FromRuntime::Failed {
            invocation,
            log_bytes_dropped: 0,
            failure: Failure::new(Cause::Threw, "aborted"),
        })
        .await;
    }

    async fn say(&mut self, message: FromRuntime) {
        let frame = codec::encode(&message, HARNESS_MESSAGE_BYTES_MAX).expect("it fits");
        let length = u32::try_from(frame.len()).expect("it is short");
        // The worker may have hung up, which the next read finds.
        let _ = self.stream.write_all(&length.to_be_bytes()).await;
        let _ = self.stream.write_all(&frame).await;
    }

    async fn hear(&mut self) -> Option<ToRuntime> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut frame = vec![0; u32::from_be_bytes(head) as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        codec::decode(&frame, HARNESS_MESSAGE_BYTES_MAX).ok()
    }
}
