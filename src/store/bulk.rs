//! Many rows in one statement: texts with 1, 4, 16 or 64 rows of placeholders,
//! so that SQLite's statement cache holds each of them once.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};

/// Rows per statement, largest first. 64 rows of 24 columns stay far below
/// SQLite's 32,766 placeholders.
const ROWS_PER_STATEMENT: [usize; 4] = [64, 16, 4, 1];

pub(super) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// One kind of statement: `head` VALUES (…), (…) `tail`.
pub(super) struct Statement {
    pub head: &'static str,
    pub columns: usize,
    pub tail: &'static str,
}

// === impl Statement ===

impl Statement {
    /// Runs the statement for all rows; `bind` binds one row's columns in order.
    pub(super) async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Bound<'q>,
    ) -> Result<(), sqlx::Error> {
        let mut rest = rows;
        for size in ROWS_PER_STATEMENT {
            while rest.len() >= size {
                let (now, later) = rest.split_at(size);
                let mut query = sqlx::query(self.text(size));
                for row in now {
                    query = bind(query, row);
                }
                query.execute(&mut *connection).await?;
                rest = later;
            }
        }
        Ok(())
    }

    /// The text for so many rows. There are a few dozen in all, each made once
    /// and kept for the life of the process.
    fn text(&self, rows: usize) -> &'static str {
        static TEXTS: OnceLock<Mutex<HashMap<(&'static str, usize), &'static str>>> =
            OnceLock::new();
        let mut texts = TEXTS
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        texts.entry((self.head, rows)).or_insert_with(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            let values = vec![row; rows].join(",");
            Box::leak(format!("{} VALUES {values}{}", self.head, self.tail).into_boxed_str())
        })
    }
}
