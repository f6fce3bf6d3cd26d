//! No job is lost, and none ends twice, whatever dies when: the pure parts of
//! all four houses (gateway lifecycle, bridge outbox, broker, worker table) put
//! together, and driven through random steps and crashes by proptest.
//!
//! ```text
//!  gateway ─down▶ bridge ─▶ jobs ─▶ worker      what a crash takes: the wires, the
//!     ▲              ▲                 │        bridge's and the worker's memory, what
//!     └──── up ──── outbox ◀─ reports ─┘        the gateway had not yet written down
//! ```
//!
//! The broker is a model of what RabbitMQ promises: what was confirmed stays,
//! what was not acknowledged comes again with one more delivery counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use sluice::bridge::outbox::Outbox;
use sluice::gateway::lifecycle::{Applied, End, Event, JobState};
use sluice::store::jobs::State;
use sluice::worker::table::{Arrival, How, Settled, Table};
use sluice_proto::frame::{FromBridge, Numbered};
use sluice_proto::ids::JobId;
use sluice_proto::job::Attempt;
use sluice_proto::report::{Body, Finished, Hops, Outcome, Report};

const JOBS: usize = 4;
/// Fair rounds after the last crash within which everything must have ended.
const ROUNDS_MAX: usize = 200;

#[derive(Debug, Clone, Copy)]
enum Step {
    Dispatch(usize),
    BridgePublishes,
    BridgeAnswers,
    WorkerTakes,
    WorkerStarts(usize),
    WorkerReports(usize),
    WorkerSettles(usize),
    BridgeTakesReport,
    BridgeSends,
    GatewayHears,
    BridgeHears,
    WorkerDies,
    WorkerLosesLink,
    BridgeDies,
    BridgeLosesLink,
    SessionBreaks,
    /// Whether what it wrote down lazily was written.
    GatewayDies(bool),
}

/// A job in the broker.
#[derive(Debug, Clone)]
struct Message {
    job: usize,
    dispatch: u32,
    delivery: u32,
}

/// A job in a worker's slot.
#[derive(Debug)]
struct Running {
    /// The delivery it was started with, and the link that came by.
    tag: u64,
    link: u32,
    /// The attempt its end was reported for and confirmed, but not settled.
    reported: Option<Attempt>,
}

struct World {
    jobs: Vec<JobState>,
    /// How often each has ended in effect.
    ends: Vec<u32>,
    /// Accepted, and not written down for sure.
    lazy: Vec<bool>,
    down: VecDeque<(usize, u32)>,
    received: VecDeque<Vec<u64>>,
    up: VecDeque<Vec<Numbered>>,
    answers: Vec<(usize, u32)>,
    outbox: Outbox<u64>,
    generation: u64,
    ready: VecDeque<Message>,
    unsettled: BTreeMap<u64, Message>,
    reports: VecDeque<Report>,
    reports_unsettled: BTreeMap<u64, Report>,
    tags: u64,
    table: Table<(u64, u32)>,
    link: u32,
    running: BTreeMap<usize, Running>,
}

// === impl World ===

impl World {
    fn new() -> Self {
        Self {
            jobs: vec![JobState::NEW; JOBS],
            ends: vec![0; JOBS],
            lazy: vec![false; JOBS],
            down: VecDeque::new(),
            received: VecDeque::new(),
            up: VecDeque::new(),
            answers: Vec::new(),
            outbox: Outbox::default(),
            generation: 1,
            ready: VecDeque::new(),
            unsettled: BTreeMap::new(),
            reports: VecDeque::new(),
            reports_unsettled: BTreeMap::new(),
            tags: 0,
            table: Table::default(),
            link: 0,
            running: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Dispatch(job) => {
                if let Some(next) = self.apply(job, Event::Dispatched) {
                    self.down.push_back((job, next.attempt.dispatch));
                }
            }
            Step::BridgePublishes => {
                if let Some((job, dispatch)) = self.down.pop_front() {
                    let delivery = 1;
                    self.ready.push_back(Message {
                        job,
                        dispatch,
                        delivery,
                    });
                    self.answers.push((job, dispatch));
                }
            }
            Step::BridgeAnswers => {
                for (job, dispatch) in std::mem::take(&mut self.answers) {
                    if self.apply(job, Event::Accepted { dispatch }).is_some() {
                        self.lazy[job] = true;
                    }
                }
            }
            Step::WorkerTakes => self.worker_takes(),
            Step::WorkerStarts(job) => self.worker_starts(job),
            Step::WorkerReports(job) => self.worker_reports(job),
            Step::WorkerSettles(job) => self.worker_settles(job),
            Step::BridgeTakesReport => {
                if let Some(report) = self.reports.pop_front() {
                    self.tags += 1;
                    self.reports_unsettled.insert(self.tags, report.clone());
                    self.outbox.push(report, 100, self.generation, self.tags);
                }
            }
            Step::BridgeSends => {
                if let Some(FromBridge::Reports { items }) = self.outbox.batch() {
                    self.up.push_back(items);
                }
            }
            Step::GatewayHears => self.gateway_hears(),
            Step::BridgeHears => {
                if let Some(numbers) = self.received.pop_front()
                    && let Some(through) = self.outbox.received(&numbers)
                {
                    self.reports_unsettled = self.reports_unsettled.split_off(&(through + 1));
                }
            }
            Step::WorkerDies
            | Step::WorkerLosesLink
            | Step::BridgeDies
            | Step::BridgeLosesLink
            | Step::SessionBreaks
            | Step::GatewayDies(_) => self.breaks(step),
        }
    }

    /// Something dies or is cut.
    fn breaks(&mut self, step: Step) {
        match step {
            Step::WorkerDies => {
                self.table = Table::default();
                self.running.clear();
                self.give_jobs_back();
            }
            Step::WorkerLosesLink => {
                self.table.lose_link();
                self.give_jobs_back();
            }
            Step::BridgeDies => {
                self.outbox = Outbox::default();
                self.give_reports_back();
                self.answers.clear();
                self.session_breaks();
            }
            Step::BridgeLosesLink => {
                self.outbox.forget(self.generation);
                self.give_reports_back();
            }
            Step::SessionBreaks => self.session_breaks(),
            Step::GatewayDies(written) => {
                for job in 0..JOBS {
                    if !written && self.lazy[job] && self.jobs[job].phase == State::Accepted {
                        self.jobs[job].phase = State::Dispatched;
                    }
                }
                self.session_breaks();
            }
            other => panic!("{other:?} breaks nothing"),
        }
    }

    fn apply(&mut self, job: usize, event: Event) -> Option<JobState> {
        let Applied::Changed(next) = self.jobs[job].apply(event) else {
            return None;
        };
        assert!(!self.jobs[job].phase.is_final(), "an ended job changed");
        self.jobs[job] = next;
        self.lazy[job] = false;
        self.ends[job] += u32::from(next.phase.is_final());
        Some(next)
    }

    /// The wires' content is gone; the gateway puts back what was not accepted.
    fn session_breaks(&mut self) {
        self.down.clear();
        self.up.clear();
        self.received.clear();
        self.outbox.rewind();
        for job in 0..JOBS {
            let dispatch = self.jobs[job].attempt.dispatch;
            self.apply(job, Event::Unplaced { dispatch });
        }
    }

    fn give_jobs_back(&mut self) {
        self.link += 1;
        for (_, mut message) in std::mem::take(&mut self.unsettled).into_iter().rev() {
            message.delivery += 1;
            self.ready.push_front(message);
        }
    }

    fn give_reports_back(&mut self) {
        self.generation += 1;
        for (_, report) in std::mem::take(&mut self.reports_unsettled)
            .into_iter()
            .rev()
        {
            self.reports.push_front(report);
        }
    }

    /// Settles a delivery, unless its link is gone.
    fn ack(&mut self, (tag, link): (u64, u32)) {
        if link == self.link {
            self.unsettled.remove(&tag).expect("it is settled once");
        }
    }

    fn worker_takes(&mut self) {
        let Some(message) = self.ready.pop_front() else {
            return;
        };
        self.tags += 1;
        let hold = (self.tags, self.link);
        let attempt = Attempt {
            dispatch: message.dispatch,
            delivery: message.delivery,
        };
        let id = id(message.job);
        self.unsettled.insert(self.tags, message);
        match self.table.arrive(&id, attempt, hold, Instant::now()) {
            Arrival::Waiting | Arrival::Adopted { replaced: None } => {}
            Arrival::Adopted {
                replaced: Some(replaced),
            } => self.ack(replaced),
            Arrival::Superseded(hold) => self.ack(hold),
        }
    }

    fn worker_starts(&mut self, job: usize) {
        let Some(start) = self.table.start(&id(job)) else {
            return;
        };
        match start.how {
            How::Run { .. } | How::Again(_) => {
                let (tag, link) = start.delivery;
                let running = Running {
                    tag,
                    link,
                    reported: None,
                };
                assert!(
                    self.running.insert(job, running).is_none(),
                    "one job runs twice in one worker"
                );
            }
            How::Reported => {
                let adopted = self.table.release(&id(job), Instant::now());
                self.ack(start.delivery);
                adopted.into_iter().for_each(|hold| self.ack(hold));
            }
            How::Cancelled { .. } => panic!("nobody cancels"),
        }
    }

    /// The broker confirms the report of an end.
    fn worker_reports(&mut self, job: usize) {
        let Some(running) = self.running.get_mut(&job) else {
            return;
        };
        if running.reported.is_some() {
            return;
        }
        let attempt = self.table.attempt(&id(job)).expect("it is held");
        running.reported = Some(attempt);
        self.reports.push_back(Report {
            job: id(job),
            attempt,
            worker: "w".into(),
            at_us: 0,
            body: Body::Finished(end()),
        });
    }

    /// Only behind that confirm the delivery is settled.
    fn worker_settles(&mut self, job: usize) {
        let Some(running) = self.running.get_mut(&job) else {
            return;
        };
        let Some(reported) = running.reported else {
            return;
        };
        match self.table.settle(&id(job), reported, end()) {
            Settled::Done { adopted } => {
                let hold = (running.tag, running.link);
                self.running.remove(&job);
                self.ack(hold);
                adopted.into_iter().for_each(|hold| self.ack(hold));
            }
            Settled::Raised { .. } => running.reported = None,
        }
    }

    fn gateway_hears(&mut self) {
        let Some(items) = self.up.pop_front() else {
            return;
        };
        let mut numbers = Vec::new();
        for Numbered { number, report } in items {
            let job: usize = report.job.as_str().parse().expect("a number");
            let event = Event::Finished {
                attempt: report.attempt,
                end: End::Succeeded,
            };
            self.apply(job, event);
            numbers.push(number);
        }
        self.received.push_back(numbers);
    }

    /// Everybody does what there is to do, until nothing is.
    fn heal(&mut self) {
        for _ in 0..ROUNDS_MAX {
            for job in 0..JOBS {
                self.step(Step::Dispatch(job));
                self.step(Step::WorkerStarts(job));
                self.step(Step::WorkerReports(job));
                self.step(Step::WorkerSettles(job));
            }
            for step in [
                Step::BridgePublishes,
                Step::BridgeAnswers,
                Step::WorkerTakes,
                Step::BridgeTakesReport,
                Step::BridgeSends,
                Step::GatewayHears,
                Step::BridgeHears,
            ] {
                self.step(step);
            }
        }
    }

    fn assert_whole(&self) {
        for (job, state) in self.jobs.iter().enumerate() {
            assert_eq!(
                state.phase,
                State::Succeeded,
                "job {job} is lost: {state:?}"
            );
            assert_eq!(self.ends[job], 1, "job {job} ended more than once");
        }
        assert!(
            self.ready.is_empty() && self.unsettled.is_empty(),
            "jobs are left: {:?} {:?}",
            self.ready,
            self.unsettled
        );
        assert!(
            self.reports.is_empty() && self.reports_unsettled.is_empty(),
            "reports are left"
        );
        assert!(self.running.is_empty() && self.outbox.is_empty());
    }
}

fn id(job: usize) -> JobId {
    JobId(job.to_string())
}

fn end() -> Box<Finished> {
    Box::new(Finished {
        outcome: Outcome::Succeeded {
            result: b"1".to_vec(),
        },
        runtime: None,
        hops: Hops::default(),
        log: Vec::new(),
        log_bytes_dropped: 0,
        sdk_calls: 0,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let job = 0..JOBS;
    prop_oneof![
        6 => job.clone().prop_map(Step::Dispatch),
        6 => Just(Step::BridgePublishes),
        4 => Just(Step::BridgeAnswers),
        6 => Just(Step::WorkerTakes),
        6 => job.clone().prop_map(Step::WorkerStarts),
        6 => job.clone().prop_map(Step::WorkerReports),
        5 => job.prop_map(Step::WorkerSettles),
        5 => Just(Step::BridgeTakesReport),
        5 => Just(Step::BridgeSends),
        5 => Just(Step::GatewayHears),
        5 => Just(Step::BridgeHears),
        1 => Just(Step::WorkerDies),
        1 => Just(Step::WorkerLosesLink),
        1 => Just(Step::BridgeDies),
        1 => Just(Step::BridgeLosesLink),
        1 => Just(Step::SessionBreaks),
        1 => any::<bool>().prop_map(Step::GatewayDies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_dies_when_each_job_ends_once(
        steps in proptest::collection::vec(steps(), 0..150)
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.heal();
        world.assert_whole();
    }
}

/// The model itself can fail: a worker that acknowledges before its report is
/// confirmed loses a job when it dies in between.
#[test]
fn an_early_acknowledgement_would_be_found() {
    let mut world = World::new();
    for step in [
        Step::Dispatch(0),
        Step::BridgePublishes,
        Step::BridgeAnswers,
        Step::WorkerTakes,
        Step::WorkerStarts(0),
    ] {
        world.step(step);
    }
    let running = &world.running[&0];
    world.ack((running.tag, running.link));
    world.step(Step::WorkerDies);
    world.heal();
    assert_eq!(world.jobs[0].phase, State::Accepted, "it waits for ever");
}
