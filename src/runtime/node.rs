//! The JavaScript side, embedded: what is written into the harness directory
//! that every runtime has mounted at [`sluice_proto::harness::HARNESS_DIR`].
//!
//! Owns the list of files, and how the harness's modules become the one script
//! that Node starts. What they do is said at their own heads; the conversation
//! they hold is `proto/README.md`. An app finds `@slflows/sdk/v1` because Node
//! looks for packages upwards from the bundle in `/sluice/run`, and so comes by
//! `/sluice/node_modules`.
//!
//! One CommonJS script, because a start waits for it: Node finds, reads and
//! links some 15 ES modules one by one, for a quarter of all the processor time
//! that it needs until it connects (docs/decisions/0022). The modules' own lines
//! stand in it as they are, so a stack can be read beside the file.

use std::borrow::Cow;
use std::fmt::Write;

/// The filter of system calls, below the harness directory: what Node needs.
/// Podman's own leaves new namespaces, mounts in them, keyrings, ptrace and
/// memory that no limit counts to a container; an app needs none of these.
pub const SECCOMP: &str = "seccomp.json";

/// The script that Node starts, below the harness directory.
pub const SCRIPT: &str = "harness.cjs";

/// The SDK's directory below the harness directory.
const SDK: &str = "node_modules/@slflows/sdk";

/// What the script is made of: each module after those that it imports.
const MODULES: &[(&str, &str)] = &[
    ("primordials.mjs", include_str!("node/primordials.mjs")),
    ("failure.mjs", include_str!("node/failure.mjs")),
    ("codec.mjs", include_str!("node/codec.mjs")),
    ("wire.mjs", include_str!("node/wire.mjs")),
    ("posture.mjs", include_str!("node/posture.mjs")),
    ("invocations.mjs", include_str!("node/invocations.mjs")),
    ("capture.mjs", include_str!("node/capture.mjs")),
    ("guard.mjs", include_str!("node/guard.mjs")),
    ("load.mjs", include_str!("node/load.mjs")),
    ("handlers.mjs", include_str!("node/handlers.mjs")),
    ("describe.mjs", include_str!("node/describe.mjs")),
    ("evaluate.mjs", include_str!("node/evaluate.mjs")),
    ("port.mjs", include_str!("node/port.mjs")),
    ("harness.mjs", include_str!("node/harness.mjs")),
];

/// Path below the harness directory, and content.
pub fn files() -> Vec<(String, Cow<'static, str>)> {
    let sdk = include_str!("node/sdk/v1.mjs");
    vec![
        (SCRIPT.into(), script().into()),
        // For the engine, and no secret to what it is for.
        (SECCOMP.into(), include_str!("seccomp.json").into()),
        (
            format!("{SDK}/package.json"),
            include_str!("node/sdk/package.json").into(),
        ),
        (format!("{SDK}/v1.mjs"), beside_the_script(sdk).into()),
    ]
}

/// All modules as one script: a function each, in whose order they were listed.
/// The SDK, an ES module that apps import, takes what it shares from its exports.
fn script() -> String {
    let mut script = String::from(
        "'use strict';\nconst $url = require('node:url').pathToFileURL(__filename).href;\n",
    );
    for (name, text) in MODULES {
        let mut exports = Vec::new();
        let mut body = String::with_capacity(text.len());
        for statement in statements(text) {
            let statement = statement.replace("import.meta.url", "$url");
            if statement.starts_with("import ") {
                body.push_str(&required(&statement));
            } else if let Some(exported) = statement.strip_prefix("export ") {
                exports.extend(name_of(exported).map(str::to_owned));
                body.push_str(exported);
            } else {
                body.push_str(&statement);
            }
        }
        // Writing to a string cannot fail.
        let _ = write!(
            script,
            "\n// {name}\nconst ${} = (() => {{\n{body}return Object.freeze({{ __proto__: null, {} }});\n}})();\n",
            stem(name),
            exports.join(", ")
        );
    }
    script.push_str("module.exports = Object.freeze({ __proto__: null, $port, $primordials });\n");
    script
}

/// The SDK with its imports of the harness's modules taken from the script,
/// which has run: `require` gives it as it is, without another look at its text.
fn beside_the_script(sdk: &str) -> String {
    let head = format!(
        "import {{ createRequire }} from 'node:module';\nconst {{ $port, $primordials }} = createRequire(import.meta.url)('../../../{SCRIPT}');\n"
    );
    let statements = statements(sdk).into_iter().map(|statement| {
        if statement.starts_with("import ") {
            required(&statement)
        } else {
            statement
        }
    });
    std::iter::once(head).chain(statements).collect()
}

/// Lines with their ends; an import over several lines is one.
fn statements(text: &str) -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    for line in text.split_inclusive('\n') {
        match statements.last_mut() {
            Some(last) if last.starts_with("import ") && !last.ends_with("';\n") => {
                last.push_str(line);
            }
            _ => statements.push(line.to_owned()),
        }
    }
    statements
}

/// An import statement as CommonJS says it.
fn required(import: &str) -> String {
    let Some((names, from)) = import
        .strip_prefix("import ")
        .and_then(|rest| rest.rsplit_once(" from "))
    else {
        // For its effects alone, which it has had by then.
        return String::new();
    };
    let from = from.trim_end().trim_matches([';', '\'']);
    let names = names.replace(" as ", ": ");
    if from.starts_with("node:") {
        format!("const {names} = require('{from}');\n")
    } else {
        format!("const {names} = ${};\n", stem(from))
    }
}

/// The name that a declaration gives.
fn name_of(declaration: &str) -> Option<&str> {
    let words = declaration.split(|c: char| !(c.is_alphanumeric() || "_$".contains(c)));
    words
        .filter(|word| !word.is_empty())
        .find(|word| !["async", "const", "let", "function", "class"].contains(word))
}

/// `failure` of `./failure.mjs`.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".mjs").unwrap_or(name)
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
