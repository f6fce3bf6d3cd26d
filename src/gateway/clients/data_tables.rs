//! Data tables of projects: their names, their typed columns, and the flows
//! they are attached to.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::api::flows;
use crate::gateway::auth::Caller;
use crate::gateway::clients::done;
use crate::gateway::directory::new_id;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, name};
use crate::store::data_tables::{Column, DataTable};
use crate::telemetry::now_ms;

/// Data tables of a project.
const TABLES_MAX: u64 = 1_000;
/// Columns of a data table: wider ones are two.
const COLUMNS_MAX: u64 = 200;
/// What a column may hold.
const TYPES: [&str; 7] = [
    "boolean", "datetime", "float", "integer", "json", ROW_REF, "string",
];
/// A row of another table.
const ROW_REF: &str = "row_ref";

/// `{projectId, name}`.
pub async fn create(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let project = fields.required_text("projectId")?;
    caller.existing_project(gateway, "projectId", &project)?;
    let table = DataTable {
        id: new_id(),
        project,
        name: name(&fields.required_text("name")?)?,
        created_ms: at_ms(),
    };
    let store = &gateway.store;
    store.create_data_table(table.clone(), TABLES_MAX).await?;
    Ok(Reply::data(&json!({"dataTable": table_object(&table)})))
}

/// `{id}`.
pub async fn get(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let table = find(gateway, caller, &fields.required_text("id")?).await?;
    let mut shown = table_object(&table);
    shown["flows"] = json!(gateway.store.flows_of_data_table(&table.id).await?);
    Ok(Reply::data(&json!({"dataTable": shown})))
}

/// `{id, name}`.
pub async fn update(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let mut table = find(gateway, caller, &fields.required_text("id")?).await?;
    table.name = name(&fields.required_text("name")?)?;
    let store = &gateway.store;
    store.rename_data_table(&table.id, &table.name).await?;
    Ok(Reply::data(&json!({"dataTable": table_object(&table)})))
}

/// `{id}`: with its columns and attachments.
pub async fn delete(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let table = find(gateway, caller, &fields.required_text("id")?).await?;
    gateway.store.delete_data_table(&table.id).await?;
    Ok(done())
}

/// `{dataTableId, name, type, refTableId?}`.
pub async fn create_column(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let table = find(gateway, caller, &fields.required_text("dataTableId")?).await?;
    let kind = fields.required_text("type")?;
    if !TYPES.contains(&kind.as_str()) {
        return Err(ApiError::bad(format!(
            "`type` is `{kind}`: say one of {}",
            TYPES.join(", ")
        )));
    }
    let ref_table = fields.text("refTableId")?;
    match &ref_table {
        None if kind == ROW_REF => {
            let sentence = "`refTableId` is missing: a column of type `row_ref` names a data table";
            return Err(ApiError::bad(sentence));
        }
        Some(_) if kind != ROW_REF => {
            let sentence = format!("`refTableId` belongs to columns of type `{ROW_REF}` alone");
            return Err(ApiError::bad(sentence));
        }
        Some(id) => {
            let other = gateway.store.data_table(id).await?;
            if other.is_none_or(|other| other.project != table.project) {
                return Err(ApiError::bad(format!(
                    "`refTableId` names {id}, which is no data table of this project"
                )));
            }
        }
        None => {}
    }
    let column = Column {
        id: new_id(),
        data_table: table.id,
        project: table.project,
        name: name(&fields.required_text("name")?)?,
        kind,
        ref_table,
        created_ms: at_ms(),
    };
    let store = &gateway.store;
    store.create_column(column.clone(), COLUMNS_MAX).await?;
    Ok(Reply::data(&json!({"column": column_object(&column)})))
}

/// `{id}`.
pub async fn get_column(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let column = find_column(gateway, caller, &fields.required_text("id")?).await?;
    Ok(Reply::data(&json!({"column": column_object(&column)})))
}

/// `{id, name}`.
pub async fn update_column(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let mut column = find_column(gateway, caller, &fields.required_text("id")?).await?;
    column.name = name(&fields.required_text("name")?)?;
    let store = &gateway.store;
    store.rename_column(&column.id, &column.name).await?;
    Ok(Reply::data(&json!({"column": column_object(&column)})))
}

/// `{id}`.
pub async fn delete_column(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let column = find_column(gateway, caller, &fields.required_text("id")?).await?;
    gateway.store.delete_column(&column.id).await?;
    Ok(done())
}

/// `{dataTableId, flowId}`; a repeat changes nothing.
pub async fn attach(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let table = find(gateway, caller, &fields.required_text("dataTableId")?).await?;
    let flow = flows::find(gateway, caller, &fields.required_text("flowId")?).await?;
    if flow.project != table.project {
        let sentence = "the data table and the flow are not of the same project";
        return Err(ApiError::bad(sentence));
    }
    let store = &gateway.store;
    store.attach_data_table(&table.id, &flow.id, true).await?;
    Ok(done())
}

/// `{dataTableId, flowId}`; a flow that is gone has no attachments.
pub async fn detach(
    gateway: &Gateway,
    caller: &Caller,
    mut fields: Fields,
) -> Result<Reply, ApiError> {
    let table = find(gateway, caller, &fields.required_text("dataTableId")?).await?;
    let flow = fields.required_text("flowId")?;
    let store = &gateway.store;
    store.attach_data_table(&table.id, &flow, false).await?;
    Ok(done())
}

async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<DataTable, ApiError> {
    let table = gateway.store.data_table(id).await?;
    table
        .filter(|table| caller.sees(&table.project))
        .ok_or_else(|| ApiError::not_found(format!("data table {id}")))
}

async fn find_column(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Column, ApiError> {
    let column = gateway.store.column(id).await?;
    column
        .filter(|column| caller.sees(&column.project))
        .ok_or_else(|| ApiError::not_found(format!("column {id}")))
}

fn at_ms() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}

fn table_object(table: &DataTable) -> Value {
    json!({"id": table.id, "name": table.name})
}

fn column_object(column: &Column) -> Value {
    let mut shown = json!({"id": column.id, "name": column.name, "type": column.kind});
    if let Some(table) = &column.ref_table {
        shown["refTableId"] = json!(table);
    }
    shown
}
