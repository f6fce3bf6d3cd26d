//! Secrets of projects: write-only for people, read by expressions.

use std::sync::Arc;

use crate::gateway::engine::run::{Engine, Fault};
use crate::store::engine::secrets::{self, Secret};

/// The largest value of a secret, in bytes: a private key with its chain.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 200;

/// What is expected of a secret that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// There must be none yet.
    New,
    /// There must be one.
    Known,
    Either,
}

// === impl Engine ===

impl Engine {
    /// Makes a secret or gives it another value.
    pub async fn put_secret(
        self: &Arc<Self>,
        project: String,
        key: String,
        value: String,
        writing: Writing,
    ) -> Result<Secret, Fault> {
        let named = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.chars().all(named) {
            return Err(Fault::Bad(format!(
                "a key of a secret has 1 to {KEY_BYTES_MAX} letters, digits, `_` and `-`"
            )));
        }
        if value.len() > SECRET_BYTES_MAX {
            return Err(Fault::Bad(format!(
                "the value has {} bytes, more than {SECRET_BYTES_MAX}",
                value.len()
            )));
        }
        let kept = self.sealing.seal(&project, &key, &value);
        let kept = kept.map_err(|error| Fault::Conflict(error.to_string()))?;
        self.step(move |step| {
            Box::pin(async move {
                let exists = secrets::exists(step.tx, &project, &key).await?;
                if writing == Writing::New && exists {
                    return Err(Fault::Conflict(format!("secret `{key}` exists already")));
                }
                if writing == Writing::Known && !exists {
                    return Err(Fault::Missing(format!("secret `{key}`")));
                }
                secrets::put(step.tx, &project, &key, &kept, step.now_ms).await?;
                Ok(Secret {
                    key,
                    updated_ms: step.now_ms,
                })
            })
        })
        .await
    }

    pub async fn delete_secret(
        self: &Arc<Self>,
        project: String,
        key: String,
    ) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                if secrets::delete(step.tx, &project, &key).await? {
                    return Ok(());
                }
                Err(Fault::Missing(format!("secret `{key}`")))
            })
        })
        .await
    }
}
