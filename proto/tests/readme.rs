//! The prose says what the code says.

use sluice_proto::harness::CALLS_IN_FLIGHT_MAX;
use sluice_proto::job::Kind;
use sluice_proto::report::Cause;
use sluice_proto::{codec, frame, queue, report};

const README: &str = include_str!("../README.md");

#[test]
fn the_table_of_limits_has_their_values() {
    let limits: [(&str, u64); 17] = [
        ("FRAME_BYTES_MAX", codec::FRAME_BYTES_MAX as u64),
        (
            "QUEUE_MESSAGE_BYTES_MAX",
            codec::QUEUE_MESSAGE_BYTES_MAX as u64,
        ),
        (
            "HARNESS_MESSAGE_BYTES_MAX",
            codec::HARNESS_MESSAGE_BYTES_MAX as u64,
        ),
        ("PAYLOAD_BYTES_MAX", codec::PAYLOAD_BYTES_MAX as u64),
        ("RESULT_BYTES_MAX", codec::RESULT_BYTES_MAX as u64),
        ("LOG_LINE_BYTES_MAX", report::LOG_LINE_BYTES_MAX as u64),
        ("LOG_JOB_BYTES_MAX", report::LOG_JOB_BYTES_MAX as u64),
        ("LOG_REPORT_BYTES_MAX", report::LOG_REPORT_BYTES_MAX as u64),
        ("ERROR_TEXT_BYTES_MAX", report::ERROR_TEXT_BYTES_MAX as u64),
        ("CALLS_IN_FLIGHT_MAX", CALLS_IN_FLIGHT_MAX as u64),
        ("BATCH_MAX", frame::BATCH_MAX as u64),
        ("HEARTBEAT_MS", frame::HEARTBEAT_MS),
        ("SILENCE_MS_MAX", frame::SILENCE_MS_MAX),
        ("DELIVERIES_MAX", u64::from(queue::DELIVERIES_MAX)),
        (
            "BROKER_DELIVERY_LIMIT",
            u64::from(queue::BROKER_DELIVERY_LIMIT),
        ),
        ("PRESENCE_MS", queue::PRESENCE_MS),
        ("PRESENCE_MS_MAX", queue::PRESENCE_MS_MAX),
    ];
    for (name, value) in limits {
        let row = format!("| `{name}` | {value} |");
        assert!(README.contains(&row), "README.md has no row `{row}`");
    }
}

#[test]
fn every_kind_cause_and_name_is_told() {
    for kind in Kind::ALL {
        assert!(README.contains(&format!("`{kind}`")), "{kind}");
    }
    for cause in causes() {
        assert!(README.contains(&format!("| `{cause}` |")), "{cause}");
    }
    for header in headers() {
        assert!(README.contains(&format!("`{header}`")), "{header}");
    }
    for word in [
        frame::SESSION_PATH,
        frame::POOL_HEADER,
        queue::CONTENT_TYPE,
        sluice_proto::harness::HARNESS_DIR,
        sluice_proto::harness::RUN_DIR,
        sluice_proto::harness::SOCKET_NAME,
    ] {
        assert!(README.contains(word), "{word}");
    }
}

fn headers() -> [&'static str; 14] {
    use queue::header as h;
    [
        h::PROTOCOL,
        h::POOL,
        h::PROJECT,
        h::IDENTITY,
        h::BLOCK,
        h::DISPATCH,
        h::DELIVERIES,
        h::RECEIVED_US,
        h::PUBLISHED_US,
        h::CAUSE,
        h::REASON,
        h::TRACEPARENT,
        h::BROKER_DELIVERY_COUNT,
        h::BROKER_ACQUIRED_COUNT,
    ]
}

fn causes() -> [Cause; 16] {
    [
        Cause::Syntax,
        Cause::Threw,
        Cause::Timeout,
        Cause::EventLoopBlocked,
        Cause::OutOfMemory,
        Cause::Crashed,
        Cause::Collateral,
        Cause::ResultNotJson,
        Cause::ResultTooLarge,
        Cause::NoSuchHandler,
        Cause::BundleUnavailable,
        Cause::RuntimeUnavailable,
        Cause::Expired,
        Cause::Poison,
        Cause::Unacceptable,
        Cause::Lost,
    ]
}
