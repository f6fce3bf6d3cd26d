//! Block names and what expressions call them.
//!
//! Owns the step from a name ("Process Data 2") to its accessor
//! (`processData2`) and the rules for names. Does not know which block an
//! accessor means when two share it: `graph` decides that by nearness.

use std::collections::BTreeMap;

/// A name is shown on a canvas and in every log line about its block.
pub const NAME_CHARS_MAX: usize = 200;

/// The word by which expressions reach a block: text in parentheses is dropped,
/// words are split at everything that is neither letter nor digit, lower-cased,
/// and joined in camel case. Empty when the name has no letter and no digit.
///
/// Several names may share one accessor on purpose: a copy of `Transform` is
/// called `Transform (1)`, and its neighbours go on saying `outputs.transform`.
pub fn accessor(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for word in without_parentheses(name)
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
    {
        let lower = word.to_lowercase();
        if out.is_empty() {
            out.push_str(&lower);
            continue;
        }
        let mut letters = lower.chars();
        if let Some(first) = letters.next() {
            out.push(capital(first));
            out.push_str(letters.as_str());
        }
    }
    out
}

/// Why `name` cannot be the name of a block, or nothing.
pub fn complaint(name: &str) -> Option<String> {
    if name.trim().is_empty() {
        return Some("a block needs a name".to_owned());
    }
    if name.chars().count() > NAME_CHARS_MAX {
        return Some(format!(
            "the name is longer than {NAME_CHARS_MAX} characters"
        ));
    }
    if name.chars().any(char::is_control) {
        return Some("the name contains a control character".to_owned());
    }
    if name.trim() != name {
        return Some("the name starts or ends with a space".to_owned());
    }
    None
}

/// The names that occur more than once. Links refer to blocks by name, so
/// names are unique in a flow; accessors need not be.
pub fn repeated<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeMap::<&str, usize>::new();
    for name in names {
        *seen.entry(name).or_default() += 1;
    }
    seen.into_iter()
        .filter_map(|(name, count)| (count > 1).then_some(name))
        .collect()
}

/// The name itself when it is free, else `name (1)`, `name (2)`, … as the
/// canvas does for a copy. The accessor stays the same.
pub fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut candidate = name.to_owned();
    let mut number = 0u64;
    while taken(&candidate) {
        number += 1;
        candidate = format!("{name} ({number})");
    }
    candidate
}

/// The capital of a letter that has one as a single letter.
fn capital(letter: char) -> char {
    let mut capitals = letter.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) => capital,
        _ => letter,
    }
}

/// Drops what stands in parentheses; a parenthesis without its partner is
/// a separator like any other.
fn without_parentheses(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(open) = rest.find('(') {
        let Some(close) = matching(&rest[open..]) else {
            break;
        };
        out.push_str(&rest[..open]);
        out.push(' ');
        rest = &rest[open + close + 1..];
    }
    out.push_str(rest);
    out
}

/// The byte offset of the `)` that closes the `(` at the start of `text`.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{accessor, complaint, free_name, repeated};

    #[test]
    fn names_that_the_product_documents_become_their_accessors() {
        for (name, expected) in [
            ("Process Data 2", "processData2"),
            ("Test Block (3)", "testBlock"),
            ("Profile (Beta)", "profile"),
            ("OpenTofu MCP server", "opentofuMcpServer"),
            ("Transform", "transform"),
            ("Transform (1)", "transform"),
            ("env", "env"),
            ("Reactions Subscription", "reactionsSubscription"),
            ("get-weather_for  city", "getWeatherForCity"),
            ("(only this)", ""),
            ("half (open", "halfOpen"),
            ("nested (a (b) c) end", "nestedEnd"),
            ("Größe messen", "größeMessen"),
            ("x) y", "xY"),
            ("2 fast", "2Fast"),
            ("À ẖ", "àẖ"),
        ] {
            assert_eq!(accessor(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_needs_substance_and_is_bounded() {
        assert!(complaint("Insert Row").is_none());
        assert!(complaint("  ").is_some_and(|why| why.contains("needs a name")));
        assert!(complaint(" a").is_some_and(|why| why.contains("space")));
        assert!(complaint("a\nb").is_some_and(|why| why.contains("control")));
        assert!(complaint(&"a".repeat(200)).is_none());
        assert!(complaint(&"a".repeat(201)).is_some_and(|why| why.contains("200")));
    }

    #[test]
    fn repeated_names_are_found_once_each() {
        assert_eq!(repeated(["a", "b", "a", "a", "c", "b"]), ["a", "b"]);
        assert!(repeated(["Transform", "Transform (1)"]).is_empty());
    }

    #[test]
    fn a_copy_gets_the_next_free_number() {
        let taken = ["Sleep", "Sleep (1)"];
        assert_eq!(free_name("Sleep", |n| taken.contains(&n)), "Sleep (2)");
        assert_eq!(free_name("Wait", |n| taken.contains(&n)), "Wait");
    }

    proptest! {
        #[test]
        fn an_accessor_has_letters_and_digits_only(name in ".{0,80}") {
            prop_assert!(accessor(&name).chars().all(char::is_alphanumeric));
        }

        #[test]
        fn numbering_a_copy_keeps_the_accessor(name in "[A-Za-z0-9 ]{1,40}") {
            prop_assert_eq!(accessor(&format!("{name} (7)")), accessor(&name));
        }
    }
}
