//! From the tree of a YAML document to a [`Definition`]: the shape alone.
//!
//! A key that is not known is a fault and not ignored, so that a definition
//! never loses a part without a word.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::yaml::{Content, Node, read};
use super::{
    BLOCKS_MAX, Block, Definition, Fault, Faults, Input, Installation, Kind, LINKS_MAX, Link,
};
use crate::gateway::engine::core_blocks::Core;
use crate::gateway::engine::expressions::{Expression, SOURCE_BYTES_MAX};
use crate::gateway::engine::names;

pub fn definition(text: &str) -> Result<Definition, Faults> {
    let root = read(text)?;
    let mut definition = Definition::default();
    let mut faults = Vec::new();
    for (key, node) in entries(&root, &At::whole("the whole"))? {
        match key.as_str() {
            "appInstallations" => match installations(node) {
                Ok(installations) => definition.installations = installations,
                Err(fault) => faults.push(fault),
            },
            "blocks" => match blocks(node, &mut faults) {
                Ok(blocks) => definition.blocks = blocks,
                Err(fault) => faults.push(fault),
            },
            other => faults.push(Fault::whole(format!(
                "line {}: there is no key `{other}`; a definition has `appInstallations` and `blocks`",
                node.line
            ))),
        }
    }
    let names = definition.blocks.iter().map(|block| block.name.as_str());
    for name in names::repeated(names) {
        faults.push(Fault::of(name, "", "the name is used more than once"));
    }
    let inputs = definition
        .blocks
        .iter()
        .flat_map(|block| block.inputs.values());
    let links = inputs.map(|input| input.links.len()).sum::<usize>();
    if links > LINKS_MAX {
        let why = format!("it has {links} links, more than {LINKS_MAX}");
        faults.push(Fault::whole(why));
    }
    if faults.is_empty() {
        Ok(definition)
    } else {
        Err(Faults(faults))
    }
}

/// Where in the document we are, for a complaint.
struct At<'a> {
    block: Option<&'a str>,
    place: String,
}

// === impl At ===

impl<'a> At<'a> {
    fn whole(place: &str) -> Self {
        Self {
            block: None,
            place: place.to_owned(),
        }
    }

    fn of(block: &'a str, place: impl Into<String>) -> Self {
        Self {
            block: Some(block),
            place: place.into(),
        }
    }

    fn fault(&self, why: &str) -> Fault {
        match self.block {
            Some(block) => Fault::of(block, &self.place, why),
            None if self.place.is_empty() => Fault::whole(why.to_owned()),
            None => Fault::whole(format!("{}: {why}", self.place)),
        }
    }
}

fn installations(node: &Node) -> Result<BTreeMap<String, Installation>, Fault> {
    let mut installations = BTreeMap::new();
    for (key, node) in entries(node, &At::whole("`appInstallations`"))? {
        let at = At::whole(&format!("app installation `{key}`"));
        let mut installation = Installation::default();
        for (field, node) in entries(node, &at)? {
            let value = match &node.content {
                Content::Scalar(Value::Null) => None,
                // A version like 1.0 is a number to YAML.
                Content::Scalar(value @ Value::Number(_)) => Some(value.to_string()),
                _ => Some(text(node, &at)?),
            };
            match field.as_str() {
                "appName" => installation.app_name = value,
                "appVersion" => installation.app_version = value,
                "id" => installation.id = value,
                other => return Err(at.fault(&format!("there is no key `{other}`"))),
            }
        }
        installations.insert(key.clone(), installation);
    }
    Ok(installations)
}

fn blocks(node: &Node, faults: &mut Vec<Fault>) -> Result<Vec<Block>, Fault> {
    let nodes = list(node, &At::whole("`blocks`"))?;
    if nodes.len() > BLOCKS_MAX {
        let why = format!("it has {} blocks, more than {BLOCKS_MAX}", nodes.len());
        return Err(Fault::whole(why));
    }
    let mut blocks = Vec::with_capacity(nodes.len());
    for node in nodes {
        match block(node) {
            Ok(block) => blocks.push(block),
            Err(fault) => faults.push(fault),
        }
    }
    Ok(blocks)
}

fn block(node: &Node) -> Result<Block, Fault> {
    let fields = entries(node, &At::whole(&format!("line {}, a block", node.line)))?;
    let named = fields.iter().find(|(key, _)| key == "name");
    let nameless = At::whole(&format!("line {}", node.line));
    let name = match named.map(|(_, node)| &node.content) {
        None => return Err(nameless.fault("a block needs a name")),
        Some(Content::Scalar(Value::String(name))) => name.clone(),
        // A name like 42 is a number to YAML.
        Some(Content::Scalar(value @ (Value::Number(_) | Value::Bool(_)))) => value.to_string(),
        Some(_) => return Err(nameless.fault("the name of a block is a text")),
    };
    if let Some(why) = names::complaint(&name) {
        return Err(Fault::of(&name, "", why));
    }
    let mut block = Block::new(&name, Kind::Core(Core::Transform));
    let mut kind = None;
    for (key, node) in fields {
        let at = At::of(&name, format!("`{key}`"));
        let missing = node.content == Content::Scalar(Value::Null);
        match key.as_str() {
            "name" => {}
            "type" => kind = Some(kind_of(node, &at)?),
            "description" if missing => {}
            "description" => block.description = Some(text(node, &at)?),
            "active" => {
                block.active = match node.content {
                    Content::Scalar(Value::Bool(active)) => active,
                    _ => return Err(at.fault("expected true or false")),
                }
            }
            "position" if missing => {}
            "position" => block.position = Some(position(node, &at)?),
            "config" => block.config = config(node, &name, "")?,
            "inputs" => block.inputs = inputs(node, &name)?,
            "outputs" => block.outputs = outputs(node, &name)?,
            other => {
                let why = format!("there is no key `{other}` in a block");
                return Err(Fault::of(&name, "", why));
            }
        }
    }
    block.kind = kind.ok_or_else(|| Fault::of(&name, "", "`type` is missing"))?;
    Ok(block)
}

fn kind_of(node: &Node, at: &At<'_>) -> Result<Kind, Fault> {
    let fields = entries(node, at)?;
    let [(key, node)] = fields else {
        return Err(at.fault("expected either `appBlock` or `coreBlock`"));
    };
    match key.as_str() {
        "coreBlock" => {
            let name = text(node, at)?;
            let core = Core::named(&name).ok_or_else(|| {
                let known = Core::ALL.map(Core::name).join(", ");
                at.fault(&format!(
                    "there is no core block `{name}`; there are {known}"
                ))
            })?;
            Ok(Kind::Core(core))
        }
        "appBlock" => app_block(node, at),
        other => Err(at.fault(&format!("`{other}` is neither `appBlock` nor `coreBlock`"))),
    }
}

fn app_block(node: &Node, at: &At<'_>) -> Result<Kind, Fault> {
    let (mut block, mut installation, mut schema) = (None, None, None);
    for (key, node) in entries(node, at)? {
        match key.as_str() {
            "block" => block = Some(text(node, at)?),
            "appInstallation" => installation = Some(text(node, at)?),
            "schema" => {
                schema = match &node.content {
                    Content::Scalar(Value::Null) => None,
                    Content::Scalar(Value::String(schema)) => Some(schema.clone()),
                    // Written out instead of as a text of JSON: the same thing.
                    _ => node.constant().map(|schema| schema.to_string()),
                }
            }
            other => return Err(at.fault(&format!("there is no key `{other}` in `appBlock`"))),
        }
    }
    Ok(Kind::App {
        block: block.ok_or_else(|| at.fault("`appBlock.block` is missing"))?,
        installation: installation
            .ok_or_else(|| at.fault("`appBlock.appInstallation` is missing"))?,
        schema,
    })
}

fn position(node: &Node, at: &At<'_>) -> Result<(f64, f64), Fault> {
    let wrong = || at.fault("expected two numbers");
    let [x, y] = list(node, at)? else {
        return Err(wrong());
    };
    let place = |node: &Node| match &node.content {
        Content::Scalar(value) => value.as_f64().ok_or_else(wrong),
        _ => Err(wrong()),
    };
    Ok((place(x)?, place(y)?))
}

fn inputs(node: &Node, block: &str) -> Result<BTreeMap<String, Input>, Fault> {
    let mut inputs = BTreeMap::new();
    for (key, node) in optional_entries(node, &At::of(block, "`inputs`"))? {
        let at = At::of(block, format!("input `{key}`"));
        let mut input = Input::default();
        for (field, node) in optional_entries(node, &at)? {
            match field.as_str() {
                "links" => input.links = links(node, &at)?,
                "config" => input.config = config(node, block, &format!("input `{key}`, "))?,
                other => return Err(at.fault(&format!("there is no key `{other}` in an input"))),
            }
        }
        inputs.insert(key.clone(), input);
    }
    Ok(inputs)
}

fn links(node: &Node, at: &At<'_>) -> Result<BTreeSet<Link>, Fault> {
    if node.content == Content::Scalar(Value::Null) {
        return Ok(BTreeSet::new());
    }
    let mut links = BTreeSet::new();
    for node in list(node, at)? {
        let (mut block, mut output) = (None, None);
        for (key, node) in entries(node, at)? {
            match key.as_str() {
                "block" => block = Some(text(node, at)?),
                "output" => output = Some(text(node, at)?),
                other => return Err(at.fault(&format!("there is no key `{other}` in a link"))),
            }
        }
        links.insert(Link {
            block: block.ok_or_else(|| at.fault("a link without `block`"))?,
            output: output.ok_or_else(|| at.fault("a link without `output`"))?,
        });
    }
    Ok(links)
}

fn outputs(node: &Node, block: &str) -> Result<BTreeMap<String, Expression>, Fault> {
    let mut outputs = BTreeMap::new();
    for (key, node) in optional_entries(node, &At::of(block, "`outputs`"))? {
        let at = At::of(block, format!("output `{key}`"));
        for (field, node) in optional_entries(node, &at)? {
            match field.as_str() {
                "customization" => {
                    outputs.insert(key.clone(), expression(node, &at)?);
                }
                other => return Err(at.fault(&format!("there is no key `{other}` in an output"))),
            }
        }
    }
    Ok(outputs)
}

fn config(node: &Node, block: &str, of: &str) -> Result<BTreeMap<String, Expression>, Fault> {
    let mut config = BTreeMap::new();
    for (field, node) in optional_entries(node, &At::of(block, format!("{of}`config`")))? {
        let at = At::of(block, format!("{of}field `{field}`"));
        config.insert(field.clone(), expression(node, &at)?);
    }
    Ok(config)
}

/// A constant, an expression, or a list or map with expressions in it, which
/// together are one expression.
fn expression(node: &Node, at: &At<'_>) -> Result<Expression, Fault> {
    if let Some(value) = node.constant() {
        return Ok(Expression::Constant(value));
    }
    let source = node.source();
    if source.trim().is_empty() {
        return Err(at.fault("the expression is empty"));
    }
    if source.len() > SOURCE_BYTES_MAX {
        return Err(at.fault(&format!(
            "the expression has {} bytes, more than {SOURCE_BYTES_MAX}",
            source.len()
        )));
    }
    Ok(Expression::Source(source))
}

// === Shapes ===

fn entries<'n>(node: &'n Node, at: &At<'_>) -> Result<&'n [(String, Node)], Fault> {
    match &node.content {
        Content::Map(entries) => Ok(entries),
        _ => Err(at.fault("expected keys and values")),
    }
}

/// As [`entries`]; a key without a value has none.
fn optional_entries<'n>(node: &'n Node, at: &At<'_>) -> Result<&'n [(String, Node)], Fault> {
    match &node.content {
        Content::Scalar(Value::Null) => Ok(&[]),
        _ => entries(node, at),
    }
}

fn list<'n>(node: &'n Node, at: &At<'_>) -> Result<&'n [Node], Fault> {
    match &node.content {
        Content::List(items) => Ok(items),
        _ => Err(at.fault("expected a list")),
    }
}

fn text(node: &Node, at: &At<'_>) -> Result<String, Fault> {
    match &node.content {
        Content::Scalar(Value::String(text)) => Ok(text.clone()),
        // A key or a name like 42 is a number to YAML.
        Content::Scalar(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        _ => Err(at.fault("expected a text")),
    }
}
