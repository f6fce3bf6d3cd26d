//! The admin client: one gateway, one API key, and errors a person can act on.

use anyhow::Context;
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::byte_serialize;

use crate::api_client::ApiClient;
use crate::cli::{LookUp, configure, print};
use crate::config::{self, AdminConfig, EXIT_REFUSED, EXIT_USAGE};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Settings(#[from] config::Error),
    /// The arguments fit the grammar and still make no sense.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    /// With an exit code that says which of several ways it failed.
    #[error("{1}")]
    Exit(i32, String),
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// The gateway's API, with a key.
pub struct Admin {
    api: ApiClient,
    key: String,
}

// === impl Failure ===

impl Failure {
    pub fn code(&self) -> i32 {
        match self {
            Self::Settings(_) | Self::Usage(_) => EXIT_USAGE,
            Self::Refused(_) => EXIT_REFUSED,
            Self::Exit(code, _) => *code,
            Self::Failed(_) => 1,
        }
    }

    pub fn print(&self) {
        for line in self.to_string().lines() {
            eprintln!("sluice: {line}");
        }
    }
}

// === impl Admin ===

impl Admin {
    /// The gateway that the settings name, or the one of the data directory.
    pub fn open(look_up: LookUp<'_>) -> Result<Self, Failure> {
        let config = configure(look_up, |reader| reader.admin())?;
        let dir = config.data_dir.join("gateway");
        let url = match &config.url {
            Some(url) => url.clone(),
            None => listening(&config)?,
        };
        let key = match &config.api_key {
            Some(key) => key.clone(),
            None => std::fs::read_to_string(dir.join("admin.key")).map_err(|error| {
                let file = dir.join("admin.key");
                Failure::Usage(format!(
                    "SLUICE_API_KEY is not set, and there is no key in {}: {error}",
                    file.display()
                ))
            })?,
        };
        Self::new(&url, key.trim(), &config.egress)
    }

    pub fn new(url: &Url, key: &str, egress: &config::EgressConfig) -> Result<Self, Failure> {
        let api = ApiClient::new(url, egress).map_err(anyhow::Error::from)?;
        Ok(Self {
            api,
            key: key.to_owned(),
        })
    }

    /// The client and the key.
    pub fn into_parts(self) -> (ApiClient, String) {
        (self.api, self.key)
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call("GET", path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call("POST", path, Some(body)).await
    }

    /// One call; the gateway's refusal becomes an error with its own sentence.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        match self.answer(method, path, body).await? {
            (0..=399, data) => Ok(data),
            (401 | 403, sentence) => Err(Failure::Refused(print::text(&sentence))),
            (_, sentence) => Err(anyhow::anyhow!("{}", print::text(&sentence)).into()),
        }
    }

    /// One call, with the status: the data that came, or the sentence of a refusal.
    pub async fn answer(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Failure> {
        let (status, mut reply) = self
            .api
            .request(method, path, Some(&self.key), body)
            .await
            .map_err(anyhow::Error::from)?;
        if status <= 399 {
            return Ok((status, reply["data"].take()));
        }
        let sentence = match reply["error"].take() {
            Value::String(sentence) => sentence,
            _ => format!("{method} {path} gave {status}"),
        };
        Ok((status, sentence.into()))
    }

    /// The id of one among a list's members, which a person may name by id or by name.
    pub async fn id_of(&self, noun: &str, list: &str, text: &str) -> Result<String, Failure> {
        let members = self.get(list).await?;
        choose(noun, &members, text)
    }

    pub async fn pool(&self, text: &str) -> Result<String, Failure> {
        self.id_of("pool", "/api/v1/pools", text).await
    }

    pub async fn project(&self, text: &str) -> Result<String, Failure> {
        self.id_of("project", "/api/v1/projects", text).await
    }

    pub async fn app(&self, text: &str) -> Result<String, Failure> {
        self.id_of("app", "/api/v1/apps", text).await
    }

    pub async fn flow(&self, text: &str) -> Result<String, Failure> {
        self.id_of("flow", "/api/v1/flows", text).await
    }

    pub async fn installation(&self, text: &str) -> Result<String, Failure> {
        self.id_of("installation", "/api/v1/installations", text)
            .await
    }
}

fn choose(noun: &str, members: &Value, text: &str) -> Result<String, Failure> {
    let all = members.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.iter().any(|member| member["id"] == text) {
        return Ok(text.to_owned());
    }
    let mut named = all.iter().filter(|member| member["name"] == text);
    match (named.next(), named.next()) {
        (Some(one), None) => Ok(one["id"].as_str().unwrap_or_default().to_owned()),
        (Some(_), Some(_)) => Err(Failure::Usage(format!(
            "more than one {noun} is named `{text}`: say which by its id"
        ))),
        (None, _) => Err(Failure::Failed(anyhow::anyhow!(
            "there is no {noun} `{text}`: `sluice {noun} list` shows all"
        ))),
    }
}

fn listening(config: &AdminConfig) -> Result<Url, Failure> {
    let file = config.data_dir.join("gateway/listen.json");
    let text = std::fs::read(&file).map_err(|error| {
        Failure::Usage(format!(
            "SLUICE_URL is not set, and no gateway was started here with `sluice up` ({}: {error})",
            file.display()
        ))
    })?;
    let listen: Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", file.display()))?;
    let address = listen["http"].as_str().unwrap_or_default();
    Ok(Url::parse(address).with_context(|| format!("{} names no address", file.display()))?)
}

/// A query string of the pairs that have a value, with its question mark.
pub fn query(pairs: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            let value: String = byte_serialize(value.as_bytes()).collect();
            text.push_str(&format!("{name}={value}"));
        }
    }
    text
}

/// One segment of a path, whatever a person typed.
pub fn segment(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// An object of the pairs that have a value.
pub fn object(pairs: &[(&str, Option<Value>)]) -> Value {
    let mut body = json!({});
    for (name, value) in pairs {
        if let Some(value) = value {
            body[*name] = value.clone();
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_may_name_things_by_id_or_by_a_name_that_is_unique() {
        let members =
            json!([{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "3", "name": "b"}]);
        assert_eq!(choose("pool", &members, "1").expect("by id"), "1");
        assert_eq!(choose("pool", &members, "a").expect("by name"), "1");
        assert_eq!(
            choose("pool", &members, "b").expect_err("two").code(),
            EXIT_USAGE
        );
        assert_eq!(choose("pool", &members, "c").expect_err("none").code(), 1);
    }

    #[test]
    fn what_is_typed_cannot_leave_its_place() {
        assert_eq!(
            query(&[("a", Some("x&y=1".into())), ("b", None)]),
            "?a=x%26y%3D1"
        );
        assert_eq!(segment("../keys"), "..%2Fkeys");
    }

    #[test]
    fn without_a_gateway_the_error_says_what_to_set() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().display().to_string();
        let look_up = |name: &str| (name == "SLUICE_DATA_DIR").then(|| data.clone());
        let failure = Admin::open(&look_up).err().expect("no gateway");
        assert_eq!(failure.code(), EXIT_USAGE);
        assert!(
            failure.to_string().contains("SLUICE_URL is not set"),
            "{failure}"
        );
    }
}
