//! A bridge and its worker in one: takes jobs, does what a script says (SDK
//! calls over the agent API included), and reports the end.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use async_std::channel;
use futures::FutureExt;
use serde_json::{Map, Value, json};
use sluice::shutdown::spawn_detached;
use sluice_proto::PROTOCOL;
use sluice_proto::frame::{FromBridge, FromGateway, Numbered, Taken};
use sluice_proto::job::{Identity, Job, Kind};
use sluice_proto::report::{Cause, Failure, Outcome, Report};

use crate::fixture::{Bridge, Client, Fixture, finished};

#[allow(unused_imports, reason = "the clients' tests need fewer of these")]
pub use crate::people::{apply, draft, flow, install, quiet, status, trigger};

/// Connections of a flood of calls, so that many share a commit.
const FLOOD_LANES: usize = 64;
/// Numbers that one flood may use.
const FLOOD_NUMBERS: usize = 1_000_000;

/// What a script does with a job, in order.
#[derive(Debug, Clone)]
pub enum Do {
    /// An SDK call that must be answered well.
    Call(&'static str, Value),
    /// An SDK call that must be refused with these words in the sentence.
    Refused(&'static str, Value, &'static str),
    /// So many SDK calls, many at once, that must be answered well.
    Flood(&'static str, Value, usize),
    Return(Value),
    Throw(&'static str),
    /// The worker dies; another one gets the job and the script is asked again.
    Die,
}

/// A job as a script sees it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub kind: Kind,
    /// Key of the block type, if it is a block's handler.
    pub block: String,
    /// Digest of the app's code; empty for expressions.
    pub bundle: String,
    /// The handler's input, or the whole payload of other jobs.
    pub given: Value,
}

pub type Script = Arc<dyn Fn(&Seen) -> Vec<Do> + Send + Sync>;

/// An agent at work; it ends when it is dropped. What it had accepted and not
/// reported it does again when it comes back, as a queue would have it.
pub struct Worker {
    log: Log,
    held: Held,
    /// `None`: the default one.
    pool: Option<String>,
    lanes: usize,
    schema: Value,
    script: Script,
    _stop: channel::Sender<()>,
}

/// Jobs that are accepted and not known to be reported, each with its deliveries.
type Held = Arc<Mutex<BTreeMap<String, (Job, u32)>>>;

#[derive(Clone, Default)]
struct Log {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<Vec<Value>>>,
}

// === impl Worker ===

impl Worker {
    /// Takes the default pool's jobs, one at a time.
    pub async fn start(fixture: &Fixture, schema: Value, script: Script) -> Self {
        Self::of_many(fixture, 1, schema, script).await
    }

    /// Takes the default pool's jobs, so many at a time.
    pub async fn of_many(fixture: &Fixture, lanes: usize, schema: Value, script: Script) -> Self {
        Self::over(fixture, None, lanes, (schema, script), Held::default()).await
    }

    /// Takes another pool's jobs, one at a time.
    pub async fn of_pool(fixture: &Fixture, pool: &str, schema: Value, script: Script) -> Self {
        let pool = Some(pool.to_owned());
        Self::over(fixture, pool, 1, (schema, script), Held::default()).await
    }

    /// The same agent comes back, to another gateway over the same data.
    pub async fn back(self, fixture: &Fixture) -> Self {
        let (pool, lanes, held) = (self.pool.clone(), self.lanes, self.held.clone());
        let told = (self.schema.clone(), self.script.clone());
        drop(self);
        Self::over(fixture, pool, lanes, told, held).await
    }

    async fn over(
        fixture: &Fixture,
        own: Option<String>,
        lanes: usize,
        (schema, script): (Value, Script),
        held: Held,
    ) -> Self {
        let pools = fixture.get("/api/v1/pools").await;
        let pools = pools.as_array().expect("a list");
        let pool = pools.iter().find(|pool| pool["default"] == true);
        let pool = pool.expect("a default pool")["id"].as_str().expect("an id");
        let pool = own.as_deref().unwrap_or(pool);
        let path = format!("/api/v1/pools/{pool}/rotate");
        let rotated = fixture.post(&path, &json!({"overlap_s": 60})).await;
        let token = rotated["token"].as_str().expect("a token");
        let bridge = Bridge::dial_pool(fixture, pool, token).await;
        let mut bridge = bridge.expect("a session");
        bridge.hello(pool, "agent", PROTOCOL).await;
        let welcome = bridge.next().await;
        assert!(
            matches!(welcome, FromGateway::Welcome { .. }),
            "{welcome:?}"
        );
        bridge.window(500, None).await;
        let (stop, stopped) = channel::bounded::<()>(1);
        let worker = Self {
            log: Log::default(),
            held: held.clone(),
            pool: own.clone(),
            lanes,
            schema: schema.clone(),
            script: script.clone(),
            _stop: stop,
        };
        let (jobs, waiting) = channel::unbounded();
        let (done, ended) = channel::unbounded();
        for (job, deliveries) in held.lock().expect("not poisoned").values_mut() {
            *deliveries += 1;
            let _ = jobs.try_send((job.clone(), *deliveries));
        }
        for _ in 0..lanes {
            let lane = Lane {
                client: fixture.client().await,
                http: fixture.http.clone(),
                schema: schema.clone(),
                script: script.clone(),
                log: worker.log.clone(),
            };
            spawn_detached(lane.work(waiting.clone(), done.clone()));
        }
        spawn_detached(relay(bridge, held, jobs, ended, stopped));
        worker
    }

    /// Jobs that were run, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().expect("not poisoned").clone()
    }

    /// What the SDK calls were answered, in order.
    pub fn answers(&self) -> Vec<Value> {
        self.log.answers.lock().expect("not poisoned").clone()
    }

    pub fn of_kind(&self, kind: Kind) -> Vec<Seen> {
        let seen = self.seen();
        seen.into_iter().filter(|seen| seen.kind == kind).collect()
    }
}

/// The bridge: jobs in, reports out.
async fn relay(
    mut bridge: Bridge,
    held: Held,
    jobs: channel::Sender<(Job, u32)>,
    ended: channel::Receiver<Report>,
    stopped: channel::Receiver<()>,
) {
    let mut numbers = BTreeMap::new();
    let mut number = 0;
    loop {
        let frame = {
            let next = bridge.receiver.next().fuse();
            futures::pin_mut!(next);
            loop {
                let report = futures::select! {
                    _ = stopped.recv().fuse() => return,
                    frame = next => break frame,
                    report = ended.recv().fuse() => report,
                };
                let Ok(report) = report else { return };
                number += 1;
                numbers.insert(number, report.job.0.clone());
                let items = vec![Numbered { number, report }];
                if bridge
                    .sender
                    .send(&FromBridge::Reports { items })
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        match frame {
            Ok(Some(FromGateway::Dispatch { jobs: new })) => {
                let taken = new.iter().map(|job| Taken {
                    job: job.id.clone(),
                    dispatch: job.dispatch,
                });
                let accepted = FromBridge::Accepted {
                    jobs: taken.collect(),
                };
                for job in new {
                    let mut held = held.lock().expect("not poisoned");
                    held.insert(job.id.0.clone(), (job.clone(), 1));
                    let _ = jobs.try_send((job, 1));
                }
                if bridge.sender.send(&accepted).await.is_err() {
                    return;
                }
            }
            Ok(Some(FromGateway::Received { numbers: received })) => {
                let mut held = held.lock().expect("not poisoned");
                for number in received {
                    numbers.remove(&number).map(|job: String| held.remove(&job));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// Who is not there any more.
enum Gone {
    Gateway,
    /// It has ended: its report was taken in, and the answer to that was lost.
    Job,
}

/// One job at a time.
struct Lane {
    client: Client,
    http: String,
    schema: Value,
    script: Script,
    log: Log,
}

// === impl Lane ===

impl Lane {
    async fn work(mut self, jobs: channel::Receiver<(Job, u32)>, done: channel::Sender<Report>) {
        while let Ok((job, mut delivery)) = jobs.recv().await {
            let outcome = loop {
                match self.outcome(&job, delivery).await {
                    Ok(Some(outcome)) => break Some(outcome),
                    Ok(None) => delivery += 1,
                    Err(Gone::Job) => break None,
                    Err(Gone::Gateway) => return,
                }
            };
            let Some(outcome) = outcome else { continue };
            let report = finished(&job.id, job.dispatch, delivery, outcome);
            if done.send(report).await.is_err() {
                return;
            }
        }
    }

    async fn outcome(&mut self, job: &Job, delivery: u32) -> Result<Option<Outcome>, Gone> {
        let payload: Value = serde_json::from_slice(&job.payload).expect("JSON");
        let text = |key: &str| {
            payload["handler"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let seen = Seen {
            kind: job.kind,
            block: text("block"),
            bundle: match &job.identity {
                Identity::App { bundle, .. } => bundle.as_str().to_owned(),
                Identity::Flow { .. } => String::new(),
            },
            given: payload.get("input").unwrap_or(&payload).clone(),
        };
        self.log
            .seen
            .lock()
            .expect("not poisoned")
            .push(seen.clone());
        match job.kind {
            Kind::Describe => {
                let said = (self.script)(&seen).into_iter().next();
                let schema = match said {
                    Some(Do::Return(schema)) if schema["blocks"].is_object() => schema,
                    _ => self.schema.clone(),
                };
                return Ok(Some(succeeded(&schema)));
            }
            Kind::Evaluate => return Ok(Some(evaluated(&payload))),
            _ => {}
        }
        let attempt = (job.dispatch, delivery);
        for (number, what) in (self.script)(&seen).into_iter().enumerate() {
            match what {
                Do::Call(method, args) => {
                    let (status, reply) = self.call(job, attempt, number, method, &args).await?;
                    assert_eq!(status, 200, "{method}{args}: {reply}");
                    let answer = reply["data"].clone();
                    self.log.answers.lock().expect("not poisoned").push(answer);
                }
                Do::Refused(method, args, words) => {
                    let (status, reply) = self.call(job, attempt, number, method, &args).await?;
                    let error = reply["error"].as_str().unwrap_or_default();
                    assert!(status >= 400 && error.contains(words), "{status} {reply}");
                }
                Do::Flood(method, args, count) => {
                    self.flood(job, attempt, (number, method, &args), count)
                        .await?;
                }
                Do::Return(value) => return Ok(Some(succeeded(&value))),
                Do::Throw(message) => return Ok(Some(threw(message, None))),
                Do::Die => return Ok(None),
            }
        }
        Ok(Some(succeeded(&Value::Null)))
    }

    async fn flood(
        &self,
        job: &Job,
        attempt: (u32, u32),
        (number, method, args): (usize, &'static str, &Value),
        count: usize,
    ) -> Result<(), Gone> {
        let lanes = (0..FLOOD_LANES).map(|lane| async move {
            let mut other = Self {
                client: Client::connect(&self.http).await,
                http: self.http.clone(),
                schema: Value::Null,
                script: self.script.clone(),
                log: Log::default(),
            };
            for at in (lane..count).step_by(FLOOD_LANES) {
                let number = (number + 1) * FLOOD_NUMBERS + at;
                let (status, reply) = other.call(job, attempt, number, method, args).await?;
                assert_eq!(status, 200, "{method} {at}: {reply}");
            }
            Ok(())
        });
        futures::future::try_join_all(lanes).await.map(drop)
    }

    async fn call(
        &mut self,
        job: &Job,
        (dispatch, delivery): (u32, u32),
        number: usize,
        method: &str,
        args: &Value,
    ) -> Result<(u16, Value), Gone> {
        let body = json!({
            "job": job.id, "attempt": {"dispatch": dispatch, "delivery": delivery},
            "number": number, "method": method, "args": args,
        });
        let body = body.to_string();
        let request = self
            .client
            .request("POST", "/agent/v1/calls", &job.token, body.as_bytes());
        // The client insists on an answer, and a gateway that stops gives none.
        let answer = AssertUnwindSafe(request).catch_unwind().await;
        let answer = answer.map_err(|_| Gone::Gateway)?;
        if answer.status == 503 {
            return Err(Gone::Gateway);
        }
        let reply: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status == 410 {
            // Refused before its body was read, which ends the connection.
            self.client = Client::connect(&self.http).await;
            return Err(Gone::Job);
        }
        Ok((answer.status, reply))
    }
}

fn succeeded(value: &Value) -> Outcome {
    Outcome::Succeeded {
        result: value.to_string().into_bytes(),
    }
}

fn threw(message: &str, key: Option<&str>) -> Outcome {
    Outcome::Failed(Failure {
        key: key.map(str::to_owned),
        ..Failure::new(Cause::Threw, message)
    })
}

/// Knows one kind of expression: a path into the scope (`outputs.a.b`), also
/// written as `ref("signal.a.b")`.
fn evaluated(payload: &Value) -> Outcome {
    let sources: BTreeMap<String, String> =
        serde_json::from_value(payload["expressions"].clone()).expect("sources");
    let mut values = Map::new();
    for (key, source) in sources {
        let path = match source
            .strip_prefix("ref(\"")
            .and_then(|it| it.strip_suffix("\")"))
        {
            Some(named) => named.replacen('.', "s.", 1),
            None => source.clone(),
        };
        let pointer = format!("/{}", path.replace('.', "/"));
        match payload["scope"].pointer(&pointer) {
            Some(value) => drop(values.insert(key, value.clone())),
            None => return threw(&format!("{source} is not defined"), Some(&key)),
        }
    }
    succeeded(&Value::Object(values))
}
