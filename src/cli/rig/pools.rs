//! Projects and pools of a rig.

use anyhow::Context;
use serde_json::{Value, json};

use crate::cli::rig::{PoolAccess, Rig};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

// === impl Rig ===

impl Rig {
    /// Makes a project and a pool exposed to it.
    pub async fn project_and_pool(&self, name: &str) -> anyhow::Result<(String, PoolAccess)> {
        let project = self.project(name).await?;
        let pool = self.post("/api/v1/pools", &json!({"name": name})).await?;
        let pool = PoolAccess {
            id: text(&pool["id"]),
            token: text(&pool["token"]),
        };
        self.call(
            "PUT",
            &format!("/api/v1/pools/{}/projects/{project}", pool.id),
            None,
        )
        .await?;
        Ok((project, pool))
    }

    /// Makes a project; answers its id.
    pub async fn project(&self, name: &str) -> anyhow::Result<String> {
        let body = json!({"name": name});
        let project = self.post("/api/v1/projects", &body).await?;
        Ok(text(&project["id"]))
    }

    /// The default pool, which every project may use and where expressions of
    /// flows run, with a new token.
    pub async fn default_pool(&self) -> anyhow::Result<PoolAccess> {
        let pools = self.get("/api/v1/pools").await?;
        let mut pools = pools.as_array().into_iter().flatten();
        let pool = pools.find(|pool| pool["default"] == true);
        let id = text(&pool.context("there is no default pool")?["id"]);
        let path = format!("/api/v1/pools/{id}/rotate");
        let rotated = self.post(&path, &json!({})).await?;
        let token = text(&rotated["token"]);
        Ok(PoolAccess { id, token })
    }
}
