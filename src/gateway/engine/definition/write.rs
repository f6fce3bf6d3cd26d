//! A definition as YAML again: one form only, in a stable order, readable for
//! a person and exactly the same when it is read back.

use serde_json::{Map, Value};

use super::{Block, Definition, Input, Kind};
use crate::gateway::engine::expressions::Expression;

/// The text of a definition. Applying it to the flow it came from plans nothing.
pub fn export(definition: &Definition) -> String {
    let mut out = Writer(String::new());
    if definition.installations.is_empty() {
        out.line(0, "appInstallations: {}");
    } else {
        out.line(0, "appInstallations:");
    }
    for (key, installation) in &definition.installations {
        let fields = [
            ("appName", &installation.app_name),
            ("appVersion", &installation.app_version),
            ("id", &installation.id),
        ];
        if fields.iter().all(|(_, value)| value.is_none()) {
            out.line(1, &format!("{}: {{}}", text(key)));
            continue;
        }
        out.line(1, &format!("{}:", text(key)));
        for (name, value) in fields {
            if let Some(value) = value {
                out.line(2, &format!("{name}: {}", text(value)));
            }
        }
    }
    if definition.blocks.is_empty() {
        out.line(0, "blocks: []");
    } else {
        out.line(0, "blocks:");
    }
    for block in &definition.blocks {
        out.block(block);
    }
    out.0
}

struct Writer(String);

// === impl Writer ===

impl Writer {
    fn line(&mut self, level: usize, line: &str) {
        for _ in 0..level {
            self.0.push_str("  ");
        }
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn block(&mut self, block: &Block) {
        self.line(1, &format!("- name: {}", text(&block.name)));
        if let Some(description) = &block.description {
            self.scalar(2, "description", "", description);
        }
        match &block.kind {
            Kind::Core(core) => {
                self.line(2, "type:");
                self.line(3, &format!("coreBlock: {}", core.name()));
            }
            Kind::App {
                block,
                installation,
                schema,
            } => {
                self.line(2, "type:");
                self.line(3, "appBlock:");
                self.line(4, &format!("block: {}", text(block)));
                self.line(4, &format!("appInstallation: {}", text(installation)));
                if let Some(schema) = schema {
                    self.line(4, &format!("schema: {}", text(schema)));
                }
            }
        }
        if !block.active {
            self.line(2, "active: false");
        }
        if let Some((x, y)) = block.position {
            let [x, y] = [x, y].map(|place| Value::from(place).to_string());
            let short = |place: &str| place.trim_end_matches(".0").to_owned();
            self.line(2, &format!("position: [{}, {}]", short(&x), short(&y)));
        }
        if !block.config.is_empty() {
            self.line(2, "config:");
            for (field, expression) in &block.config {
                self.expression(3, field, expression);
            }
        }
        if !block.inputs.is_empty() {
            self.line(2, "inputs:");
            for (key, input) in &block.inputs {
                self.input(key, input);
            }
        }
        if !block.outputs.is_empty() {
            self.line(2, "outputs:");
            for (key, expression) in &block.outputs {
                self.line(3, &format!("{}:", text(key)));
                self.expression(4, "customization", expression);
            }
        }
    }

    fn input(&mut self, key: &str, input: &Input) {
        if input.links.is_empty() && input.config.is_empty() {
            self.line(3, &format!("{}: {{}}", text(key)));
            return;
        }
        self.line(3, &format!("{}:", text(key)));
        if !input.links.is_empty() {
            self.line(4, "links:");
            for link in &input.links {
                self.line(5, &format!("- block: {}", text(&link.block)));
                self.line(6, &format!("output: {}", text(&link.output)));
            }
        }
        if !input.config.is_empty() {
            self.line(4, "config:");
            for (field, expression) in &input.config {
                self.expression(5, field, expression);
            }
        }
    }

    fn expression(&mut self, level: usize, key: &str, expression: &Expression) {
        match expression {
            Expression::Source(source) => self.scalar(level, &text(key), "!expr ", source),
            Expression::Constant(value) => self.value(level, &text(key), value),
        }
    }

    /// `key: text`, as a block of lines when it has some.
    fn scalar(&mut self, level: usize, key: &str, tag: &str, value: &str) {
        if !can_be_lines(value) {
            self.line(level, &format!("{key}: {tag}{}", text(value)));
            return;
        }
        self.line(level, &format!("{key}: {tag}|-"));
        for line in value.split('\n') {
            if line.is_empty() {
                self.0.push('\n');
            } else {
                self.line(level + 1, line);
            }
        }
    }

    fn value(&mut self, level: usize, head: &str, value: &Value) {
        match value {
            Value::Object(object) if !object.is_empty() => {
                self.line(level, &format!("{head}:"));
                self.entries(level + 1, object);
            }
            Value::Array(items) if !items.is_empty() => {
                self.line(level, &format!("{head}:"));
                for item in items {
                    self.item(level + 1, item);
                }
            }
            Value::String(value) => self.scalar(level, head, "", value),
            other => self.line(level, &format!("{head}: {}", flow(other))),
        }
    }

    fn entries(&mut self, level: usize, object: &Map<String, Value>) {
        // The order of the map in memory depends on a feature of a crate.
        let mut keys = object.keys().collect::<Vec<_>>();
        keys.sort();
        for key in keys {
            self.value(level, &text(key), &object[key]);
        }
    }

    fn item(&mut self, level: usize, item: &Value) {
        match item {
            // What nests in a list is written in one line, as JSON is YAML.
            Value::Array(_) | Value::Object(_) => self.line(level, &format!("- {}", flow(item))),
            other => self.line(level, &format!("- {}", leaf(other))),
        }
    }
}

/// One line of flow style; the same grammar as JSON, with keys in order.
fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items = items.iter().map(flow).collect::<Vec<_>>();
            format!("[{}]", items.join(", "))
        }
        Value::Object(object) => {
            let mut keys = object.keys().collect::<Vec<_>>();
            keys.sort();
            let entries = keys
                .into_iter()
                .map(|key| format!("{}: {}", quoted(key), flow(&object[key])));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => quoted(text),
        other => leaf(other),
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(value) => text(value),
        other => other.to_string(),
    }
}

/// A text in the plainest way that is read back as the same text.
fn text(value: &str) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    let printable = value.chars().all(|c| !needs_escape(c));
    if printable && value.contains(['"', '\\']) {
        return format!("'{}'", value.replace('\'', "''"));
    }
    quoted(value)
}

fn is_plain(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/');
    let safe = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && value.chars().all(inner)
        && !value.ends_with(' ')
        && !value.contains(" -");
    // Words that some reader takes for something else.
    let word = value.to_ascii_lowercase();
    safe && !matches!(
        word.as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    )
}

fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if needs_escape(c) && u32::from(c) <= 0xffff => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if needs_escape(c) => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What YAML does not allow as it is, or what would change on its way.
fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
        || matches!(u32::from(c), 0xe000..=0xf8ff | 0x1_fffe.. )
}

/// Whether `value` survives as a block of lines without its last line break.
fn can_be_lines(value: &str) -> bool {
    value.contains('\n')
        && !value.starts_with([' ', '\n'])
        && !value.ends_with('\n')
        && value.split('\n').all(|line| {
            !line.ends_with(' ') && !line.starts_with('\t') && !line.chars().any(needs_escape)
        })
}
