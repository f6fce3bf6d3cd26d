//! Where the worker stands, and what it says of itself: its presence.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, select_biased};

use sluice_proto::queue::{ContainerUse, HELD_JOBS_MAX, Holds, PRESENCE_MS, Presence, WorkerState};

use crate::disk;
use crate::pause::{self, Mode};
use crate::runtime::pool::Pool;
use crate::shutdown::unblock;
use crate::telemetry::now_us;
use crate::worker::office::Office;
use crate::worker::watch::Watch;

/// Where a worker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posture {
    pub state: WorkerState,
    /// Why it takes no work at present, if so.
    pub refusing: Option<String>,
}

/// Looks at what a worker needs, and tells the bridge how it is.
pub struct Presenter {
    pub office: Arc<Office>,
    pub pool: Pool,
    pub posture: Arc<Watch<Posture>>,
    pub slots: u32,
    /// Where room is needed.
    pub dirs: Vec<PathBuf>,
    pub disk_free_bytes_min: u64,
    /// Where an order to pause would lie.
    pub data_dir: PathBuf,
}

// === impl Posture ===

impl Posture {
    pub fn takes_work(&self) -> bool {
        self.state == WorkerState::Running && self.refusing.is_none()
    }

    /// Whether a job that is here may still be started.
    pub fn starts_jobs(&self) -> bool {
        matches!(self.state, WorkerState::Starting | WorkerState::Running)
    }
}

// === impl Presenter ===

impl Presenter {
    /// Says how the worker is, every [`PRESENCE_MS`], on every change and on every
    /// new link, until it has stopped.
    pub async fn run(self) {
        let (mut link_seen, mut told) = (0, 0);
        loop {
            self.look().await;
            let posture = self.posture.get();
            let asked = self.office.asked.get();
            if let Some((number, _)) = self.office.links.now() {
                link_seen = number;
            }
            self.say(&posture, asked != told).await;
            told = asked;
            if posture.state == WorkerState::Stopped {
                return;
            }
            // A change that comes while this turn is at work differs from what it saw.
            select_biased! {
                () = self.posture.wait(|now| (*now != posture).then_some(())).fuse() => {}
                () = self.office.asked.wait(|now| (*now != told).then_some(())).fuse() => {}
                link = self.office.links.next(link_seen).fuse() => {
                    if link.is_none() {
                        return;
                    }
                }
                () = async_std::task::sleep(Duration::from_millis(PRESENCE_MS)).fuse() => {}
            }
        }
    }

    /// Finds out whether work can be done, and changes the posture if that changed.
    pub async fn look(&self) {
        let refusing = match self.pool.refusing() {
            Some(why) => Some(why),
            None => match self.blocked() {
                Some(why) => Some(why),
                None => {
                    standing_in_the_way(
                        self.dirs.clone(),
                        self.disk_free_bytes_min,
                        self.data_dir.clone(),
                    )
                    .await
                }
            },
        };
        self.posture.update(|posture| {
            if posture.refusing == refusing {
                return false;
            }
            match (&posture.refusing, &refusing) {
                (_, Some(why)) => {
                    tracing::warn!(worker = %self.office.name, reason = %why, "No work is taken until this is mended");
                }
                (Some(_), None) => {
                    tracing::info!(worker = %self.office.name, "Work is taken again");
                }
                (None, None) => {}
            }
            posture.refusing = refusing;
            true
        });
    }

    /// What this worker holds and has done.
    fn holds(&self) -> Holds {
        let mut held: Vec<_> = self
            .office
            .table()
            .held()
            .map(|(job, attempt, running)| (job.clone(), attempt, running))
            .collect();
        let total = held.len();
        held.sort_by_key(|(_, _, running)| !running);
        held.truncate(HELD_JOBS_MAX);
        let status = self.pool.status();
        let states = [
            ("starting", status.starting),
            ("stem", status.stems),
            ("loading", status.loading),
            ("idle", status.idle),
            ("busy", status.busy),
            ("going", status.going),
        ];
        let uses = self.pool.uses().into_iter();
        let sights = self.office.sights();
        Holds {
            jobs: held
                .iter()
                .map(|(job, attempt, running)| sights.held(job, *attempt, *running))
                .collect(),
            jobs_total: u32::try_from(total).unwrap_or(u32::MAX),
            retried: sights.lately_retried(now_us()),
            tallies: sights.tallies(),
            runtimes: states
                .map(|(state, count)| (state.to_owned(), count))
                .into(),
            containers: uses
                .map(|used| ContainerUse {
                    container: used.container,
                    memory_bytes: used.memory_bytes,
                    cpu_us: used.cpu_us,
                })
                .collect(),
        }
    }

    fn blocked(&self) -> Option<String> {
        let (_, link) = self.office.links.now()?;
        let why = link.blocked()?;
        Some(format!("The broker takes no messages: {why}"))
    }

    async fn say(&self, posture: &Posture, asked: bool) {
        let Some((number, link)) = self.office.links.now() else {
            return;
        };
        // A blocked broker reads nothing, and what is written to it waits.
        if link.blocked().is_some() {
            return;
        }
        let in_flight = self.office.table().in_slots();
        let presence = Presence {
            worker: self.office.name.clone(),
            state: posture.state,
            slots: self.slots,
            in_flight: u32::try_from(in_flight).unwrap_or(u32::MAX),
            runtimes: self.pool.status().total(),
            refusing: posture.refusing.clone(),
            at_us: now_us(),
            link: number,
            holds: asked.then(|| Box::new(self.holds())),
        };
        if let Err(error) = link.publish_presence(&presence).await {
            tracing::debug!(worker = %self.office.name, %error, "A presence was not published");
        }
    }
}

/// An order to pause, or too little room: why no work is taken, if so.
async fn standing_in_the_way(
    dirs: Vec<PathBuf>,
    free_bytes_min: u64,
    data_dir: PathBuf,
) -> Option<String> {
    unblock(move || {
        if let Some(order) = pause::read(&data_dir).filter(|order| order.mode == Mode::Paused) {
            return Some(order.sentence());
        }
        dirs.iter().find_map(|dir| {
            // What cannot be asked is not held against it.
            let free = disk::free_bytes(dir)?;
            too_little(dir, free, free_bytes_min)
        })
    })
    .await
}

fn too_little(dir: &Path, free: u64, free_min: u64) -> Option<String> {
    (free < free_min).then(|| {
        format!(
            "Only {} MiB are free at {}, and {} MiB are asked for (SLUICE_DISK_FREE_MB_MIN)",
            free / 1024 / 1024,
            dir.display(),
            free_min / 1024 / 1024
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_taken_only_by_a_running_worker_that_lacks_nothing() {
        let posture = |state, refusing: Option<&str>| Posture {
            state,
            refusing: refusing.map(str::to_owned),
        };
        assert!(posture(WorkerState::Running, None).takes_work());
        assert!(!posture(WorkerState::Running, Some("no image")).takes_work());
        assert!(posture(WorkerState::Running, Some("no image")).starts_jobs());
        for state in [WorkerState::Draining, WorkerState::Stopped] {
            assert!(!posture(state, None).takes_work());
            assert!(!posture(state, None).starts_jobs());
        }
    }

    #[test]
    fn too_little_room_names_the_place_and_the_setting() {
        let why = too_little(Path::new("/data"), 5 << 20, 6 << 20).expect("one is missing");
        assert!(why.starts_with("Only 5 MiB are free at /data"), "{why}");
        assert!(why.contains("SLUICE_DISK_FREE_MB_MIN"), "{why}");
        assert_eq!(too_little(Path::new("/data"), 6 << 20, 6 << 20), None);
    }
}
