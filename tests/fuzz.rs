//! The corpora of the fuzz targets (`tests/fuzz`), replayed and damaged: what a
//! fuzzer once found stays found, also where no fuzzer runs.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::TestCaseResult;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice::gateway::bundles::archive::{CODE_BYTES_MAX, unpack};
use sluice_proto::codec::{FRAME_BYTES_MAX, decode, encode};
use sluice_proto::frame::{FromBridge, FromGateway};
use sluice_proto::harness::{FromRuntime, ToRuntime};
use sluice_proto::job::Job;
use sluice_proto::queue::{Control, Presence};
use sluice_proto::report::Report;

/// What a fuzz target does with its input.
type Target = fn(&[u8]) -> TestCaseResult;

const TARGETS: &[(&str, Target)] = &[
    ("frames", |bytes| {
        round_trip::<FromBridge>(bytes)?;
        round_trip::<FromGateway>(bytes)
    }),
    ("messages", |bytes| {
        round_trip::<Job>(bytes)?;
        round_trip::<Report>(bytes)?;
        round_trip::<Control>(bytes)?;
        round_trip::<Presence>(bytes)
    }),
    ("archives", |bytes| {
        unpacked(bytes)?;
        unpacked(&gzipped(bytes))
    }),
    ("harness", |bytes| {
        round_trip::<FromRuntime>(bytes)?;
        round_trip::<ToRuntime>(bytes)
    }),
];

/// What was understood can be said again, and means the same.
fn round_trip<T>(bytes: &[u8]) -> TestCaseResult
where
    T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug,
{
    if let Ok(message) = decode::<T>(bytes, FRAME_BYTES_MAX)
        && let Ok(again) = encode(&message, FRAME_BYTES_MAX)
    {
        prop_assert_eq!(decode::<T>(&again, FRAME_BYTES_MAX).ok(), Some(message));
    }
    Ok(())
}

/// What was taken out of an archive is within the limits, and has some code.
fn unpacked(bytes: &[u8]) -> TestCaseResult {
    if let Ok(code) = unpack(bytes) {
        prop_assert!(code.code.len() <= CODE_BYTES_MAX);
    }
    Ok(())
}

/// The corpus holds archives as they are inside: damage to the compression is found at once.
fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("written");
    packer.finish().expect("packed")
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests ask their runner, not the settings"
)]
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let root = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let dir = root.join(Path::new("tests/fuzz/corpus")).join(name);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files
        .iter()
        .map(|path| std::fs::read(path).expect("a readable file"))
        .collect()
}

#[test]
fn the_corpora_are_understood_or_refused() {
    for (name, target) in TARGETS {
        for bytes in corpus(name) {
            target(&bytes).expect("the same again");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn damaged_messages_are_understood_or_refused(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        for (name, target) in TARGETS {
            let corpus = corpus(name);
            let mut bytes = corpus[which.index(corpus.len())].clone();
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            target(&bytes)?;
        }
    }
}
