//! Writes the golden vectors: `cargo run -p sluice-proto --example write_vectors`.
//!
//! To be run when a message was added. A vector that changes is a change of the
//! contract: see "Versions" in README.md.

#[path = "../tests/samples/mod.rs"]
#[allow(dead_code, reason = "the test uses more of a sample than the writer")]
mod samples;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    std::fs::create_dir_all(&dir)?;
    for sample in samples::all() {
        let json = serde_json::to_string_pretty(&sample.json)?;
        std::fs::write(dir.join(format!("{}.msgpack", sample.name)), sample.msgpack)?;
        std::fs::write(dir.join(format!("{}.json", sample.name)), json + "\n")?;
    }
    Ok(())
}
