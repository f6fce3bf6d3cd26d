//! Logs of a process: one subscriber, set up once, writing to standard error.
//!
//! Owns the format and the filter. Field names are the same everywhere (`job.id`,
//! `pool.id`, `attempt`, `worker`, `duration_ms`, …: docs/logging.md). Never a secret, never a payload.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogFormat, TelemetryConfig};

/// The broker client's name in logs.
const BROKER_CLIENT: &str = "lapin";

/// Starts logging. A second call in one process changes nothing.
pub fn start(config: &TelemetryConfig) {
    let mut filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // It logs as errors what it also returns, and what is returned is logged where it is handled.
    if !config.filter.contains(BROKER_CLIENT)
        && let Ok(directive) = format!("{BROKER_CLIENT}=off").parse()
    {
        filter = filter.add_directive(directive);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_target(false)
        .with_writer(std::io::stderr);
    // An error means that a subscriber is set already, which is what a test process wants.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
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
