//! One message per variant of the three conversations, for the golden vectors.
//!
//! Owns the values. `examples/write_vectors.rs` writes them, `tests/vectors.rs`
//! compares them with what is in `vectors/`.

mod harness;
mod queue;
mod wire;

use serde::Serialize;
use serde::de::DeserializeOwned;

use sluice_proto::codec;
use sluice_proto::ids::{Digest, JobId, PoolId, ProjectId};
use sluice_proto::job::{Identity, Job, Kind, Priority};

/// A message as every implementation must read and write it.
pub struct Sample {
    /// `conversation.type.variant`, the file's name without its ending.
    pub name: String,
    pub msgpack: Vec<u8>,
    /// The same as JSON, byte strings as arrays of numbers.
    pub json: serde_json::Value,
    /// Decodes as the sample's type within `bytes_max` and encodes again.
    pub again: fn(&[u8], usize) -> Result<Vec<u8>, codec::Error>,
    /// The limit of the conversation, in bytes.
    pub bytes_max: usize,
}

/// All samples, in the order of the conversations.
pub fn all() -> Vec<Sample> {
    let mut samples = wire::samples();
    samples.extend(queue::samples());
    samples.extend(harness::samples());
    samples
}

fn sample<T: Serialize + DeserializeOwned>(name: &str, value: &T, bytes_max: usize) -> Sample {
    Sample {
        name: name.to_owned(),
        msgpack: codec::encode(value, bytes_max).expect("a sample is within its limit"),
        json: serde_json::to_value(value).expect("a sample can be JSON"),
        again: |bytes, bytes_max| {
            let value: T = codec::decode(bytes, bytes_max)?;
            codec::encode(&value, bytes_max)
        },
        bytes_max,
    }
}

pub fn job_id() -> JobId {
    "0197d3a0-5c1e-7a40-8f00-000000000001".into()
}

pub fn pool_id() -> PoolId {
    "0197d3a0-5c1e-7a40-8f00-00000000000a".into()
}

fn digest() -> Digest {
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into()
}

/// A job with every optional field.
pub fn full_job() -> Job {
    Job {
        id: job_id(),
        kind: Kind::Event,
        priority: Priority::High,
        pool: pool_id(),
        project: project_id(),
        identity: Identity::App {
            installation: "0197d3a0-5c1e-7a40-8f00-00000000000c".to_owned(),
            bundle: digest(),
        },
        dispatch: 2,
        created_us: 1_764_000_000_123_456,
        timeout_ms: 300_000,
        expires_ms: Some(1_764_000_060_000),
        block: Some("Grüße senden".to_owned()),
        token: "sfjob_0123456789abcdef".to_owned(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        payload: br#"{"handler":{"block":"greet","input":"default"},"input":{}}"#.to_vec(),
    }
}

/// A job with no optional field.
pub fn small_job() -> Job {
    Job {
        id: job_id(),
        kind: Kind::Evaluate,
        priority: Priority::Normal,
        pool: pool_id(),
        project: project_id(),
        identity: Identity::Flow {
            flow: "0197d3a0-5c1e-7a40-8f00-00000000000f".to_owned(),
        },
        dispatch: 1,
        created_us: 1_764_000_000_000_000,
        timeout_ms: 5_000,
        expires_ms: None,
        block: None,
        token: "t".to_owned(),
        traceparent: None,
        payload: br#"{"expressions":{"value":"1 + 1"}}"#.to_vec(),
    }
}

fn project_id() -> ProjectId {
    "0197d3a0-5c1e-7a40-8f00-00000000000b".into()
}
