//! The house rules as data. Nothing here looks at a file.

/// Who may use which room of `src/`: its own, and these. Floors, lowest first;
/// a room that is not here has no place in the house.
pub const ROOMS: &[(&str, &[&str])] = &[
    // The base.
    ("agent_id", BASE),
    ("backoff", BASE),
    ("config", BASE),
    ("disk", BASE),
    ("egress", BASE),
    ("limit", BASE),
    ("pause", BASE),
    ("process", BASE),
    ("redaction", BASE),
    ("shutdown", BASE),
    ("telemetry", BASE),
    // The doors.
    ("api_client", BASE),
    ("http", BASE),
    ("queue", BASE),
    ("runtime", BASE),
    ("store", BASE),
    ("wire", BASE),
    // The roles, with the doors beside them.
    // It fetches app versions from registries.
    ("gateway", &["api_client", "http", "store", "wire"]),
    ("bridge", &["queue", "wire"]),
    ("worker", &["api_client", "queue", "runtime"]),
    // Its local API asks broker and gateway, and is served over HTTP.
    ("agent", &["api_client", "http", "queue", "runtime"]),
    // What a person types may use everything.
    ("cli", EVERYTHING),
    ("lib", EVERYTHING),
    ("main", EVERYTHING),
];
/// Every room may use these.
pub const BASE: &[&str] = &[
    "agent_id",
    "backoff",
    "config",
    "disk",
    "egress",
    "limit",
    "pause",
    "process",
    "redaction",
    "shutdown",
    "telemetry",
];
pub const EVERYTHING: &[&str] = &["*"];

/// Foreign crates with a door: nobody else in `src/` names them. A `*` ends a prefix.
pub const FOREIGN: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("async_tungstenite", &["wire"]),
    ("futures_rustls", &["wire"]),
    ("rustls_native_certs", &["wire", "api_client"]),
    ("lapin", &["queue"]),
    ("async_rs", &["queue"]),
    ("podman_api", &["runtime"]),
    ("async_compat", &["runtime"]),
    ("surf", &["api_client"]),
    ("isahc", &["api_client", "runtime"]),
    // Two roles serve HTTP, so its door is a room of its own.
    ("trillium*", &["http"]),
    ("ratatui", &["cli"]),
    ("clap", &["cli", "main"]),
    ("tracing_subscriber", &["telemetry", "config"]),
    ("async_signal", &["shutdown"]),
];

/// Text that does not stay, in code of either language: what, where it may be, what instead.
pub const LEFTOVERS: &[(&str, &[&str], &str)] = &[
    (concat!("db", "g!("), &[], "remove it"),
    (concat!("tod", "o!("), &[], "do it"),
    (concat!("unimplemen", "ted!("), &[], "implement it"),
    (concat!("FIX", "ME"), &[], "fix it, or file an issue"),
    (concat!("#[ig", "nore"), &[], "a test runs or is removed"),
    (concat!("test.sk", "ip("), &[], "a test runs or is removed"),
    (concat!("test.to", "do("), &[], "write the test"),
    (concat!("super::su", "per"), &[], "say crate::room::Thing"),
    (
        concat!("env::v", "ar"),
        &["src/config.rs", "tests/"],
        "config.rs alone reads the environment",
    ),
    (
        concat!("task::sp", "awn("),
        &["src/shutdown.rs", "tests/"],
        "shutdown::Tasks::spawn owns every task",
    ),
    (
        concat!("thread::sp", "awn("),
        &["tests/"],
        "shutdown::unblock, or a task",
    ),
];

/// Text that means something on one machine only, in any file.
pub const FOREIGN_PLACES: &[(&str, &str)] = &[
    (
        concat!("/wo", "rk/"),
        "a path of one machine means nothing to a reader",
    ),
    (
        concat!("/fa", "rm/"),
        "a path of one machine means nothing to a reader",
    ),
    (concat!("/ro", "ot/"), "say $HOME or ~"),
    (
        concat!("registry.npm", "js"),
        "the registry is whatever npm is set to",
    ),
    (
        concat!("deb.deb", "ian.org"),
        "the mirror is whatever apt is set to",
    ),
    (
        concat!("index.cra", "tes.io"),
        "the registry is whatever cargo is set to",
    ),
    (
        concat!("static.cra", "tes.io"),
        "the registry is whatever cargo is set to",
    ),
];

/// Names that hide what is inside.
pub const VAGUE: &[&str] = &[
    "util", "utils", "common", "prelude", "helpers", "misc", "shared",
];

/// The top of the checkout: everything that is there, and nothing else is.
pub const TOP: &[&str] = &[
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "clippy.toml",
    "compose",
    "deny.toml",
    "docs",
    "proto",
    "rustfmt.toml",
    "src",
    "tests",
];
/// May be at the top, and is nobody's source.
pub const TOP_IGNORED: &[&str] = &[".git", ".sluice", "target"];

/// What fits on a reader's desk.
pub const FILE_LINES_MAX: usize = 500;
pub const FUNCTION_LINES_MAX: usize = 70;
