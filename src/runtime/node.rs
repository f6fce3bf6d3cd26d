//! The JavaScript side, embedded: what is written into the harness directory
//! that every runtime has mounted at [`sluice_proto::harness::HARNESS_DIR`].
//!
//! Owns the list of files. What they do is said at their own heads; the
//! conversation they hold is `proto/README.md`. An app finds `@slflows/sdk/v1`
//! because Node looks for packages upwards from the bundle in `/sluice/run`, and
//! so comes by `/sluice/node_modules`.

/// The filter of system calls, below the harness directory: what Node needs.
/// Podman's own leaves new namespaces, mounts in them, keyrings, ptrace and
/// memory that no limit counts to a container; an app needs none of these.
pub const SECCOMP: &str = "seccomp.json";

/// Path below the harness directory, and content.
pub const FILES: &[(&str, &str)] = &[
    ("harness.mjs", include_str!("node/harness.mjs")),
    ("primordials.mjs", include_str!("node/primordials.mjs")),
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
    ("failure.mjs", include_str!("node/failure.mjs")),
    ("port.mjs", include_str!("node/port.mjs")),
    // For the engine, and no secret to what it is for.
    (SECCOMP, include_str!("seccomp.json")),
    (
        "node_modules/@slflows/sdk/package.json",
        include_str!("node/sdk/package.json"),
    ),
    (
        "node_modules/@slflows/sdk/v1.mjs",
        include_str!("node/sdk/v1.mjs"),
    ),
];
