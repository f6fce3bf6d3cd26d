//! Proof that each rule sees a violation, and nothing where there is none.

use crate::review::{Review, review_lock, review_name};
use crate::rules::{FILE_LINES_MAX, FOREIGN_PLACES, FUNCTION_LINES_MAX, LEFTOVERS};

/// What is said about a file, without its path.
fn said(path: &str, text: &str) -> Vec<String> {
    let complaints = Review::of(path, text);
    complaints
        .iter()
        .map(|complaint| format!("{}: {}", complaint.line, complaint.what))
        .collect()
}

#[test]
fn a_room_that_reaches_past_its_floor_is_seen() {
    let text = "//! A.\nuse crate::queue::Link;\nuse crate::{config, gateway::http};\nlet x = crate::store::open();\n";
    assert_eq!(
        said("src/worker/mod.rs", text),
        ["3: `worker` uses `gateway`", "4: `worker` uses `store`"]
    );
    assert_eq!(
        said("src/queue/mod.rs", "//! A.\nuse crate::wire::dial;\n"),
        ["2: `queue` uses `wire`"]
    );
    assert_eq!(
        said("src/config.rs", "//! A.\nuse crate::telemetry::now_us;\n"),
        [""; 0]
    );
    assert_eq!(
        said("src/cli/demo.rs", "//! A.\nuse crate::agent::supervise;\n"),
        [""; 0]
    );
    assert_eq!(
        said("src/attic.rs", "//! A.\n"),
        ["1: room `attic` has no floor"]
    );
}

#[test]
fn a_foreign_crate_beside_its_door_is_seen() {
    assert_eq!(
        said("src/bridge/mod.rs", "//! A.\nuse lapin::Channel;\n"),
        ["2: `bridge` uses the crate `lapin`"]
    );
    assert_eq!(
        said(
            "src/worker/a.rs",
            "//! A.\nfn f(x: trillium_http::Body) {}\n"
        ),
        ["2: `worker` uses the crate `trillium*`"]
    );
    assert_eq!(
        said(
            "src/queue/mod.rs",
            "//! A.\nuse lapin;\n// surf::get is not code\nself.surf::<u8>();\n"
        ),
        [""; 0]
    );
    assert_eq!(
        said("tests/support/chaos.rs", "//! A.\nuse lapin::Channel;\n"),
        [""; 0]
    );
}

#[test]
fn long_files_and_functions_are_seen_to_the_line() {
    let file = format!("//! A.\n{}", "// x\n".repeat(FILE_LINES_MAX - 1));
    assert_eq!(said("src/lib.rs", &file), [""; 0]);
    assert_eq!(
        said("src/lib.rs", &format!("{file}// x\n")),
        ["501: 501 lines"]
    );
    let function = |lines: usize| {
        format!(
            "//! A.\n    pub async fn f(\n{}    }}\n",
            "        x();\n".repeat(lines - 2)
        )
    };
    assert_eq!(said("src/lib.rs", &function(FUNCTION_LINES_MAX)), [""; 0]);
    assert_eq!(
        said("src/lib.rs", &function(FUNCTION_LINES_MAX + 1)),
        ["2: 71 lines in `pub async fn f`"]
    );
    let outer = format!(
        "//! A.\n    fn outer() {{\n        fn inner() {{\n{}        }}\n    }}\n",
        "x();\n".repeat(69)
    );
    assert_eq!(said("src/lib.rs", &outer), ["3: 71 lines in `fn inner()`"]);
    let script = |opening: &str| {
        format!(
            "// A.\n  {opening} {{\n{}  }}\n",
            "    x();\n".repeat(FUNCTION_LINES_MAX)
        )
    };
    assert_eq!(
        said("src/runtime/node/a.mjs", &script("async send(one)")).len(),
        1
    );
    assert_eq!(
        said("src/runtime/node/a.mjs", &script("export function f(one)")).len(),
        1
    );
    assert_eq!(said("src/runtime/node/a.mjs", &script("for (;;)")).len(), 0);
}

#[test]
fn leftovers_globs_and_silent_exceptions_are_seen() {
    let text = format!(
        "//! A.\n{}x);\nuse std::io::*;\n#[allow(dead_code)]\nmod a {{\n    use super::*;\n}}\n",
        LEFTOVERS[0].0
    );
    assert_eq!(
        said("src/lib.rs", &text),
        [
            format!("2: `{}`", LEFTOVERS[0].0),
            "3: a glob import".to_owned(),
            "6: a glob import".to_owned(),
            "4: a lint is silenced without a word".to_owned(),
        ]
    );
    let tests = "//! A.\n#[cfg(test)]\nmod tests {\n    use super::*;\n    #[expect(\n        dead_code,\n        reason = \"shown\"\n    )]\n    fn f() {}\n}\n";
    assert_eq!(said("src/lib.rs", tests), [""; 0]);
    assert_eq!(
        said(
            "src/worker/mod.rs",
            &format!("//! A.\n{}\"X\");\n", LEFTOVERS[8].0)
        )
        .len(),
        1
    );
    assert_eq!(
        said(
            "src/config.rs",
            &format!("//! A.\n{}\"X\");\n", LEFTOVERS[8].0)
        )
        .len(),
        0
    );
}

#[test]
fn missing_headers_and_examples_that_nobody_runs_are_seen() {
    assert_eq!(
        said("src/lib.rs", "use std::fmt;\n"),
        ["1: no module header"]
    );
    assert_eq!(
        said("tests/node/a.test.mjs", "import fs from 'fs';\n"),
        ["1: no module header"]
    );
    assert_eq!(
        said(
            "src/lib.rs",
            "//! A.\n//!\n//! ```\n//! let x = 1;\n//! ```\n"
        ),
        ["3: an example that no test runs"]
    );
    assert_eq!(
        said("src/lib.rs", "//! ```text\n//! a ── b\n//! ```\n"),
        [""; 0]
    );
}

#[test]
fn paths_names_and_sources_out_of_place_are_seen() {
    let text = format!("See {}main.\n", FOREIGN_PLACES[0].0);
    assert_eq!(said("docs/a.md", &text).len(), 1);
    assert_eq!(review_name("src/queue/util.rs").len(), 1);
    assert_eq!(review_name("scripts/a.sh").len(), 1);
    assert_eq!(review_name("src/queue/mod.rs").len(), 0);
    assert_eq!(
        review_lock("source = \"git+https://example.com/x\"\n").len(),
        1
    );
    assert_eq!(
        review_lock("source = \"registry+https://example.com/x\"\n").len(),
        0
    );
}
