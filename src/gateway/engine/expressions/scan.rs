//! The light scan of JavaScript for references.

use std::collections::BTreeSet;

use super::References;

/// A piece of source that matters here.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    /// A string literal, or a template without holes.
    Text(String),
    /// `?.` is `.`; `...` is `…`; everything else is itself.
    Sign(char),
    Number,
    /// A template with holes, or a regular expression: a value, whatever it is.
    Opaque,
}

/// Everything the source refers to. Never fails: what cannot be read as a name
/// counts as "all of them".
pub fn references(source: &str) -> References {
    let tokens = tokens(source);
    let mut found = References::default();
    let declared = tokens.windows(2).filter_map(|pair| match pair {
        [Token::Word(keyword), Token::Word(name)]
            if matches!(keyword.as_str(), "const" | "let" | "var") =>
        {
            Some(name.as_str())
        }
        _ => None,
    });
    let declared = declared.collect::<BTreeSet<_>>();
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        if !matches!(word.as_str(), "outputs" | "signals" | "secrets" | "ref") {
            continue;
        }
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let after = tokens.get(at + 1);
        let is_property = before == Some(&Token::Sign('.'));
        let is_key =
            after == Some(&Token::Sign(':')) && matches!(before, Some(Token::Sign('{' | ',')));
        if is_property || is_key || declared.contains(word.as_str()) {
            continue;
        }
        let rest = &tokens[at + 1..];
        match word.as_str() {
            "outputs" => match path(rest, 1).0.pop() {
                Some(name) => {
                    found.outputs.insert(name);
                }
                None => found.all_outputs = true,
            },
            "secrets" => match path(rest, 1).0.pop() {
                Some(key) => {
                    found.secrets.insert(key);
                }
                None => found.all_secrets = true,
            },
            "signals" => signal(path(rest, 2), &mut found),
            _ => reference(rest, &mut found),
        }
    }
    found
}

fn signal((mut names, _): (Vec<String>, bool), found: &mut References) {
    let signal = (names.len() > 1).then(|| names.pop()).flatten();
    match names.pop() {
        Some(owner) => {
            found.signals.insert((owner, signal));
        }
        None => found.all_signals = true,
    }
}

/// `ref("signal.a.b")`, `ref("secret.KEY")`, `ref("output.block.field")`; the tokens follow the word `ref`.
fn reference(rest: &[Token], found: &mut References) {
    match rest {
        [Token::Sign('('), Token::Text(text), Token::Sign(')'), ..] => {
            let mut parts = text.split('.');
            match (parts.next(), parts.next(), parts.next()) {
                (Some("signal" | "signals"), Some(owner), signal) => {
                    let signal = signal.map(str::to_owned);
                    found.signals.insert((owner.to_owned(), signal));
                }
                (Some("output" | "outputs"), Some(block), _) => {
                    found.outputs.insert(block.to_owned());
                }
                (Some("secret" | "secrets"), Some(key), None) => {
                    found.secrets.insert(key.to_owned());
                }
                _ => {
                    found.unknown.insert(text.clone());
                }
            }
        }
        [Token::Sign('('), ..] => {
            found.all_outputs = true;
            found.all_signals = true;
            found.all_secrets = true;
        }
        _ => {}
    }
}

/// Up to `most` names that follow: `.name`, `?.name`, `["name"]`, `?.["name"]`.
fn path(mut rest: &[Token], most: usize) -> (Vec<String>, bool) {
    let mut names = Vec::new();
    while names.len() < most {
        match rest {
            [Token::Sign('.'), Token::Word(name), tail @ ..]
            | [
                Token::Sign('['),
                Token::Text(name),
                Token::Sign(']'),
                tail @ ..,
            ]
            | [
                Token::Sign('.'),
                Token::Sign('['),
                Token::Text(name),
                Token::Sign(']'),
                tail @ ..,
            ] => {
                names.push(name.clone());
                rest = tail;
            }
            _ => return (names, false),
        }
    }
    (names, true)
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Token>,
    /// For each open hole of a template, how many braces are open within it.
    holes: Vec<usize>,
    /// Up to here no regular expression ends, so that none is looked for again.
    no_pattern_until: usize,
}

fn tokens(source: &str) -> Vec<Token> {
    let mut scanner = Scanner {
        source,
        at: 0,
        tokens: Vec::new(),
        holes: Vec::new(),
        no_pattern_until: 0,
    };
    while scanner.step() {}
    scanner.tokens
}

// === impl Scanner ===

impl Scanner<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    /// Reads one token; false at the end.
    fn step(&mut self) -> bool {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return false;
        };
        if first.is_whitespace() {
            self.at += first.len_utf8();
        } else if rest.starts_with("//") {
            self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            self.at += rest.find("*/").map_or(rest.len(), |end| end + 2);
        } else if first.is_alphabetic() || first == '_' || first == '$' {
            self.word();
        } else if first.is_ascii_digit() {
            self.number();
        } else {
            match first {
                '"' | '\'' => self.text(first),
                '`' => self.template(true),
                '/' if self.may_be_a_pattern() => self.pattern(),
                _ => self.sign(first),
            }
        }
        true
    }

    fn word(&mut self) {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'))
            .unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.at += end;
        self.tokens.push(Token::Word(word));
    }

    fn number(&mut self) {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(rest.len());
        self.at += end;
        self.tokens.push(Token::Number);
    }

    fn text(&mut self, quote: char) {
        let mut text = String::new();
        let mut chars = self.source[self.at + 1..].char_indices();
        let start = self.at + 1;
        let mut end = self.source.len();
        while let Some((offset, c)) = chars.next() {
            match c {
                // The escapes that matter in a name are those of quotes; others
                // make a name that no block has.
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c if c == quote || c == '\n' => {
                    end = start + offset + c.len_utf8();
                    break;
                }
                c => text.push(c),
            }
        }
        self.at = end;
        self.tokens.push(Token::Text(text));
    }

    /// Reads template text from its backtick, or from the end of a hole.
    fn template(&mut self, from_start: bool) {
        let start = self.at + 1;
        let mut chars = self.source[start..].char_indices();
        let mut text = String::new();
        while let Some((offset, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                '`' => {
                    self.at = start + offset + 1;
                    let token = if from_start {
                        Token::Text(text)
                    } else {
                        Token::Opaque
                    };
                    self.tokens.push(token);
                    return;
                }
                '$' if self.source[start + offset..].starts_with("${") => {
                    self.at = start + offset + 2;
                    self.holes.push(0);
                    // What stands in the hole is no property of what stood before.
                    self.tokens.push(Token::Sign('('));
                    return;
                }
                c => text.push(c),
            }
        }
        self.at = self.source.len();
    }

    fn sign(&mut self, first: char) {
        let rest = self.rest();
        if rest.starts_with("...") {
            self.at += 3;
            self.tokens.push(Token::Sign('…'));
            return;
        }
        if rest.starts_with("?.") && !rest[2..].starts_with(|c: char| c.is_ascii_digit()) {
            self.at += 2;
            self.tokens.push(Token::Sign('.'));
            return;
        }
        match (first, self.holes.last_mut()) {
            ('{', Some(open)) => *open += 1,
            ('}', Some(0)) => {
                self.holes.pop();
                self.template(false);
                return;
            }
            ('}', Some(open)) => *open -= 1,
            _ => {}
        }
        self.at += first.len_utf8();
        self.tokens.push(Token::Sign(first));
    }

    /// After a value `/` divides, elsewhere it opens a regular expression.
    fn may_be_a_pattern(&self) -> bool {
        if self.at < self.no_pattern_until {
            return false;
        }
        match self.tokens.last() {
            None => true,
            Some(Token::Word(word)) => {
                matches!(word.as_str(), "return" | "typeof" | "case" | "in" | "of")
            }
            Some(Token::Text(_) | Token::Number | Token::Opaque) => false,
            Some(Token::Sign(sign)) => !matches!(sign, ')' | ']' | '}'),
        }
    }

    fn pattern(&mut self) {
        let start = self.at + 1;
        let mut chars = self.source[start..].char_indices();
        let mut in_class = false;
        let mut end = None;
        let mut last = self.source.len();
        while let Some((offset, c)) = chars.next() {
            match c {
                '\\' => {
                    chars.next();
                }
                '[' => in_class = true,
                ']' => in_class = false,
                '/' if !in_class => {
                    end = Some(start + offset + 1);
                    break;
                }
                '\n' => {
                    last = start + offset;
                    break;
                }
                _ => {}
            }
        }
        match end {
            Some(end) => {
                self.at = end;
                self.tokens.push(Token::Opaque);
            }
            // No partner on the line: it was a division after all.
            None => {
                self.no_pattern_until = last;
                self.at = start;
                self.tokens.push(Token::Sign('/'));
            }
        }
    }
}
