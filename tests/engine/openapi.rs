//! The gateway keeps what its OpenAPI document promises: schemathesis sends it
//! requests, right ones and wrong ones, and compares each answer.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sluice::shutdown::unblock;

use crate::fixture::Fixture;
use crate::flows::{schema, script};
use crate::worker::{Worker, install, quiet, trigger};

/// What is held against the document.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_schema_conformance,ignored_auth";
/// Requests that schemathesis makes up for each operation, beside those at the edges.
const EXAMPLES: &str = "12";
/// An id that is nobody's: what removes things must not remove what others look at.
const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

#[async_std::test]
async fn answers_are_what_the_document_says() {
    let fixture = Fixture::start().await;
    let worker = Worker::start(&fixture, schema(), script()).await;
    let real = furnish(&fixture).await;
    let dir = tempfile::tempdir().expect("a directory");
    let settings = dir.path().join("schemathesis.toml");
    std::fs::write(&settings, config(&real)).expect("written");
    let (address, key, home) = (
        fixture.http.clone(),
        fixture.key.clone(),
        dir.path().to_owned(),
    );
    let output = unblock(move || schemathesis(&home, &settings, &address, &key)).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("No issues found"), "{said}");
    drop(worker);
}

/// Things to look at, by the names of the document's parameters.
async fn furnish(fixture: &Fixture) -> Vec<(&'static str, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let app = install(fixture, "test", json!({})).await;
    let shown = fixture
        .get(&format!("/api/v1/installations/{}", app.installation))
        .await;
    let version = text(&shown["version"]);
    let bundle = fixture.get(&format!("/api/v1/versions/{version}")).await;
    let flow = json!({"project": fixture.project, "name": "f"});
    let flow = text(&fixture.post("/api/v1/flows", &flow).await["id"]);
    let definition = "blocks:\n  - name: Start\n    type: { coreBlock: manualTrigger }\n  \
        - name: Test\n    type: { coreBlock: condition }\n    inputs:\n      default:\n        \
        links: [{ block: Start, output: default }]\n        config: { condition: true }\n";
    let path = format!("/api/v1/flows/{flow}/apply");
    fixture
        .post(&path, &json!({"definition": definition}))
        .await;
    let event = trigger(fixture, &flow, "Start", json!({"a": 1})).await;
    quiet(fixture, &flow).await;
    let found = fixture.get(&format!("/api/v1/events/{event}")).await;
    let blocks = fixture.get(&format!("/api/v1/flows/{flow}/blocks")).await;
    let job = fixture.get("/api/v1/jobs?limit=1").await;
    let secret = format!("/api/v1/projects/{}/secrets/TOKEN", fixture.project);
    let value = json!({"value": "v"});
    assert_eq!(fixture.call("PUT", &secret, Some(&value)).await.0, 200);
    vec![
        ("project", fixture.project.clone()),
        ("secret", "TOKEN".to_owned()),
        ("pool", fixture.pool.clone()),
        ("key", NOBODY.to_owned()),
        ("app", text(&bundle["app"])),
        ("version", version),
        ("job", text(&job["jobs"][0]["id"])),
        ("installation", app.installation),
        ("flow", flow),
        ("block", text(&blocks[0]["id"])),
        ("input", "default".to_owned()),
        ("event", event),
        ("delivery", text(&found["deliveries"][0]["id"])),
        ("schedule", "nothing".to_owned()),
        ("registry", "nobody".to_owned()),
        ("listed", "nothing".to_owned()),
    ]
}

/// Real ids for most requests; others where something would be removed, and
/// no waiting.
fn config(real: &[(&str, String)]) -> String {
    let lines = |pairs: &mut dyn Iterator<Item = (&str, &str)>| {
        let lines = pairs.map(|(name, value)| format!("\"path.{name}\" = \"{value}\"\n"));
        lines.collect::<String>()
    };
    let ids = lines(&mut real.iter().map(|(name, value)| (*name, value.as_str())));
    let nobodies = lines(&mut real.iter().map(|(name, _)| (*name, NOBODY)));
    format!(
        "[parameters]\n\"query.stream\" = \"0\"\n\"query.wait\" = 0\n{ids}\n\
         [[operations]]\ninclude-method = \"DELETE\"\n[operations.parameters]\n{nobodies}\n"
    )
}

fn schemathesis(home: &Path, settings: &Path, address: &str, key: &str) -> std::process::Output {
    let tool = root().join("target/schemathesis/bin");
    assert!(
        tool.join("schemathesis").exists(),
        "schemathesis is not there: run compose/schemathesis.sh"
    );
    Command::new(tool.join("python"))
        .arg(tool.join("schemathesis"))
        .arg("--config-file")
        .arg(settings)
        .args(["run", &format!("http://{address}/api/v1/openapi.json")])
        .args(["--url", &format!("http://{address}")])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", EXAMPLES, "--seed", "1", "--workers", "2"])
        // Following a registry asks an address of the request.
        .args(["--exclude-path", "/api/v1/registries", "--warnings", "off"])
        .args(["--suppress-health-check", "all", "--request-timeout", "20"])
        .current_dir(home)
        .env("HOME", home)
        .env("NO_COLOR", "1")
        .output()
        .expect("it runs")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the runner says where it has put the checkout"
)]
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}
