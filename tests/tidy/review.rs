//! Holds one file against the rules. Pure: text in, complaints out.
//!
//! It reads lines, not syntax: sources are formatted, so a function ends where
//! a brace stands below its first letter, and an import stands on its own.

use std::fmt;

use crate::rules::{
    BASE, FILE_LINES_MAX, FOREIGN, FOREIGN_PLACES, FUNCTION_LINES_MAX, LEFTOVERS, ROOMS, TOP, VAGUE,
};

#[derive(Debug)]
pub struct Complaint {
    pub path: String,
    pub line: usize,
    pub what: String,
    pub instead: String,
}

// === impl Complaint ===

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.what, self.instead
        )
    }
}

/// One file, and what is said about it.
pub struct Review<'a> {
    path: &'a str,
    lines: Vec<&'a str>,
    complaints: Vec<Complaint>,
}

// === impl Review ===

impl<'a> Review<'a> {
    pub fn of(path: &'a str, text: &'a str) -> Vec<Complaint> {
        let mut review = Review {
            path,
            lines: text.lines().collect(),
            complaints: Vec::new(),
        };
        review.places();
        let rust = path.ends_with(".rs");
        if rust || path.ends_with(".mjs") {
            review.length();
            review.header(if rust { "//!" } else { "/" });
            review.leftovers();
            review.functions(if rust {
                opens_rust_function
            } else {
                opens_script_function
            });
        }
        if rust {
            review.globs();
            review.exceptions();
            review.doc_tests();
        }
        if let Some(room) = rust.then(|| room_of(path)).flatten() {
            review.floors(room);
            review.foreign(room);
        }
        review.complaints
    }

    fn complain(&mut self, index: usize, what: impl Into<String>, instead: impl Into<String>) {
        self.complaints.push(Complaint {
            path: self.path.to_owned(),
            line: index + 1,
            what: what.into(),
            instead: instead.into(),
        });
    }

    /// Numbered lines that are code: no comment, as far as a line can tell.
    fn code(&self) -> Vec<(usize, &'a str)> {
        let all = self.lines.iter().copied().enumerate();
        all.filter(|(_, line)| !line.trim_start().starts_with("//"))
            .collect()
    }

    fn places(&mut self) {
        for (index, line) in self.lines.clone().into_iter().enumerate() {
            for (word, instead) in FOREIGN_PLACES
                .iter()
                .filter(|(word, _)| line.contains(word))
            {
                self.complain(index, format!("`{word}`"), *instead);
            }
        }
    }

    fn length(&mut self) {
        let lines = self.lines.len();
        if lines > FILE_LINES_MAX {
            self.complain(
                FILE_LINES_MAX,
                format!("{lines} lines"),
                format!("split by verb below {FILE_LINES_MAX}"),
            );
        }
    }

    fn header(&mut self, opening: &str) {
        let first = self
            .lines
            .iter()
            .find(|line| !line.starts_with("#!") && !line.trim().is_empty());
        if !first.is_some_and(|line| line.starts_with(opening)) {
            self.complain(
                0,
                "no module header",
                "say what it owns, what it does not, and draw its states",
            );
        }
    }

    fn leftovers(&mut self) {
        for (index, line) in self.lines.clone().into_iter().enumerate() {
            for (word, allowed, instead) in LEFTOVERS {
                if line.contains(word) && !allowed.iter().any(|path| self.path.starts_with(path)) {
                    self.complain(index, format!("`{word}`"), *instead);
                }
            }
        }
    }

    /// A function ends where the brace stands below its first letter, as
    /// formatters put it. Functions within it are counted for themselves.
    fn functions(&mut self, opens: fn(&str) -> bool) {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for (index, line) in self.code() {
            if !opens(line.trim_start()) || line.trim_end().ends_with(['}', ';']) {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            let end = self.lines[index + 1..].iter().position(|later| {
                later.len() - later.trim_start().len() == indent
                    && later.trim_start().starts_with('}')
            });
            if let Some(end) = end {
                spans.push((index, index + end + 1));
            }
        }
        for (first, last) in &spans {
            let nested = (*first + 1..=*last).filter(|line| {
                spans
                    .iter()
                    .any(|(f, l)| f > first && (f..=l).contains(&line))
            });
            let length = last - first + 1 - nested.count();
            if length > FUNCTION_LINES_MAX {
                let name = self.lines[*first].trim().trim_end_matches(['{', '(']);
                self.complain(
                    *first,
                    format!("{length} lines in `{}`", name.trim()),
                    format!("push loops and leaves down, below {FUNCTION_LINES_MAX}"),
                );
            }
        }
    }

    fn globs(&mut self) {
        let mut tests = self.path.ends_with("tests.rs");
        for (index, line) in self.code() {
            tests |= line.trim() == "#[cfg(test)]";
            let import = line
                .trim_start()
                .trim_start_matches("pub ")
                .starts_with("use ");
            if import && line.contains("::*") && !(tests && line.trim() == "use super::*;") {
                self.complain(index, "a glob import", "name what is used");
            }
        }
    }

    /// An exception carries its reason beside it.
    fn exceptions(&mut self) {
        for (index, line) in self.code() {
            let line = line.trim_start();
            if !["#[allow(", "#[expect(", "#![allow(", "#![expect("]
                .iter()
                .any(|open| line.starts_with(open))
            {
                continue;
            }
            let until = self.lines[index..]
                .iter()
                .position(|later| later.trim_end().ends_with(']'))
                .unwrap_or(0);
            if !self.lines[index..=index + until]
                .iter()
                .any(|later| later.contains("reason = "))
            {
                self.complain(
                    index,
                    "a lint is silenced without a word",
                    "add reason = \"…\"",
                );
            }
        }
    }

    /// Drawings and examples in comments are text: nobody runs them.
    fn doc_tests(&mut self) {
        let mut open = false;
        for (index, line) in self.lines.clone().into_iter().enumerate() {
            let line = line.trim_start();
            let Some(fence) = line
                .strip_prefix("//!")
                .or_else(|| line.strip_prefix("///"))
            else {
                open = false;
                continue;
            };
            let Some(language) = fence.trim_start().strip_prefix("```") else {
                continue;
            };
            open = !open;
            if open && (language.is_empty() || language.starts_with("rust")) {
                self.complain(
                    index,
                    "an example that no test runs",
                    "write ```text, or a unit test",
                );
            }
        }
    }

    fn floors(&mut self, room: &str) {
        let Some((_, beside)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            self.complain(
                0,
                format!("room `{room}` has no floor"),
                "give it one in tests/tidy.rs, or move it",
            );
            return;
        };
        for (index, line) in self.code() {
            for used in crate_paths(line) {
                let known = ROOMS.iter().any(|(name, _)| *name == used);
                let may = used == room
                    || BASE.contains(&used)
                    || beside.contains(&used)
                    || beside.contains(&"*");
                if known && !may {
                    let all = if beside.is_empty() || *beside == BASE {
                        "the base alone".to_owned()
                    } else {
                        beside.join(", ")
                    };
                    self.complain(
                        index,
                        format!("`{room}` uses `{used}`"),
                        format!("`{room}` stands on {all}"),
                    );
                }
            }
        }
    }

    fn foreign(&mut self, room: &str) {
        for (index, line) in self.code() {
            for (name, doors) in FOREIGN {
                if names_crate(line, name) && !doors.contains(&room) {
                    self.complain(
                        index,
                        format!("`{room}` uses the crate `{name}`"),
                        format!("its door is {}", doors.join(", ")),
                    );
                }
            }
        }
    }
}

/// The room a file of `src/` belongs to.
fn room_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    Some(
        below
            .split_once('/')
            .map_or(below.trim_end_matches(".rs"), |(room, _)| room),
    )
}

/// The rooms that a line names by `crate::room`, also in a group: `crate::{one, two::Thing}`.
fn crate_paths(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if line[..at].ends_with(is_word) {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let mut depth = 0usize;
        let mut start = true;
        for (index, letter) in group.char_indices() {
            if start && depth == 0 && is_word(letter) {
                found.push(word(&group[index..]));
                start = false;
            }
            match letter {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => start = true,
                _ => {}
            }
        }
    }
    found
}

fn names_crate(line: &str, name: &str) -> bool {
    let (stem, prefix) = name
        .strip_suffix('*')
        .map_or((name, false), |stem| (stem, true));
    line.match_indices(stem).any(|(at, _)| {
        let before = &line[..at];
        let after = if prefix {
            line[at..].trim_start_matches(is_word)
        } else {
            &line[at + stem.len()..]
        };
        let free = !before.ends_with(is_word) && !before.ends_with("::") && !before.ends_with('.');
        free && (after.starts_with("::")
            || (before.trim_end().ends_with("use") && after.starts_with([';', ' '])))
    })
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn word(text: &str) -> &str {
    text.split(|letter| !is_word(letter))
        .next()
        .unwrap_or_default()
}

fn opens_rust_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub")
            || word.starts_with("in")
            || ["async", "const", "unsafe", "extern", "\"C\""].contains(word)
    });
    words.next() == Some("fn")
}

fn opens_script_function(line: &str) -> bool {
    const NOT: &[&str] = &[
        "if", "for", "while", "switch", "catch", "else", "do", "try", "return", "with",
    ];
    let line = ["export ", "default ", "async ", "static "]
        .iter()
        .fold(line, |line, word| line.trim_start_matches(word));
    if line.starts_with("function") {
        return true;
    }
    let name = word(line.trim_start_matches(['#', '*', '$']));
    let method = line.trim_end().ends_with(") {")
        && !name.is_empty()
        && line[line.find(name).unwrap_or(0) + name.len()..].starts_with('(');
    method && !NOT.contains(&name)
}

/// Names that hide what is inside, and paths nobody planned.
pub fn review_name(path: &str) -> Vec<Complaint> {
    let complaint = |what: String, instead: &str| Complaint {
        path: path.to_owned(),
        line: 1,
        what,
        instead: instead.to_owned(),
    };
    let mut complaints = Vec::new();
    let top = path.split('/').next().unwrap_or_default();
    if !TOP.contains(&top) {
        complaints.push(complaint(
            format!("`{top}` at the top of the checkout"),
            "it belongs in one of the folders there",
        ));
    }
    for part in path.split('/') {
        let name = part.split('.').next().unwrap_or_default();
        if VAGUE.contains(&name) {
            complaints.push(complaint(
                format!("the name `{name}`"),
                "name what is inside",
            ));
        }
    }
    complaints
}

/// Crates come from the registry, with their content pinned.
pub fn review_lock(text: &str) -> Vec<Complaint> {
    let lines = text.lines().enumerate();
    let strange = lines.filter(|(_, line)| {
        line.starts_with("source = ") && !line.starts_with("source = \"registry+")
    });
    strange
        .map(|(index, line)| Complaint {
            path: "Cargo.lock".into(),
            line: index + 1,
            what: line.to_owned(),
            instead: "depend on a published crate".into(),
        })
        .collect()
}
