//! Values that an app suggests for a config field: asked of its code, on the
//! installation's pool, while somebody waits.
//!
//! ```text
//!  ask ─▶ field suggests? agent there? ─▶ suggest job ─▶ its end ─▶ suggestions, cut to their limits
//!                                             └ not in time ─▶ cancelled
//! ```
//!
//! A draft may ask too, as that is when its fields are filled in: its code is
//! given the constants that are written already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluice_proto::job::Kind;

use crate::gateway::engine::expressions::bytes_of;
use crate::gateway::engine::run::canvas::Node;
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::step::{Step, Work, app_identity, handler};
use crate::gateway::engine::run::{Engine, Fault};
use crate::gateway::engine::schema::Field;
use crate::gateway::error::ApiError;
use crate::gateway::line::view;
use crate::limit;
use crate::store::engine::components::{self, Component};
use crate::store::engine::installations;

/// How long the code may think, in milliseconds: a person looks at an empty list meanwhile.
const SUGGEST_MS: u32 = 20_000;
/// How long it all may take: a cold runtime on a busy host comes before it.
const WAIT_MAX: Duration = Duration::from_secs(40);
/// Values in one answer: who has more narrows them down with a search.
const VALUES_MAX: usize = 1_000;
/// The largest answer of an app's code, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long a caller should wait until the pool may have an agent, in seconds.
const RETRY_AFTER_S: u32 = 5;

/// For which field, and what is typed already.
pub struct Ask {
    pub field: String,
    /// Of a block; `None` for the fields of the app or the block itself.
    pub input: Option<String>,
    pub search: Option<String>,
    /// The other fields of the input; `None`: its constants as they are written.
    pub static_config: Option<Value>,
}

/// A job that was made to answer.
struct Asked {
    job: String,
    pool: String,
}

// === impl Engine ===

impl Engine {
    /// `{suggestedValues, message?}` for a config field of an installation or a block.
    pub async fn suggest(self: &Arc<Self>, component: String, ask: Ask) -> Result<Value, ApiError> {
        let field = ask.field.clone();
        let asked = self
            .step(move |step| Box::pin(async move { step.ask(&component, ask).await }))
            .await??;
        let ended = match self.line.wait(&asked.job) {
            Some(ended) => limit::timeout(WAIT_MAX, ended).await.ok(),
            None => self.ended_already(&asked.job).await?,
        };
        let Some(ended) = ended.and_then(|it| it.ok()) else {
            self.line
                .cancel(&asked.job, "nobody waits for the suggestions any more");
            let (pool, waited) = (self.pool_name(&asked.pool), WAIT_MAX.as_secs());
            let sentence =
                format!("no agent of the pool `{pool}` had suggestions within {waited} s");
            return Err(ApiError::later(503, sentence, RETRY_AFTER_S));
        };
        let mut ended: Value = serde_json::from_slice(&ended).map_err(ApiError::internal)?;
        let why = match ended["state"].as_str() {
            Some("succeeded") => match answer(ended["outcome"]["result"].take()) {
                Ok(answer) => return Ok(answer),
                Err(why) => why,
            },
            Some("cancelled") => format!("cancelled: {}", text(&ended["outcome"]["reason"])),
            _ => text(&ended["outcome"]["message"]).to_owned(),
        };
        let sentence = format!("the app's suggestions for `{field}` failed: {why}");
        Err(ApiError::new(502, sentence))
    }

    /// The end of a job that was quicker than whoever waits for it.
    async fn ended_already(&self, job: &str) -> Result<Option<Said>, ApiError> {
        let stored = self.store.job(job).await?;
        let ended = stored.and_then(|job| {
            let ending = job.ending.as_ref()?;
            Some(Arc::new(view::ended(&job.spec, &job.progress, ending)))
        });
        Ok(ended.map(Ok))
    }

    fn pool_name(&self, pool: &str) -> String {
        let found = self.directory.pool(pool);
        found.map_or_else(|| pool.to_owned(), |pool| pool.name)
    }
}

/// What whoever waits for a job is told.
type Said = Result<Arc<Vec<u8>>, futures::channel::oneshot::Canceled>;

// === impl Step ===

impl Step<'_> {
    /// The inner error: it cannot be asked at present.
    async fn ask(&mut self, id: &str, ask: Ask) -> Result<Result<Asked, ApiError>, Fault> {
        let missing = || Fault::Missing(format!("block or app installation {id}"));
        let component = components::get(self.tx, id).await?.ok_or_else(missing)?;
        let installation = self.field_of(&component, &ask).await?;
        let installation = installations::get(self.tx, &installation).await?;
        let installation = installation
            .ok_or_else(|| Fault::Conflict("the app installation does not exist".to_owned()))?;
        let app = components::get(self.tx, &installation.id).await?;
        let app = app.ok_or_else(missing)?;
        if !self.engine.line.has_agent(&installation.pool) {
            let pool = self.engine.pool_name(&installation.pool);
            let sentence = format!("the pool `{pool}` has no agent that could ask the app");
            return Ok(Err(ApiError::later(503, sentence, RETRY_AFTER_S)));
        }
        let (component, app) = (
            self.as_written(component).await?,
            self.as_written(app).await?,
        );
        let mut input = self.handler_input(&component, &app).await?;
        let mut keys = vec![("field", ask.field.as_str())];
        keys.extend(ask.input.as_deref().map(|key| ("input", key)));
        input.extend(ask.search.map(|it| ("searchPhrase".to_owned(), it.into())));
        if let Some(key) = &ask.input {
            let given = match ask.static_config {
                Some(given) => given,
                None => Value::Object(self.input_constants(&component, key).await?),
            };
            input.insert("staticInputConfig".to_owned(), given);
        }
        let block = component.flow.as_ref().and(component.kind.as_deref());
        let of = (&app, &installation);
        let payload = self.payload(handler(block, &keys), input, &component, of);
        let payload = payload.await?;
        let pool = installation.pool.clone();
        let work = Work {
            kind: Kind::Suggest,
            identity: app_identity(&installation.id, &installation.digest),
            pool: installation.pool,
            project: installation.project,
            block: component.flow.is_some().then(|| component.name.clone()),
            timeout_ms: SUGGEST_MS,
            high: true,
            purpose: Purpose::Suggest {
                component: component.id.clone(),
                flow: component.flow.clone(),
            },
            payload,
        };
        Ok(match self.job(work).await? {
            Ok(seq) => Ok(Asked {
                job: self.job_id(seq).unwrap_or_default(),
                pool,
            }),
            Err(full) => Err(ApiError::later(429, full, RETRY_AFTER_S)),
        })
    }

    /// Whose code suggests values for the field: an installation. A sentence
    /// says why nobody's does.
    async fn field_of(&mut self, component: &Component, ask: &Ask) -> Result<String, Fault> {
        if component.flow.is_none() {
            if ask.input.is_some() {
                let sentence = "`input` is for blocks: an app has no inputs";
                return Err(Fault::Bad(sentence.to_owned()));
            }
            let (installation, _) = self.installed(&component.id).await?;
            let app = self.schema(&installation.digest).await?.ok_or_else(|| {
                let name = &installation.name;
                let sentence = format!("the code of `{name}` has not said yet what is in it");
                Fault::Undescribed(sentence)
            })?;
            let name = format!("the app `{}`", component.name);
            suggests(&app.config, &name, &ask.field)?;
            return Ok(installation.id);
        }
        let fields = self.with_node(component, |node| {
            let name = format!("the block `{}`", node.name);
            let Some(key) = &ask.input else {
                return suggests(&node.schema.config, &name, &ask.field);
            };
            let input = node.schema.inputs.get(key).ok_or_else(|| {
                Fault::Bad(format!("`input` is `{key}`, and {name} has no such input"))
            })?;
            let name = format!("the input `{key}` of {name}");
            suggests(&input.config, &name, &ask.field)
        });
        fields.await??;
        let none = || Fault::Conflict("the block has no app installation".to_owned());
        component.installation.clone().ok_or_else(none)
    }

    /// The component; one that has no config yet with the constants of it.
    async fn as_written(&mut self, mut component: Component) -> Result<Component, Fault> {
        if component.vals.is_none() {
            component.vals = self.constants(&component).await?;
        }
        Ok(component)
    }

    async fn input_constants(
        &mut self,
        block: &Component,
        input: &str,
    ) -> Result<Map<String, Value>, Fault> {
        self.with_node(block, |node| {
            let divided = node.inputs.get(input);
            divided.map_or_else(Map::new, |divided| divided.constants.clone())
        })
        .await
    }

    async fn with_node<T>(
        &mut self,
        block: &Component,
        look: impl FnOnce(&Node) -> T,
    ) -> Result<T, Fault> {
        let canvas = match &block.flow {
            Some(flow) => self.canvas(flow).await?,
            None => None,
        };
        let node = canvas.as_ref().and_then(|it| it.nodes.get(&block.id));
        let node = node.ok_or_else(|| {
            let name = &block.name;
            Fault::Conflict(format!("the block `{name}` is being removed"))
        })?;
        Ok(look(node))
    }
}

fn suggests(fields: &BTreeMap<String, Field>, of: &str, key: &str) -> Result<(), Fault> {
    match fields.get(key) {
        Some(field) if field.has_suggest_values => Ok(()),
        Some(_) => Err(Fault::Bad(format!(
            "the field `{key}` of {of} has no suggestions: its app suggests no values for it"
        ))),
        None => Err(Fault::Bad(format!(
            "`field` is `{key}`, and {of} has no such config field"
        ))),
    }
}

/// What an app's code answered, with nothing else in it and within the limits.
fn answer(said: Value) -> Result<Value, String> {
    let bytes = bytes_of(&said);
    if bytes > ANSWER_BYTES_MAX {
        return Err(format!(
            "its answer has {bytes} bytes, more than {ANSWER_BYTES_MAX}"
        ));
    }
    let Some(values) = said["suggestedValues"].as_array() else {
        return Err("its answer has no list `suggestedValues`".to_owned());
    };
    let shown = values.iter().take(VALUES_MAX).map(|it| {
        if !it.is_object() {
            return Err("one of its `suggestedValues` is not `{label, value}`".to_owned());
        }
        let label = match (&it["label"], &it["value"]) {
            (Value::String(label), _) => label.clone(),
            (Value::Null, Value::String(value)) => value.clone(),
            (Value::Null, value) => value.to_string(),
            (other, _) => other.to_string(),
        };
        let mut shown = json!({"label": label, "value": it["value"]});
        if let Some(description) = it["description"].as_str() {
            shown["description"] = description.into();
        }
        Ok(shown)
    });
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    let cut = values.len() > VALUES_MAX;
    let cut = cut.then(|| format!("the first {VALUES_MAX} of {}: search for one", values.len()));
    let message = said["message"].as_str().map(str::to_owned).or(cut);
    let mut answer = json!({"suggestedValues": shown});
    if let Some(message) = message {
        answer["message"] = message.into();
    }
    Ok(answer)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_leniently_and_cut() {
        let said = json!({
            "suggestedValues": [
                {"label": "A", "value": 1, "description": "first", "more": true},
                {"value": "b"}, {"label": 3, "value": null},
            ],
            "message": null, "other": 1,
        });
        let wanted = json!({"suggestedValues": [
            {"label": "A", "value": 1, "description": "first"},
            {"label": "b", "value": "b"}, {"label": "3", "value": null},
        ]});
        assert_eq!(answer(said), Ok(wanted));
        let many = vec![json!({"label": "x", "value": 0}); VALUES_MAX + 1];
        let cut = answer(json!({"suggestedValues": many})).expect("an answer");
        assert_eq!(cut["suggestedValues"].as_array().map(Vec::len), Some(1_000));
        assert_eq!(cut["message"], "the first 1000 of 1001: search for one");
    }

    #[test]
    fn an_answer_of_another_form_is_refused() {
        let long = "x".repeat(ANSWER_BYTES_MAX);
        let values = json!([{"label": long, "value": 1}]);
        for (said, words) in [
            (Value::Null, "no list"),
            (json!({"suggestedValues": {}}), "no list"),
            (json!({"suggestedValues": ["a"]}), "{label, value}"),
            (json!({"suggestedValues": values}), "more than"),
        ] {
            let why = answer(said).expect_err("refused");
            assert!(why.contains(words), "{why}");
        }
    }
}
