//! YAML as a tree of plain values that keeps `!expr`, within limits.
//!
//! Reads with an event parser and an explicit stack, so that neither depth nor
//! aliases can exhaust anything; values follow the core schema of YAML 1.2.

use std::collections::{BTreeMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

use super::Fault;

/// The largest published definition has 600 kB, nearly all of it schemas.
pub const DEFINITION_BYTES_MAX: usize = 4 << 20;

/// A definition nests about ten levels; constants of apps a few more.
pub const DEPTH_MAX: usize = 64;

/// Values after aliases are expanded: stops the document that multiplies itself.
pub const NODES_MAX: usize = 200_000;

/// Text after aliases are expanded, in bytes: a long text is cheap to repeat.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// Longest key, in characters: YAML itself wants keys short enough to be found.
pub const KEY_CHARS_MAX: usize = 500;

/// One value and the line it starts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub line: usize,
    pub content: Content,
    /// What an alias to it costs: values in it, itself included, and their text.
    size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// `!expr`, a JavaScript expression.
    Expression(String),
}

// === impl Size ===

impl Size {
    fn add(&mut self, other: Self, bytes: usize) {
        self.nodes += other.nodes;
        self.bytes += other.bytes + bytes;
    }
}

// === impl Node ===

impl Node {
    fn new(line: usize, content: Content) -> Self {
        let mut size = Size { nodes: 1, bytes: 0 };
        match &content {
            Content::List(items) => items.iter().for_each(|item| size.add(item.size, 0)),
            Content::Map(entries) => entries
                .iter()
                .for_each(|(key, value)| size.add(value.size, key.len())),
            Content::Scalar(Value::String(text)) | Content::Expression(text) => {
                size.bytes = text.len();
            }
            Content::Scalar(_) => {}
        }
        Self {
            line,
            content,
            size,
        }
    }

    /// The value, when no expression is in it.
    pub fn constant(&self) -> Option<Value> {
        match &self.content {
            Content::Scalar(value) => Some(value.clone()),
            Content::List(items) => items.iter().map(Self::constant).collect(),
            Content::Map(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| Some((key.clone(), value.constant()?)));
                entries.collect::<Option<Map<_, _>>>().map(Value::Object)
            }
            Content::Expression(_) => None,
        }
    }

    /// The value as one JavaScript expression, expressions within included.
    pub fn source(&self) -> String {
        match &self.content {
            Content::Scalar(value) => value.to_string(),
            Content::Expression(source) => source.clone(),
            Content::List(items) => {
                let items = items.iter().map(Self::within).collect::<Vec<_>>();
                format!("[{}]", items.join(", "))
            }
            Content::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| {
                    // A computed key is a property even when it is `__proto__`.
                    format!("[{}]: {}", Value::String(key.clone()), value.within())
                });
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn within(&self) -> String {
        match &self.content {
            Content::Expression(source) => format!("({source}\n)"),
            _ => self.source(),
        }
    }
}

/// Reads one document.
///
/// # Errors
///
/// Not YAML, over a limit, or a tag that means nothing here; each names the line.
pub fn read(text: &str) -> Result<Node, Fault> {
    if text.len() > DEFINITION_BYTES_MAX {
        return Err(Fault::whole(format!(
            "it has {} bytes, more than {DEFINITION_BYTES_MAX}",
            text.len()
        )));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let marker = error.marker();
            Fault::whole(format!(
                "line {}, column {}: {}",
                marker.line(),
                marker.col() + 1,
                error.info()
            ))
        })?;
        builder.take(event, span.start.line())?;
    }
    builder
        .root
        .ok_or_else(|| Fault::whole("it is empty".to_owned()))
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    size: Size,
    root: Option<Node>,
}

struct Open {
    line: usize,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<(String, Node)>,
        keys: HashSet<String>,
        key: Option<String>,
    },
}

// === impl Builder ===

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let content = scalar(&text, style, tag.as_deref(), line)?;
                self.close(Node::new(line, content), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(line, anchor, tag.as_deref(), Kind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let kind = Kind::Map {
                    entries: Vec::new(),
                    keys: HashSet::new(),
                    key: None,
                };
                self.open(line, anchor, tag.as_deref(), kind)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { line, anchor, kind }) => {
                    let content = match kind {
                        Kind::List(items) => Content::List(items),
                        Kind::Map { entries, .. } => Content::Map(entries),
                    };
                    self.close(Node::new(line, content), anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    // Everything behind the alias counts again, before it is copied.
                    self.size.add(node.size, 0);
                    self.within_limits(line)?;
                    let node = node.clone();
                    self.close(node, 0)
                }
                None => Err(at(
                    line,
                    "an alias refers to something around it or to nothing",
                )),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<&Tag>,
        kind: Kind,
    ) -> Result<(), Fault> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(at(
                line,
                &format!(
                    "the tag `{tag}` stands before a list or a map; only `!expr` before a text is known"
                ),
            ));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(at(
                line,
                &format!("it nests deeper than {DEPTH_MAX} levels"),
            ));
        }
        self.open.push(Open { line, anchor, kind });
        Ok(())
    }

    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.size.nodes += 1;
        if anchor != 0 {
            // The copy is text of its own.
            self.size.bytes += node.size.bytes;
            self.anchors.insert(anchor, node.clone());
        }
        self.within_limits(node.line)?;
        let line = node.line;
        match self.open.last_mut().map(|open| &mut open.kind) {
            None if self.root.is_some() => {
                return Err(at(line, "there is a second document"));
            }
            None => self.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { entries, keys, key }) => match key.take() {
                None => *key = Some(key_of(node)?),
                Some(name) => {
                    // A second entry would win silently in most readers.
                    if !keys.insert(name.clone()) {
                        return Err(at(line, &format!("the key `{name}` occurs twice")));
                    }
                    entries.push((name, node));
                }
            },
        }
        Ok(())
    }

    fn within_limits(&self, line: usize) -> Result<(), Fault> {
        let why = if self.size.nodes > NODES_MAX {
            format!("it has more than {NODES_MAX} values, aliases included")
        } else if self.size.bytes > TEXT_BYTES_MAX {
            format!("it has more than {TEXT_BYTES_MAX} bytes of text, aliases included")
        } else {
            return Ok(());
        };
        Err(at(line, &why))
    }
}

fn key_of(node: Node) -> Result<String, Fault> {
    match node.content {
        Content::Scalar(Value::String(key)) if key.chars().count() > KEY_CHARS_MAX => Err(at(
            node.line,
            &format!("a key is longer than {KEY_CHARS_MAX} characters"),
        )),
        Content::Scalar(Value::String(key)) => Ok(key),
        Content::Scalar(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        _ => Err(at(node.line, "a key is a text")),
    }
}

fn scalar(
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
    line: usize,
) -> Result<Content, Fault> {
    let string = || Content::Scalar(Value::String(text.to_owned()));
    match tag {
        Some(tag) if tag.handle == "!" && tag.suffix == "expr" => {
            Ok(Content::Expression(text.to_owned()))
        }
        // `!` alone says that the text is a text.
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(string()),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(string()),
        Some(tag) if !tag.is_yaml_core_schema() => Err(at(
            line,
            &format!("the tag `{tag}` is unknown; an expression is written `!expr \"…\"`"),
        )),
        _ if style != ScalarStyle::Plain => Ok(string()),
        _ => plain(text, line).map(Content::Scalar),
    }
}

/// The core schema of YAML 1.2.
fn plain(text: &str, line: usize) -> Result<Value, Fault> {
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => match number(text) {
            Some(number) => number,
            None if is_not_finite(text) => {
                return Err(at(line, &format!("`{text}` is no number that JSON has")));
            }
            None => Value::String(text.to_owned()),
        },
    };
    Ok(value)
}

fn number(text: &str) -> Option<Value> {
    let based = |digits: &str, base| u64::from_str_radix(digits, base).ok().map(Value::from);
    if let Some(digits) = text.strip_prefix("0x") {
        return based(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return based(digits, 8);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.contains(|c: char| c.is_ascii_digit())
        || !unsigned
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
    {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if unsigned.chars().all(|c| c.is_ascii_digit()) {
        if let Ok(integer) = plain.parse::<i64>() {
            return Some(Value::from(integer));
        }
        if let Ok(integer) = plain.parse::<u64>() {
            return Some(Value::from(integer));
        }
    }
    let float = plain.parse::<f64>().ok()?;
    Number::from_f64(float).map(Value::Number)
}

fn is_not_finite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(
        unsigned,
        ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
    )
}

fn at(line: usize, why: &str) -> Fault {
    Fault::whole(format!("line {line}: {why}"))
}
