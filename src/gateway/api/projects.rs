//! Projects.

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::gateway::auth::Caller;
use crate::gateway::error::ApiError;
use crate::gateway::http::Reply;
use crate::gateway::json::{Fields, name};
use crate::store::directory::Project;

pub fn list(gateway: &Gateway, caller: &Caller) -> Reply {
    let projects: Vec<Value> = gateway
        .directory
        .projects()
        .iter()
        .filter(|project| caller.sees(&project.id))
        .map(object)
        .collect();
    Reply::data(&projects)
}

pub async fn create(gateway: &Gateway, caller: &Caller, body: &[u8]) -> Result<Reply, ApiError> {
    caller.admin()?;
    let mut fields = Fields::read(body)?;
    let name = name(&fields.required_text("name")?)?;
    fields.finish()?;
    let project = gateway.directory.add_project(&name).await?;
    Ok(Reply::created(&object(&project)))
}

fn object(project: &Project) -> Value {
    json!({"id": project.id, "name": project.name, "created_us": project.created_us})
}
