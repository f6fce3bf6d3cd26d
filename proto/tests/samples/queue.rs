//! Bridge ⇄ worker.

use sluice_proto::codec::QUEUE_MESSAGE_BYTES_MAX;
use sluice_proto::job::Attempt;
use sluice_proto::queue::{Control, Presence, WorkerState};
use sluice_proto::report::{
    Body, Cause, Failure, Finished, Hops, Level, LogLine, Origin, Outcome, Report, RuntimeUse,
};

use super::{Sample, full_job, job_id, sample, small_job};

pub fn samples() -> Vec<Sample> {
    let mut samples = vec![
        sample("queue.job.full", &full_job(), QUEUE_MESSAGE_BYTES_MAX),
        sample("queue.job.small", &small_job(), QUEUE_MESSAGE_BYTES_MAX),
    ];
    for report in reports() {
        let name = match &report.body {
            Body::Started { .. } => "started",
            Body::Log { .. } => "log",
            Body::Finished(finished) => match finished.outcome {
                Outcome::Succeeded { .. } => "finished_succeeded",
                Outcome::Failed(_) => "finished_failed",
                Outcome::Cancelled { .. } => "finished_cancelled",
            },
        };
        let name = format!("queue.report.{name}");
        samples.push(sample(&name, &report, QUEUE_MESSAGE_BYTES_MAX));
    }
    let cancel = Control::Cancel {
        jobs: vec![job_id()],
        reason: "enough".to_owned(),
    };
    samples.push(sample(
        "queue.control.cancel",
        &cancel,
        QUEUE_MESSAGE_BYTES_MAX,
    ));
    for state in [
        WorkerState::Starting,
        WorkerState::Running,
        WorkerState::Draining,
        WorkerState::Stopped,
    ] {
        samples.push(presence(state));
    }
    samples
}

fn presence(state: WorkerState) -> Sample {
    let name = match state {
        WorkerState::Starting => "starting",
        WorkerState::Running => "running",
        WorkerState::Draining => "draining",
        WorkerState::Stopped => "stopped",
    };
    let presence = Presence {
        worker: "host-1/4711/0".to_owned(),
        state,
        slots: 64,
        in_flight: 2,
        runtimes: 5,
        refusing: (state == WorkerState::Starting).then(|| "Podman does not answer".to_owned()),
        at_us: 1_764_000_000_500_000,
    };
    sample(
        &format!("queue.presence.{name}"),
        &presence,
        QUEUE_MESSAGE_BYTES_MAX,
    )
}

pub fn report(body: Body) -> Report {
    Report {
        job: job_id(),
        attempt: Attempt {
            dispatch: 2,
            delivery: 1,
        },
        worker: "host-1/4711/0".to_owned(),
        at_us: 1_764_000_000_500_000,
        body,
    }
}

pub fn reports() -> Vec<Report> {
    let line = LogLine {
        seq: 0,
        at_us: 1_764_000_000_400_000,
        level: Level::Warn,
        text: "zwölf Boxkämpfer".to_owned(),
    };
    let bodies = [
        Body::Started {
            runtime: runtime(Origin::Stem),
        },
        Body::Log { lines: vec![line] },
        finished(Outcome::Succeeded {
            result: br#"{"greeting":"Hello"}"#.to_vec(),
        }),
        finished(Outcome::Failed(Failure {
            cause: Cause::Threw,
            message: "TypeError: bad input".to_owned(),
            stack: Some("TypeError: bad input\n    at expression:1:1".to_owned()),
            key: Some("value".to_owned()),
        })),
        bare_finish(),
    ];
    bodies.into_iter().map(report).collect()
}

fn runtime(origin: Origin) -> RuntimeUse {
    RuntimeUse {
        container: "sluice-aa-0-bb".to_owned(),
        origin,
    }
}

fn finished(outcome: Outcome) -> Body {
    Body::Finished(Box::new(Finished {
        outcome,
        runtime: Some(runtime(Origin::Warm)),
        hops: Hops {
            received_us: 1_764_000_000_100_000,
            delivered_us: 1_764_000_000_200_000,
            claimed_us: 1_764_000_000_210_000,
            started_us: 1_764_000_000_300_000,
            finished_us: 1_764_000_000_490_000,
            relayed_us: 0,
        },
        log: vec![LogLine {
            seq: 1,
            at_us: 1_764_000_000_450_000,
            level: Level::Info,
            text: "the end".to_owned(),
        }],
        log_bytes_dropped: 60_000_000,
        sdk_calls: 3,
    }))
}

/// A job cancelled before it reached a runtime: nothing optional is there.
fn bare_finish() -> Body {
    Body::Finished(Box::new(Finished {
        outcome: Outcome::Cancelled {
            reason: "enough".to_owned(),
        },
        runtime: None,
        hops: Hops::default(),
        log: Vec::new(),
        log_bytes_dropped: 0,
        sdk_calls: 0,
    }))
}
