//! The way to the local API: the agent's socket where one runs for this pool,
//! else the same routes in this process, which then asks broker and gateway itself.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::agent::inspect::api::{self, Own};
use crate::agent::inspect::observer::Place;
use crate::agent::inspect::{Gateway, Observer};
use crate::api_client::ApiClient;
use crate::cli::admin::{Admin, Failure, segment};
use crate::cli::{LookUp, configure};
use crate::config::EgressConfig;
use crate::http::Head;
use crate::shutdown;

/// Whoever answers.
pub enum Access {
    Agent(Box<ApiClient>),
    Here(Arc<Observer>),
}

/// What the settings and the agent's files say of the pool here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub amqp_url: Option<String>,
    pub pool: Option<String>,
    /// The socket of an agent that runs for this very pool.
    pub socket: Option<String>,
}

// === impl Access ===

impl Access {
    /// For what concerns the whole pool.
    pub async fn open(look_up: LookUp<'_>, pool: Option<String>) -> Result<Self, Failure> {
        let found = Found::look(look_up, pool)?;
        let Some(pool) = found.pool.clone() else {
            return Err(Failure::Usage("say which pool with --pool ID".to_owned()));
        };
        Self::of(look_up, found, &pool).await
    }

    /// For one job, whose pool the gateway knows where nobody says it.
    pub async fn open_for(
        look_up: LookUp<'_>,
        pool: Option<String>,
        job: &str,
    ) -> Result<Self, Failure> {
        let found = Found::look(look_up, pool)?;
        let pool = match found.pool.clone() {
            Some(pool) => pool,
            None => {
                let job = Admin::open(look_up)?
                    .get(&format!("/api/v1/jobs/{}", segment(job)))
                    .await?;
                job["pool"].as_str().unwrap_or_default().to_owned()
            }
        };
        Self::of(look_up, found, &pool).await
    }

    async fn of(look_up: LookUp<'_>, found: Found, pool: &str) -> Result<Self, Failure> {
        if let Some(socket) = &found.socket
            && let Ok(client) = ApiClient::on_socket(Path::new(socket))
            // One that was killed leaves its socket: then nobody answers at it.
            && std::os::unix::net::UnixStream::connect(socket).is_ok()
        {
            return Ok(Self::Agent(Box::new(client)));
        }
        let (set, data_dir, egress) = configure(look_up, |reader| {
            (reader.set(), reader.data_dir(), reader.egress())
        })?;
        let gateway = gateway(look_up, &set, &egress, pool);
        let observer = Observer::new(Place {
            amqp_url: found.amqp_url.unwrap_or_default(),
            pool: pool.to_owned(),
            gateway,
            data_dir,
            client: format!("{}/sluice queue", std::process::id()),
        });
        // It looks on until this process ends.
        shutdown::spawn_detached(observer.clone().keep());
        Ok(Self::Here(observer))
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call("POST", path, Some(body)).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, mut reply) = match self {
            Self::Agent(client) => client
                .request(method, path, None, body)
                .await
                .map_err(anyhow::Error::from)?,
            Self::Here(observer) => here(observer, method, path, body).await?,
        };
        match status {
            0..=399 => Ok(reply["data"].take()),
            _ => {
                let sentence = reply["error"]
                    .as_str()
                    .unwrap_or("no reason was said")
                    .to_owned();
                match status {
                    401 | 403 => Err(Failure::Refused(sentence)),
                    _ => Err(Failure::Failed(anyhow::anyhow!("{sentence}"))),
                }
            }
        }
    }
}

/// The same routes without HTTP.
async fn here(
    observer: &Arc<Observer>,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Value), Failure> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let head = Head {
        method: method.to_owned(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        bearer: None,
        content_type: String::new(),
    };
    let body = body.map(Value::to_string).unwrap_or_default();
    Ok(
        match api::handle(observer, &Own::default(), &head, body.as_bytes()).await {
            Ok(reply) => {
                let value = serde_json::from_slice(reply.json()).map_err(anyhow::Error::from)?;
                (reply.status, value)
            }
            Err(error) => (error.status, serde_json::json!({"error": error.message})),
        },
    )
}

/// With the pool's token where that is set, else with an admin key.
fn gateway(
    look_up: LookUp<'_>,
    set: &[(String, String)],
    egress: &EgressConfig,
    pool: &str,
) -> Result<Gateway, String> {
    if let (Some(endpoint), Some(token)) = (
        value(set, "FLOWS_ENDPOINT"),
        value(set, "FLOWS_AGENT_POOL_TOKEN"),
    ) {
        let url = endpoint
            .parse()
            .map_err(|error| format!("FLOWS_ENDPOINT: {error}"))?;
        let client = ApiClient::new(&url, egress).map_err(|error| error.to_string())?;
        return Ok(Gateway::new(client, pool, &token));
    }
    let (client, key) = Admin::open(look_up)
        .map_err(|failure| failure.to_string())?
        .into_parts();
    Ok(Gateway::new(client, pool, &key))
}

// === impl Found ===

impl Found {
    /// As said, as set, or as the agent of the data directory keeps it.
    pub fn look(look_up: LookUp<'_>, pool: Option<String>) -> Result<Self, Failure> {
        let (set, data_dir) = configure(look_up, |reader| (reader.set(), reader.data_dir()))?;
        let kept_pool = kept(&data_dir, "pool-id");
        let pool = pool
            .or_else(|| value(&set, "FLOWS_AGENT_POOL_ID"))
            .or_else(|| kept_pool.clone());
        let same = pool.is_some() && pool == kept_pool;
        let socket = kept(&data_dir, "api-url")
            .filter(|_| same)
            .and_then(|url| Some(url.strip_prefix("unix://")?.to_owned()));
        Ok(Self {
            amqp_url: value(&set, "AMQP_URL").or_else(|| kept(&data_dir, "amqp-url")),
            pool,
            socket,
        })
    }
}

fn value(set: &[(String, String)], name: &str) -> Option<String> {
    let found = set.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone())
}

pub fn kept(data_dir: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join("agent").join(name)).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_asked_for_its_own_pool_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().display().to_string();
        let look_up = |name: &str| (name == "SLUICE_DATA_DIR").then(|| data.clone());
        let nothing = Found::look(&look_up, None).expect("settings");
        assert_eq!((nothing.amqp_url, nothing.pool), (None, None));
        let agent = dir.path().join("agent");
        std::fs::create_dir(&agent).expect("made");
        for (name, text) in [
            ("amqp-url", "amqp://x\n"),
            ("pool-id", "p"),
            ("api-url", "unix:///s"),
        ] {
            std::fs::write(agent.join(name), text).expect("written");
        }
        let own = Found::look(&look_up, None).expect("settings");
        assert_eq!(
            (own.pool.as_deref(), own.socket.as_deref()),
            (Some("p"), Some("/s"))
        );
        let other = Found::look(&look_up, Some("q".into())).expect("settings");
        assert_eq!(
            (other.amqp_url.as_deref(), other.socket),
            (Some("amqp://x"), None)
        );
    }
}
