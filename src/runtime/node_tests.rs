//! The one script, run by Node itself.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_proto::codec;
use sluice_proto::harness::{Answer, FromRuntime, ToRuntime};
use sluice_proto::job::Kind;

use super::*;

const BYTES_MAX: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

const APP: &str = "import { defineApp, kv } from '@slflows/sdk/v1';
export const app = defineApp({ name: 'Test', blocks: { one: {
  async onSync() { return (await kv.app.get('key')).value; },
  onDrain() { throw new Error('on purpose'); },
} } });
";

/// A harness as a runtime has it, but in no container.
struct Node {
    dir: tempfile::TempDir,
    process: Child,
    socket: UnixStream,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        for (name, text) in files() {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(path, text.as_bytes()).expect("written");
        }
        std::fs::create_dir(dir.path().join("run")).expect("made");
        let listener = UnixListener::bind(dir.path().join("run/harness.sock")).expect("bound");
        listener.set_nonblocking(true).expect("it can");
        let mut process = Command::new("node")
            .arg(dir.path().join(SCRIPT))
            .stdin(Stdio::null())
            .spawn()
            .expect("node runs");
        let begun = Instant::now();
        let socket = loop {
            match listener.accept() {
                Ok((socket, _)) => break socket,
                Err(_) => assert!(begun.elapsed() < PATIENCE, "it does not connect"),
            }
            let ended = process.try_wait().expect("it is ours");
            assert_eq!(ended, None, "it ended before it connected");
            std::thread::yield_now();
        };
        socket.set_nonblocking(false).expect("it can");
        socket.set_read_timeout(Some(PATIENCE)).expect("it can");
        Self {
            dir,
            process,
            socket,
        }
    }

    fn say(&mut self, message: &ToRuntime) {
        let body = codec::encode(message, BYTES_MAX).expect("it is small");
        let length = u32::try_from(body.len()).expect("it is small");
        self.socket.write_all(&length.to_be_bytes()).expect("sent");
        self.socket.write_all(&body).expect("sent");
    }

    fn hear(&mut self) -> FromRuntime {
        let mut head = [0; 4];
        self.socket.read_exact(&mut head).expect("it answers");
        let mut body = vec![0; u32::from_be_bytes(head) as usize];
        self.socket.read_exact(&mut body).expect("it answers");
        codec::decode(&body, BYTES_MAX).expect("it makes sense")
    }

    fn invoke(&mut self, invocation: u32, kind: Kind, payload: &Value) {
        self.say(&ToRuntime::Invoke {
            invocation,
            kind,
            log_bytes_max: 1_000,
            payload: payload.to_string().into_bytes(),
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_script_runs_an_app_its_calls_and_its_errors() {
    let mut node = Node::start();
    let FromRuntime::Hello { posture, .. } = node.hear() else {
        panic!("it said no Hello");
    };
    assert!(!posture.gvisor);
    let bundle = node.dir.path().join("run/app.mjs");
    std::fs::write(&bundle, APP).expect("written");
    let bundle = Some(bundle.display().to_string());
    node.say(&ToRuntime::Load { bundle });
    assert_eq!(node.hear(), FromRuntime::Loaded);
    let payload =
        json!({"handler": {"block": "one"}, "input": {"block": {"id": "one", "config": {}}}});
    node.invoke(1, Kind::Sync, &payload);
    let FromRuntime::Call {
        invocation,
        call,
        method,
        ..
    } = node.hear()
    else {
        panic!("it made no call");
    };
    assert_eq!(method, "kv.app.get");
    let json = br#"{"key": "key", "value": 42}"#.to_vec();
    node.say(&ToRuntime::Called {
        invocation,
        call,
        answer: Answer::Value { json },
    });
    match node.hear() {
        FromRuntime::Done { result, .. } => assert_eq!(result, b"42"),
        other => panic!("it answered {other:?}"),
    }
    node.invoke(2, Kind::Drain, &payload);
    let FromRuntime::Failed { failure, .. } = node.hear() else {
        panic!("it did not fail");
    };
    assert_eq!(failure.message, "on purpose");
    let stack = failure.stack.expect("an error has one");
    assert!(stack.contains("app.mjs:4:"), "{stack}");
    assert!(!stack.contains(SCRIPT), "none of ours: {stack}");
}

#[test]
fn every_module_is_in_the_script_and_none_imports_what_comes_later() {
    let sources = Path::new("src/runtime/node");
    let mut found = 0;
    for entry in std::fs::read_dir(sources).expect("it is there").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".mjs") {
            found += 1;
            assert!(MODULES.iter().any(|(module, _)| *module == name), "{name}");
        }
    }
    assert_eq!(found, MODULES.len());
    for (at, (name, text)) in MODULES.iter().enumerate() {
        for statement in statements(text) {
            let from = statement
                .strip_prefix("import ")
                .and_then(|rest| rest.rsplit_once("'./"));
            if let Some((_, from)) = from {
                let from = from.trim_end().trim_end_matches("';");
                let before = MODULES[..at].iter().any(|(module, _)| *module == from);
                assert!(before, "{name} imports {from}");
            }
        }
    }
    assert!(!script().contains("import.meta"));
}

#[test]
fn imports_of_each_form_are_said_as_commonjs_says_them() {
    assert_eq!(required("import './a.mjs';\n"), "");
    assert_eq!(
        required("import fs from 'node:fs';\n"),
        "const fs = require('node:fs');\n"
    );
    assert_eq!(
        required("import {\n  a as b,\n} from './c.mjs';\n"),
        "const {\n  a: b,\n} = $c;\n"
    );
    assert_eq!(name_of("async function $one() {"), Some("$one"));
    assert_eq!(name_of("const TWO = 1;"), Some("TWO"));
}
