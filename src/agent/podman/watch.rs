//! An eye on the agent's own Podman service, beside its supervisor's.
//!
//! ```text
//!  not seen ──socket there──▶ listening ──socket gone, process alive──▶ deaf ──still so──▶ killed
//! ```
//!
//! A service that is told to end takes its socket away at once, and then waits
//! for the requests it has; one of those may wait for the very lock that the
//! end holds (seen with 4.3: a container's start). Nobody can reach it any
//! more, and nothing is lost with it, as containers live on without a service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_std::task;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::podman::{PING_EVERY, entry, ping};
use crate::process::Process;

/// How often it is looked at whether the socket is there.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks without a socket after which a service is deaf: an end without
/// requests under way takes a fraction of the time.
const DEAF_LOOKS: u32 = 4;

/// What was seen of one service process.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The process that had its socket.
    listening: Option<Process>,
    /// Looks since then that found the process without it.
    without: u32,
}

/// Keeps the service from ending for idleness, and ends it when it is deaf, so
/// that its supervisor starts it again.
///
/// One that does not answer may be one that cannot start: then the way in is
/// opened for it, with `user_runtime_dir` as in [`entry::mend`].
pub async fn keep(url: String, socket: PathBuf, record: PathBuf, user_runtime_dir: PathBuf) {
    let mut seen = Seen::default();
    let looks_per_ping = PING_EVERY.as_millis() / LOOK_EVERY.as_millis();
    for look in 1_u128.. {
        task::sleep(LOOK_EVERY).await;
        if seen.look(socket.exists(), Process::recorded(&record)) {
            end_deaf(&seen);
            seen = Seen::default();
        }
        if look % looks_per_ping == 0
            && let Err(error) = ping(&url).await
        {
            tracing::warn!(
                error = format!("{error:#}"),
                "The Podman service does not answer"
            );
            open(&user_runtime_dir).await;
        }
    }
}

async fn open(user_runtime_dir: &Path) {
    if let Err(error) = entry::mend(user_runtime_dir).await {
        tracing::warn!(
            error = format!("{error:#}"),
            "Podman does not get into its user namespace"
        );
    }
}

fn end_deaf(seen: &Seen) {
    let Some(identity) = &seen.listening else {
        return;
    };
    tracing::warn!(
        pid = identity.pid,
        "The Podman service listens no more and does not end: killing it"
    );
    if let Err(error) = kill(Pid::from_raw(identity.pid), Signal::SIGKILL) {
        tracing::debug!(%error, "It has ended by itself");
    }
}

// === impl Seen ===

impl Seen {
    /// Takes a look in; true when the process that listened has been deaf for long enough.
    fn look(&mut self, has_socket: bool, running: Option<Process>) -> bool {
        if has_socket {
            self.listening = running;
            self.without = 0;
            return false;
        }
        // One that has not listened yet is on its way up.
        if running.is_none() || running != self.listening {
            self.without = 0;
            return false;
        }
        self.without += 1;
        self.without >= DEAF_LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32) -> Option<Process> {
        Some(Process {
            pid,
            started: 1,
            boot: "b".into(),
        })
    }

    #[test]
    fn only_one_that_listened_and_lives_on_without_its_socket_is_deaf() {
        let mut seen = Seen::default();
        for _ in 0..9 {
            assert!(!seen.look(false, process(7)), "it is on its way up");
        }
        assert!(!seen.look(true, process(7)));
        for _ in 1..DEAF_LOOKS {
            assert!(!seen.look(false, process(7)), "it may be about to end");
        }
        assert!(seen.look(false, process(7)));
    }

    #[test]
    fn one_that_ended_or_was_started_again_is_not() {
        let mut seen = Seen::default();
        assert!(!seen.look(true, process(7)));
        for _ in 0..9 {
            assert!(!seen.look(false, None), "it has ended");
            assert!(!seen.look(false, process(8)), "another is on its way up");
        }
        assert!(!seen.look(true, process(8)));
        assert!(!seen.look(false, process(8)));
    }
}
