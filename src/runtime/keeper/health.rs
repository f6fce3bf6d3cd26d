//! Whether the engine is there, and what to do until it is back.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_std::future::timeout;
use futures::FutureExt;

use crate::backoff::jitter;
use crate::runtime::keeper::{AWAY, Done, HEAL, Keeper, SWEEP_MAX, Sweep};
use crate::runtime::ledger::NETWORKS;
use crate::runtime::sandbox::Host;
use crate::runtime::{Error, Owner, Runtime, directory, reaper};

impl<R: Runtime> Keeper<R> {
    /// Asks the engine whether it is ready, and sweeps once.
    pub(super) fn look(&self) -> impl Future<Output = Done> + Send + use<R> {
        let runtime = Arc::clone(&self.runtime);
        let (image, owner) = (self.config.image.clone(), self.owner.clone());
        let sweep = (!self.swept).then(|| self.owner_dir.clone());
        async move {
            let looked = async {
                // It needs no engine, and what a killed worker left does not run
                // on beside its jobs, which others have by now.
                let ended = match &sweep {
                    Some(owner_dir) => reaper::end_processes(owner_dir).await,
                    None => true,
                };
                runtime.ready(&image).await?;
                match sweep {
                    Some(owner_dir) => sweep_first(&*runtime, &owner, &owner_dir, ended).await,
                    None => runtime.host().await.map(|host| (host, Sweep::Whole)),
                }
            };
            Done::Healed(looked.await)
        }
    }

    pub(super) fn healed(&mut self, outcome: Result<(Host, Sweep), Error>) {
        self.healing = false;
        let host = match outcome {
            Ok((host, sweep)) => {
                if sweep == Sweep::Begun {
                    self.reconcile_at = Instant::now();
                }
                host
            }
            Err(error) => return self.engine_failed(&error),
        };
        if !self.swept {
            self.swept = true;
            let lacks = host.lacks();
            if !lacks.is_empty() {
                tracing::warn!(
                    controllers = lacks.join(" "),
                    "The kernel enforces no limits of these for this user (cgroup v2 delegation); substitutes are used"
                );
            }
        }
        self.host = host;
        self.heal_later();
        let suspects = std::mem::take(&mut self.suspects);
        self.shared.change(|ledger| {
            let mut steps = Vec::new();
            for network in NETWORKS {
                let probe = suspects.contains(&network);
                match probe
                    .then(|| ledger.probe(network, Instant::now()))
                    .flatten()
                {
                    Some(step) => steps.push(step),
                    None => ledger.accept(network),
                }
            }
            steps
        });
    }

    pub(super) fn engine_failed(&mut self, error: &Error) {
        let reason = error.to_string();
        if self.shared.ledger().refusing() != Some(&reason) {
            tracing::warn!(%error, "No runtime can be started at present");
        }
        match error {
            Error::Away { .. } => self.heal_at = Instant::now() + AWAY,
            _ => self.heal_later(),
        }
        self.shared.change(|ledger| {
            let refused = NETWORKS.map(|network| ledger.refuse(network, &reason));
            refused.into_iter().flatten().collect()
        });
    }

    pub(super) fn heal_later(&mut self) {
        self.heal_at = Instant::now() + HEAL.delay(self.heal_attempt, jitter());
        self.heal_attempt = self.heal_attempt.saturating_add(1);
    }

    pub(super) fn reconcile(&mut self, names: &[String]) {
        let held: HashSet<&str> = self.held.values().map(|held| held.name.as_str()).collect();
        for name in names {
            if held.contains(name.as_str()) {
                continue;
            }
            tracing::warn!(container = %name, "A runtime nobody holds is removed");
            let (runtime, name) = (Arc::clone(&self.runtime), name.clone());
            let work = async move {
                if let Err(error) = runtime.remove(&name).await {
                    tracing::warn!(container = %name, %error, "It could not be removed");
                }
                Done::Swept
            };
            self.work.push(work.boxed());
        }
    }
}

/// Removes what an earlier process left, and finds out what the host can enforce.
///
/// While Podman cleans up after a killed worker, it answers nothing about
/// containers, for seconds on a busy host. Where all their processes are known
/// to have `ended`, what is left of them is records, which go with the next
/// list; and what the killed worker knew of the host is enough to start new ones.
async fn sweep_first<R: Runtime>(
    runtime: &R,
    owner: &Owner,
    owner_dir: &Path,
    ended: bool,
) -> Result<(Host, Sweep), Error> {
    let whole = async {
        let host = runtime.host().await?;
        let removed = reaper::sweep_all(runtime, owner, owner_dir).await?;
        if removed > 0 {
            tracing::info!(removed, "Runtimes of an earlier worker were removed");
        }
        Ok((host, Sweep::Whole))
    };
    let known = match ended {
        true => directory::recall_host(owner_dir).await,
        false => None,
    };
    let swept = match known {
        None => whole.await?,
        Some(known) => match timeout(SWEEP_MAX, whole).await {
            Ok(swept) => swept?,
            Err(_) => {
                directory::delete(owner_dir).await;
                tracing::info!(
                    "Podman is busy; runtimes of an earlier worker have ended, and their records are removed beside the first jobs"
                );
                (known, Sweep::Begun)
            }
        },
    };
    directory::remember_host(owner_dir, &swept.0).await;
    Ok(swept)
}
