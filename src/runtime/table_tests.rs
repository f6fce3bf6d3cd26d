//! What the table makes of everything a harness can say, honest or not.

use std::task::{Context, Poll, Waker};

use sluice_proto::harness::CALLS_IN_FLIGHT_MAX;
use sluice_proto::job::Kind;
use sluice_proto::report::{ERROR_TEXT_BYTES_MAX, Level};

use super::*;

use crate::runtime::invocation::Said;

const TIMEOUT: Duration = Duration::from_secs(5);

struct Opened {
    number: u32,
    mailbox: Arc<Mailbox>,
}

fn open(table: &mut Table, now: Instant) -> Opened {
    let mailbox = Arc::new(Mailbox::default());
    let invocation = Invocation {
        kind: Kind::Event,
        payload: Vec::new(),
        timeout: TIMEOUT,
        log_bytes_max: 1_000,
    };
    let number = table.open(&invocation, &mailbox, now).expect("it is open");
    Opened { number, mailbox }
}

/// What a runtime says that no harness would.
type Forge = fn(&Opened) -> Vec<FromRuntime>;

impl Opened {
    fn said(&self) -> Option<Said> {
        match self.mailbox.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(said) => Some(said),
            Poll::Pending => None,
        }
    }

    fn ended(&self) -> Ended {
        loop {
            match self.said() {
                Some(Said::Ended(ended)) => return ended,
                Some(_) => {}
                None => panic!("it has not ended"),
            }
        }
    }

    fn cause(&self) -> Cause {
        self.ended().result.expect_err("it failed").cause
    }

    fn call(&self, call: u32, args: &[u8]) -> FromRuntime {
        FromRuntime::Call {
            invocation: self.number,
            call,
            method: "kv.app.get".into(),
            args: args.to_vec(),
        }
    }

    fn log(&self, text: &str) -> FromRuntime {
        FromRuntime::Log {
            invocation: self.number,
            level: Level::Info,
            text: text.into(),
        }
    }

    fn done(&self, result: &[u8]) -> FromRuntime {
        FromRuntime::Done {
            invocation: self.number,
            log_bytes_dropped: 0,
            result: result.to_vec(),
        }
    }
}

#[test]
fn at_the_deadline_it_is_aborted_and_without_an_echo_the_loop_is_blocked() {
    let now = Instant::now();
    let mut table = Table::default();
    let late = open(&mut table, now);
    let other = open(&mut table, now + TIMEOUT);
    assert_eq!(table.due(now + TIMEOUT / 2), Due::default());
    let due = table.due(now + TIMEOUT);
    let abort = ToRuntime::Abort {
        invocation: late.number,
    };
    assert_eq!(due.frames, [abort, ToRuntime::Ping { number: 1 }]);
    assert!(due.doubt, "its code may run on");
    assert_eq!(table.due(now + TIMEOUT + GRACE / 2), Due::default());
    assert!(table.due(now + TIMEOUT + GRACE).blocked);
    table.condemn(&Verdict::EventLoopBlocked, None);
    assert_eq!(
        (late.cause(), late.ended().collateral),
        (Cause::EventLoopBlocked, false)
    );
    assert_eq!(
        (other.cause(), other.ended().collateral),
        (Cause::Collateral, true)
    );
}

#[test]
fn with_an_echo_it_is_a_timeout_whether_or_not_the_harness_ends_it() {
    let now = Instant::now();
    for answers in [true, false] {
        let mut table = Table::default();
        let late = open(&mut table, now);
        table.due(now + TIMEOUT);
        table
            .apply(FromRuntime::Pong { number: 1 }, 0)
            .expect("it was asked for");
        if answers {
            let failure = Failure::new(Cause::Threw, "aborted");
            let failed = FromRuntime::Failed {
                invocation: late.number,
                log_bytes_dropped: 0,
                failure,
            };
            table.apply(failed, 0).expect("it is open");
        } else {
            let due = table.due(now + TIMEOUT + GRACE);
            assert!(due.doubt && !due.blocked);
            // What comes after all is no violation.
            table.apply(late.log("late"), 0).expect("it is remembered");
            table.apply(late.done(b"1"), 0).expect("it is remembered");
            assert!(table.apply(late.done(b"1"), 0).is_err(), "but only once");
        }
        assert_eq!(late.cause(), Cause::Timeout);
        assert!(!late.ended().aborted);
    }
}

#[test]
fn a_result_that_crosses_the_abort_is_a_result() {
    let now = Instant::now();
    let mut table = Table::default();
    let opened = open(&mut table, now);
    assert_eq!(table.abort(opened.number, now).frames.len(), 2);
    assert_eq!(
        table.abort(opened.number, now),
        Due::default(),
        "a repeat changes nothing"
    );
    table.apply(opened.done(b"1"), 0).expect("it is open");
    let ended = opened.ended();
    assert_eq!((ended.result, ended.aborted), (Ok(b"1".to_vec()), false));
}

#[test]
fn what_no_harness_sends_is_a_violation() {
    let now = Instant::now();
    let forgeries: [(&str, Forge); 8] = [
        ("unknown invocation", |o| {
            vec![
                Opened {
                    number: 99,
                    mailbox: Arc::clone(&o.mailbox),
                }
                .done(b"1"),
            ]
        }),
        ("done twice", |o| vec![o.done(b"1"), o.done(b"1")]),
        ("no JSON", |o| vec![o.done(b"{")]),
        ("loaded unasked", |_| vec![FromRuntime::Loaded]),
        ("echo unasked", |_| vec![FromRuntime::Pong { number: 1 }]),
        ("arguments", |o| vec![o.call(1, b"{}")]),
        ("same call", |o| vec![o.call(1, b"[]"), o.call(1, b"[]")]),
        ("log flood", |o| vec![o.log(&"x".repeat(100_000))]),
    ];
    for (what, forge) in forgeries {
        let mut table = Table::default();
        let opened = open(&mut table, now);
        let applied: Vec<_> = forge(&opened)
            .into_iter()
            .map(|message| table.apply(message, 0))
            .collect();
        assert!(
            applied.last().is_some_and(Result::is_err),
            "{what}: {applied:?}"
        );
    }
}

#[test]
fn calls_and_log_are_bounded() {
    let mut table = Table::default();
    let opened = open(&mut table, Instant::now());
    for call in 0..CALLS_IN_FLIGHT_MAX {
        let call = u32::try_from(call).expect("it is small");
        table
            .apply(opened.call(call, b"[]"), 0)
            .expect("within the limit");
    }
    let answer = Answer::Value { json: b"1".into() };
    assert!(table.answered(opened.number, 5, answer.clone()).is_some());
    assert!(table.answered(opened.number, 5, answer).is_none(), "once");
    table
        .apply(opened.call(5_000, b"[]"), 0)
        .expect("one was answered");
    assert!(table.apply(opened.call(5_001, b"[]"), 0).is_err());
    for _ in 0..100 {
        table
            .apply(opened.log("0123456789"), 0)
            .expect("a line over the limit is dropped");
    }
    table.apply(opened.done(b"1"), 0).expect("it is open");
    assert_eq!(opened.ended().log_bytes_dropped, 380);
}

#[test]
fn only_causes_of_the_harness_are_believed_and_texts_are_cut() {
    let mut table = Table::default();
    let opened = open(&mut table, Instant::now());
    let failure = Failure::new(Cause::Lost, "é".repeat(ERROR_TEXT_BYTES_MAX));
    let failed = FromRuntime::Failed {
        invocation: opened.number,
        log_bytes_dropped: 0,
        failure,
    };
    table.apply(failed, 0).expect("it is open");
    let failure = opened.ended().result.expect_err("it failed");
    assert_eq!(failure.cause, Cause::Threw);
    assert!(failure.message.len() <= ERROR_TEXT_BYTES_MAX);
}

#[test]
fn a_crash_is_the_fault_of_the_one_that_was_alone_and_else_of_nobody_known() {
    let now = Instant::now();
    let crash = || Failure::new(Cause::Crashed, "exit code 1");
    let mut table = Table::default();
    let alone = open(&mut table, now);
    table.bury(crash());
    assert_eq!(alone.cause(), Cause::Crashed);
    let mut table = Table::default();
    let both = [open(&mut table, now), open(&mut table, now)];
    table.bury(crash());
    assert!(both.iter().all(|opened| opened.ended().collateral));
}

#[test]
fn a_runtime_that_others_ended_is_nobodys_fault() {
    let now = Instant::now();
    let mut table = Table::default();
    let alone = open(&mut table, now);
    table.bury_blameless(Failure::new(Cause::Crashed, "SIGKILL"));
    let ended = alone.ended();
    assert!(ended.collateral, "so it is tried again");
    let failure = ended.result.expect_err("it failed");
    assert_eq!(failure.cause, Cause::Crashed, "and says why to the end");
}

#[test]
fn one_that_others_ended_while_it_was_loading_is_loaded_again_elsewhere() {
    for before in [true, false] {
        let mut table = Table::default();
        let mut loading = before.then(|| table.load());
        table.bury_blameless(Failure::new(Cause::Crashed, "SIGKILL"));
        let mut loading = loading.take().unwrap_or_else(|| table.load());
        let answer = loading.try_recv().expect("answered").expect("at once");
        assert_eq!(answer.expect_err("it failed").cause, Cause::Collateral);
    }
}

#[test]
fn a_dead_runtime_is_not_taken_for_a_blocked_one() {
    let now = Instant::now();
    let mut table = Table::default();
    let opened = open(&mut table, now);
    table.due(now + TIMEOUT);
    table.dying();
    assert_eq!(table.due(now + 2 * TIMEOUT), Due::default());
    table.bury(Failure::new(Cause::Crashed, "exit code 1"));
    assert_eq!(opened.cause(), Cause::Crashed);
}

#[test]
fn a_probe_is_answered_by_its_echo_or_by_the_end() {
    let mut table = Table::default();
    let (ToRuntime::Ping { number }, mut echo) = table.probe() else {
        panic!("a probe is a ping");
    };
    assert_eq!(echo.try_recv(), Ok(None));
    table
        .apply(FromRuntime::Pong { number }, 0)
        .expect("it was sent");
    assert_eq!(echo.try_recv(), Ok(Some(())));
    let (_, mut unanswered) = table.probe();
    table.dying();
    assert!(unanswered.try_recv().is_err(), "nobody is there to answer");
    let (_, mut late) = table.probe();
    assert!(late.try_recv().is_err());
}
