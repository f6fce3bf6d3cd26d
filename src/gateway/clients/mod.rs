//! What published clients speak: `/cli/…`, the command line that builds apps,
//! and `/provider/…`, the Terraform and OpenTofu provider. A file per noun.
//!
//! Their shapes are the clients', so they differ from those of `/api/v1`: every
//! request is a `POST` with all it says in a JSON body, every success is 200,
//! and a field that is not known here is left alone, because a newer client may
//! say more than an older gateway understands. What is done is the same as
//! below `/api/v1`, by the same functions.
//!
//! Owns the shapes and the texts that the clients look for: `not found`, alone,
//! for what is gone; `app installation is not a draft`; `internal error` in what
//! is no fault of the request.

mod apps;
mod data_tables;
mod flows;
mod installations;
mod secrets;
mod versions;

use std::sync::Arc;

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::{Reply, no_route};
use crate::gateway::json::Fields;

/// Finds the handler of a request whose body is read. Every one of them takes
/// the caller, so none can be reached without.
pub async fn handle(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    method: &str,
    path: &[&str],
    body: &[u8],
) -> Result<Reply, ApiError> {
    match (method, path) {
        ("POST", ["cli", "projects"]) => Ok(apps::projects(gateway, caller)),
        ("POST", ["cli", "apps", "list_apps"]) => apps::list(gateway, caller, body).await,
        ("POST", ["cli", "apps", "create_app"]) => apps::create(gateway, caller, body).await,
        ("POST", ["cli", "apps", "list_versions"]) => apps::versions(gateway, caller, body).await,
        ("POST", ["cli", "apps", "get_version"]) => apps::version(gateway, caller, body).await,
        ("POST", ["cli", "apps", "create_version"]) => {
            apps::create_version(gateway, caller, body).await
        }
        ("POST", ["cli", "apps", "update_version"]) => {
            apps::update_version(gateway, caller, body).await
        }
        ("POST", ["provider", "apps", "get_version_id"]) => {
            versions::get_id(gateway, caller, body).await
        }
        ("POST", ["provider", ..]) => provider(gateway, caller, path, body)
            .await
            .map_err(as_expected),
        (method, path) => Err(no_route(method, &format!("/{}", path.join("/")))),
    }
}

async fn provider(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    path: &[&str],
    body: &[u8],
) -> Result<Reply, ApiError> {
    let fields = Fields::read(body)?;
    match ("POST", path) {
        ("POST", ["provider", "apps", "create_installation"]) => {
            installations::create(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "get_installation"]) => {
            installations::get(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "get_installation_status"]) => {
            installations::status(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "get_installation_config_field"]) => {
            installations::config_field(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "update_installation_config"]) => {
            installations::configure(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "update_installation_metadata"]) => {
            installations::restyle(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "update_installation_version"]) => {
            installations::upgrade(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "confirm_installation"]) => {
            installations::confirm(gateway, caller, fields).await
        }
        ("POST", ["provider", "apps", "delete_installation"]) => {
            installations::delete(gateway, caller, fields).await
        }
        ("POST", ["provider", "flows", "create"]) => flows::create(gateway, caller, fields).await,
        ("POST", ["provider", "flows", "get"]) => flows::get(gateway, caller, fields).await,
        ("POST", ["provider", "flows", "update"]) => flows::update(gateway, caller, fields).await,
        ("POST", ["provider", "flows", "delete"]) => flows::delete(gateway, caller, fields).await,
        ("POST", ["provider", "flows", "apply_config"]) => {
            flows::apply(gateway, caller, fields).await
        }
        ("POST", ["provider", "flows", "plan_changes"]) => {
            flows::plan(gateway, caller, fields).await
        }
        ("POST", ["provider", "flows", "export_definition"]) => {
            flows::export(gateway, caller, fields).await
        }
        ("POST", ["provider", "flows", "get_entity_lifecycle_status"]) => {
            flows::entity_status(gateway, caller, fields).await
        }
        ("POST", ["provider", "flows", "confirm_entity_lifecycle"]) => {
            flows::confirm_entity(gateway, caller, fields).await
        }
        _ => values(gateway, caller, path, fields).await,
    }
}

/// What a project keeps beside flows and apps.
async fn values(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    path: &[&str],
    fields: Fields,
) -> Result<Reply, ApiError> {
    match ("POST", path) {
        ("POST", ["provider", "datatables", "create"]) => {
            data_tables::create(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "get"]) => {
            data_tables::get(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "update"]) => {
            data_tables::update(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "delete"]) => {
            data_tables::delete(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "create_datatable_column"]) => {
            data_tables::create_column(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "get_datatable_column"]) => {
            data_tables::get_column(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "update_datatable_column"]) => {
            data_tables::update_column(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "delete_datatable_column"]) => {
            data_tables::delete_column(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "attach_to_flow"]) => {
            data_tables::attach(gateway, caller, fields).await
        }
        ("POST", ["provider", "datatables", "detach_from_flow"]) => {
            data_tables::detach(gateway, caller, fields).await
        }
        ("POST", ["provider", "organization", "create_secret"]) => {
            secrets::create(gateway, caller, fields).await
        }
        ("POST", ["provider", "organization", "update_secret"]) => {
            secrets::update(gateway, caller, fields).await
        }
        ("POST", ["provider", "organization", "read_secret"]) => {
            secrets::read(gateway, caller, fields).await
        }
        ("POST", ["provider", "organization", "delete_secret"]) => {
            secrets::delete(gateway, caller, fields).await
        }
        (method, path) => Err(no_route(method, &format!("/{}", path.join("/")))),
    }
}

/// The texts by which the provider tells what is gone from what failed.
fn as_expected(error: ApiError) -> ApiError {
    let is_gone = error.status == 404 && error.message.ends_with(" not found");
    let message = match error.status {
        404 if is_gone => "not found".to_owned(),
        500.. => format!("internal error: {}", error.message),
        _ => return error,
    };
    ApiError { message, ..error }
}

/// What is answered where there is nothing to say.
fn done() -> Reply {
    Reply::data(&serde_json::json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_is_told_what_it_looks_for() {
        let told = |error| as_expected(error).message;
        assert_eq!(told(ApiError::not_found("flow x")), "not found");
        assert_eq!(
            told(no_route("POST", "/provider/x")),
            "POST /provider/x is not part of this API"
        );
        assert!(told(ApiError::internal("why")).starts_with("internal error: "));
        assert_eq!(told(ApiError::conflict("busy")), "busy");
    }
}
