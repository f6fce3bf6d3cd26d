//! Secrets of projects. A value is read by the engine alone; no view has it.
//! What stands in the row is sealed; opening it is the gateway's.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, Tx};

/// A secret without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub key: String,
    pub updated_ms: i64,
}

/// A value as it stands in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub value: String,
    /// The key's name; `None`: the value is plain, from before values were sealed.
    pub sealed_by: Option<String>,
}

pub async fn put(
    tx: &mut Tx,
    project: &str,
    key: &str,
    kept: &Kept,
    now_ms: i64,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT OR REPLACE INTO secrets (project, key, value, sealed_by, updated_ms) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(project)
    .bind(key)
    .bind(&kept.value)
    .bind(&kept.sealed_by)
    .bind(now_ms)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn exists(tx: &mut Tx, project: &str, key: &str) -> Result<bool, Error> {
    let row = sqlx::query("SELECT 1 FROM secrets WHERE project = ? AND key = ?")
        .bind(project)
        .bind(key)
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

/// False when there was none.
pub async fn delete(tx: &mut Tx, project: &str, key: &str) -> Result<bool, Error> {
    let done = sqlx::query("DELETE FROM secrets WHERE project = ? AND key = ?")
        .bind(project)
        .bind(key)
        .execute(tx)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// All of a project's, with their values.
pub async fn values(tx: &mut Tx, project: &str) -> Result<BTreeMap<String, Kept>, Error> {
    let rows = sqlx::query("SELECT key, value, sealed_by FROM secrets WHERE project = ?")
        .bind(project)
        .fetch_all(tx)
        .await?;
    let pair = |row: &SqliteRow| Ok((row.try_get("key")?, kept(row)?));
    Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
}

fn kept(row: &SqliteRow) -> Result<Kept, sqlx::Error> {
    Ok(Kept {
        value: row.try_get("value")?,
        sealed_by: row.try_get("sealed_by")?,
    })
}

/// Goes through every secret: what `renew` (given project, key and value)
/// answers stands in its place, and nothing is left of what stood there. Not for
/// a transaction: it makes its own.
pub(in crate::store) async fn renew<E: From<Error>>(
    tx: &mut Tx,
    renew: impl Fn(&str, &str, &Kept) -> Result<Option<Kept>, E>,
) -> Result<usize, E> {
    let sql = |error: sqlx::Error| E::from(Error::Sql(error));
    let rows = sqlx::query("SELECT project, key, value, sealed_by FROM secrets")
        .fetch_all(&mut *tx)
        .await
        .map_err(sql)?;
    let mut renewed = Vec::new();
    for row in &rows {
        let project: String = row.try_get("project").map_err(sql)?;
        let key: String = row.try_get("key").map_err(sql)?;
        if let Some(next) = renew(&project, &key, &kept(row).map_err(sql)?)? {
            renewed.push((project, key, next));
        }
    }
    if renewed.is_empty() {
        return Ok(0);
    }
    // Deleted content is overwritten, and the log that may still hold it is emptied.
    run(tx, "PRAGMA secure_delete = ON").await.map_err(sql)?;
    run(tx, "BEGIN IMMEDIATE").await.map_err(sql)?;
    for (project, key, next) in &renewed {
        sqlx::query("UPDATE secrets SET value = ?, sealed_by = ? WHERE project = ? AND key = ?")
            .bind(&next.value)
            .bind(&next.sealed_by)
            .bind(project)
            .bind(key)
            .execute(&mut *tx)
            .await
            .map_err(sql)?;
    }
    for text in [
        "COMMIT",
        // Rows that were rewritten before may have left their bytes in free space.
        "VACUUM",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA secure_delete = OFF",
    ] {
        run(tx, text).await.map_err(sql)?;
    }
    Ok(renewed.len())
}

async fn run(tx: &mut Tx, text: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(text).execute(tx).await.map(drop)
}

// === impl Store ===

impl Store {
    pub async fn secrets(&self, project: &str) -> Result<Vec<Secret>, Error> {
        let rows =
            sqlx::query("SELECT key, updated_ms FROM secrets WHERE project = ? ORDER BY key")
                .bind(project)
                .fetch_all(&self.readers)
                .await?;
        let secret = |row: &SqliteRow| {
            Ok(Secret {
                key: row.try_get(0)?,
                updated_ms: row.try_get(1)?,
            })
        };
        Ok(rows
            .iter()
            .map(secret)
            .collect::<Result<_, sqlx::Error>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "a value that nobody may find";

    /// Whether the value lies in the database or its log.
    fn is_on_the_disk(dir: &std::path::Path) -> bool {
        let files = std::fs::read_dir(dir).expect("a directory");
        files.into_iter().any(|file| {
            let bytes = std::fs::read(file.expect("a file").path()).expect("read");
            bytes
                .windows(PLAIN.len())
                .any(|part| part == PLAIN.as_bytes())
        })
    }

    #[async_std::test]
    async fn what_was_plain_leaves_no_trace() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("test.db");
        let (store, writer) = Store::open(&path).await.expect("opened");
        let writing = crate::shutdown::Tasks::new("test", crate::shutdown::Shutdown::new());
        writing.spawn("store", writer.run());
        let plain = Kept {
            value: PLAIN.to_owned(),
            sealed_by: None,
        };
        let put = store.change(move |tx| {
            Box::pin(async move {
                put(tx, "p", "gone", &plain, 1).await?;
                delete(tx, "p", "gone").await?;
                put(tx, "p", "K", &plain, 1).await
            })
        });
        put.await.expect("written");
        store.close();
        writing.join().await;
        drop(store);
        assert!(
            is_on_the_disk(dir.path()),
            "the test sees what it looks for"
        );
        let (store, mut writer) = Store::open(&path).await.expect("opened");
        let sealed = Kept {
            value: "sealed".to_owned(),
            sealed_by: Some("first".to_owned()),
        };
        let renewed = writer.renew_secrets(|project, key, kept| {
            assert_eq!((project, key, kept.value.as_str()), ("p", "K", PLAIN));
            Ok::<_, Error>(Some(sealed.clone()))
        });
        assert_eq!(renewed.await.expect("renewed"), 1);
        let there = values(&mut store.reader().await.expect("a reader"), "p").await;
        assert_eq!(there.expect("read").get("K"), Some(&sealed));
        assert!(!is_on_the_disk(dir.path()));
        let nothing = writer.renew_secrets(|_, _, _| Ok::<_, Error>(None));
        assert_eq!(nothing.await.expect("looked at"), 0);
    }
}
