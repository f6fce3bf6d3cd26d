//! Drafts of app versions: given other code, published.
//!
//! Installations of a draft run its newest code: the change of the version and
//! theirs are one step.

use std::sync::Arc;

use crate::gateway::bundles::Stored;
use crate::gateway::engine::run::{Engine, Fault};
use crate::store::apps;
use crate::store::engine::installations;

/// What becomes of a draft.
#[derive(Debug, Clone, Default)]
pub struct VersionChange {
    pub code: Option<Stored>,
    pub publish: bool,
}

// === impl Engine ===

impl Engine {
    /// Changes a draft. What is published stays as it is: publishing it once more
    /// changes nothing, and other code is refused.
    pub async fn change_version(
        self: &Arc<Self>,
        id: String,
        change: VersionChange,
    ) -> Result<(), Fault> {
        self.step(move |step| {
            Box::pin(async move {
                let found = apps::version_of(step.tx, &id).await?;
                let mut version = found.ok_or_else(|| Fault::Missing("app version".to_owned()))?;
                if !version.draft {
                    return match change.code {
                        None => Ok(()),
                        Some(_) => Err(Fault::Conflict(format!(
                            "app version {} is not a draft: a published version never changes, so make another one",
                            version.version
                        ))),
                    };
                }
                let is_new = change.code.is_some();
                if let Some(code) = change.code {
                    version.digest = code.digest;
                    version.code_bytes = code.code_bytes;
                    version.ui_digest = code.ui_digest;
                }
                version.draft = !change.publish;
                apps::put_draft(step.tx, &version).await?;
                if is_new {
                    for installation in installations::of_version(step.tx, &id).await? {
                        step.upgrade(&installation.id, version.clone()).await?;
                    }
                }
                Ok(())
            })
        })
        .await
    }
}
