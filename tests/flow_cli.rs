//! `sluice flow`, `app` and their kin as a person uses them: real processes,
//! real containers, exit codes and what is printed.

#[path = "flow_cli/registry.rs"]
mod registry;
#[path = "support/site.rs"]
#[allow(
    dead_code,
    reason = "the gateway's own tests use what these leave alone"
)]
mod site;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use support::process::until;
use support::{env, exe, repository};

/// `sluice up` on a directory; it is killed with a test that fails, and its own
/// children end with it.
struct Up {
    child: Child,
    dir: tempfile::TempDir,
}

#[async_std::test]
async fn a_run_without_a_gateway_starts_one_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let scratch = dir.path().join("t");
    std::fs::create_dir(&scratch).expect("a directory");
    let example = example("greeting.yaml");
    let output = command(dir.path())
        .env("TMPDIR", &scratch)
        .args(["flow", "run", &example, "--json", "--body"])
        .arg("{\"name\": \"Ada\"}")
        .output()
        .expect("it runs");
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let events: Vec<_> = of_kind(&lines, "event");
    let bodies: Vec<_> = events.iter().map(|event| &event["body"]).collect();
    let hello = json!({"text": "Hello Ada!"});
    let name = json!({"name": "Ada"});
    assert_eq!(bodies, [&name, &name, &hello, &hello], "{lines:#?}");
    assert_eq!(events[3]["block_name"], "Is it long?");
    assert_eq!(events[3]["output"], "else");
    assert_eq!(events[3]["depth"], 3);
    let end = lines.last().expect("an end");
    assert_eq!((&end["kind"], &end["events"]), (&json!("end"), &json!(4)));
    assert_eq!(names_in(&scratch), Vec::<String>::new(), "left behind");
}

#[async_std::test]
async fn an_interrupted_run_ends_what_it_has_started() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let scratch = dir.path().join("t");
    std::fs::create_dir(&scratch).expect("a directory");
    let file = |name: &str| std::fs::File::create(dir.path().join(name)).expect("a file");
    let flow = dir.path().join("long.yaml");
    let text = "blocks: [{name: Long, type: {coreBlock: sleep}, inputs: {default: {config: {sleep: 600}}}}]";
    std::fs::write(&flow, text).expect("written");
    let mut run = command(dir.path())
        .env("TMPDIR", &scratch)
        .args(["flow", "run"])
        .arg(&flow)
        .stdout(file("out"))
        .stderr(file("err"))
        .spawn()
        .expect("it starts");
    until_patient("the chain begins", || {
        let ended = run.try_wait().expect("a child");
        let err = std::fs::read_to_string(dir.path().join("err")).unwrap_or_default();
        assert!(ended.is_none(), "{ended:?}: {err}");
        let out = std::fs::read_to_string(dir.path().join("out")).unwrap_or_default();
        out.contains("(from outside)").then_some(())
    })
    .await;
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGINT).expect("it runs");
    let status = until("it ends", || run.try_wait().expect("a child")).await;
    let err = std::fs::read_to_string(dir.path().join("err")).unwrap_or_default();
    assert_eq!(status.code(), Some(130), "{err}");
    assert_eq!(names_in(&scratch), Vec::<String>::new(), "left behind");
}

#[async_std::test]
async fn flows_and_apps_from_the_command_line() {
    let up = Up::start().await;
    a_flow_over_an_app_of_typescript(&up);
    an_event_that_fails_is_told_and_replayed(&up);
    what_is_refused_changes_nothing(&up);
    a_plan_after_an_export_is_empty(&up);
    an_app_is_built_and_installed(&up);
    secrets_are_written_and_listed(&up);
    keys_are_made_with_scopes(&up);
    registry::an_app_comes_from_a_registry(&up).await;
    too_little_time_is_told(&up);
    assert_eq!(up.end().await, Some(0));
}

fn a_flow_over_an_app_of_typescript(up: &Up) {
    let app = format!(
        "sample={}",
        repository().join("tests/apps/sample/main.ts").display()
    );
    let config = "sample.greeting=\"Good morning\"";
    let flow = example("sample.yaml");
    let run = [
        "flow", "run", &flow, "--app", &app, "--config", config, "--body",
    ];
    let output = up.sluice(&[&run[..], &["{\"name\": \"Ada\"}", "--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let lines = lines(&output);
    let blocks = |name: &str| {
        let events = of_kind(&lines, "event").into_iter();
        let bodies = events.filter(|event| event["block_name"] == name);
        bodies
            .map(|event| event["body"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(blocks("Greet")[0]["text"], "Good morning Ada!");
    assert_eq!(blocks("Count"), [json!({"count": 1})]);
    // The run was not over before the timer.
    assert_eq!(blocks("Remind"), [json!({"text": "Good morning Ada!"})]);
    assert_eq!(lines.last().expect("an end")["failures"], 0);
}

fn an_event_that_fails_is_told_and_replayed(up: &Up) {
    let flow = example("sample.yaml");
    let output = up.sluice(&["flow", "run", &flow, "--body", "{\"name\": null}"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find(|line| line.contains("✗ Greet, input default: "));
    let line = line.unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("name"), "the field is named: {line}");
    let (_, replay) = line.rsplit_once("(sluice ").expect("what to do");
    let replay: Vec<_> = replay.trim_end_matches(')').split(' ').collect();
    let output = up.sluice(&replay);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let output = up.sluice(&["flow", "events", "sample"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("Greet") && text.contains("Good morning Ada!"),
        "{text}"
    );
}

fn what_is_refused_changes_nothing(up: &Up) {
    let file = up.dir.path().join("wrong.yaml");
    let text = "blocks:\n\
         - {name: Go, type: {coreBlock: manualTrigger}}\n\
         - {name: Wait, type: {coreBlock: sleep}, inputs: {default: {links: [{block: Gone, output: default}], config: {slep: 1}}}}\n";
    std::fs::write(&file, text).expect("written");
    let wrong = file.to_str().expect("a path");
    let output = up.sluice(&["flow", "run", wrong]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("block `Wait`, input `default`: links to block `Gone`"),
        "{error}"
    );
    assert!(error.contains("`slep`: there is no such field"), "{error}");
    assert!(
        !up.json(&["flow", "ls", "--json"])
            .to_string()
            .contains("\"wrong\"")
    );

    // What can be told without the gateway is told first.
    let flow = example("greeting.yaml");
    let output = up.sluice(&["flow", "run", &flow, "--block", "Stop"]);
    assert_eq!(output.status.code(), Some(64));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("there is no block `Stop`") && error.contains("`Start`"),
        "{error}"
    );
    std::fs::write(&file, "blocks: [{name: A, type: {coreBlock: tea}}]").expect("written");
    let output = up.sluice(&["flow", "run", wrong]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    let flow = up.dir.path().join("app.yaml");
    let text = "appInstallations: {db: {appName: Database, appVersion: 1.0.0}}\n\
         blocks: [{name: A, type: {appBlock: {block: a, appInstallation: db}}}]\n";
    std::fs::write(&flow, text).expect("written");
    let output = up.sluice(&["flow", "run", flow.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(64));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("bring it with --app db=FILE"), "{error}");
}

fn a_plan_after_an_export_is_empty(up: &Up) {
    let file = up.dir.path().join("exported.yaml");
    let file = file.to_str().expect("a path");
    let output = up.sluice(&["flow", "export", "sample", "-o", file]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let plan = up.json(&["flow", "plan", "sample", file, "--json"]);
    assert_eq!(plan["operations"], json!([]), "{plan}");
    let text = std::fs::read_to_string(file).expect("a file");
    std::fs::write(file, text.replace("seconds: 1", "seconds: 2")).expect("written");
    let plan = up.json(&["flow", "plan", "sample", file, "--json"]);
    assert_eq!(
        plan["operations"].as_array().map(Vec::len),
        Some(1),
        "{plan}"
    );
    let applied = up.json(&["flow", "apply", "sample", file, "--json"]);
    assert_eq!(applied["operations"], plan["operations"]);

    up.json(&["flow", "create", "copy", "--project", "default", "--json"]);
    let mapping = ["--installation", "sample=sample", "--json"];
    let applied = up.json(&[&["flow", "apply", "copy", file][..], &mapping].concat());
    assert_ne!(applied["operations"], json!([]));
    let event = up.json(&["flow", "trigger", "copy", "Start", "--body", "1", "--json"]);
    assert!(event["id"].is_string(), "{event}");
    let output = up.sluice(&["flow", "delete", "copy"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        !up.json(&["flow", "list", "--json"])
            .to_string()
            .contains("\"copy\"")
    );
}

fn an_app_is_built_and_installed(up: &Up) {
    let dir = up.dir.path().join("shout");
    std::fs::create_dir(&dir).expect("a directory");
    let code = "import { defineApp, events } from '@slflows/sdk/v1';\n\
         import { loud } from './loud.ts';\n\
         export const app = defineApp({ autoconfirm: true, blocks: { shout: {\n\
         inputs: { default: { async onEvent({ event }: any) { await events.emit(loud(event.id)); } } },\n\
         outputs: { default: {} } } } });\n";
    std::fs::write(dir.join("main.ts"), code).expect("written");
    let code = "export const loud = (text: string): string => text.toUpperCase();\n";
    std::fs::write(dir.join("loud.ts"), code).expect("written");
    std::fs::write(dir.join("ui.ts"), "document.title = 'shout' as string;\n").expect("written");
    let (main, ui) = (dir.join("main.ts"), dir.join("ui.ts"));
    let archive = dir.join("shout.tar.gz");
    let path = |path: &PathBuf| path.to_str().expect("a path").to_owned();
    let (main, ui, archive) = (path(&main), path(&ui), path(&archive));
    let built = up.json(&["app", "build", &main, "-u", &ui, "-o", &archive, "--json"]);
    assert!(built["code_bytes"].as_u64() > Some(100), "{built}");
    let install = ["app", "install", &archive, "--project", "default"];
    let named = ["--installation", "shout", "--json"];
    let installed = up.json(&[&install[..], &named].concat());
    assert_eq!(installed["status"], "ready", "{installed}");
    // The same code is the same version, and an app that is there has a name.
    let again = up.json(&[&install[..], &["--json"]].concat());
    assert_eq!(again["version_id"], installed["version_id"]);
    let again = up.json(&["app", "install", "shout", "--project", "default", "--json"]);
    assert_eq!(again["version_id"], installed["version_id"]);
    let listed = up.json(&["installation", "ls", "--project", "default", "--json"]);
    assert!(listed.to_string().contains("\"shout\""), "{listed}");
    let status = up.json(&["installation", "status", "shout", "--json"]);
    assert_eq!(status["id"], installed["installation"]);

    std::fs::write(dir.join("main.ts"), "const = 1").expect("written");
    let output = up.sluice(&["app", "build", &main]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("main.ts:1:"), "the place is named: {error}");
    let output = up.sluice(&["installation", "delete", "shout"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

fn secrets_are_written_and_listed(up: &Up) {
    let file = up.dir.path().join("secret");
    std::fs::write(&file, "hush\n").expect("written");
    let file = file.to_str().expect("a path");
    let project = ["--project", "default"];
    let output = up.sluice(&[&["secret", "set", "TOKEN", "--from", file][..], &project].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let listed = up.json(&[&["secret", "ls", "--json"][..], &project].concat());
    assert_eq!(listed[0]["key"], "TOKEN", "{listed}");
    assert!(!listed.to_string().contains("hush"), "{listed}");
    let output = up.sluice(&[&["secret", "delete", "TOKEN"][..], &project].concat());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

fn keys_are_made_with_scopes(up: &Up) {
    let scopes = ["--scope", "api", "--scope", "apps:view", "--json"];
    let made = up.json(&[&["key", "create", "reader"][..], &scopes].concat());
    assert_eq!(made["scopes"], json!(["api", "apps:view"]), "{made}");
    let listed = up.json(&["key", "list", "--json"]);
    let listed = listed.as_array().expect("a list");
    let reader = listed.iter().find(|key| key["name"] == "reader");
    assert_eq!(reader.expect("the key")["scopes"], made["scopes"]);
    let table = said(&up.sluice(&["key", "list"]));
    let has = |word: &str| table.contains(word);
    assert!(has("SCOPES") && has("[\"api\",\"apps:view\"]"), "{table}");
    let key = made["key"].as_str().expect("a key");
    let output = command(up.dir.path())
        .env("SLUICE_API_KEY", key)
        .args(["flow", "create", "no", "--project", "default"])
        .output()
        .expect("it runs");
    assert_ne!(output.status.code(), Some(0));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("lacks the scope `flows:edit`"), "{error}");
}

fn too_little_time_is_told(up: &Up) {
    let file = up.dir.path().join("sleep.yaml");
    let text = "blocks: [{name: Long, type: {coreBlock: sleep}, inputs: {default: {config: {sleep: 600}}}}]";
    std::fs::write(&file, text).expect("written");
    let file = file.to_str().expect("a path");
    let output = up.sluice(&["flow", "run", file, "--timeout", "1", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let lines = lines(&output);
    assert_eq!(
        lines.last().expect("an end")["how"],
        "timed_out",
        "{lines:#?}"
    );
}

// === impl Up ===

impl Up {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let file = |name: &str| std::fs::File::create(dir.path().join(name)).expect("a file");
        let child = command(dir.path())
            .args(["up", "--json"])
            .stdout(file("up.json"))
            .stderr(file("up.log"))
            .spawn()
            .expect("it starts");
        let mut up = Self { child, dir };
        until_patient("everything runs", || {
            let ended = up.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}: {}", up.log());
            let told = std::fs::read(up.dir.path().join("up.json")).ok()?;
            serde_json::from_slice::<Value>(&told).ok()
        })
        .await;
        up
    }

    fn sluice(&self, arguments: &[&str]) -> Output {
        command(self.dir.path())
            .args(arguments)
            .output()
            .expect("it runs")
    }

    /// What a command that succeeds prints.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.sluice(arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            said(&output)
        );
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
    }

    /// SIGTERM, and its exit code.
    async fn end(mut self) -> Option<i32> {
        kill(
            Pid::from_raw(self.child.id().cast_signed()),
            Signal::SIGTERM,
        )
        .expect("it runs");
        let status = until("it drains", || self.child.try_wait().expect("a child")).await;
        status.code()
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("up.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path) -> Command {
    let pass = [
        "PATH",
        "HOME",
        "XDG_RUNTIME_DIR",
        "FLOWS_RUNTIME_IMAGE",
        "SLUICE_RUNTIME_OCI",
        "npm_config_registry",
        "npm_config_cafile",
        "npm_config_userconfig",
        "NODE_EXTRA_CA_CERTS",
        "HTTPS_PROXY",
        "https_proxy",
    ];
    let mut command = Command::new(exe());
    command
        .env_clear()
        .envs(pass.iter().filter_map(|name| Some((*name, env(name)?))))
        .env("SLUICE_DATA_DIR", dir)
        .env("SLUICE_GATEWAY_LISTEN", "127.0.0.1:0")
        .env("SLUICE_GATEWAY_AGENT_LISTEN", "127.0.0.1:0")
        .env("FLOWS_POOL_SIZE", "1")
        .env("SLUICE_WORKERS", "1")
        .stdin(Stdio::null());
    command
}

/// A first start of everything takes longer than a step of a test.
async fn until_patient<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            start.elapsed() < Duration::from_secs(200),
            "not in time: {what}"
        );
        async_std::task::sleep(Duration::from_millis(50)).await;
    }
}

fn example(name: &str) -> String {
    let path = repository().join("docs/examples").join(name);
    path.to_str().expect("a path").to_owned()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    text.lines().map(parse).collect()
}

fn of_kind<'v>(lines: &'v [Value], kind: &str) -> Vec<&'v Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}
