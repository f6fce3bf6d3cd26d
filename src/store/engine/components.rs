//! What has a life: installations and blocks, with what they remember of it.

use serde_json::{Map, Value};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::engine::{json, json_or_null};
use crate::store::{Error, Store, Tx};

/// `state` and `outputs` are JSON whose meaning is the engine's.
#[derive(Debug, Clone)]
pub struct Component {
    pub id: String,
    pub project: String,
    /// Of a block.
    pub flow: Option<String>,
    /// Of an app's block; an installation's own id is its component's.
    pub installation: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    pub state: Value,
    /// Evaluated, checked and filled config.
    pub vals: Option<Map<String, Value>>,
    /// How often the config was evaluated; the number of the last time.
    pub config_number: i64,
    /// An evaluation is under way.
    pub config_busy: bool,
    pub config_error: Option<String>,
    /// The last run that was given a job.
    pub started_run: i64,
    pub signals: Map<String, Value>,
    pub outputs: Value,
    pub widget: Option<Value>,
    pub created_ms: i64,
}

const COLUMNS: &str = "id, project, flow, installation, type, name, state, vals, config_number, \
     config_busy, config_error, started_run, signals, outputs, widget, created_ms";

fn component(row: &SqliteRow) -> Result<Component, sqlx::Error> {
    Ok(Component {
        id: row.try_get(0)?,
        project: row.try_get(1)?,
        flow: row.try_get(2)?,
        installation: row.try_get(3)?,
        kind: row.try_get(4)?,
        name: row.try_get(5)?,
        state: json(row, 6)?,
        vals: json_or_null(row, 7)?,
        config_number: row.try_get(8)?,
        config_busy: row.try_get(9)?,
        config_error: row.try_get(10)?,
        started_run: row.try_get(11)?,
        signals: json(row, 12)?,
        outputs: json(row, 13)?,
        widget: json_or_null(row, 14)?,
        created_ms: row.try_get(15)?,
    })
}

/// Writes all of it; a component with the same id is replaced.
pub async fn put(tx: &mut Tx, it: &Component) -> Result<(), Error> {
    let vals = it.vals.as_ref().map(|vals| serde_json::json!(vals));
    sqlx::query(
        "INSERT OR REPLACE INTO components (id, project, flow, installation, type, name, state, \
         vals, config_number, config_busy, config_error, started_run, signals, outputs, widget, \
         created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&it.id)
    .bind(&it.project)
    .bind(&it.flow)
    .bind(&it.installation)
    .bind(&it.kind)
    .bind(&it.name)
    .bind(it.state.to_string())
    .bind(vals.map(|vals| vals.to_string()))
    .bind(it.config_number)
    .bind(it.config_busy)
    .bind(&it.config_error)
    .bind(it.started_run)
    .bind(serde_json::json!(it.signals).to_string())
    .bind(it.outputs.to_string())
    .bind(it.widget.as_ref().map(Value::to_string))
    .bind(it.created_ms)
    .execute(tx)
    .await?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Component>, Error> {
    let text = format!("SELECT {COLUMNS} FROM components WHERE id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(id)
        .fetch_optional(tx)
        .await?;
    Ok(row.as_ref().map(component).transpose()?)
}

pub async fn of_flow(tx: &mut Tx, flow: &str) -> Result<Vec<Component>, Error> {
    let text = format!("SELECT {COLUMNS} FROM components WHERE flow = ? ORDER BY id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(flow)
        .fetch_all(tx)
        .await?;
    Ok(rows.iter().map(component).collect::<Result<_, _>>()?)
}

/// The blocks of an installation.
pub async fn of_installation(tx: &mut Tx, installation: &str) -> Result<Vec<Component>, Error> {
    let text = format!("SELECT {COLUMNS} FROM components WHERE installation = ? ORDER BY id");
    let rows = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(installation)
        .fetch_all(tx)
        .await?;
    Ok(rows.iter().map(component).collect::<Result<_, _>>()?)
}

/// Removes a component and what stands beside it.
pub async fn delete(tx: &mut Tx, id: &str, installation: Option<&str>) -> Result<(), Error> {
    for text in [
        "DELETE FROM components WHERE id = ?",
        "DELETE FROM prompts WHERE component = ?",
        "DELETE FROM timers WHERE component = ?",
        "DELETE FROM custom_schedules WHERE component = ?",
    ] {
        sqlx::query(text).bind(id).execute(&mut *tx).await?;
    }
    if let Some(installation) = installation {
        sqlx::query("DELETE FROM kv WHERE scope = ?")
            .bind(format!("block:{installation}:{id}"))
            .execute(tx)
            .await?;
    }
    Ok(())
}

// === Prompts ===

pub async fn prompts(tx: &mut Tx, component: &str) -> Result<Map<String, Value>, Error> {
    let rows = sqlx::query("SELECT key, prompt FROM prompts WHERE component = ? ORDER BY key")
        .bind(component)
        .fetch_all(tx)
        .await?;
    let pair = |row: &SqliteRow| Ok((row.try_get(0)?, json(row, 1)?));
    Ok(rows.iter().map(pair).collect::<Result<_, sqlx::Error>>()?)
}

pub async fn set_prompt(
    tx: &mut Tx,
    component: &str,
    key: &str,
    prompt: &Value,
) -> Result<(), Error> {
    sqlx::query("INSERT OR REPLACE INTO prompts (component, key, prompt) VALUES (?, ?, ?)")
        .bind(component)
        .bind(key)
        .bind(prompt.to_string())
        .execute(tx)
        .await?;
    Ok(())
}

pub async fn delete_prompt(tx: &mut Tx, component: &str, key: &str) -> Result<(), Error> {
    sqlx::query("DELETE FROM prompts WHERE component = ? AND key = ?")
        .bind(component)
        .bind(key)
        .execute(tx)
        .await?;
    Ok(())
}

// === impl Store ===

impl Store {
    pub async fn component(&self, id: &str) -> Result<Option<Component>, Error> {
        get(&mut *self.reader().await?, id).await
    }

    pub async fn components_of_flow(&self, flow: &str) -> Result<Vec<Component>, Error> {
        of_flow(&mut *self.reader().await?, flow).await
    }

    pub async fn prompts(&self, component: &str) -> Result<Map<String, Value>, Error> {
        prompts(&mut *self.reader().await?, component).await
    }
}
