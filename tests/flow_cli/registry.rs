//! An app from a registry in a real container: brought by `sluice flow run`, and
//! installed and brought to a newer version as the Terraform provider does it.

use async_std::io::{ReadExt, WriteExt};
use async_std::net::TcpStream;
use serde_json::{Value, json};

use crate::site::{Site, app};
use crate::{Up, lines, of_kind, said, until_patient};

const FLOW: &str = "\
appInstallations:
  shouter: { appName: SHOUTER, appVersion: 1.0.0 }
blocks:
  - name: Start
    type: { coreBlock: manualTrigger }
  - name: Shout
    type: { appBlock: { block: shout, appInstallation: shouter } }
    inputs:
      default:
        links: [{ block: Start, output: default }]
        config: { text: !expr outputs.start.text }
";

/// An archive with an app that shouts, and says by a signal which version it is.
fn shouter(version: &str) -> Vec<u8> {
    let code = "import { defineApp, events } from '@slflows/sdk/v1';\n\
        const version = 'VERSION';\n\
        export const app = defineApp({\n\
        name: 'Shouter', config: { mark: { name: 'Mark', type: 'string', default: '!' } },\n\
        signals: { version: { name: 'Version' } },\n\
        onSync: async () => ({ newStatus: 'ready', signalUpdates: { version } }),\n\
        blocks: { shout: { inputs: { default: { config: { text: { name: 'Text', type: 'string', required: true } },\n\
        onEvent: async ({ app, event }) => { await events.emit({\n\
        text: event.inputConfig.text.toUpperCase() + app.config.mark, version }); } } },\n\
        outputs: { default: { possiblePrimaryParents: ['default'] } } } } });\n";
    app(&code.replace("VERSION", version))
}

pub async fn an_app_comes_from_a_registry(up: &Up) {
    let site = Site::open().await;
    site.list(&["shouter"]);
    site.publish("shouter", &[("1.0.0", &shouter("1.0.0"))]);
    let url = format!("{}/r/registry.json", site.address);
    up.json(&["registry", "add", "ours", &url, "--json"]);
    let file = up.dir.path().join("shouting.yaml");
    std::fs::write(&file, FLOW).expect("written");
    let file = file.to_str().expect("a path");
    let body = ["--body", "{\"text\": \"hey\"}", "--json"];
    let output = up.sluice(&[&["flow", "run", file][..], &body].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(
        shouted(&lines(&output)),
        json!({"text": "HEY!", "version": "1.0.0"})
    );
    let asked = site.asked();
    let fetched = asked.iter().filter(|it| it.contains("1.0.0.tar.gz 200"));
    assert_eq!(fetched.count(), 1, "{asked:?}");
    the_provider_installs_and_upgrades(up, &site).await;
}

async fn the_provider_installs_and_upgrades(up: &Up, site: &Site) {
    let provider = Provider::of(up);
    let projects = up.json(&["project", "list", "--json"]);
    let projects = projects.as_array().expect("a list");
    let project = projects.iter().find(|it| it["name"] == "default");
    let project = &project.expect("a project")["id"];
    let version = json!({"registry": "ours", "name": "SHOUTER", "version": "1.0.0"});
    let version = provider.ask("apps/get_version_id", version).await["id"].clone();
    let body = json!({
        "projectId": project, "name": "tf", "app": {"versionId": version, "custom": false},
    });
    let made = provider.ask("apps/create_installation", body).await;
    assert_eq!(made["draft"], true);
    let id = &made["id"];
    let config = json!({"id": id, "configFields": {"mark": "'?' + '!'"}});
    provider
        .ask("apps/update_installation_config", config)
        .await;
    provider
        .ask("apps/confirm_installation", json!({"id": id}))
        .await;
    provider.ready(up, id, "1.0.0").await;

    let body = json!({"projectId": project, "name": "tf"});
    let flow = provider.ask("flows/create", body).await["flow"]["id"].clone();
    let definition = json!({
        "flowId": flow, "definition": FLOW, "appInstallationMapping": {"shouter": id},
    });
    provider.ask("flows/apply_config", definition.clone()).await;
    let plan = provider.ask("flows/plan_changes", definition).await;
    assert_eq!(plan["plan"]["operations"], json!([]));
    let wanted = json!({"text": "ONE?!", "version": "1.0.0"});
    assert_eq!(provider.shout(up, &flow, "one").await, wanted);

    site.publish(
        "shouter",
        &[("1.0.0", &shouter("1.0.0")), ("1.1.0", &shouter("1.1.0"))],
    );
    up.json(&["registry", "refresh", "ours", "--json"]);
    let newest = json!({"registry": "ours", "name": "SHOUTER"});
    let newest = provider.ask("apps/get_version_id", newest).await["id"].clone();
    assert_ne!(newest, version);
    let body = json!({"id": id, "app": {"versionId": newest, "custom": false}});
    let changed = provider.ask("apps/update_installation_version", body).await;
    assert_eq!(changed["draft"], false);
    provider.ready(up, id, "1.1.0").await;
    let shown = provider
        .ask("apps/get_installation", json!({"id": id}))
        .await;
    assert_eq!(shown["app"], json!({"versionId": newest, "custom": false}));
    let wanted = json!({"text": "TWO?!", "version": "1.1.0"});
    assert_eq!(provider.shout(up, &flow, "two").await, wanted);
    provider.ask("flows/delete", json!({"id": flow})).await;
    provider
        .ask("apps/delete_installation", json!({"id": id}))
        .await;
}

/// What the block said last.
fn shouted(lines: &[Value]) -> Value {
    let mut events = of_kind(lines, "event").into_iter();
    let event = events.rfind(|event| event["block_name"] == "Shout");
    event.unwrap_or_else(|| panic!("{lines:#?}"))["body"].clone()
}

/// The provider's end of a connection.
struct Provider {
    address: String,
    key: String,
}

// === impl Provider ===

impl Provider {
    fn of(up: &Up) -> Self {
        let read = |name: &str| {
            let path = up.dir.path().join("gateway").join(name);
            std::fs::read_to_string(path).expect("a file")
        };
        let listen: Value = serde_json::from_str(&read("listen.json")).expect("JSON");
        let address = listen["http"].as_str().expect("an address");
        Self {
            address: address.trim_start_matches("http://").to_owned(),
            key: read("admin.key").trim().to_owned(),
        }
    }

    /// What a request that succeeds is answered.
    async fn ask(&self, path: &str, body: Value) -> Value {
        let body = body.to_string();
        let request = format!(
            "POST /provider/{path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("an answer");
        let (head, reply) = said.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{path} {body}: {said}");
        let mut reply: Value = serde_json::from_str(reply).expect("JSON");
        reply["data"].take()
    }

    /// Waits until this version has said that the installation is ready.
    async fn ready(&self, up: &Up, id: &Value, version: &str) {
        let id = id.as_str().expect("an id");
        until_patient("the installation is ready", || {
            let shown = up.json(&["installation", "status", id, "--json"]);
            assert_ne!(shown["status"], "failed", "{shown}\n{}", up.log());
            (shown["signals"]["version"] == version).then_some(())
        })
        .await;
        let status = self
            .ask("apps/get_installation_status", json!({"id": id}))
            .await;
        assert_eq!(status["status"], "ready");
    }

    /// What the block of a flow makes of a text.
    async fn shout(&self, up: &Up, flow: &Value, text: &str) -> Value {
        let flow = flow.as_str().expect("an id");
        let body = json!({"text": text}).to_string();
        up.json(&["flow", "trigger", flow, "Start", "--body", &body, "--json"]);
        let wanted = text.to_uppercase();
        until_patient("it has shouted", || {
            let events = up.json(&["flow", "events", flow, "--json"]);
            let events = events.as_array().expect("a list").clone();
            let mut bodies = events.into_iter().map(|event| event["body"].clone());
            bodies.find(|body| {
                let said = body["text"].as_str().unwrap_or_default();
                said.starts_with(&wanted) && body["version"].is_string()
            })
        })
        .await
    }
}
