//! The documentation tells the truth: its settings are those of the code, its
//! links lead somewhere, its commands exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use sluice::config::SETTINGS;

/// A code block that a reader may type, as it opens.
const COMMANDS: &str = "```sh";

#[test]
fn every_setting_is_documented_with_its_default_and_nothing_else_is() {
    let text = read("docs/config.md");
    let rows: BTreeMap<_, _> = text
        .lines()
        .filter_map(setting_row)
        .map(|row| (row.names[0].clone(), row))
        .collect();
    let mut wrong = Vec::new();
    for setting in SETTINGS {
        let Some(row) = rows.get(setting.name) else {
            wrong.push(format!("{} is not in docs/config.md", setting.name));
            continue;
        };
        if row.names[1..] != *setting.aliases {
            wrong.push(format!(
                "{}: aliases are {:?}, documented {:?}",
                setting.name,
                setting.aliases,
                &row.names[1..]
            ));
        }
        if row.default != setting.default {
            wrong.push(format!(
                "{}: default is `{}`, documented `{}`",
                setting.name, setting.default, row.default
            ));
        }
        if row.secret != setting.secret {
            wrong.push(format!(
                "{}: secret is {}, documented {}",
                setting.name, setting.secret, row.secret
            ));
        }
    }
    let known: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    wrong.extend(
        rows.keys()
            .filter(|name| !known.contains(name.as_str()))
            .map(|name| format!("{name} is documented, and not a setting")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in pages() {
        let text = read(&path);
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link
                .split_once('#')
                .map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let folder = Path::new(&path).parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() {
                PathBuf::from(&path)
            } else {
                folder.join(file)
            };
            let full = root().join(&target);
            if !full.exists() {
                broken.push(format!("{path}: {link} does not exist"));
            } else if let Some(anchor) = anchor
                && !anchors(&std::fs::read_to_string(&full).unwrap_or_default()).contains(anchor)
            {
                broken.push(format!("{path}: {link} has no such heading"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_page_of_docs_is_linked_from_another() {
    let pages = pages();
    let mut reached = BTreeSet::new();
    for path in &pages {
        let folder = root().join(path).parent().expect("a folder").to_owned();
        for link in links(&read(path)) {
            let file = link.split('#').next().unwrap_or_default();
            if let Ok(target) = folder.join(file).canonicalize() {
                reached.insert((target, path.clone()));
            }
        }
    }
    let lonely: Vec<_> = pages
        .iter()
        .filter(|path| path.starts_with("docs/"))
        .filter(|path| {
            let full = root().join(path).canonicalize().expect("it was found");
            !reached
                .iter()
                .any(|(target, from)| *target == full && from != *path)
        })
        .collect();
    assert!(lonely.is_empty(), "nobody links to {lonely:?}");
}

#[test]
fn every_command_exists() {
    let makefile = read("Makefile");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in pages() {
        for line in command_lines(&read(&path)) {
            seen += 1;
            if let Err(why) = check_command(&line, &makefile) {
                wrong.push(format!("{path}: `{line}`: {why}"));
            }
        }
    }
    assert!(
        seen > 3,
        "the pages have commands to check, but only {seen} were found"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_that_does_not_exist_is_seen() {
    let makefile = "demo:  ## run\n";
    assert_eq!(check_command("make demo ARGS=--json", makefile), Ok(()));
    assert!(check_command("make tea", makefile).is_err());
    assert!(check_command("compose/absent.sh", makefile).is_err());
    assert!(check_command("sluice make-tea", makefile).is_err());
    assert!(check_command("sluice demo --with-milk", makefile).is_err());
    assert_eq!(check_command("sluice demo --json", makefile), Ok(()));
}

#[test]
fn fields_of_the_log_are_documented() {
    let page = read("docs/logging.md");
    let mut missing = BTreeSet::new();
    for path in files("src", "rs") {
        for field in read(&path).lines().flat_map(dotted_fields) {
            if !page.contains(&format!("`{field}`")) {
                missing.insert(format!("{path}: `{field}` is not in docs/logging.md"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_cause_of_failure_is_documented_and_nothing_else_is() {
    let source = read("proto/src/report.rs");
    let words = source
        .split("impl Cause {")
        .nth(1)
        .expect("causes have words");
    let words = words.split("\n    }\n").next().unwrap_or_default();
    let known: BTreeSet<_> = words.split('"').skip(1).step_by(2).collect();
    let page = read("docs/api.md");
    let table = page
        .split("## Causes of failure")
        .nth(1)
        .expect("a table of causes");
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<BTreeSet<_>>(), known);
    assert!(known.contains("event_loop_blocked"), "{known:?}");
}

#[test]
fn every_route_is_documented_and_nothing_else_is() {
    let rooms = ["api", "clients", "oauth"].map(|room| format!("src/gateway/{room}/mod.rs"));
    let sources = rooms.map(|path| read(&path));
    let lines = sources.iter().flat_map(|source| source.lines());
    let known: BTreeSet<_> = lines.filter_map(route).collect();
    assert!(
        known.contains("GET /jobs/{}/trace") && known.contains("POST /cli/projects"),
        "the routes are found: {known:?}"
    );
    let page = read("docs/api.md");
    let documented: BTreeSet<_> = page.lines().flat_map(documented_routes).collect();
    let unsaid: Vec<_> = known.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&known).collect();
    assert!(
        unsaid.is_empty() && unknown.is_empty(),
        "not in docs/api.md: {unsaid:?}; only there: {unknown:?}"
    );
}

struct Row {
    names: Vec<String>,
    default: String,
    secret: bool,
}

/// A row whose first cell names a setting in capitals.
fn setting_row(line: &str) -> Option<Row> {
    let cells: Vec<_> = line
        .trim()
        .strip_prefix('|')?
        .split('|')
        .map(str::trim)
        .collect();
    let [first, default, meaning, ..] = cells[..] else {
        return None;
    };
    let names: Vec<_> = first
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    names
        .first()?
        .starts_with(|letter: char| letter.is_ascii_uppercase())
        .then(|| Row {
            names,
            default: default.to_owned(),
            secret: meaning.contains("**Secret.**"),
        })
}

/// Targets of `[text](target)` outside of code.
fn links(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let targets = line
            .match_indices("](")
            .filter_map(|(at, _)| line[at + 2..].split_once(')'));
        found.extend(targets.map(|(target, _)| target));
    }
    found
}

/// What headings are called in links: lower case, dashes for blanks, no punctuation.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

/// Lines of blocks that a reader may type, without comments and continued lines joined.
fn command_lines(text: &str) -> Vec<String> {
    let mut open = false;
    let mut lines: Vec<String> = Vec::new();
    let mut continued = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            open = line.trim() == COMMANDS;
            continue;
        }
        let line = line.split(" #").next().unwrap_or_default().trim();
        if !open || line.is_empty() || line.starts_with('#') {
            continue;
        }
        let text = line.trim_end_matches('\\').trim();
        match lines.last_mut() {
            Some(last) if continued => *last = format!("{last} {text}"),
            _ => lines.push(text.to_owned()),
        }
        continued = line.ends_with('\\');
    }
    lines
}

/// Each of our own programs that a line names must be there, with the options it is given.
fn check_command(line: &str, makefile: &str) -> Result<(), String> {
    for part in line.split(['|', ';']).flat_map(|part| part.split("&&")) {
        let words: Vec<_> = part.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let program = word.rsplit('/').next().unwrap_or_default();
            if *word == "make" && at == 0 {
                let target = words.get(1).copied().unwrap_or("help");
                if !makefile
                    .lines()
                    .any(|line| line.starts_with(&format!("{target}:")))
                {
                    return Err(format!("the Makefile has no target {target}"));
                }
            } else if word.starts_with("compose/") && !root().join(word).exists() {
                return Err(format!("{word} does not exist"));
            } else if program == "sluice"
                && words
                    .get(at + 1)
                    .is_some_and(|next| next.starts_with(|c: char| c.is_ascii_lowercase()))
            {
                check_help(&words[at + 1..])?;
                break;
            }
        }
    }
    Ok(())
}

fn check_help(words: &[&str]) -> Result<(), String> {
    let path: Vec<_> = words
        .iter()
        .take_while(|word| {
            word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
        })
        .collect();
    let output = Command::new(exe())
        .args(&path)
        .arg("--help")
        .output()
        .map_err(|error| error.to_string())?;
    let help = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr)
            .lines()
            .next()
            .unwrap_or("no such command")
            .to_owned());
    }
    let options = words.iter().filter(|word| word.starts_with("--"));
    match options
        .map(|option| option.split('=').next().unwrap_or_default())
        .find(|option| !help.contains(option))
    {
        Some(option) => Err(format!("there is no option {option}")),
        None => Ok(()),
    }
}

/// A handler's pattern, `("GET", ["jobs", id, "trace"])`, as `GET /jobs/{}/trace`.
fn route(line: &str) -> Option<String> {
    let (method, rest) = line.trim().strip_prefix("(\"")?.split_once("\", [")?;
    let (parts, _) = rest.split_once("])")?;
    // A whole room below it, which has routes of its own.
    if parts.ends_with("..") {
        return None;
    }
    let part = |part: &str| {
        part.strip_prefix('"').map_or("{}".to_owned(), |word| {
            word.trim_end_matches('"').to_owned()
        })
    };
    let path: Vec<_> = parts.split(", ").map(part).collect();
    Some(format!("{method} /{}", path.join("/")))
}

/// The routes of a table's row: `METHOD /api/v1/path` (or one of the published
/// clients), and further methods of that path.
fn documented_routes(line: &str) -> Vec<String> {
    let Some(cell) = line
        .strip_prefix('|')
        .and_then(|rest| rest.split('|').next())
    else {
        return Vec::new();
    };
    let mut path = String::new();
    let mut found = Vec::new();
    for code in cell.split('`').skip(1).step_by(2) {
        let (method, rest) = code.split_once(' ').unwrap_or((code, ""));
        if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method) {
            continue;
        }
        if let Some(below) = rest.strip_prefix("/api/v1") {
            let below = below.split('?').next().unwrap_or_default();
            let parts = below
                .split('/')
                .map(|part| if part.starts_with('{') { "{}" } else { part });
            path = parts.collect::<Vec<_>>().join("/");
        } else if ["/cli/", "/provider/", "/oauth/", "/.well-known/"]
            .iter()
            .any(|room| rest.starts_with(room))
        {
            path = rest.to_owned();
        } else if !rest.is_empty() {
            continue;
        }
        found.push(format!("{method} {path}"));
    }
    found
}

/// Fields such as `job.id` that a log line sets.
fn dotted_fields(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices(" = ") {
        let value = &line[at + 3..];
        let name = line[..at]
            .rsplit(|c: char| !(c.is_ascii_lowercase() || c == '.' || c == '_'))
            .next()
            .unwrap_or_default();
        // A letter after the sigil: SQL has its question marks too.
        let logged = value
            .strip_prefix(['%', '?'])
            .is_some_and(|rest| rest.starts_with(char::is_alphabetic));
        if logged && name.contains('.') && !name.starts_with('.') {
            found.push(name.to_owned());
        }
    }
    found
}

/// Every Markdown page of the checkout, as relative paths.
fn pages() -> Vec<String> {
    let mut found: Vec<_> = ["docs", "proto"]
        .iter()
        .flat_map(|folder| files(folder, "md"))
        .collect();
    found.extend(["README.md", "CHANGELOG.md"].map(str::to_owned));
    found
}

fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(folder)).expect("a readable folder") {
        let entry = entry.expect("a readable entry");
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().expect("a file type").is_dir() {
            found.extend(files(&path, extension));
        } else if path.ends_with(&format!(".{extension}")) {
            found.push(path);
        }
    }
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the runner says where it has put the checkout"
)]
fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the runner says where it has put the program"
)]
fn exe() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_sluice").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_sluice")),
        PathBuf::from,
    )
}
