//! What the line holds: live jobs, ready queues, counters. Every method runs under the line's lock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures::channel::oneshot;
use sluice_proto::job::{Attempt, Identity, Kind};

use crate::gateway::lifecycle::{Applied, Event, JobState};
use crate::gateway::line::events::Events;
use crate::gateway::line::slot::Slot;
use crate::gateway::line::{Ended, Full, Limits, Plan, view};
use crate::store::jobs::{Ending, JobWrite, Progress, Spec, State};
use crate::telemetry::now_ms;

pub(super) struct Inner {
    next_seq: i64,
    pub live: HashMap<String, Live>,
    pub pools: HashMap<String, PoolLine>,
    queued_by_project: HashMap<String, usize>,
    /// Earliest first. An entry whose job has moved on is skipped when its time comes.
    pub deadlines: BinaryHeap<Reverse<(u64, Deadline)>>,
    /// Agents that hold jobs and have no session, since when: pool and agent → milliseconds.
    pub away: HashMap<(String, Arc<str>), u64>,
    payload_bytes_held: usize,
    /// Jobs each agent has accepted and not ended: pool and agent → jobs.
    held: HashMap<(String, Arc<str>), u64>,
    /// Reports that were refused, by reason.
    pub denied: HashMap<&'static str, u64>,
    pub events: Events,
}

/// Something to be looked at, at a certain time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deadline {
    Expires(String),
    CancelOverdue(String),
    /// A job that could not be placed is ready again.
    Ready(String),
}

/// A job that has not ended, or whose end is being committed.
pub(super) struct Live {
    pub spec: Arc<Spec>,
    pub kind: Kind,
    pub identity: Identity,
    pub state: JobState,
    /// Times and names; what `state` holds is put in by [`Live::snapshot`].
    pub progress: Progress,
    pub payload: Option<Arc<Vec<u8>>>,
    pub session: Option<String>,
    pub ending: Option<Ending>,
    pub log_bytes: usize,
    pub log_bytes_dropped: u64,
    pub calls: u32,
    /// The attempt that `progress` tells the start of.
    pub started_as: Option<Attempt>,
    pub rejections: u32,
    pub rejected: Option<String>,
    waiters: Vec<oneshot::Sender<Arc<Vec<u8>>>>,
}

/// One pool's ready jobs and sessions.
#[derive(Default)]
pub(super) struct PoolLine {
    high: VecDeque<String>,
    normal: VecDeque<String>,
    pub queued: usize,
    pub sessions: Vec<Slot>,
    /// Jobs that have not ended, by state and then oldest first: for whoever looks.
    pub by_state: [BTreeMap<i64, Arc<Spec>>; LIVE_STATES.len()],
    /// Jobs that came to each state, ever since the gateway started.
    pub passed: HashMap<&'static str, u64>,
    /// Jobs whose end was asked for and is not known.
    pub cancelling: HashSet<String>,
}

// === impl Inner ===

impl Inner {
    pub(super) fn new(next_seq: i64) -> Self {
        Self {
            next_seq,
            live: HashMap::new(),
            pools: HashMap::new(),
            queued_by_project: HashMap::new(),
            deadlines: BinaryHeap::new(),
            away: HashMap::new(),
            payload_bytes_held: 0,
            held: HashMap::new(),
            denied: HashMap::new(),
            events: Events::default(),
        }
    }

    pub(super) fn take_seq(&mut self) -> i64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    pub(super) fn pool(&mut self, id: &str) -> &mut PoolLine {
        if !self.pools.contains_key(id) {
            self.pools.insert(id.to_owned(), PoolLine::default());
        }
        self.pools.get_mut(id).expect("inserted above")
    }

    pub(super) fn check_room(
        &mut self,
        project: &str,
        pool: &str,
        limits: &Limits,
    ) -> Result<(), Full> {
        let of_project = self.queued_by_project.get(project).copied().unwrap_or(0);
        if of_project >= limits.project_queued_max {
            return Err(Full(format!(
                "{of_project} jobs of this project are queued, which is the limit: wait until some have been handed to an agent"
            )));
        }
        let of_pool = self.pool(pool).queued;
        if of_pool >= limits.pool_queued_max {
            return Err(Full(format!(
                "{of_pool} jobs are queued for this agent pool, which is the limit: wait until some have been handed to an agent"
            )));
        }
        Ok(())
    }

    /// Takes a new job in and makes it ready.
    pub(super) fn add(&mut self, live: Live) {
        let spec = live.spec.clone();
        if let Some(at) = spec.expires_ms {
            self.deadlines
                .push(Reverse((at, Deadline::Expires(spec.id.clone()))));
        }
        self.events.note(&spec, State::Queued, live.state.attempt);
        self.pool(&spec.pool).moved(&spec, None, State::Queued);
        self.live.insert(spec.id.clone(), live);
        self.count_queued(&spec, true);
        self.pool(&spec.pool).push(spec.id.clone(), spec.high);
    }

    /// Takes a stored job in after a restart.
    pub(super) fn restore(&mut self, mut live: Live, plan: &mut Plan, limits: &Limits) {
        let spec = live.spec.clone();
        let dispatch = live.state.attempt.dispatch;
        // Its session ended with the gateway, and nobody accepted it.
        if let Applied::Changed(next) = live.state.apply(Event::Unplaced { dispatch }) {
            live.state = next;
            live.touch(plan);
        }
        if live.state.cancelling {
            let overdue =
                now_ms() + u64::try_from(limits.cancel_overdue.as_millis()).unwrap_or(u64::MAX);
            let deadline = Deadline::CancelOverdue(spec.id.clone());
            self.deadlines.push(Reverse((overdue, deadline)));
            self.pool(&spec.pool).cancelling.insert(spec.id.clone());
        }
        match live.state.phase {
            State::Queued => self.add(live),
            state => {
                self.pool(&spec.pool).moved(&spec, None, state);
                if let Some(agent) = live.progress.agent.clone() {
                    self.away.insert((spec.pool.clone(), agent), now_ms());
                }
                self.live.insert(spec.id.clone(), live);
                self.count_held(&spec.id, true);
            }
        }
    }

    /// How many jobs an agent has accepted and not ended.
    pub(super) fn held_by(&self, pool: &str, agent: &Arc<str>) -> u64 {
        let who = (pool.to_owned(), agent.clone());
        self.held.get(&who).copied().unwrap_or(0)
    }

    fn count_held(&mut self, id: &str, more: bool) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        let Some(agent) = live.progress.agent.clone() else {
            return;
        };
        let who = (live.spec.pool.clone(), agent);
        if more {
            *self.held.entry(who).or_default() += 1;
        } else if let Some(count) = self.held.get_mut(&who) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&who);
            }
        }
    }

    /// Applies an event to a job and keeps every count right. `None`: there is no such job.
    pub(super) fn apply(&mut self, id: &str, event: Event) -> Option<Applied> {
        let live = self.live.get_mut(id)?;
        let before = live.state;
        let applied = before.apply(event);
        let Applied::Changed(after) = applied else {
            return Some(applied);
        };
        live.state = after;
        let spec = live.spec.clone();
        if before.phase != after.phase {
            self.events.note(&spec, after.phase, after.attempt);
            self.pool(&spec.pool)
                .moved(&spec, Some(before.phase), after.phase);
        }
        if before.phase == State::Queued && after.phase != State::Queued {
            self.count_queued(&spec, false);
        }
        if before.phase != State::Queued && after.phase == State::Queued {
            self.count_queued(&spec, true);
        }
        if matches!(after.phase, State::Accepted | State::Started) || after.phase.is_final() {
            self.release_payload(id);
        }
        match (is_held(before.phase), is_held(after.phase)) {
            (false, true) => self.count_held(id, true),
            (true, false) => self.count_held(id, false),
            _ => {}
        }
        if before.cancelling && !after.cancelling {
            self.pool(&spec.pool).cancelling.remove(id);
        }
        if after.cancelling {
            self.pool(&spec.pool).cancelling.insert(id.to_owned());
        }
        Some(applied)
    }

    pub(super) fn deny(&mut self, reason: &'static str) {
        *self.denied.entry(reason).or_default() += 1;
    }

    /// Keeps the payload in memory if there is room for it.
    pub(super) fn hold_payload(&mut self, live: &mut Live, payload: Arc<Vec<u8>>, limits: &Limits) {
        if self.payload_bytes_held + payload.len() <= limits.payload_bytes_held_max {
            self.payload_bytes_held += payload.len();
            live.payload = Some(payload);
        }
    }

    fn release_payload(&mut self, id: &str) {
        let payload = self.live.get_mut(id).and_then(|live| live.payload.take());
        self.payload_bytes_held -= payload.map_or(0, |payload| payload.len());
    }

    /// Lets go of a job whose end is committed.
    pub(super) fn forget(&mut self, id: &str) -> Option<Live> {
        self.live.remove(id)
    }

    fn count_queued(&mut self, spec: &Spec, more: bool) {
        let pool = self.pool(&spec.pool);
        if more {
            pool.queued += 1;
            *self
                .queued_by_project
                .entry(spec.project.clone())
                .or_default() += 1;
            return;
        }
        pool.queued -= 1;
        if let Some(count) = self.queued_by_project.get_mut(&spec.project) {
            *count -= 1;
            if *count == 0 {
                self.queued_by_project.remove(&spec.project);
            }
        }
    }
}

fn is_held(phase: State) -> bool {
    matches!(phase, State::Accepted | State::Started)
}

/// The states of a job that has not ended, in their order.
pub(super) const LIVE_STATES: [State; 4] = [
    State::Queued,
    State::Dispatched,
    State::Accepted,
    State::Started,
];

// === impl PoolLine ===

impl PoolLine {
    /// A job came from one state into another.
    fn moved(&mut self, spec: &Arc<Spec>, from: Option<State>, to: State) {
        let at = |state| LIVE_STATES.iter().position(|live| *live == state);
        if let Some(at) = from.and_then(at) {
            self.by_state[at].remove(&spec.seq);
        }
        if let Some(at) = at(to) {
            self.by_state[at].insert(spec.seq, spec.clone());
        }
        *self.passed.entry(to.as_str()).or_default() += 1;
    }

    /// Jobs in one live state, oldest first.
    pub(super) fn in_state(&self, state: State) -> Option<&BTreeMap<i64, Arc<Spec>>> {
        let at = LIVE_STATES.iter().position(|live| *live == state)?;
        Some(&self.by_state[at])
    }

    /// A job that is ready, behind the others of its priority.
    pub(super) fn push(&mut self, id: String, high: bool) {
        self.queue(high).push_back(id);
    }

    /// A job that comes back keeps its place in front.
    pub(super) fn push_front(&mut self, id: String, high: bool) {
        self.queue(high).push_front(id);
    }

    /// The next one that may be ready. It may have moved on since it was pushed.
    pub(super) fn pop(&mut self) -> Option<String> {
        self.high.pop_front().or_else(|| self.normal.pop_front())
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.high.is_empty() || !self.normal.is_empty()
    }

    fn queue(&mut self, high: bool) -> &mut VecDeque<String> {
        if high {
            &mut self.high
        } else {
            &mut self.normal
        }
    }
}

// === impl Live ===

impl Live {
    pub(super) fn new(spec: Arc<Spec>, kind: Kind, identity: Identity) -> Self {
        Self {
            spec,
            kind,
            identity,
            state: JobState::NEW,
            progress: Progress::queued(),
            payload: None,
            session: None,
            ending: None,
            log_bytes: 0,
            log_bytes_dropped: 0,
            calls: 0,
            started_as: None,
            rejections: 0,
            rejected: None,
            waiters: Vec::new(),
        }
    }

    pub(super) fn from_store(spec: Spec, progress: Progress) -> Result<Self, String> {
        let Some(kind) = Kind::parse(&spec.kind) else {
            return Err(format!("`{}` is no kind of job", spec.kind));
        };
        let identity = serde_json::from_str(&spec.identity).map_err(|error| error.to_string())?;
        let mut live = Self::new(Arc::new(spec), kind, identity);
        live.state = JobState {
            phase: progress.state,
            attempt: Attempt {
                dispatch: progress.dispatch,
                delivery: progress.delivery,
            },
            cancelling: progress.cancel_us.is_some(),
        };
        live.started_as = progress.started_us.map(|_| live.state.attempt);
        live.progress = progress;
        Ok(live)
    }

    /// The job's progress as the store keeps it.
    pub(super) fn snapshot(&self) -> Progress {
        Progress {
            state: self.state.phase,
            dispatch: self.state.attempt.dispatch,
            delivery: self.state.attempt.delivery,
            ..self.progress.clone()
        }
    }

    /// Plans the write of the job's progress.
    pub(super) fn touch(&self, plan: &mut Plan) {
        plan.writes.push(JobWrite::Update {
            seq: self.spec.seq,
            progress: self.snapshot(),
        });
    }

    pub(super) fn wait(&mut self) -> Ended {
        let (told, ended) = oneshot::channel();
        // Whoever has stopped waiting makes room for the next.
        self.waiters.retain(|waiter| !waiter.is_canceled());
        self.waiters.push(told);
        ended
    }

    /// Tells whoever waits, once the end is committed.
    pub(super) fn tell(self) {
        let Some(ending) = &self.ending else { return };
        if self.waiters.is_empty() {
            return;
        }
        let text = Arc::new(view::ended(&self.spec, &self.snapshot(), ending));
        for waiter in self.waiters {
            drop(waiter.send(text.clone()));
        }
    }
}
