//! Outputs, signals, drawings and suggestions that depend on the config.

use serde_json::{Value, json};

use crate::flow::{Flow, bodies};
use crate::house::{House, id};

/// With these routes, and a link from the first of them.
fn routed(routes: &[&str]) -> String {
    let links = routes.first().map_or(String::new(), |route| {
        format!("{{block: Router, output: {route}}}")
    });
    format!(
        "
- name: Router
  type: {{appBlock: {{block: router, appInstallation: app}}}}
  config: {{routes: {}}}
  inputs:
    default:
      links: [{{block: Letters, output: default}}]
      config: {{route: !expr outputs.letters.route, body: !expr outputs.letters.text}}
- name: Letters
  type: {{coreBlock: manualTrigger}}
- name: Arrived
  type: {{coreBlock: transform}}
  inputs: {{default: {{links: [{links}]}}}}
- name: Follower
  type: {{appBlock: {{block: follower, appInstallation: app}}}}
  config: {{followed: !expr signals.router.routes, country: !expr 'ref(\"signal.app.country\")'}}",
        json!(routes)
    )
}

#[async_std::test]
async fn outputs_come_and_go_with_the_config_and_others_follow_its_signals() {
    let house = House::enter().await;
    let app = house.install("dynamic", json!({})).await;
    // Outputs exist once the block has synced; links to them come after.
    let mut flow = app.unready_flow(&routed(&[])).await;
    flow.tell("Router", "confirm").await;
    flow.block_status("Router", "ready").await;
    flow.apply(&app, &routed(&["north", "south"])).await;
    let follower = followed(&house, &flow, json!(["north", "south"])).await;
    assert_eq!(follower["signals"]["seen"]["country"], "Poland");
    assert!(
        follower["signals"]["syncs"].as_i64() >= Some(2),
        "{follower}"
    );
    let router = flow.block_status("Router", "ready").await;
    let drawing = &router["widget"]["elements"][0]["children"];
    assert_eq!(drawing[1]["value"], "2 routes");
    assert_eq!(drawing[0]["attributes"]["fill"], "green");

    let letter = json!({"route": "north", "text": "to the sea"});
    flow.trigger("Letters", "default", letter).await;
    flow.trigger("Letters", "default", json!({"text": "without a route"}))
        .await;
    flow.trigger(
        "Letters",
        "default",
        json!({"route": "west", "text": "lost"}),
    )
    .await;
    let events = flow.quiet().await;
    let other = flow.of(events.clone(), "Router", "other");
    assert_eq!(bodies(&other), [json!("without a route")]);
    let arrived = flow.of(events.clone(), "Arrived", "default");
    assert_eq!(bodies(&arrived), [json!("to the sea")]);
    let errors = events
        .iter()
        .flat_map(|event| event["deliveries"].as_array().cloned());
    let errors: Vec<_> = errors
        .flatten()
        .filter_map(|it| it["error"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].contains("no output `west`; there are: `north`"),
        "{errors:?}"
    );

    // An output that is taken away is no longer there; what stays is not lost.
    flow.apply(&app, &routed(&["south"])).await;
    followed(&house, &flow, json!(["south"])).await;
    let lost = json!({"route": "north", "text": "too late"});
    flow.trigger("Letters", "default", lost).await;
    let events = flow.quiet().await;
    let last = events.last().expect("an event")["deliveries"][0]["error"].clone();
    let last = last.as_str().expect("an error");
    assert!(
        last.contains("no output `north`; there are: `other`, `south`"),
        "{last}"
    );
}

/// Waits until the follower has synced with these routes.
async fn followed(house: &House, flow: &Flow, routes: Value) -> Value {
    let look = async || {
        let follower = flow.block("Follower").await;
        let seen = &follower["signals"]["seen"]["followed"];
        (*seen == routes && follower["status"] == "ready").then_some(follower)
    };
    house
        .until(&format!("the follower sees {routes}"), look)
        .await
}

#[async_std::test]
async fn a_change_of_the_apps_signals_reaches_the_config_of_its_blocks() {
    const BLOCKS: &str = "
- name: Follower
  type: {appBlock: {block: follower, appInstallation: app}}
  config: {followed: !expr signals.app.country.length, country: !expr signals.app.country}";
    let house = House::enter().await;
    let app = house.install("dynamic", json!({})).await;
    let flow = app.flow(BLOCKS).await;
    for (country, length) in [("Poland", 6), ("Lithuania", 9)] {
        if length == 9 {
            app.configure(json!({"country": "['Lit', 'huania'].join('')"}))
                .await;
        }
        let wanted = json!({"followed": length, "country": country});
        house
            .until("the follower has synced with it", async || {
                let seen = flow.block("Follower").await["signals"]["seen"].clone();
                (seen == wanted).then_some(())
            })
            .await;
    }
}

#[async_std::test]
async fn an_event_without_a_named_output_goes_where_it_is_meant() {
    const CASES: [(&str, &str); 4] = [
        ("flagged", "flagged"),
        ("named", "default"),
        ("sole", "only"),
        ("secondary", "now"),
    ];
    let house = House::enter().await;
    let app = house.install("dynamic", json!({})).await;
    let block = |(kind, _): (&str, &str)| {
        format!("\n- name: {kind}\n  type: {{appBlock: {{block: {kind}, appInstallation: app}}}}")
    };
    let flow = app.flow(&CASES.map(block).concat()).await;
    for (kind, _) in CASES {
        flow.trigger(kind, "default", json!({})).await;
    }
    let events = flow.quiet().await;
    for (kind, output) in CASES {
        assert_eq!(
            bodies(&flow.of(events.clone(), kind, output)),
            ["here"],
            "{kind}"
        );
    }
}

#[async_std::test]
async fn fields_suggest_values() {
    let house = House::enter().await;
    let app = house.install("dynamic", json!({})).await;
    let flow = app.unready_flow(&routed(&[])).await;
    // The block is a draft still: that is when its fields are filled in.
    let router = flow.block("Router").await;
    let path = format!("/api/v1/blocks/{}/suggestions", id(&router));
    let suggest = async |ask: Value| house.post(&path, &ask).await;
    let found = suggest(json!({"field": "region", "searchPhrase": "maz"})).await;
    let value = json!({"label": "Mazowsze!", "value": "Mazowsze", "description": "Poland"});
    assert_eq!(found, json!({"suggestedValues": [value]}));
    let found = suggest(json!({"field": "region", "searchPhrase": "x"})).await;
    assert_eq!(
        found,
        json!({"suggestedValues": [], "message": "there is none"})
    );
    let ask = json!({"input": "default", "field": "body", "staticInputConfig": {"route": "north"}});
    let found = suggest(ask).await;
    assert_eq!(found["suggestedValues"][0]["value"], "north");
}
