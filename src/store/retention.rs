//! What is kept, and for how long: finished jobs go by age, by number and by
//! the size of the file; expired keys of apps go when their time has come.

use sqlx::Row;

use crate::store::{Error, Store, int, uint};

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Finished jobs older than this go, in microseconds.
    pub age_us: u64,
    /// Only so many of the newest jobs are kept once they are finished.
    pub jobs_max: u64,
    /// Above this size of the file in use, in bytes, the oldest go early.
    pub bytes_max: u64,
}

/// Jobs removed in one change, so that live jobs never wait long behind it.
const REMOVE_AT_ONCE: usize = 200;
/// Jobs looked for in one round.
const ROUND_MAX: u32 = 2_000;

// === impl Store ===

impl Store {
    /// Removes finished jobs that are over a limit, with all they left; says how many.
    pub async fn sweep_jobs(&self, limits: Limits, now_us: u64) -> Result<usize, Error> {
        let newest: i64 = sqlx::query("SELECT COALESCE(MAX(seq), 0) FROM jobs")
            .fetch_one(&self.readers)
            .await?
            .try_get(0)?;
        // Over the size, whatever is oldest goes, one round at a time.
        let too_large = self.bytes_in_use().await? > limits.bytes_max;
        let newest_kept = newest.saturating_sub(int(limits.jobs_max));
        let rows = sqlx::query(
            "SELECT seq FROM jobs WHERE finished_us IS NOT NULL \
             AND (purpose IS NULL OR settled = 1) \
             AND (seq <= ?1 OR finished_us < ?2 OR ?3) ORDER BY seq LIMIT ?4",
        )
        .bind(newest_kept)
        .bind(int(now_us.saturating_sub(limits.age_us)))
        .bind(too_large)
        .bind(ROUND_MAX)
        .fetch_all(&self.readers)
        .await?;
        let old: Vec<i64> = rows
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?;
        for some in old.chunks(REMOVE_AT_ONCE) {
            self.remove_jobs(some.to_vec()).await?;
        }
        Ok(old.len())
    }

    /// Removes keys of apps whose time to live is over; says how many.
    pub async fn sweep_kv(&self, now_ms: u64) -> Result<u64, Error> {
        self.change(move |c| {
            Box::pin(async move {
                let done = sqlx::query("DELETE FROM kv WHERE expires_ms <= ?")
                    .bind(int(now_ms))
                    .execute(c)
                    .await?;
                Ok(done.rows_affected())
            })
        })
        .await
    }

    async fn bytes_in_use(&self) -> Result<u64, Error> {
        let row = sqlx::query(
            "SELECT (p.page_count - f.freelist_count) * s.page_size \
             FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s",
        )
        .fetch_one(&self.readers)
        .await?;
        Ok(uint(row.try_get(0)?))
    }

    async fn remove_jobs(&self, seqs: Vec<i64>) -> Result<(), Error> {
        let list = serde_json::Value::from(seqs).to_string();
        self.change(move |c| {
            Box::pin(async move {
                for text in [
                    "DELETE FROM payloads WHERE seq IN (SELECT value FROM json_each(?))",
                    "DELETE FROM endings WHERE seq IN (SELECT value FROM json_each(?))",
                    "DELETE FROM logs WHERE job IN (SELECT value FROM json_each(?))",
                    "DELETE FROM tried WHERE job IN (SELECT value FROM json_each(?))",
                    "DELETE FROM calls WHERE job IN (SELECT value FROM json_each(?))",
                    "DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each(?))",
                ] {
                    sqlx::query(text)
                        .bind(list.clone())
                        .execute(&mut *c)
                        .await?;
                }
                Ok(())
            })
        })
        .await
    }
}
