//! What people do: install apps, draw flows, trigger them, look at them.

use serde_json::{Value, json};

use crate::fixture::{Fixture, until};

/// An installed app, ready for flows.
pub struct App {
    pub installation: String,
}

/// Publishes an app and installs it with a config; waits until it is ready.
pub async fn install(fixture: &Fixture, name: &str, config: Value) -> App {
    let app = draft(fixture, name, config).await;
    let path = format!("/api/v1/installations/{}", app.installation);
    fixture.post(&format!("{path}/confirm"), &json!({})).await;
    status(fixture, &path, "ready").await;
    app
}

/// Publishes an app and installs it as a draft.
pub async fn draft(fixture: &Fixture, name: &str, config: Value) -> App {
    let text = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let app = json!({"project": fixture.project, "name": name});
    let app = text(&fixture.post("/api/v1/apps", &app).await);
    let version = json!({"version": "1.0.0", "code": format!("// {name}")});
    let path = format!("/api/v1/apps/{app}/versions");
    let version = text(&fixture.post(&path, &version).await);
    let installation = json!({
        "project": fixture.project, "name": name, "version": version, "config": config,
    });
    let installation = fixture.post("/api/v1/installations", &installation).await;
    App {
        installation: text(&installation),
    }
}

/// Waits until something has a status; answers what is shown of it.
pub async fn status(fixture: &Fixture, path: &str, wanted: &str) -> Value {
    until(&format!("{path} is {wanted}"), async || {
        let shown = fixture.get(path).await;
        (shown["status"] == wanted).then_some(shown)
    })
    .await
}

/// Makes a flow with a definition.
pub async fn flow(fixture: &Fixture, name: &str, definition: &str) -> String {
    let flow = json!({"project": fixture.project, "name": name});
    let flow = fixture.post("/api/v1/flows", &flow).await;
    let id = flow["id"].as_str().expect("an id").to_owned();
    apply(fixture, &id, definition).await;
    id
}

pub async fn apply(fixture: &Fixture, flow: &str, definition: &str) -> Value {
    let path = format!("/api/v1/flows/{flow}/apply");
    fixture
        .post(&path, &json!({"definition": definition}))
        .await
}

/// Triggers an input; answers the event's id.
pub async fn trigger(fixture: &Fixture, flow: &str, block: &str, body: Value) -> String {
    let block = block.replace(' ', "%20");
    let path = format!("/api/v1/flows/{flow}/blocks/{block}/inputs/default/events");
    let event = fixture.post(&path, &body).await;
    event["id"].as_str().expect("an id").to_owned()
}

/// Waits until a flow is quiet; answers its events, oldest first.
pub async fn quiet(fixture: &Fixture, flow: &str) -> Vec<Value> {
    until("the flow is quiet", async || {
        let shown = fixture.get(&format!("/api/v1/flows/{flow}")).await;
        (shown["open"] == 0).then_some(())
    })
    .await;
    let events = fixture
        .get(&format!("/api/v1/flows/{flow}/events?after=0&limit=500"))
        .await;
    events.as_array().expect("a list").clone()
}
