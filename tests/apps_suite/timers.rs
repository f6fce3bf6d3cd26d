//! Timers, announced events, subroutines.

use serde_json::{Value, json};

use crate::flow::{Flow, bodies};
use crate::house::House;

async fn flow(blocks: &str) -> Flow {
    let house = House::enter().await;
    house.install("timers", json!({})).await.flow(blocks).await
}

#[async_std::test]
async fn a_timer_completes_what_was_announced_unless_it_is_cancelled() {
    const BLOCKS: &str = "
- name: Delay
  type: {appBlock: {block: delay, appInstallation: app}}
  inputs:
    start:
      links: [{block: Order, output: default}]
      config: {seconds: !expr outputs.order.seconds, name: !expr outputs.order.name}
    cancel: {config: {name: slow}}
- name: Order
  type: {coreBlock: manualTrigger}";
    let flow = flow(BLOCKS).await;
    let slow = flow.trigger("Order", "default", json!({"name": "slow", "seconds": 3600}));
    slow.await;
    flow.emitted("Delay", "started", 1).await;
    let pending = flow.pending().await;
    assert_eq!(pending.len(), 1, "{pending:#?}");
    assert_eq!(pending[0]["status"], "in 3600 s");
    assert_eq!(pending[0]["output"], "late");
    assert_eq!(pending[0]["body"], json!({"name": "slow", "seconds": 3600}));
    flow.trigger("Order", "default", json!({"name": "fast", "seconds": 0.2}))
        .await;
    let late = flow.emitted("Delay", "late", 1).await;
    assert_eq!(bodies(&late), [json!({"name": "fast", "rang": true})]);
    // It has the parent that it was announced with.
    let orders = flow.emitted("Order", "default", 2).await;
    assert_eq!(late[0]["parent"], orders[1]["id"]);
    let event = flow.trigger("Delay", "cancel", json!({})).await;
    assert_eq!(flow.delivered(&event).await["state"], "done");
    assert!(flow.pending().await.is_empty());
    let cancelled = flow.announced("cancelled").await;
    assert_eq!(cancelled[0]["reason"], "not wanted any more");
    let event = flow.trigger("Delay", "cancel", json!({})).await;
    let failed = flow.delivered(&event).await;
    assert_eq!(failed["error"], "nothing called slow is delayed");
    flow.emitted("Delay", "late", 1).await;
}

#[async_std::test]
async fn a_subroutine_gives_each_caller_its_own_result() {
    const BLOCKS: &str = "
- name: Double
  type: {appBlock: {block: subroutine, appInstallation: app}}
  inputs: {result: {links: [{block: Work, output: then}], config: {value: !expr outputs.double.payload * 2}}}
- name: Work
  type: {coreBlock: condition}
  inputs: {default: {links: [{block: Double, output: called}], config: {condition: !expr outputs.double.payload > 0}}}
- name: Call
  type: {appBlock: {block: call, appInstallation: app}}
  config: {subroutine: !expr 'ref(\"signal.double.id\")'}
  inputs:
    default:
      links: [{block: Numbers, output: default}]
      config: {payload: !expr outputs.numbers.n, patience: !expr outputs.numbers.patience ?? 60}
- name: Numbers
  type: {coreBlock: manualTrigger}
- name: After
  type: {coreBlock: transform}
  inputs: {default: {links: [{block: Call, output: returned}]}}
  outputs: {default: {customization: !expr '[outputs.numbers.n, outputs.call.result]'}}";
    let flow = flow(BLOCKS).await;
    for n in 1..=3 {
        flow.trigger("Numbers", "default", json!({"n": n})).await;
    }
    let after = flow.emitted("After", "default", 3).await;
    let mut results = bodies(&after);
    results.sort_by_key(|pair| pair[0].as_i64());
    assert_eq!(results, [json!([1, 2]), json!([2, 4]), json!([3, 6])]);
    let called = flow.emitted("Double", "called", 3).await;
    let numbers = flow.emitted("Numbers", "default", 3).await;
    let returned = flow.emitted("Call", "returned", 3).await;
    let ids = |events: &[Value]| {
        events
            .iter()
            .map(|event| event["id"].clone())
            .collect::<Vec<_>>()
    };
    for event in &called {
        assert!(event["parent"].is_null(), "a chain of its own: {event}");
        assert!(
            ids(&numbers).contains(&event["secondary_parents"][0]),
            "{event}"
        );
    }
    for event in &returned {
        assert!(ids(&numbers).contains(&event["parent"]), "{event}");
        assert_eq!(
            event["secondary_parents"].as_array().map(Vec::len),
            Some(1),
            "{event}"
        );
    }
    assert!(flow.pending().await.is_empty());

    // A subroutine that returns nothing: the caller is patient for as long as it says.
    flow.trigger("Numbers", "default", json!({"n": 0, "patience": 0.3}))
        .await;
    let late = flow.emitted("Call", "late", 1).await;
    assert_eq!(late[0]["body"], json!({"after": "its patience"}));
    assert!(flow.pending().await.is_empty());
    // Its input is for its own chains alone.
    let event = flow.trigger("Double", "result", json!({})).await;
    let error = flow.delivered(&event).await["error"].clone();
    assert!(error.is_string(), "{error}");
    assert!(flow.kv("Call", "").await.is_empty());
}

#[async_std::test]
async fn a_block_sets_timers_of_its_app() {
    const BLOCKS: &str = "
- name: Alarm
  type: {appBlock: {block: alarm, appInstallation: app}}";
    let flow = flow(BLOCKS).await;
    let event = flow.trigger("Alarm", "default", json!({})).await;
    let rang = flow.emitted("Alarm", "rang", 1).await;
    assert_eq!(
        (&rang[0]["body"], &rang[0]["parent"]),
        (&json!("ring bell"), &json!(event))
    );
}
