//! An app whose handler calls its own installation while it runs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::flow::bodies;
use crate::house::House;
use crate::web::{get, request};

const BLOCKS: &str = "
- name: Calculator
  type: {appBlock: {block: tool, appInstallation: app}}
  inputs:
    answer:
      links: [{block: Think, output: default}]
      config: {text: !expr '`${outputs.calculator.question}: ${outputs.think}`'}
- name: Think
  type: {coreBlock: transform}
  inputs: {default: {links: [{block: Calculator, output: asked}]}}
  outputs: {default: {customization: !expr String(eval(outputs.calculator.question))}}
- name: Ask
  type: {appBlock: {block: ask, appInstallation: app}}
  config: {tool: !expr signals.calculator.url}
  inputs: {default: {config: {question: !expr 'outputs.numbers.text'}, links: [{block: Numbers, output: default}]}}
- name: Numbers
  type: {coreBlock: transform}
  outputs: {default: {customization: !expr '({text: `${outputs.given.n} * 7`})'}}
  inputs: {default: {links: [{block: Given, output: default}]}}
- name: Given
  type: {coreBlock: manualTrigger}";

#[async_std::test]
async fn a_handler_calls_its_own_installation_and_another_invocation_answers() {
    let house = House::enter().await;
    let app = house.install("selfcall", json!({})).await;
    let flow = app.flow(BLOCKS).await;
    for n in 1..=4 {
        flow.trigger("Given", "default", json!({"n": n})).await;
    }
    let answered = flow.emitted("Ask", "default", 4).await;
    let texts = answered
        .iter()
        .map(|event| event["body"]["text"].as_str().map(str::to_owned));
    let texts: BTreeSet<_> = texts.flatten().collect();
    let wanted = ["1 * 7: 7", "2 * 7: 14", "3 * 7: 21", "4 * 7: 28"];
    assert_eq!(texts, wanted.map(str::to_owned).into());
    for event in &answered {
        let body = &event["body"];
        assert_eq!(body["status"], 200, "{event}");
        assert_eq!(
            body["kept"],
            json!({"question": body["question"]}),
            "{event}"
        );
    }
    // One process served them, several at a time.
    let most = answered
        .iter()
        .filter_map(|event| event["body"]["openMost"].as_u64())
        .max();
    assert!(most >= Some(2), "{answered:#?}");
    assert!(flow.pending().await.is_empty());
    // Nothing is kept of what was answered.
    assert!(flow.kv("Calculator", "").await.is_empty());
    assert_eq!(
        bodies(&flow.emitted("Calculator", "asked", 4).await).len(),
        4
    );
}

#[async_std::test]
async fn outsiders_reach_a_block_below_its_app_and_wait_for_its_flow() {
    let house = House::enter().await;
    let app = house.install("selfcall", json!({})).await;
    let flow = app.flow(BLOCKS).await;
    let tool = format!("{}/blocks/{}", app.url, flow.block_id("Calculator"));
    assert_eq!(
        flow.block("Calculator").await["signals"]["url"],
        tool.as_str()
    );
    let headers = [("content-type", "application/json")];
    let answer = request("POST", &tool, &headers, br#"{"question": "6 * 7"}"#).await;
    assert_eq!(
        (answer.status, &answer.json()["text"]),
        (200, &Value::from("6 * 7: 42"))
    );
    let answer = get(&tool).await;
    assert_eq!(
        (answer.status, answer.json()),
        (405, json!({"error": "POST a question"}))
    );
    // The app itself has no endpoint.
    let answer = get(&app.url).await;
    assert_eq!(answer.status, 502, "{answer:?}");
}
