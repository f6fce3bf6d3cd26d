//! Data tables of projects: their names, their typed columns, and the flows
//! they are attached to. Rows have no place here yet.
//!
//! Owns the queries; which types there are is the gateway's.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::{Error, Store, Tx, taken};

#[derive(Debug, Clone)]
pub struct DataTable {
    pub id: String,
    pub project: String,
    pub name: String,
    pub created_ms: i64,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub id: String,
    /// Id of its table.
    pub data_table: String,
    /// The project of its table.
    pub project: String,
    pub name: String,
    pub kind: String,
    /// The table whose rows it names.
    pub ref_table: Option<String>,
    pub created_ms: i64,
}

const TABLE: &str = "SELECT id, project, name, created_ms FROM data_tables";
const COLUMN: &str = "SELECT c.id, c.data_table, t.project, c.name, c.type, c.ref_table, c.created_ms \
     FROM data_table_columns c JOIN data_tables t ON t.id = c.data_table";

fn table(row: &SqliteRow) -> Result<DataTable, sqlx::Error> {
    Ok(DataTable {
        id: row.try_get("id")?,
        project: row.try_get("project")?,
        name: row.try_get("name")?,
        created_ms: row.try_get("created_ms")?,
    })
}

fn column(row: &SqliteRow) -> Result<Column, sqlx::Error> {
    Ok(Column {
        id: row.try_get("id")?,
        data_table: row.try_get("data_table")?,
        project: row.try_get("project")?,
        name: row.try_get("name")?,
        kind: row.try_get("type")?,
        ref_table: row.try_get("ref_table")?,
        created_ms: row.try_get("created_ms")?,
    })
}

fn table_taken(name: &str) -> String {
    format!("a data table called `{name}` exists in this project")
}

fn column_taken(name: &str) -> String {
    format!("a column called `{name}` exists in this data table")
}

async fn count(tx: &mut Tx, text: &'static str, of: &str) -> Result<u64, Error> {
    let row = sqlx::query(text).bind(of).fetch_one(tx).await?;
    let found: i64 = row.try_get("found")?;
    Ok(found.unsigned_abs())
}

// === impl Store ===

impl Store {
    /// # Errors
    ///
    /// [`Error::Taken`] when the project has a table of this name, or `tables_max` of them.
    pub async fn create_data_table(&self, it: DataTable, tables_max: u64) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                let text = "SELECT COUNT(*) AS found FROM data_tables WHERE project = ?";
                if count(&mut *c, text, &it.project).await? >= tables_max {
                    return Err(Error::Taken(format!(
                        "this project has {tables_max} data tables, which is the limit"
                    )));
                }
                sqlx::query(
                    "INSERT INTO data_tables (id, project, name, created_ms) VALUES (?, ?, ?, ?)",
                )
                .bind(&it.id)
                .bind(&it.project)
                .bind(&it.name)
                .bind(it.created_ms)
                .execute(&mut *c)
                .await
                .map_err(|error| taken(error, || table_taken(&it.name)))?;
                Ok(())
            })
        })
        .await
    }

    pub async fn data_table(&self, id: &str) -> Result<Option<DataTable>, Error> {
        let text = format!("{TABLE} WHERE id = ?");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(table).transpose()?)
    }

    /// # Errors
    ///
    /// [`Error::Taken`] when the project has a table of this name.
    pub async fn rename_data_table(&self, id: &str, name: &str) -> Result<(), Error> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("UPDATE data_tables SET name = ? WHERE id = ?")
                    .bind(&name)
                    .bind(id)
                    .execute(c)
                    .await
                    .map_err(|error| taken(error, || table_taken(&name)))?;
                Ok(())
            })
        })
        .await
    }

    /// Removes a table with its columns and attachments.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] when a column of another table refers to it.
    pub async fn delete_data_table(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.change(move |c| {
            Box::pin(async move {
                let text = "SELECT COUNT(*) AS found FROM data_table_columns \
                     WHERE ref_table = ?1 AND data_table <> ?1";
                if count(&mut *c, text, &id).await? > 0 {
                    return Err(Error::Taken(
                        "a column of another data table refers to this one: remove that first"
                            .to_owned(),
                    ));
                }
                for text in [
                    "DELETE FROM data_table_flows WHERE data_table = ?",
                    "DELETE FROM data_table_columns WHERE data_table = ?",
                    "DELETE FROM data_tables WHERE id = ?",
                ] {
                    sqlx::query(text).bind(&id).execute(&mut *c).await?;
                }
                Ok(())
            })
        })
        .await
    }

    /// # Errors
    ///
    /// [`Error::Taken`] when the table has a column of this name, or `columns_max`
    /// of them; [`Error::Missing`] when a table that it names is gone.
    pub async fn create_column(&self, it: Column, columns_max: u64) -> Result<(), Error> {
        self.change(move |c| {
            Box::pin(async move {
                for id in [Some(&it.data_table), it.ref_table.as_ref()].into_iter().flatten() {
                    let text = "SELECT COUNT(*) AS found FROM data_tables WHERE id = ?";
                    if count(&mut *c, text, id).await? == 0 {
                        return Err(Error::Missing(format!("data table {id}")));
                    }
                }
                let text = "SELECT COUNT(*) AS found FROM data_table_columns WHERE data_table = ?";
                if count(&mut *c, text, &it.data_table).await? >= columns_max {
                    return Err(Error::Taken(format!(
                        "this data table has {columns_max} columns, which is the limit"
                    )));
                }
                sqlx::query(
                    "INSERT INTO data_table_columns (id, data_table, name, type, ref_table, created_ms) \
                     VALUES (?, ?, ?, ?, ?, ?)",
                )
                .bind(&it.id)
                .bind(&it.data_table)
                .bind(&it.name)
                .bind(&it.kind)
                .bind(&it.ref_table)
                .bind(it.created_ms)
                .execute(&mut *c)
                .await
                .map_err(|error| taken(error, || column_taken(&it.name)))?;
                Ok(())
            })
        })
        .await
    }

    pub async fn column(&self, id: &str) -> Result<Option<Column>, Error> {
        let text = format!("{COLUMN} WHERE c.id = ?");
        let row = sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(column).transpose()?)
    }

    /// # Errors
    ///
    /// [`Error::Taken`] when the table has a column of this name.
    pub async fn rename_column(&self, id: &str, name: &str) -> Result<(), Error> {
        let (id, name) = (id.to_owned(), name.to_owned());
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("UPDATE data_table_columns SET name = ? WHERE id = ?")
                    .bind(&name)
                    .bind(id)
                    .execute(c)
                    .await
                    .map_err(|error| taken(error, || column_taken(&name)))?;
                Ok(())
            })
        })
        .await
    }

    pub async fn delete_column(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.change(move |c| {
            Box::pin(async move {
                sqlx::query("DELETE FROM data_table_columns WHERE id = ?")
                    .bind(id)
                    .execute(c)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    /// Attaches a table to a flow, or no longer. A repeat changes nothing.
    pub async fn attach_data_table(&self, id: &str, flow: &str, on: bool) -> Result<(), Error> {
        let (id, flow) = (id.to_owned(), flow.to_owned());
        self.change(move |c| {
            Box::pin(async move {
                let text = if on {
                    // Both may have gone since they were looked at.
                    "INSERT OR IGNORE INTO data_table_flows (data_table, flow) \
                     SELECT t.id, f.id FROM data_tables t, flows f WHERE t.id = ? AND f.id = ?"
                } else {
                    "DELETE FROM data_table_flows WHERE data_table = ? AND flow = ?"
                };
                sqlx::query(text).bind(id).bind(flow).execute(c).await?;
                Ok(())
            })
        })
        .await
    }

    /// The flows a table is attached to.
    pub async fn flows_of_data_table(&self, id: &str) -> Result<Vec<String>, Error> {
        let rows =
            sqlx::query("SELECT flow FROM data_table_flows WHERE data_table = ? ORDER BY flow")
                .bind(id)
                .fetch_all(&self.readers)
                .await?;
        Ok(rows
            .iter()
            .map(|row| row.try_get("flow"))
            .collect::<Result<_, _>>()?)
    }
}
