//! Leftovers: containers of ours that nobody holds, and their directories.
//!
//! Owns nothing. Containers are found by the labels of agent and worker, in
//! Podman's own list: what is there is looked at, not remembered.

use std::collections::HashSet;
use std::path::Path;

use futures::StreamExt;
use futures::stream;

use crate::runtime::{Error, Owner, Runtime, directory};

/// Removals under way at once: Podman's locks make more of them slower.
pub(super) const REMOVALS_MAX: usize = 4;

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
