//! Logs of a process: one subscriber, set up once, writing to standard error.
//!
//! Owns the format and the filter. Field names are the same everywhere (`job.id`,
//! `pool.id`, `attempt`, `worker`, `duration_ms`, …: docs/logging.md). Never a secret, never a payload.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::fmt::writer::MakeWriterExt;

use crate::config::{LogFormat, TelemetryConfig};

/// Crates that log an error which is then handed to their caller, who logs it
/// once more, or for whom it is an answer; or, the last, what it does of its own.
const QUIET: [&str; 3] = ["lapin", "isahc", "trillium_async_std"];

/// Starts logging. A second call in one process changes nothing.
pub fn start(config: &TelemetryConfig) {
    let filter =
        EnvFilter::try_new(with_quiet(&config.filter)).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_writer(std::io::stderr.with_filter(|_| !MUTED.load(Ordering::Relaxed)));
    // An error means that a subscriber is set already, which is what a test process wants.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Whether what is logged goes nowhere: for who has the whole terminal.
pub fn mute(muted: bool) {
    MUTED.store(muted, Ordering::Relaxed);
}

static MUTED: AtomicBool = AtomicBool::new(false);

/// The filter with [`QUIET`] crates muted, unless it names them itself.
fn with_quiet(filter: &str) -> String {
    let unnamed = QUIET.iter().filter(|name| !filter.contains(**name));
    unnamed.fold(filter.to_owned(), |filter, name| {
        format!("{filter},{name}=off")
    })
}

/// Microseconds since the Unix epoch, now.
pub fn now_us() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since the Unix epoch, now.
pub fn now_ms() -> u64 {
    now_us() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_crate_is_heard_when_it_is_named() {
        assert_eq!(
            with_quiet("info"),
            "info,lapin=off,isahc=off,trillium_async_std=off"
        );
        assert_eq!(
            with_quiet("info,lapin=debug"),
            "info,lapin=debug,isahc=off,trillium_async_std=off"
        );
    }
}
