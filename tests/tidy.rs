//! The house rules as data, and the house held against them.
//!
//! Each complaint reads `path:line: what: instead`. A remark made twice in
//! review becomes a line in one of these tables. `tests/docs.rs` does the same
//! for the documentation.

#[path = "tidy/review.rs"]
mod review;
#[path = "tidy/rules.rs"]
mod rules;

#[path = "tidy/proof.rs"]
mod proof;

use std::path::{Path, PathBuf};

use crate::review::{Complaint, Review, review_lock, review_name};
use crate::rules::{TOP, TOP_IGNORED};

/// All files of the checkout that are somebody's source, as relative paths.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in std::fs::read_dir(root.join(&below)).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let path = below.join(entry.file_name());
            let name = entry.file_name().to_string_lossy().into_owned();
            let ignored = below.as_os_str().is_empty() && TOP_IGNORED.contains(&name.as_str())
                || name == "node_modules";
            match entry.file_type().expect("a file type") {
                _ if ignored => {}
                kind if kind.is_dir() => open.push(path),
                _ => found.push(path.to_string_lossy().into_owned()),
            }
        }
    }
    found.sort();
    found
}

#[expect(
    clippy::disallowed_methods,
    reason = "the runner says where it has put the checkout"
)]
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

#[test]
fn the_house_is_tidy() {
    let root = root();
    let mut complaints = Vec::new();
    let files = files(&root);
    for path in &files {
        complaints.extend(review_name(path));
        let Ok(text) = std::fs::read_to_string(root.join(path)) else {
            continue;
        };
        match path.as_str() {
            "Cargo.lock" => complaints.extend(review_lock(&text)),
            path => complaints.extend(Review::of(path, &text)),
        }
    }
    for name in TOP {
        assert!(
            root.join(name).exists(),
            "{name} is missing from the top of the checkout"
        );
    }
    assert!(
        files.iter().any(|path| path == "src/lib.rs"),
        "the walk has found the sources"
    );
    let all: Vec<_> = complaints.iter().map(Complaint::to_string).collect();
    assert!(
        all.is_empty(),
        "{} complaints\n{}",
        all.len(),
        all.join("\n")
    );
}
