//! The golden vectors: what this build reads and writes is what was agreed on.

mod samples;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sluice_proto::codec::{
    self, FRAME_BYTES_MAX, HARNESS_MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, QUEUE_MESSAGE_BYTES_MAX,
    RESULT_BYTES_MAX,
};
use sluice_proto::frame::{FromBridge, FromGateway};
use sluice_proto::harness::{FromRuntime, ToRuntime};
use sluice_proto::job::{Job, Kind};
use sluice_proto::report::{
    Body, Finished, Hops, LOG_REPORT_BYTES_MAX, Level, LogLine, Outcome, Report,
};
use sluice_proto::{PROTOCOL, PROTOCOL_OLDEST, check_protocol};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

#[test]
fn every_message_is_written_as_agreed() {
    for sample in samples::all() {
        let path = vectors().join(format!("{}.msgpack", sample.name));
        let agreed =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(sample.msgpack, agreed, "{}", sample.name);
        let json = std::fs::read(path.with_extension("json")).expect("JSON beside the msgpack");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(sample.json, json, "{}", sample.name);
    }
}

#[test]
fn every_vector_is_read_and_written_again_byte_for_byte() {
    for sample in samples::all() {
        let agreed = std::fs::read(vectors().join(format!("{}.msgpack", sample.name)))
            .expect("a vector for each sample");
        let again = (sample.again)(&agreed, sample.bytes_max).expect("a vector decodes");
        assert_eq!(again, agreed, "{}", sample.name);
    }
}

#[test]
fn there_is_no_vector_without_a_message() {
    let names: BTreeSet<_> = samples::all().into_iter().map(|s| s.name).collect();
    for entry in std::fs::read_dir(vectors()).expect("vectors") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a name");
        assert!(names.contains(name), "{}", path.display());
    }
}

#[test]
fn a_vector_one_byte_over_a_limit_or_cut_short_is_refused() {
    for sample in samples::all() {
        let bytes = &sample.msgpack;
        let short = (sample.again)(bytes, bytes.len() - 1);
        assert!(
            matches!(short, Err(codec::Error::TooLarge { .. })),
            "{}",
            sample.name
        );
        for end in 0..bytes.len() {
            let cut = (sample.again)(&bytes[..end], sample.bytes_max);
            assert!(
                matches!(cut, Err(codec::Error::Malformed(_))),
                "{} cut at {end}",
                sample.name
            );
        }
    }
}

#[test]
fn what_an_older_reader_does_not_know_is_skipped_or_refused() {
    // A field more in a message: skipped.
    let ping = [
        b"\x81\xa4ping\x82\xa6number\x07\xa5later".as_slice(),
        b"\xc3".as_slice(),
    ]
    .concat();
    assert_eq!(
        codec::decode::<ToRuntime>(&ping, 100),
        Ok(ToRuntime::Ping { number: 7 })
    );
    // A message more, and a kind more: refused, never guessed.
    for unknown in [
        b"\x81\xa5dance\x80".as_slice(),
        b"\xa5dance".as_slice(),
        b"\x07",
        b"\xc0",
        b"",
    ] {
        assert!(codec::decode::<ToRuntime>(unknown, 100).is_err());
        assert!(codec::decode::<FromRuntime>(unknown, 100).is_err());
        assert!(codec::decode::<FromBridge>(unknown, 100).is_err());
        assert!(codec::decode::<FromGateway>(unknown, 100).is_err());
    }
    assert!(codec::decode::<Kind>(b"\xa5dance", 100).is_err());
}

#[test]
fn versions_outside_of_the_spoken_ones_are_refused_with_advice() {
    for version in PROTOCOL_OLDEST..=PROTOCOL {
        assert_eq!(check_protocol(version), Ok(()));
    }
    let older = check_protocol(PROTOCOL_OLDEST - 1).expect_err("older than the oldest");
    assert!(older.contains("upgrade the peer"), "{older}");
    let newer = check_protocol(PROTOCOL + 1).expect_err("newer than the newest");
    assert!(newer.contains("upgrade this side first"), "{newer}");
}

#[test]
fn the_largest_payload_fits_on_every_hop() {
    let job = Job {
        payload: vec![b'x'; PAYLOAD_BYTES_MAX],
        ..samples::full_job()
    };
    codec::encode(&job, QUEUE_MESSAGE_BYTES_MAX).expect("it fits the queue");
    let dispatch = FromGateway::Dispatch {
        jobs: vec![job.clone()],
    };
    codec::encode(&dispatch, FRAME_BYTES_MAX).expect("it fits a frame");
    let invoke = ToRuntime::Invoke {
        invocation: u32::MAX,
        kind: job.kind,
        log_bytes_max: u32::MAX,
        payload: job.payload,
    };
    codec::encode(&invoke, HARNESS_MESSAGE_BYTES_MAX).expect("it fits the harness's socket");
}

#[test]
fn the_largest_result_with_its_log_fits_on_every_hop() {
    let result = vec![b'x'; RESULT_BYTES_MAX];
    let done = FromRuntime::Done {
        invocation: u32::MAX,
        log_bytes_dropped: u64::MAX,
        result: result.clone(),
    };
    codec::encode(&done, HARNESS_MESSAGE_BYTES_MAX).expect("it fits the harness's socket");
    let line = LogLine {
        seq: u32::MAX,
        at_us: u64::MAX,
        level: Level::Error,
        text: "x".repeat(LOG_REPORT_BYTES_MAX),
    };
    let report = Report {
        job: samples::job_id(),
        attempt: Default::default(),
        worker: "w".repeat(1024),
        at_us: u64::MAX,
        body: Body::Finished(Box::new(Finished {
            outcome: Outcome::Succeeded { result },
            runtime: None,
            hops: Hops::default(),
            log: vec![line],
            log_bytes_dropped: u64::MAX,
            sdk_calls: u32::MAX,
        })),
    };
    let bytes = codec::encode(&report, QUEUE_MESSAGE_BYTES_MAX).expect("it fits the queue");
    assert!(bytes.len() < FRAME_BYTES_MAX);
}
