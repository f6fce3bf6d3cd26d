//! Gateway ⇄ bridge.

use sluice_proto::codec::FRAME_BYTES_MAX;
use sluice_proto::frame::{AgentStatus, FromBridge, FromGateway, Hello, Numbered, Taken};
use sluice_proto::report::Body;

use super::queue::report;
use super::{Sample, full_job, job_id, pool_id, sample, small_job};

pub fn samples() -> Vec<Sample> {
    let bridge = from_bridge().into_iter().map(|frame| {
        let name = format!("frame.from_bridge.{}", bridge_variant(&frame));
        sample(&name, &frame, FRAME_BYTES_MAX)
    });
    let gateway = from_gateway().into_iter().map(|frame| {
        let name = format!("frame.from_gateway.{}", gateway_variant(&frame));
        sample(&name, &frame, FRAME_BYTES_MAX)
    });
    bridge.chain(gateway).collect()
}

/// Exhaustive, so that a new variant cannot be forgotten here.
fn bridge_variant(frame: &FromBridge) -> &'static str {
    match frame {
        FromBridge::Hello(_) => "hello",
        FromBridge::Window { .. } => "window",
        FromBridge::Accepted { .. } => "accepted",
        FromBridge::Rejected { .. } => "rejected",
        FromBridge::Reports { .. } => "reports",
        FromBridge::Heartbeat(_) => "heartbeat",
        FromBridge::Goodbye { .. } => "goodbye",
    }
}

fn gateway_variant(frame: &FromGateway) -> &'static str {
    match frame {
        FromGateway::Welcome { .. } => "welcome",
        FromGateway::Refused { .. } => "refused",
        FromGateway::Dispatch { .. } => "dispatch",
        FromGateway::Received { .. } => "received",
        FromGateway::Cancel { .. } => "cancel",
        FromGateway::Heartbeat => "heartbeat",
        FromGateway::Goodbye { .. } => "goodbye",
    }
}

fn from_bridge() -> Vec<FromBridge> {
    let status = AgentStatus {
        workers: 2,
        in_flight: 3,
        queued: 70_000,
        refusing: Some("the broker's disk is full".to_owned()),
    };
    vec![
        FromBridge::Hello(Hello {
            protocol: 1,
            version: "0.1.0".to_owned(),
            pool: pool_id(),
            agent: "0197d3a0-5c1e-7a40-8f00-0000000000aa".to_owned(),
            host: "host-1".to_owned(),
            started_ms: 1_764_000_000_000,
            status: AgentStatus::default(),
        }),
        FromBridge::Window {
            jobs: 0,
            reason: Some("the broker raised a memory alarm".to_owned()),
        },
        FromBridge::Accepted {
            jobs: vec![Taken {
                job: job_id(),
                dispatch: 2,
            }],
        },
        FromBridge::Rejected {
            job: job_id(),
            dispatch: 2,
            reason: "the queue is full".to_owned(),
        },
        FromBridge::Reports {
            items: vec![
                numbered(7, "started"),
                numbered(8, "log"),
                numbered(9, "finished"),
            ],
        },
        FromBridge::Heartbeat(status),
        FromBridge::Goodbye {
            reason: "the agent is draining".to_owned(),
        },
    ]
}

fn numbered(number: u64, variant: &str) -> Numbered {
    let report = super::queue::reports()
        .into_iter()
        .find(|report| report_variant(&report.body) == variant)
        .unwrap_or_else(|| report(Body::Log { lines: Vec::new() }));
    Numbered { number, report }
}

pub fn report_variant(body: &Body) -> &'static str {
    match body {
        Body::Started { .. } => "started",
        Body::Log { .. } => "log",
        Body::Finished(_) => "finished",
    }
}

fn from_gateway() -> Vec<FromGateway> {
    vec![
        FromGateway::Welcome {
            protocol: 1,
            session: "0197d3a0-5c1e-7a40-8f00-0000000000bb".into(),
            version: "0.1.0".to_owned(),
        },
        FromGateway::Refused {
            reason:
                "protocol version 9 is newer than this side speaks (1): upgrade this side first"
                    .to_owned(),
            retry: false,
        },
        FromGateway::Dispatch {
            jobs: vec![full_job(), small_job()],
        },
        FromGateway::Received {
            numbers: vec![1, 128, 65_536, 4_294_967_296],
        },
        FromGateway::Cancel {
            jobs: vec![job_id()],
            reason: "enough".to_owned(),
        },
        FromGateway::Heartbeat,
        FromGateway::Goodbye {
            reason: "the gateway is being upgraded".to_owned(),
        },
    ]
}
