//! Bridge ⇄ worker.

use sluice_proto::codec::QUEUE_MESSAGE_BYTES_MAX;
use sluice_proto::job::Attempt;
use sluice_proto::queue::{
    ContainerUse, Control, HeldJob, Holds, Presence, RetriedJob, Tally, WorkerState,
};
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
    samples.push(sample(
        "queue.control.tell",
        &Control::Tell,
        QUEUE_MESSAGE_BYTES_MAX,
    ));
    samples.push(holding());
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
        link: 0,
        holds: None,
    };
    sample(
        &format!("queue.presence.{name}"),
        &presence,
        QUEUE_MESSAGE_BYTES_MAX,
    )
}

/// A worker that was asked what it holds.
fn holding() -> Sample {
    let attempt = Attempt {
        dispatch: 2,
        delivery: 1,
    };
    let holds = Holds {
        jobs: vec![HeldJob {
            job: job_id(),
            attempt,
            kind: "event".to_owned(),
            identity: "app:i@0123456789ab".to_owned(),
            running: true,
            since_us: 1_764_000_000_200_000,
            timeout_ms: 30_000,
            runtime: Some(runtime(Origin::Warm)),
            last_line: Some("zwölf Boxkämpfer".to_owned()),
        }],
        jobs_total: 1,
        retried: vec![RetriedJob {
            job: job_id(),
            attempt,
            cause: Cause::Collateral,
            at_us: 1_764_000_000_300_000,
        }],
        tallies: vec![Tally {
            kind: "event".to_owned(),
            outcome: "succeeded".to_owned(),
            jobs: 3,
            took_us: 12_000,
            buckets: vec![0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        }],
        runtimes: vec![("busy".to_owned(), 1), ("stem".to_owned(), 3)],
        containers: vec![ContainerUse {
            container: "sluice-aa-0-bb".to_owned(),
            memory_bytes: 50_000_000,
            cpu_us: 1_250_000,
        }],
    };
    let presence = Presence {
        worker: "host-1/4711/0".to_owned(),
        state: WorkerState::Running,
        slots: 64,
        in_flight: 1,
        runtimes: 4,
        refusing: None,
        at_us: 1_764_000_000_500_000,
        link: 2,
        holds: Some(Box::new(holds)),
    };
    sample("queue.presence.holding", &presence, QUEUE_MESSAGE_BYTES_MAX)
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
            published_us: 1_764_000_000_110_000,
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
