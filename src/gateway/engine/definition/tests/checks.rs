//! Tests of definitions against the apps they use.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::parse;
use crate::gateway::engine::definition::check::{Checked, Project, check};
use crate::gateway::engine::schema::App;

fn app() -> App {
    let block = json!({
        "inputs": {"default": {"hasOnEvent": true, "config": {
            "command": {"type": "string", "required": true},
            "rows": {"type": {"type": "array", "items": {"type": "number"}}},
            "port": {"type": "number", "required": true, "default": 22},
        }}},
        "outputs": {"default": {"default": true, "possiblePrimaryParents": ["default"]}},
    });
    let tool = json!({
        "config": {"schema": {"type": "string", "required": true}},
        "inputs": {"result": {"hasOnEvent": true}},
        "outputs": {"onCall": {"possiblePrimaryParents": ["result"]}},
        "hasOnInternalMessage": true, "hasOnSync": true,
    });
    serde_json::from_value(json!({"blocks": {"run": block, "tool": tool}})).expect("a schema")
}

/// Checks blocks in the short form of a test against one installed app, `a`.
fn checked(blocks: &str) -> Result<Checked, String> {
    let app = app();
    let definition = parse(&format!(
        "appInstallations: {{a: {{id: id-a}}}}\nblocks:\n{blocks}"
    ));
    let project = Project {
        installations: BTreeMap::from([("id-a", &app)]),
        signal_owners: BTreeSet::from(["cicd".to_owned()]),
        secrets: Some(BTreeSet::from(["KEY".to_owned()])),
    };
    check(&definition, &project).map_err(|faults| faults.to_string())
}

const RUN: &str = "type: {appBlock: {block: run, appInstallation: a}}";
const TOOL: &str = "type: {appBlock: {block: tool, appInstallation: a}}";

#[test]
fn a_flow_that_fits_comes_with_its_schemas() {
    let checked = checked(&format!(
        r#"
  - {{name: Start, type: {{coreBlock: manualTrigger}}}}
  - name: Run
    {RUN}
    inputs: {{default: {{links: [{{block: Start, output: default}}], config: {{
      command: !expr "outputs.start.x + signals.cicd.y + secrets.KEY + signals.a.z"}}}}}}
    outputs: {{default: {{customization: !expr "outputs.run.rows ?? outputs.start"}}}}
"#
    ))
    .unwrap_or_else(|faults| panic!("{faults}"));
    assert!(checked.schemas["Run"].inputs.contains_key("default"));
    assert!(checked.without_installation.is_empty());
}

/// Blocks beside the trigger `S`, and what is said of them. `RUN`, `TOOL` and
/// `LINK` stand for what they always are.
const FAULTS: &[(&str, &str)] = &[
    (
        "  - {name: R, RUN, inputs: {default: {links: [{block: X, output: default}], config: {command: a}}}}",
        "block `R`, input `default`: links to block `X`, which does not exist",
    ),
    (
        "  - {name: R, RUN, inputs: {default: {links: [{block: S, output: nope}], config: {command: a}}}}",
        "block `R`, input `default`: links to output `nope` of block `S`, which does not exist; there are `default`",
    ),
    (
        "  - {name: R, RUN, inputs: {other: {}}}",
        "block `R`, input `other`: there is no such input; there are `default`",
    ),
    (
        "  - {name: R, RUN, inputs: {default: {LINK, config: {comand: a}}}}",
        "block `R`, input `default`, field `comand`: there is no such field; there are `command`, `port`, `rows`",
    ),
    (
        "  - {name: R, RUN, inputs: {default: {LINK, config: {command: 5}}}}",
        "block `R`, input `default`, field `command`: expected a string, found a number",
    ),
    (
        "  - {name: R, RUN, inputs: {default: {LINK, config: {command: a, rows: [1, x]}}}}",
        "block `R`, input `default`, field `rows`: `[1]`: expected a number, found a string",
    ),
    (
        "  - {name: R, RUN, inputs: {default: {LINK, config: {command: !expr outputs.later}}}}\n  - {name: Later, type: {coreBlock: manualTrigger}}",
        "block `R`, input `default`, field `command`: refers to block `later`, which is no ancestor",
    ),
    (
        "  - {name: R, RUN, inputs: {default: {LINK, config: {command: !expr secrets.GONE}}}}",
        "refers to the secret `GONE`, which does not exist",
    ),
    (
        "  - {name: T, TOOL, config: {schema: !expr outputs.s}}",
        "block `T`, field `schema`: refers to `outputs`, which has no value where no event is handled",
    ),
    (
        "  - {name: T, TOOL, config: {schema: !expr signals.nobody.x}}",
        "block `T`, field `schema`: refers to signals of `nobody`",
    ),
    (
        "  - {name: R, RUN, outputs: {o: {customization: 1}}}",
        "block `R`, output `o`: there is no such output; there are `default`",
    ),
    (
        "  - {name: R, type: {appBlock: {block: walk, appInstallation: a}}}",
        "block `R`, `type`: app installation `a` has no block type `walk`",
    ),
    (
        "  - {name: R, type: {appBlock: {block: run, appInstallation: b}}}",
        "block `R`, `type`: app installation `b` is not in `appInstallations`",
    ),
];

#[test]
fn each_fault_names_block_field_and_reason() {
    let link = "links: [{block: S, output: default}]";
    for (blocks, expected) in FAULTS {
        let blocks = blocks
            .replace("RUN", RUN)
            .replace("TOOL", TOOL)
            .replace("LINK", link);
        let blocks = format!("  - {{name: S, type: {{coreBlock: manualTrigger}}}}\n{blocks}");
        let found = checked(&blocks).expect_err("it does not fit");
        assert!(found.contains(expected), "{blocks}\n  found: {found}");
    }
}

#[test]
fn a_required_field_without_a_value_is_told_and_not_refused() {
    let blocks = format!(
        "  - {{name: R, {RUN}, inputs: {{default: {{links: [{{block: T, output: onCall}}]}}}}}}
  - {{name: T, {TOOL}}}"
    );
    let told = checked(&blocks).expect("it can be drawn").incomplete;
    let told = told.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            "block `R`, input `default`, field `command`: a value is required",
            "block `T`, field `schema`: a value is required",
        ]
    );
}

#[test]
fn an_input_that_nothing_links_to_may_be_incomplete() {
    let checked_alone = checked(&format!("  - {{name: R, {RUN}}}")).expect("it fits");
    assert!(checked_alone.incomplete.is_empty());
    assert!(
        checked(&format!(
            "  - {{name: R, {RUN}, inputs: {{default: {{config: {{rows: null}}}}}}}}"
        ))
        .is_ok()
    );
}

#[test]
fn a_cycle_without_a_way_out_is_refused_and_one_with_a_way_out_is_not() {
    let sleep = |name: &str, from: &str, output: &str| {
        format!(
            "  - {{name: {name}, type: {{coreBlock: sleep}}, inputs: {{default: {{links: [{{block: {from}, output: {output}}}], config: {{sleep: 1}}}}}}}}\n"
        )
    };
    let endless = [sleep("A", "B", "default"), sleep("B", "A", "default")].concat();
    let found = checked(&endless).expect_err("endless");
    assert!(
        found.contains("block `A`: the links form a cycle that no event can leave: A → B → A"),
        "{found}"
    );

    let poll = sleep("A", "Check", "else")
        + "  - {name: Check, type: {coreBlock: condition}, inputs: {default: {links: [{block: A, output: default}], config: {condition: !expr outputs.a.ready}}}}\n";
    assert!(checked(&poll).is_ok());

    let endpoint = sleep("A", "Hook", "default")
        + "  - {name: Hook, type: {coreBlock: httpEndpoint}, inputs: {respond: {links: [{block: A, output: default}]}}}\n";
    assert!(
        checked(&endpoint).is_ok(),
        "an endpoint answers what it has emitted"
    );

    let tool = [
        sleep("A", "Tool", "onCall"),
        format!(
            "  - {{name: Tool, {TOOL}, config: {{schema: x}}, inputs: {{result: {{links: [{{block: A, output: default}}]}}}}}}\n"
        ),
    ]
    .concat();
    assert!(
        checked(&tool).is_ok(),
        "tools of published flows are such cycles"
    );

    let runs = format!(
        "  - {{name: R, {RUN}, inputs: {{default: {{links: [{{block: Q, output: default}}], config: {{command: a}}}}}}}}
  - {{name: Q, {RUN}, inputs: {{default: {{links: [{{block: R, output: default}}], config: {{command: a}}}}}}}}\n"
    );
    assert!(checked(&runs).is_err());
}

#[test]
fn a_schedule_is_judged_when_it_is_written() {
    let schedule =
        |config: &str| format!("  - {{name: S, type: {{coreBlock: schedule}}, config: {config}}}");
    assert!(checked(&schedule("{cron: '0 9 * * *', location: Europe/Warsaw}")).is_ok());
    assert!(checked(&schedule("{cron: !expr signals.cicd.when}")).is_ok());
    for (config, why) in [
        (
            "{cron: '61 * * * *'}",
            "block `S`, `config`: `61 * * * *` is no cron expression",
        ),
        (
            "{cron: '0 9 * * *', location: Mars}",
            "there is no time zone `Mars`",
        ),
        ("{interval: 1}", "`frequency.unit` is missing"),
        ("{}", "give either `cron` or `interval`"),
    ] {
        let found = checked(&schedule(config)).expect_err("it is none");
        assert!(found.contains(why), "{found}");
    }
}

#[test]
fn configs_that_follow_each_other_are_refused() {
    let tool = |name: &str, of: &str| {
        format!("  - {{name: {name}, {TOOL}, config: {{schema: !expr signals.{of}.x}}}}\n")
    };
    let found = checked(&[tool("A", "b"), tool("B", "a")].concat()).expect_err("a circle");
    assert!(
        found.contains("follow each other's signals in a circle: A → B → A"),
        "{found}"
    );
    assert!(checked(&[tool("A", "b"), tool("B", "cicd")].concat()).is_ok());
}

#[test]
fn outputs_that_a_sync_may_add_can_be_linked() {
    let blocks = format!(
        "  - {{name: T, {TOOL}, config: {{schema: x}}}}
  - {{name: N, type: {{coreBlock: transform}}, inputs: {{default: {{links: [{{block: T, output: added}}]}}}}}}"
    );
    assert!(checked(&blocks).is_ok());
}

#[test]
fn a_block_of_an_app_that_is_not_there_needs_its_schema() {
    let text = |schema: &str| {
        parse(&format!(
            "appInstallations: {{a: {{id: gone}}, b: {{}}}}\nblocks: [{{name: R, type: {{appBlock: {{block: run, appInstallation: a{schema}}}}}}}, {{name: Q, type: {{appBlock: {{block: run, appInstallation: b{schema}}}}}}}]"
        ))
    };
    let project = Project::default();
    let found = check(&text(""), &project)
        .expect_err("it is not there")
        .to_string();
    assert!(
        found.contains("block `R`, `type`: app installation `a` (gone) not found"),
        "{found}"
    );
    assert!(
        found.contains("block `Q`, `type`: app installation `b` has no id"),
        "{found}"
    );
    let checked = check(&text(", schema: '{\"outputs\": {}}'"), &project).expect("it can be drawn");
    assert_eq!(checked.without_installation.len(), 2);
    let found = check(&text(", schema: 'no JSON'"), &project)
        .expect_err("no schema")
        .to_string();
    assert!(
        found.contains("the schema is not what a bundle reports"),
        "{found}"
    );
}

#[test]
fn neighbours_of_a_copy_say_the_plain_name() {
    let blocks = "
  - {name: Transform (1), type: {coreBlock: manualTrigger}}
  - {name: Check, type: {coreBlock: condition}, inputs: {default: {links: [{block: Transform (1), output: default}], config: {condition: !expr outputs.transform}}}}
  - {name: Transform, type: {coreBlock: manualTrigger}}";
    assert!(checked(blocks).is_ok());
}
