//! From a listed version to an app version of ours.

use std::time::Duration;

use url::Url;

use crate::api_client::{Download, Downloaded, download};
use crate::gateway::bundles::archive::{ARCHIVE_BYTES_MAX, Code, unpack};
use crate::gateway::directory::new_id;
use crate::gateway::error::ApiError;
use crate::gateway::registries::{FRESH_MS, Registries, choice, index, not_fetched, now};
use crate::gateway::secrets::digest;
use crate::shutdown::unblock;
use crate::store;
use crate::store::apps::{App, Origin, Version};
use crate::store::registries::{ListedApp, ListedVersion, Registry};
use crate::telemetry::now_us;

/// How long an archive may take: the largest at a little below 1 MiB/s.
const ARCHIVE_MAX: Duration = Duration::from_secs(20);
/// Whose app is meant where several registries have one of the name and nobody says which.
const FIRST_REGISTRY: &str = "core";

// === impl Registries ===

impl Registries {
    /// An app version that can be installed, fetched now if it must be.
    ///
    /// `registry` is an id, a name or an address; without it every registry is
    /// looked through. `app` is a key or a name. Without a `version` the newest
    /// release is meant. A miss is looked for once more after asking the registries.
    pub async fn resolve(
        &self,
        registry: Option<&str>,
        app: &str,
        version: Option<&str>,
    ) -> Result<Version, ApiError> {
        let registries = match registry {
            Some(wanted) => vec![self.find(wanted).await?],
            None => self.store.registries().await?,
        };
        let (registry, app, version) = match self.choose(&registries, app, version).await {
            Err(error) if error.status == 404 => {
                for stale in registries.iter().filter(|it| !is_fresh(it)) {
                    self.refresh(stale.clone()).await?;
                }
                self.choose(&registries, app, version).await?
            }
            other => other?,
        };
        if let Some(sentence) = choice::changed(&app.name, &version) {
            return Err(ApiError::conflict(sentence));
        }
        let _held = self.busy.lock().await;
        if let Some(there) = self
            .installed(&registry.id, &app.key, &version.version)
            .await?
        {
            return Ok(there);
        }
        self.disk.check()?;
        let code = self.fetch(registry, &app, &version).await?;
        self.keep(registry, &app, &version, code).await
    }

    /// The version of ours that came from there, if it was fetched.
    pub async fn installed(
        &self,
        registry: &str,
        key: &str,
        version: &str,
    ) -> Result<Option<Version>, store::Error> {
        let Some(app) = self.store.app_of_registry(registry, key).await? else {
            return Ok(None);
        };
        let versions = self.store.versions(&app.id).await?;
        Ok(versions.into_iter().find(|it| it.version == version))
    }

    async fn choose<'a>(
        &self,
        registries: &'a [Registry],
        wanted: &str,
        version: Option<&str>,
    ) -> Result<(&'a Registry, ListedApp, ListedVersion), ApiError> {
        let mut found = Vec::new();
        for registry in registries {
            let apps = self.store.registry_apps(&registry.id).await?;
            if let Some(app) = choice::app(&apps, wanted) {
                found.push((registry, app.clone()));
            }
        }
        if found.len() > 1 {
            let first =
                |it: &(&Registry, ListedApp)| it.0.name.eq_ignore_ascii_case(FIRST_REGISTRY);
            if found.iter().any(first) {
                found.retain(first);
            }
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(|(it, _)| it.name.as_str()).collect();
            return Err(ApiError::conflict(format!(
                "the registries {} have an app `{wanted}`: say which one is meant",
                names.join(", ")
            )));
        }
        let Some((registry, app)) = found.pop() else {
            return Err(ApiError::not_found(format!(
                "app `{wanted}` in the registries that are followed"
            )));
        };
        let versions = self.store.registry_versions(&registry.id, &app.key).await?;
        let Some(chosen) = choice::version(&versions, version) else {
            let number =
                version.map_or_else(|| "a version".to_owned(), |it| format!("version {it}"));
            return Err(ApiError::not_found(format!(
                "{number} of app `{}` in registry `{}`",
                app.name, registry.name
            )));
        };
        Ok((registry, app, chosen.clone()))
    }

    /// Fetches, verifies and unpacks.
    async fn fetch(
        &self,
        registry: &Registry,
        app: &ListedApp,
        version: &ListedVersion,
    ) -> Result<Code, ApiError> {
        let what = format!("version {} of `{}`", version.version, app.name);
        let damaged = |_| ApiError::internal("an address of a registry in the store is none");
        let home = Url::parse(&registry.url).map_err(damaged)?;
        let url = Url::parse(&version.url).map_err(damaged)?;
        let ask = Download {
            url: &url,
            etag: None,
            bytes_max: ARCHIVE_BYTES_MAX,
            limit: ARCHIVE_MAX,
            permits: &|url| index::permits(&home, url),
        };
        let downloaded = download(&self.egress, &ask).await;
        let Downloaded::Fresh { bytes, .. } = downloaded.map_err(|error| not_fetched(&error))?
        else {
            return Err(ApiError::internal("unchanged, and nothing was known"));
        };
        let expected = version.checksum.clone();
        unblock(move || {
            let found = format!("sha256:{}", digest(&bytes));
            if found != expected {
                return Err(ApiError::new(
                    502,
                    format!("the archive of {what} has the checksum {found}, and the registry lists {expected}: it is not installed"),
                ));
            }
            unpack(&bytes).map_err(|why| ApiError::new(502, format!("{what} cannot be installed: {why}")))
        })
        .await
    }

    async fn keep(
        &self,
        registry: &Registry,
        listed: &ListedApp,
        version: &ListedVersion,
        code: Code,
    ) -> Result<Version, ApiError> {
        let app = match self
            .store
            .app_of_registry(&registry.id, &listed.key)
            .await?
        {
            Some(app) => app,
            None => {
                let app = App {
                    id: new_id(),
                    project: String::new(),
                    name: listed.name.clone(),
                    description: listed.description.clone(),
                    style: listed.style.clone(),
                    origin: Some(Origin {
                        registry: registry.id.clone(),
                        key: listed.key.clone(),
                    }),
                    created_us: now_us(),
                };
                self.store.create_app(app.clone()).await?;
                app
            }
        };
        let stored = self.bundles.put_code(code).await?;
        let version = Version {
            id: new_id(),
            app: app.id,
            project: app.project,
            registry: Some(registry.id.clone()),
            version: version.version.clone(),
            digest: stored.digest,
            code_bytes: stored.code_bytes,
            ui_digest: stored.ui_digest,
            draft: false,
            created_us: now_us(),
        };
        self.store.create_version(version.clone()).await?;
        tracing::info!(
            registry = registry.name,
            app = listed.name,
            version = version.version,
            "An app version was fetched from a registry"
        );
        Ok(version)
    }
}

fn is_fresh(registry: &Registry) -> bool {
    registry.checked_ms.is_some_and(|at| at > now() - FRESH_MS)
}
