//! A standing order to take no work, kept in `DATA/agent/paused`.
//!
//! ```text
//!  (no file) works ⇄ Draining: nothing is taken in, what is queued is done
//!                  ⇄ Paused:   nothing is taken in and nothing is started
//! ```
//!
//! A file, because it must outlive every process: bridge and workers of this
//! data directory look at it every second, also after a restart. Who writes it
//! is the agent's local API or, without an agent, the command line.

use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The longest reason kept, in characters.
const REASON_CHARS_MAX: usize = 500;

/// What is not to be done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub mode: Mode,
    pub reason: String,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The bridge takes nothing from the gateway; workers go on with what is queued.
    Draining,
    /// Workers start nothing either.
    Paused,
}

// === impl Order ===

impl Order {
    pub fn new(mode: Mode, reason: &str, since_ms: u64) -> Self {
        Self {
            mode,
            reason: reason.chars().take(REASON_CHARS_MAX).collect(),
            since_ms,
        }
    }

    /// One sentence for whoever asks why nothing happens.
    pub fn sentence(&self) -> String {
        let what = match self.mode {
            Mode::Draining => "The pool is draining here",
            Mode::Paused => "The pool is paused here",
        };
        match self.reason.as_str() {
            "" => format!("{what}; `sluice queue resume` ends that"),
            why => format!("{what} ({why}); `sluice queue resume` ends that"),
        }
    }
}

/// The order that stands in this data directory, if any. A file that cannot be
/// read as one still pauses: somebody wanted it so.
pub fn read(data_dir: &Path) -> Option<Order> {
    let text = match std::fs::read(path(data_dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return Some(damaged(&error)),
    };
    Some(serde_json::from_slice(&text).unwrap_or_else(|error| damaged(&error)))
}

/// Gives an order, in place of an earlier one.
pub fn write(data_dir: &Path, order: &Order) -> io::Result<()> {
    let path = path(data_dir);
    let dir = path.parent().unwrap_or(data_dir);
    std::fs::create_dir_all(dir)?;
    // Whole or not at all: whoever looks meanwhile sees the old order.
    let mut draft = tempfile::NamedTempFile::new_in(dir)?;
    draft
        .as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o600))?;
    draft.write_all(&serde_json::to_vec(order)?)?;
    draft.as_file().sync_all()?;
    draft.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

/// Ends an order; without one there is nothing to end.
pub fn clear(data_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(path(data_dir)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("agent").join("paused")
}

fn damaged(error: &dyn std::fmt::Display) -> Order {
    Order::new(Mode::Paused, &format!("the order is damaged: {error}"), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_stands_until_it_is_cleared_and_a_damaged_one_pauses() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()), None);
        let order = Order::new(Mode::Draining, "upgrade", 7);
        write(dir.path(), &order).expect("written");
        assert_eq!(read(dir.path()), Some(order));
        std::fs::write(path(dir.path()), "{").expect("written");
        let damaged = read(dir.path()).expect("still an order");
        assert_eq!(damaged.mode, Mode::Paused);
        assert!(damaged.sentence().contains("resume"));
        clear(dir.path()).expect("removed");
        clear(dir.path()).expect("a repeat is no error");
        assert_eq!(read(dir.path()), None);
    }
}
