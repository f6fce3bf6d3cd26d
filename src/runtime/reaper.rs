//! Leftovers: containers of ours that nobody holds, and their directories.
//!
//! ```text
//!  processes ──SIGKILL, by what is written beside each socket──▶ none runs any code
//!  records   ──Podman's own list, by the labels of agent and worker──▶ none is left
//! ```
//!
//! Owns nothing. The first needs no answer of Podman's, which may be busy or
//! away; the second finds whatever is there, and does not go by what was written.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::Process;
use crate::runtime::{Error, Owner, Runtime, directory};

/// Removals under way at once: Podman's locks make more of them slower.
pub(super) const REMOVALS_MAX: usize = 4;

/// How long killed processes may take to be gone: the kernel needs milliseconds,
/// and longer where much memory is given back on a host out of CPU.
const END_MAX: Duration = Duration::from_secs(3);
const END_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Ends the processes of what an earlier worker left, and says whether none can be left.
///
/// A container's first process is the one that all others in it end with. Where
/// no first process is written down, the container never had a conversation,
/// and so no code: its socket died with the worker.
pub(super) async fn end_processes(owner_dir: &Path) -> bool {
    let firsts = directory::firsts(owner_dir).await;
    let mut ended = true;
    let mut dying: Vec<(PathBuf, Process)> = Vec::new();
    for (path, first) in firsts {
        match first {
            None => ended = false,
            Some(process) if process.is_alive() => {
                // Refused where it is not ours to signal; then it is seen to live on.
                let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
                dying.push((path, process));
            }
            Some(_) => {}
        }
    }
    let until = Instant::now() + END_MAX;
    for (path, process) in dying {
        while process.is_alive() {
            if Instant::now() > until {
                tracing::warn!(path = %path.display(), pid = process.pid, "A runtime of an earlier worker does not end");
                ended = false;
                break;
            }
            async_std::task::sleep(END_LOOK_EVERY).await;
        }
    }
    ended
}

/// Removes every container of `owner` that `held` does not name, and says how many.
pub(super) async fn sweep<R: Runtime>(
    runtime: &R,
    owner: &Owner,
    held: &HashSet<String>,
) -> Result<usize, Error> {
    let names = runtime.list(owner).await?;
    let leftovers: Vec<_> = names
        .into_iter()
        .filter(|name| !held.contains(name))
        .collect();
    // A closure that borrows in a stream of futures is not `Send` for every
    // lifetime, so the futures are made first; none runs before it is polled.
    let removals: Vec<_> = leftovers.iter().map(|name| runtime.remove(name)).collect();
    let mut removals = stream::iter(removals).buffer_unordered(REMOVALS_MAX);
    let mut outcome = Ok(leftovers.len());
    while let Some(removed) = removals.next().await {
        if let Err(error) = removed {
            outcome = Err(error);
        }
    }
    outcome
}

/// The same for everything there is, with the directories.
pub(super) async fn sweep_all<R: Runtime>(
    runtime: &R,
    owner: &Owner,
    owner_dir: &Path,
) -> Result<usize, Error> {
    let removed = sweep(runtime, owner, &HashSet::new()).await?;
    directory::delete(owner_dir).await;
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().expect("it starts")
    }

    fn pid(child: &Child) -> i32 {
        child.id().cast_signed()
    }

    #[async_std::test]
    async fn leftovers_end_and_a_process_that_has_the_number_of_one_by_now_does_not() {
        let owner_dir = tempfile::tempdir().expect("a directory");
        let (mut left, mut other) = (sleeper(), sleeper());
        for (name, child) in [("left", &left), ("other", &other)] {
            let directory = owner_dir.path().join(name);
            std::fs::create_dir(&directory).expect("made");
            directory::write_first(&directory, Some(pid(child)))
                .await
                .expect("noted");
        }
        let noted = owner_dir.path().join("other/first");
        let earlier = Process {
            pid: pid(&other),
            started: 1,
            boot: "another-boot".into(),
        };
        let earlier = serde_json::to_vec(&earlier).expect("written");
        std::fs::write(&noted, earlier).expect("written");
        let process = Process::of(pid(&left)).expect("it runs");
        // One that was never talked to has nothing noted.
        std::fs::create_dir(owner_dir.path().join("silent")).expect("made");

        assert!(end_processes(owner_dir.path()).await, "none can be left");
        assert!(!process.is_alive(), "it is dead, if not buried");
        assert!(left.wait().expect("ended").code().is_none(), "by a signal");
        assert!(other.try_wait().expect("ours").is_none(), "it lives on");
        other.kill().expect("it is ours");
        other.wait().expect("ended");
    }

    #[async_std::test]
    async fn what_cannot_be_seen_is_not_taken_for_ended() {
        let owner_dir = tempfile::tempdir().expect("a directory");
        assert!(end_processes(&owner_dir.path().join("nothing")).await);
        let directory = owner_dir.path().join("unseen");
        std::fs::create_dir(&directory).expect("made");
        directory::write_first(&directory, None)
            .await
            .expect("noted");
        assert!(!end_processes(owner_dir.path()).await);
    }
}
