//! A bridge and its worker in one: takes jobs, does what a script says (SDK
//! calls over the agent API included), and reports the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_std::channel;
use futures::FutureExt;
use serde_json::{Map, Value, json};
use sluice::shutdown::spawn_detached;
use sluice_proto::PROTOCOL;
use sluice_proto::frame::{FromBridge, FromGateway, Numbered, Taken};
use sluice_proto::job::{Job, Kind};
use sluice_proto::report::{Cause, Failure, Outcome};

use crate::fixture::{Bridge, Client, Fixture, finished, until};

/// What a script does with a job, in order.
#[derive(Debug, Clone)]
pub enum Do {
    /// An SDK call that must be answered well.
    Call(&'static str, Value),
    /// An SDK call that must be refused with these words in the sentence.
    Refused(&'static str, Value, &'static str),
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
    pub input: String,
    /// The handler's input, or the whole payload of other jobs.
    pub given: Value,
    pub pool: String,
    pub job: String,
}

pub type Script = Arc<dyn Fn(&Seen) -> Vec<Do> + Send + Sync>;

/// A worker at work; it ends when it is dropped.
pub struct Worker {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<Vec<Value>>>,
    _stop: channel::Sender<()>,
}

/// An installed app, ready for flows.
pub struct App {
    pub installation: String,
    pub version: String,
    pub app: String,
}

// === impl Worker ===

impl Worker {
    /// Takes the default pool's jobs.
    pub async fn start(fixture: &Fixture, schema: Value, script: Script) -> Self {
        let pools = fixture.get("/api/v1/pools").await;
        let pools = pools.as_array().expect("a list");
        let pool = pools.iter().find(|pool| pool["default"] == true);
        let pool = pool.expect("a default pool")["id"].as_str().expect("an id");
        Self::of_pool(fixture, pool, schema, script).await
    }

    pub async fn of_pool(fixture: &Fixture, pool: &str, schema: Value, script: Script) -> Self {
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
            seen: Arc::default(),
            answers: Arc::default(),
            _stop: stop,
        };
        let mut at_work = AtWork {
            client: fixture.client().await,
            schema,
            script,
            seen: worker.seen.clone(),
            answers: worker.answers.clone(),
            number: 0,
        };
        spawn_detached(async move {
            loop {
                let frame = futures::select! {
                    _ = stopped.recv().fuse() => return,
                    frame = bridge.receiver.next().fuse() => frame,
                };
                match frame {
                    Ok(Some(FromGateway::Dispatch { jobs })) => {
                        for job in jobs {
                            at_work.take(&mut bridge, job).await;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                }
            }
        });
        worker
    }

    /// Handlers that were run, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// What the SDK calls were answered, in order.
    pub fn answers(&self) -> Vec<Value> {
        self.answers.lock().expect("not poisoned").clone()
    }

    pub fn of_kind(&self, kind: Kind) -> Vec<Seen> {
        let seen = self.seen();
        seen.into_iter().filter(|seen| seen.kind == kind).collect()
    }
}

struct AtWork {
    client: Client,
    schema: Value,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Arc<Mutex<Vec<Value>>>,
    number: u64,
}

// === impl AtWork ===

impl AtWork {
    async fn take(&mut self, bridge: &mut Bridge, job: Job) {
        let taken = Taken {
            job: job.id.clone(),
            dispatch: job.dispatch,
        };
        let accepted = FromBridge::Accepted { jobs: vec![taken] };
        if bridge.sender.send(&accepted).await.is_err() {
            return;
        }
        let mut delivery = 1;
        let outcome = loop {
            match self.outcome(&job, delivery).await {
                Some(outcome) => break outcome,
                None => delivery += 1,
            }
        };
        self.number += 1;
        // Numbers of reports must not meet those of the fixture's own bridge.
        let number = 1_000_000 + self.number;
        let report = finished(&job.id, job.dispatch, delivery, outcome);
        let items = vec![Numbered { number, report }];
        drop(bridge.sender.send(&FromBridge::Reports { items }).await);
    }

    async fn outcome(&mut self, job: &Job, delivery: u32) -> Option<Outcome> {
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
            input: text("input"),
            given: payload.get("input").unwrap_or(&payload).clone(),
            pool: job.pool.0.clone(),
            job: job.id.0.clone(),
        };
        self.seen.lock().expect("not poisoned").push(seen.clone());
        match job.kind {
            Kind::Describe => return Some(succeeded(&self.schema)),
            Kind::Evaluate => return Some(evaluated(&payload)),
            _ => {}
        }
        let attempt = (job.dispatch, delivery);
        for (number, what) in (self.script)(&seen).into_iter().enumerate() {
            match what {
                Do::Call(method, args) => {
                    let (status, reply) = self.call(job, attempt, number, method, &args).await;
                    assert_eq!(status, 200, "{method}{args}: {reply}");
                    let answer = reply["data"].clone();
                    self.answers.lock().expect("not poisoned").push(answer);
                }
                Do::Refused(method, args, words) => {
                    let (status, reply) = self.call(job, attempt, number, method, &args).await;
                    let error = reply["error"].as_str().unwrap_or_default();
                    assert!(status >= 400 && error.contains(words), "{status} {reply}");
                }
                Do::Return(value) => return Some(succeeded(&value)),
                Do::Throw(message) => return Some(threw(message, None)),
                Do::Die => return None,
            }
        }
        Some(succeeded(&Value::Null))
    }

    async fn call(
        &mut self,
        job: &Job,
        (dispatch, delivery): (u32, u32),
        number: usize,
        method: &str,
        args: &Value,
    ) -> (u16, Value) {
        let body = json!({
            "job": job.id, "attempt": {"dispatch": dispatch, "delivery": delivery},
            "number": number, "method": method, "args": args,
        });
        let body = body.to_string();
        let client = &mut self.client;
        let answer = client
            .request("POST", "/agent/v1/calls", &job.token, body.as_bytes())
            .await;
        let reply = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status, reply)
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

/// Knows one kind of expression: a path into the scope (`outputs.a.b`).
fn evaluated(payload: &Value) -> Outcome {
    let sources: BTreeMap<String, String> =
        serde_json::from_value(payload["expressions"].clone()).expect("sources");
    let mut values = Map::new();
    for (key, source) in sources {
        let pointer = format!("/{}", source.replace('.', "/"));
        match payload["scope"].pointer(&pointer) {
            Some(value) => drop(values.insert(key, value.clone())),
            None => return threw(&format!("{source} is not defined"), Some(&key)),
        }
    }
    succeeded(&Value::Object(values))
}

// === Apps and flows ===

/// Publishes an app and installs it with a config; waits until it is ready.
pub async fn install(fixture: &Fixture, name: &str, config: Value) -> App {
    let app = draft(fixture, name, config).await;
    let path = format!("/api/v1/installations/{}", app.installation);
    fixture.post(&format!("{path}/confirm"), &json!({})).await;
    status(fixture, &path, "ready").await;
    app
}

/// Publishes an app and installs it as a draft.
pub async fn draft(fixture: &Fixture, name: &str, config: Value) -> App {
    let text = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let app = json!({"project": fixture.project, "name": name});
    let app = text(&fixture.post("/api/v1/apps", &app).await);
    let version = json!({"version": "1.0.0", "code": format!("// {name}")});
    let path = format!("/api/v1/apps/{app}/versions");
    let version = text(&fixture.post(&path, &version).await);
    let installation = json!({
        "project": fixture.project, "name": name, "version": version, "config": config,
    });
    let installation = fixture.post("/api/v1/installations", &installation).await;
    App {
        installation: text(&installation),
        version,
        app,
    }
}

/// Waits until something has a status; answers what is shown of it.
pub async fn status(fixture: &Fixture, path: &str, wanted: &str) -> Value {
    until(&format!("{path} is {wanted}"), async || {
        let shown = fixture.get(path).await;
        (shown["status"] == wanted).then_some(shown)
    })
    .await
}

/// Makes a flow with a definition.
pub async fn flow(fixture: &Fixture, name: &str, definition: &str) -> String {
    let flow = json!({"project": fixture.project, "name": name});
    let flow = fixture.post("/api/v1/flows", &flow).await;
    let id = flow["id"].as_str().expect("an id").to_owned();
    apply(fixture, &id, definition).await;
    id
}

pub async fn apply(fixture: &Fixture, flow: &str, definition: &str) -> Value {
    let path = format!("/api/v1/flows/{flow}/apply");
    fixture
        .post(&path, &json!({"definition": definition}))
        .await
}

/// Triggers an input; answers the event's id.
pub async fn trigger(fixture: &Fixture, flow: &str, block: &str, body: Value) -> String {
    let block = block.replace(' ', "%20");
    let path = format!("/api/v1/flows/{flow}/blocks/{block}/inputs/default/events");
    let event = fixture.post(&path, &body).await;
    event["id"].as_str().expect("an id").to_owned()
}

/// Waits until a flow is quiet; answers its events, oldest first.
pub async fn quiet(fixture: &Fixture, flow: &str) -> Vec<Value> {
    until("the flow is quiet", async || {
        let shown = fixture.get(&format!("/api/v1/flows/{flow}")).await;
        (shown["open"] == 0).then_some(())
    })
    .await;
    let events = fixture
        .get(&format!("/api/v1/flows/{flow}/events?after=0&limit=500"))
        .await;
    events.as_array().expect("a list").clone()
}

/// Waits until a condition holds, looking again and again.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, async || holds().then_some(())).await;
}

/// A moment in which something that must not happen would have happened.
pub async fn moment() {
    async_std::task::sleep(Duration::from_millis(200)).await;
}
