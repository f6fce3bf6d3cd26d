//! The observer's way to the gateway: the pool's routes, with the pool's token or an admin key.

use serde_json::Value;

use crate::api_client::ApiClient;
use crate::http::ApiError;

/// One pool at its gateway.
#[derive(Clone)]
pub struct Gateway {
    api: ApiClient,
    pool: String,
    credential: String,
}

// === impl Gateway ===

impl Gateway {
    pub fn new(api: ApiClient, pool: &str, credential: &str) -> Self {
        Self {
            api,
            pool: pool.to_owned(),
            credential: credential.to_owned(),
        }
    }

    /// One call below the pool's path; `path` begins with a slash, or is empty.
    /// The gateway's refusal keeps its status and its sentence.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let path = format!("/agent/v1/pool/{}{path}", self.pool);
        let asked = self
            .api
            .request(method, &path, Some(&self.credential), body);
        let (status, mut reply) = asked
            .await
            .map_err(|error| ApiError::new(502, error.to_string()))?;
        if status < 400 {
            return Ok(reply["data"].take());
        }
        let sentence = match reply["error"].as_str() {
            Some(sentence) => sentence.to_owned(),
            None => format!("the gateway answered {status}"),
        };
        Err(ApiError::new(status, sentence))
    }

    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.call("GET", path, None).await
    }
}
