//! What somebody uploads as an app, as it is and as the inside of a gzip archive.
#![no_main]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;

use crate::archive::{CODE_BYTES_MAX, unpack};

// The very file, without the rest of the house, which would take long to build.
#[allow(dead_code, reason = "a part of it is the gateway's alone")]
#[path = "../../../src/gateway/bundles/archive.rs"]
mod archive;

fuzz_target!(|bytes: &[u8]| {
    let mut packer = GzEncoder::new(Vec::new(), Compression::none());
    packer.write_all(bytes).expect("written");
    let packed = packer.finish().expect("packed");
    for archive in [bytes, &packed] {
        if let Ok(code) = unpack(archive) {
            assert!(code.code.len() <= CODE_BYTES_MAX);
        }
    }
});
