//! What a view never shows: tokens, and values whose name says that they are secret. Pure.

use serde_json::Value;

/// Stands where a secret was.
pub const MASK: &str = "•••";

/// Parts of a name that make its value a secret, in lower case without separators.
const SECRET_WORDS: [&str; 14] = [
    "secret",
    "password",
    "passwd",
    "passphrase",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "credential",
    "authorization",
    "cookie",
    "bearer",
    "connectionstring",
];
/// Values whose shape says that they are secret, whatever their name.
const SECRET_PREFIXES: [&str; 8] = [
    "sfapi_",
    "ghp_",
    "gho_",
    "github_pat_",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "-----BEGIN",
];
/// Longer ones are shown in part, in characters.
const TEXT_CHARS_MAX: usize = 2_000;
/// How deep a value is looked into; what lies deeper is not shown.
const DEPTH_MAX: usize = 64;

/// Whether a name says that what it names is secret.
pub fn is_secret(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    SECRET_WORDS.iter().any(|word| plain.contains(word))
}

/// The same value with nothing secret in it. Everything below a secret name is
/// masked, also where it is a list or an object, and whatever the app's own
/// secrets hold is masked wherever else it stands.
pub fn masked(value: &Value) -> Value {
    let mut known = Vec::new();
    gather(value, false, 0, &mut known);
    // Longest first, so that one that contains another goes whole.
    known.sort_by_key(|secret: &String| std::cmp::Reverse(secret.len()));
    known.dedup();
    mask(value, &known, 0)
}

/// Secrets under six characters are words of ordinary text; hiding them there would only confuse.
const SECRET_CHARS_MIN: usize = 6;

fn gather(value: &Value, secret: bool, depth: usize, known: &mut Vec<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::String(text) if secret && text.chars().count() >= SECRET_CHARS_MIN => {
            known.push(text.clone());
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| gather(item, secret, depth + 1, known)),
        Value::Object(fields) => {
            for (name, value) in fields {
                gather(value, secret || is_secret(name), depth + 1, known);
            }
        }
        _ => {}
    }
}

fn mask(value: &Value, known: &[String], depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return MASK.into();
    }
    match value {
        Value::String(text) => mask_text(text, known).into(),
        Value::Array(items) => items
            .iter()
            .map(|item| mask(item, known, depth + 1))
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| {
                let shown = match value {
                    Value::Null => Value::Null,
                    _ if is_secret(name) => MASK.into(),
                    value => mask(value, known, depth + 1),
                };
                (name.clone(), shown)
            })
            .collect(),
        other => other.clone(),
    }
}

fn mask_text(text: &str, known: &[String]) -> String {
    if SECRET_PREFIXES
        .iter()
        .any(|prefix| text.starts_with(prefix))
    {
        return MASK.to_owned();
    }
    let mut shown = text.to_owned();
    for secret in known {
        if shown.contains(secret.as_str()) {
            shown = shown.replace(secret.as_str(), MASK);
        }
    }
    match shown.char_indices().nth(TEXT_CHARS_MAX) {
        None => shown,
        Some((end, _)) => format!("{}… ({} bytes)", &shown[..end], shown.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_tells_a_secret_however_it_is_written() {
        for name in [
            "apiKey",
            "API_KEY",
            "db-password",
            "Authorization",
            "jobToken",
            "secrets",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["key", "keyPrefix", "name", "total", "author"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn nothing_secret_is_left_anywhere() {
        let payload = json!({
            "scope": {"secrets": {"db": "hunter2-long", "small": "abc"}, "outputs": {"n": 1}},
            "input": {"url": "postgres://u:hunter2-long@h", "list": [{"password": ["x", "y"]}]},
            "note": "ghp_0123456789",
            "token": null,
        });
        let shown = masked(&payload);
        let text = shown.to_string();
        for secret in ["hunter2", "\"abc\"", "\"x\"", "ghp_"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
        assert_eq!(shown["scope"]["outputs"], json!({"n": 1}));
        assert_eq!(shown["input"]["url"], format!("postgres://u:{MASK}@h"));
        assert_eq!(shown["token"], Value::Null, "nothing is no secret");
    }

    #[test]
    fn what_is_long_or_deep_is_cut() {
        let long = masked(&json!("ä".repeat(TEXT_CHARS_MAX + 1)));
        assert!(
            long.as_str().expect("text").contains("4002 bytes"),
            "{long}"
        );
        let mut deep = json!("bottom");
        for _ in 0..DEPTH_MAX + 2 {
            deep = json!([deep]);
        }
        assert!(!masked(&deep).to_string().contains("bottom"));
    }
}
