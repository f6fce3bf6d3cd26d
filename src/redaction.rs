//! Keeps a job's secrets out of what is kept and shown of it: log lines, error
//! texts, and the arguments and answers of its SDK calls. Pure.
//!
//! What is secret is marked in the payload: every string below `scope.secrets`
//! (what expressions read as `secrets.KEY`), and every string of the list
//! `redact`, which the gateway adds for values that it put elsewhere.
//!
//! A value is found whole, as JSON writes it, and line by line where it has
//! several lines, as a log is made of lines. Where a line was cut, a piece of a
//! value at its end is taken for the value. Values under six characters are left
//! alone: they are words that logs are full of.

use serde::Deserialize;
use serde_json::Value;

/// Shorter values are not looked for, in characters.
const SECRET_CHARS_MIN: usize = 6;
/// Most pieces looked for in the lines of one job, longest first.
const PIECES_MAX: usize = 1_000;
/// What stands where a secret was.
const MARK: &str = "[redacted]";
/// What the runtime's side puts behind a text it has cut.
const CUT_MARK: &str = " …";

/// The secrets of one job.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Longest first, so that a value that contains another goes whole.
    pieces: Vec<String>,
}

/// As much of a payload as matters here.
#[derive(Deserialize)]
struct Marked {
    scope: Option<Scope>,
    redact: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Scope {
    secrets: Option<Value>,
}

// === impl Redactor ===

impl Redactor {
    /// The secrets marked in a payload. One that is no JSON has none.
    pub fn of(payload: &[u8]) -> Self {
        // Most jobs have no secrets, and most of a large payload is no business of ours.
        let marked = std::str::from_utf8(payload)
            .is_ok_and(|text| text.contains("\"secrets\"") || text.contains("\"redact\""));
        if !marked {
            return Self::default();
        }
        let Ok(marked) = serde_json::from_slice::<Marked>(payload) else {
            return Self::default();
        };
        let mut values = marked.redact.unwrap_or_default();
        if let Some(secrets) = marked.scope.and_then(|scope| scope.secrets) {
            gather(&secrets, &mut values);
        }
        Self::new(&values)
    }

    fn new(values: &[String]) -> Self {
        let mut pieces = Vec::new();
        for value in values {
            for line in std::iter::once(value.as_str()).chain(value.lines()) {
                let line = line.trim();
                if line.chars().count() < SECRET_CHARS_MIN {
                    continue;
                }
                let quoted = Value::from(line).to_string();
                let escaped = quoted[1..quoted.len() - 1].to_owned();
                if escaped != line {
                    pieces.push(escaped);
                }
                pieces.push(line.to_owned());
            }
        }
        pieces.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        pieces.dedup();
        pieces.truncate(PIECES_MAX);
        Self { pieces }
    }

    /// The text without secrets.
    pub fn redact(&self, mut text: String) -> String {
        for piece in &self.pieces {
            if text.contains(piece.as_str()) {
                text = text.replace(piece.as_str(), MARK);
            }
        }
        match text.strip_suffix(CUT_MARK) {
            Some(kept) if !self.pieces.is_empty() => {
                let mut kept = kept.to_owned();
                self.redact_end(&mut kept);
                kept.push_str(CUT_MARK);
                kept
            }
            _ => text,
        }
    }

    /// Takes away the beginning of a secret at the end of a text that was cut there.
    fn redact_end(&self, text: &mut String) {
        let longest = self.pieces.iter().filter_map(|piece| {
            piece
                .char_indices()
                .map(|(at, _)| at)
                .skip(1)
                .filter(|at| text.ends_with(&piece[..*at]))
                .last()
        });
        if let Some(bytes) = longest.max() {
            text.truncate(text.len() - bytes);
            text.push_str(MARK);
        }
    }

    /// The value with its texts and numbers, and the keys of its objects, without secrets.
    pub fn redact_value(&self, value: Value) -> Value {
        if self.pieces.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.redact(text)),
            // As it is printed: a PIN is a secret.
            Value::Number(number) => {
                let printed = number.to_string();
                match self.redact(printed.clone()) {
                    same if same == printed => Value::Number(number),
                    redacted => Value::String(redacted),
                }
            }
            Value::Array(items) => {
                let items = items.into_iter().map(|item| self.redact_value(item));
                Value::Array(items.collect())
            }
            Value::Object(entries) => {
                let entries = entries.into_iter();
                let entries = entries.map(|(key, it)| (self.redact(key), self.redact_value(it)));
                Value::Object(entries.collect())
            }
            Value::Null | Value::Bool(_) => value,
        }
    }

    /// A text that may be missing, without secrets.
    pub fn redact_some(&self, text: Option<String>) -> Option<String> {
        text.map(|text| self.redact(text))
    }
}

fn gather(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| gather(value, into)),
        Value::Object(map) => map.values().for_each(|value| gather(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn redactor(payload: &Value) -> Redactor {
        Redactor::of(payload.to_string().as_bytes())
    }

    fn redact(redactor: &Redactor, text: &str) -> String {
        redactor.redact(text.to_owned())
    }

    #[test]
    fn secrets_of_the_scope_and_marked_values_go_and_short_ones_stay() {
        let redactor = redactor(&json!({
            "scope": {"secrets": {"TOKEN": "tok-123456", "PIN": "12345", "deep": {"a": ["hidden-one"]}}},
            "redact": ["s3cr3t-value"],
            "input": {"config": {"token": "s3cr3t-value"}},
        }));
        let text = "tok-123456 12345 hidden-one s3cr3t-value plain";
        assert_eq!(
            redact(&redactor, text),
            "[redacted] 12345 [redacted] [redacted] plain"
        );
        assert_eq!(redact(&redactor, "nothing here"), "nothing here");
    }

    #[test]
    fn a_value_loses_secrets_however_deep_they_are() {
        let redactor = redactor(&json!({"redact": ["s3cr3t-value", "123456"]}));
        let value = json!([{"s3cr3t-value": 1, "a": ["Bearer s3cr3t-value", 123_456, 12, null]}]);
        let wanted = json!([{MARK: 1, "a": [format!("Bearer {MARK}"), MARK, 12, null]}]);
        assert_eq!(redactor.redact_value(value), wanted);
        assert_eq!(Redactor::default().redact_value(json!([1])), json!([1]));
    }

    #[test]
    fn a_scope_that_is_null_or_has_none_hides_no_other_mark() {
        for scope in [json!(null), json!({}), json!({"secrets": null})] {
            let redactor = redactor(&json!({"scope": scope, "redact": ["s3cr3t-value"]}));
            assert_eq!(redact(&redactor, "s3cr3t-value"), MARK);
        }
    }

    #[test]
    fn a_value_that_contains_another_goes_whole() {
        let redactor = redactor(&json!({"redact": ["abcdef", "abcdef-ghijkl"]}));
        assert_eq!(redact(&redactor, "x abcdef-ghijkl y"), "x [redacted] y");
    }

    #[test]
    fn a_key_of_several_lines_goes_line_by_line_and_as_json_writes_it() {
        let key = "-----BEGIN KEY-----\nMIIabcdefgh\nijklmnop\n-----END KEY-----";
        let redactor = redactor(&json!({"redact": [key]}));
        for line in key.lines() {
            assert_eq!(redact(&redactor, line), MARK);
        }
        let logged = json!({"key": key}).to_string();
        assert_eq!(redact(&redactor, &logged), "{\"key\":\"[redacted]\"}");
    }

    #[test]
    fn a_piece_of_a_value_at_a_cut_goes_too() {
        let redactor = redactor(&json!({"redact": ["s3cr3t-välue"]}));
        assert_eq!(
            redact(&redactor, "ends with s3cr3t-vä …"),
            "ends with [redacted] …"
        );
        assert_eq!(
            redact(&redactor, "was not cut s3cr3t"),
            "was not cut s3cr3t"
        );
        assert_eq!(redact(&redactor, "cut elsewhere …"), "cut elsewhere …");
    }

    #[test]
    fn what_is_not_json_has_no_secrets() {
        for payload in [b"\"secrets\" {".as_slice(), b"\xff\"redact\"", b"{}", b""] {
            assert!(Redactor::of(payload).pieces.is_empty());
        }
    }
}
