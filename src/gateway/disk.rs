//! The gateway's own disk: nothing new is taken before it is full.
//!
//! A store that cannot write loses nothing, but answers nobody either; what is
//! kept free here is what ends, reports and deletions of what was taken need.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::disk;
use crate::gateway::error::ApiError;
use crate::shutdown::unblock;

/// After how long a caller may ask again, in seconds: room does not come by itself.
const RETRY_S: u32 = 10;

/// What is known of the disk below the gateway's directory.
pub struct Disk {
    dir: PathBuf,
    free_bytes_min: u64,
    /// Why nothing new is taken, if so.
    low: Mutex<Option<String>>,
}

// === impl Disk ===

impl Disk {
    pub fn new(dir: &Path, free_bytes_min: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            free_bytes_min,
            low: Mutex::default(),
        }
    }

    /// Looks how much is free.
    pub async fn look(&self) {
        let dir = self.dir.clone();
        let free = unblock(move || disk::free_bytes(&dir)).await;
        // What cannot be asked is not held against it.
        let now = free.and_then(|free| too_little(free, self.free_bytes_min));
        let mut low = self.low.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*low, &now) {
            (None, Some(why)) => tracing::error!(reason = %why, "Nothing new is taken"),
            (Some(_), None) => tracing::info!("The disk has room again, and work is taken"),
            _ => {}
        }
        *low = now;
    }

    /// An error while there is too little room for anything new.
    pub fn check(&self) -> Result<(), ApiError> {
        let low = self.low.lock().unwrap_or_else(PoisonError::into_inner);
        match &*low {
            None => Ok(()),
            Some(why) => Err(ApiError::later(507, why.clone(), RETRY_S)),
        }
    }
}

fn too_little(free: u64, free_min: u64) -> Option<String> {
    const MIB: u64 = 1024 * 1024;
    (free < free_min).then(|| {
        format!(
            "the gateway's disk is nearly full: {} MiB are free, and {} MiB must be (SLUICE_DISK_FREE_MB_MIN)",
            free / MIB,
            free_min / MIB
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[async_std::test]
    async fn a_full_disk_takes_nothing_new_and_says_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::new(dir.path(), u64::MAX);
        assert!(disk.check().is_ok(), "not known yet");
        disk.look().await;
        let error = disk.check().expect_err("there is never so much room");
        assert_eq!(error.status, 507);
        assert!(
            error.message.contains("SLUICE_DISK_FREE_MB_MIN"),
            "{error:?}"
        );
        let roomy = Disk::new(dir.path(), 0);
        roomy.look().await;
        assert!(roomy.check().is_ok());
    }

    #[test]
    fn exactly_enough_is_enough() {
        assert_eq!(too_little(5, 5), None);
        assert!(too_little(4 << 20, 5 << 20).is_some_and(|why| why.contains("4 MiB")));
    }
}
