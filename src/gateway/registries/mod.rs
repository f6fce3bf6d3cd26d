//! Registries: where published apps come from.
//!
//! ```text
//!  registry.json ─▶ apps ─▶ versions.json of each ─▶ versions, each with the checksum first seen
//!                                                       │ install, or somebody asks for its id
//!                                                       ▼
//!                            archive ─▶ size ─▶ checksum ─▶ unpacked ─▶ app version
//! ```
//!
//! Owns the subscriptions, when they are asked, and the way from a listed
//! version to one that can be installed. The checksum that was seen first is the
//! one that holds: a version that is listed with another is refused. Does not
//! own what an archive may contain ([`crate::gateway::bundles`]).

mod choice;
mod index;
mod install;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::lock::Mutex;
use url::Url;

use crate::api_client::{self, Download, Downloaded, download};
use crate::backoff::{Backoff, jitter};
use crate::config::EgressConfig;
use crate::gateway::bundles::Bundles;
use crate::gateway::directory::new_id;
use crate::gateway::disk::Disk;
use crate::gateway::error::ApiError;
use crate::limit;
use crate::store::Store;
use crate::store::registries::{ListedApp, Registry};
use crate::telemetry::now_ms;

/// Registries that are followed at once.
const REGISTRIES_MAX: usize = 50;
/// The largest `registry.json` or `versions.json`, in bytes.
const INDEX_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long one of them may take.
const INDEX_MAX: Duration = Duration::from_secs(20);
/// How long asking a registry and all its apps may take: a person waits for it.
const REFRESH_MAX: Duration = Duration::from_secs(80);
/// Apps of one registry that are asked about at once; each is a connection and a thread.
const APPS_AT_ONCE: usize = 4;
/// When a registry that could not be asked is asked again.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(6 * 3_600));
/// What was asked so lately is not asked again for a name that it does not have, in milliseconds.
const FRESH_MS: i64 = 10_000;

/// The registries the organization follows.
pub struct Registries {
    store: Store,
    bundles: Bundles,
    disk: Arc<Disk>,
    egress: EgressConfig,
    /// How long what a registry said counts.
    poll: Duration,
    /// Held by who asks a registry or installs from one: one at a time is enough.
    busy: Mutex<()>,
}

// === impl Registries ===

impl Registries {
    pub fn new(
        store: Store,
        bundles: Bundles,
        disk: Arc<Disk>,
        egress: EgressConfig,
        poll: Duration,
    ) -> Self {
        Self {
            store,
            bundles,
            disk,
            egress,
            poll,
            busy: Mutex::new(()),
        }
    }

    /// Follows a registry and asks it for the first time. One that cannot be
    /// asked is not followed.
    pub async fn subscribe(&self, name: String, url: &str) -> Result<Registry, ApiError> {
        let url = index::registry_address(url).map_err(ApiError::bad)?;
        if self.store.registries().await?.len() >= REGISTRIES_MAX {
            return Err(ApiError::conflict(format!(
                "{REGISTRIES_MAX} registries are followed, which is the limit: remove some"
            )));
        }
        let registry = Registry {
            id: new_id(),
            name,
            url: url.into(),
            etag: None,
            checked_ms: None,
            error: None,
            failures: 0,
            next_ms: 0,
            created_ms: now(),
        };
        self.store.create_registry(registry.clone()).await?;
        let asked = self.refresh(registry).await;
        match asked {
            Ok(registry) => match &registry.error {
                None => Ok(registry),
                Some(why) => {
                    let why = format!("{why}; the registry is not followed");
                    self.store.delete_registry(registry.id).await?;
                    Err(ApiError::new(502, why))
                }
            },
            Err(error) => Err(error),
        }
    }

    /// The registry that is meant by an id, a name or an address.
    pub async fn find(&self, wanted: &str) -> Result<Registry, ApiError> {
        let all = self.store.registries().await?;
        let is = |it: &Registry| {
            let url = it.url.trim_end_matches("/registry.json");
            it.id == wanted
                || it.name.eq_ignore_ascii_case(wanted)
                || it.url == wanted
                || url == wanted.trim_end_matches('/')
        };
        let found = all.into_iter().find(is);
        found.ok_or_else(|| ApiError::not_found(format!("registry {wanted}")))
    }

    /// Asks the registries whose time has come.
    pub async fn refresh_due(&self) {
        let all = match self.store.registries().await {
            Ok(all) => all,
            Err(error) => return tracing::warn!(%error, "The registries could not be read"),
        };
        for registry in all {
            if registry.next_ms > now() {
                continue;
            }
            let name = registry.name.clone();
            if let Err(error) = self.refresh(registry).await {
                tracing::warn!(
                    registry = name,
                    error = error.message,
                    "A registry was not asked"
                );
            }
        }
    }

    /// Asks a registry what it lists and answers with its state, in which a
    /// failure stands as `error`.
    pub async fn refresh(&self, mut registry: Registry) -> Result<Registry, ApiError> {
        let _held = self.busy.lock().await;
        let outcome = limit::timeout(REFRESH_MAX, self.ask(&registry)).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(format!(
                "the registry and its apps did not answer within {} s",
                REFRESH_MAX.as_secs()
            ))
        });
        registry.checked_ms = Some(now());
        let wait = match outcome {
            Ok(etag) => {
                registry.etag = etag;
                registry.error = None;
                registry.failures = 0;
                self.poll
            }
            Err(why) => {
                tracing::warn!(
                    registry = registry.name,
                    error = why,
                    "A registry cannot be read"
                );
                registry.error = Some(why);
                registry.failures = registry.failures.saturating_add(1);
                BACKOFF.delay(registry.failures, jitter())
            }
        };
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        registry.next_ms = now().saturating_add(wait_ms);
        self.store.note_registry(registry.clone()).await?;
        Ok(registry)
    }

    /// Reads the index and the versions of every app in it; answers with the index's tag.
    async fn ask(&self, registry: &Registry) -> Result<Option<String>, String> {
        let url = Url::parse(&registry.url).map_err(|_| "its address is damaged".to_owned())?;
        let etag = registry.etag.as_deref();
        let etag = match self.index(&url, &url, etag).await? {
            Downloaded::Unchanged => registry.etag.clone(),
            Downloaded::Fresh { bytes, etag } => {
                let apps = index::apps(&url, &bytes)?;
                let listed = self.store.list_registry_apps(registry.id.clone(), apps);
                listed.await.map_err(|error| error.to_string())?;
                etag
            }
        };
        let apps = self.store.registry_apps(&registry.id).await;
        let apps = apps.map_err(|error| error.to_string())?;
        let asked = apps
            .into_iter()
            .map(|app| self.ask_app(&registry.id, &url, app));
        let mut asked = futures::stream::iter(asked).buffer_unordered(APPS_AT_ONCE);
        while let Some(outcome) = asked.next().await {
            outcome?;
        }
        Ok(etag)
    }

    /// Reads the versions of one app. What is wrong with them is noted with the
    /// app; an error is the store's.
    async fn ask_app(&self, registry: &str, url: &Url, mut app: ListedApp) -> Result<(), String> {
        let read = async {
            let metadata = Url::parse(&app.metadata_url);
            let metadata = metadata.map_err(|_| "its address is damaged".to_owned())?;
            match self.index(url, &metadata, app.etag.as_deref()).await? {
                Downloaded::Unchanged => Ok(None),
                Downloaded::Fresh { bytes, etag } => {
                    let read = index::versions(url, &metadata, &bytes, now())?;
                    Ok::<_, String>(Some((read, etag)))
                }
            }
        };
        let versions = match read.await {
            Ok(None) => return Ok(()),
            Ok(Some(((versions, wrong), etag))) => {
                (app.etag, app.error) = (etag, wrong);
                Some(versions)
            }
            Err(why) => {
                (app.etag, app.error) = (None, Some(why));
                None
            }
        };
        let noted = self
            .store
            .note_registry_app(registry.to_owned(), app, versions);
        noted.await.map_err(|error| error.to_string())
    }

    async fn index(
        &self,
        registry: &Url,
        url: &Url,
        etag: Option<&str>,
    ) -> Result<Downloaded, String> {
        let ask = Download {
            url,
            etag,
            bytes_max: INDEX_BYTES_MAX,
            limit: INDEX_MAX,
            permits: &|url| index::permits(registry, url),
        };
        download(&self.egress, &ask)
            .await
            .map_err(|error| error.to_string())
    }
}

/// What a failed download is to a caller of ours.
fn not_fetched(error: &api_client::Error) -> ApiError {
    ApiError::new(502, error.to_string())
}

fn now() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}
