//! Whether Podman still gets into its user namespace, and the mend where it does not.
//!
//! ```text
//!  open ──everything of it killed at once──▶ cut off ──podman system migrate──▶ open
//! ```
//!
//! Rootless Podman enters the namespace through its pause process or, where
//! that is gone, through the monitor of a container that it takes for running.
//! Where all of them were killed at once, as by a service manager that ends a
//! whole control group, none is left to enter by, and every call fails until
//! `podman system migrate` has put the records right. It stops what they name as
//! running, of which nobody watches anything any more.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_std::task;
use nix::fcntl::{Flock, FlockArg};

use crate::agent::podman::{TRIAL_MAX, run};

/// What Podman says of a call that cannot enter names the way out.
const WAY_OUT: &str = "podman system migrate";
/// Held while the records are put right, so that no two agents do it at once:
/// the second would stop what the first has started meanwhile.
const LOCK: &str = "sluice-podman.lock";
/// It waits five seconds for the last word of each container that it takes for running.
const MIGRATE_MAX: Duration = Duration::from_secs(600);
const LOCK_EVERY: Duration = Duration::from_millis(100);

/// How a user's Podman answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Open,
    CutOff,
    /// It fails for another reason, in its words.
    Failing(String),
}

/// Asks the podman program of this user.
pub async fn look() -> Entry {
    match run(&["ps", "--quiet"], TRIAL_MAX).await {
        Ok(_) => Entry::Open,
        Err(error) => judge(&format!("{error:#}")),
    }
}

/// Opens the way in if it is cut off; any other trouble is left to whoever
/// meets it. `user_runtime_dir` is where this user's agents can lock each other out.
pub async fn mend(user_runtime_dir: &Path) -> anyhow::Result<()> {
    if look().await != Entry::CutOff {
        return Ok(());
    }
    let _lock = lock(&user_runtime_dir.join(LOCK)).await?;
    if look().await != Entry::CutOff {
        return Ok(());
    }
    tracing::warn!(
        "All of this user's Podman was killed at once, and it takes what is gone for running: putting its records right (`podman system migrate`)"
    );
    let migrated = run(&["system", "migrate"], MIGRATE_MAX).await;
    // It also complains of containers that ended without a word, which is no failure.
    match look().await {
        Entry::CutOff => {
            migrated.and_then(|_| bail!("Podman is cut off still, after `podman system migrate`"))
        }
        _ => Ok(()),
    }
}

async fn lock(path: &Path) -> anyhow::Result<Flock<std::fs::File>> {
    let open = || std::fs::File::create(path).with_context(|| format!("open {}", path.display()));
    let mut file = open()?;
    let until = Instant::now() + MIGRATE_MAX;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, error)) if Instant::now() > until => {
                bail!("another agent holds {}: {error}", path.display())
            }
            Err((back, _)) => file = back,
        }
        task::sleep(LOCK_EVERY).await;
    }
}

fn judge(words: &str) -> Entry {
    if words.contains(WAY_OUT) {
        Entry::CutOff
    } else {
        Entry::Failing(words.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_migration_mends_is_cut_off() {
        let words = "`podman ps` failed: time=\"…\" level=error msg=\"invalid internal status, try \
                     resetting the pause process with \\\"podman system migrate\\\": could not \
                     find any running process: no such process\"";
        assert_eq!(judge(words), Entry::CutOff);
        let words = "`podman ps` failed: Error: database is locked";
        assert_eq!(judge(words), Entry::Failing(words.into()));
    }
}
