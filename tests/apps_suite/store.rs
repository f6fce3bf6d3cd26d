//! Locks, stores, and messages between an app and its blocks.

use serde_json::{Value, json};

use crate::flow::bodies;
use crate::house::House;

#[async_std::test]
async fn a_mutex_lets_one_event_through_at_a_time_in_order() {
    const BLOCKS: &str = "
- name: Mutex
  type: {appBlock: {block: mutex, appInstallation: app}}
  inputs: {release: {config: {holder: !expr 'outputs.wish.holder'}, links: [{block: Wish, output: default}]}}
- name: Wish
  type: {coreBlock: manualTrigger}";
    let house = House::enter().await;
    // Confirms itself.
    let app = house.draft("store", "store of locks", json!({})).await;
    app.status("ready").await;
    let flow = app.flow(BLOCKS).await;
    let mut came = Vec::new();
    for _ in 0..3 {
        let event = flow.trigger("Mutex", "acquire", json!({})).await;
        flow.delivered(&event).await;
        came.push(event);
    }
    for turn in 0..3 {
        let acquired = flow.emitted("Mutex", "acquired", turn + 1).await;
        let last = &acquired[turn];
        assert_eq!(last["body"]["holder"], came[turn].as_str());
        assert_eq!(last["parent"], came[turn].as_str(), "by its own event");
        let holder = json!({"holder": came[turn]});
        flow.trigger("Wish", "default", holder).await;
        let released = flow.emitted("Mutex", "released", turn + 1).await;
        let wanted = json!({"stolen": false, "bare": false, "held": true, "value": came[turn]});
        assert_eq!(released[turn]["body"], wanted);
    }
    flow.quiet().await;
    let kept = flow.kv("Mutex", "").await;
    assert_eq!(kept, [("holder".to_owned(), Value::from(came[2].as_str()))]);
}

#[async_std::test]
async fn a_store_pages_in_order_forgets_in_time_and_respects_owners() {
    const BLOCKS: &str = "
- name: Notebook
  type: {appBlock: {block: notebook, appInstallation: app}}";
    let house = House::enter().await;
    let app = house.draft("store", "store of notes", json!({})).await;
    app.status("ready").await;
    let flow = app.flow(BLOCKS).await;
    flow.trigger("Notebook", "default", json!({})).await;
    let read = flow.emitted("Notebook", "default", 1).await;
    let wanted = json!({
        "keys": 250, "sorted": true, "pages": 3,
        "many": [{"n": 1}, "nothing", {"n": 0}], "updated": "number",
        "whole": false, "free": true,
        "young": "lived", "youngFor": true,
        "taken": true, "late": true,
        "left": ["note:0000", "owned"],
    });
    assert_eq!(read[0]["body"], wanted);
    let kept = app.kv("").await;
    let wanted = [
        ("note:0000", json!({"n": 0})),
        ("owned", json!("anybody's")),
    ];
    assert_eq!(kept, wanted.map(|(key, value)| (key.to_owned(), value)));
}

#[async_std::test]
async fn messages_go_from_blocks_to_the_app_and_from_the_app_to_blocks() {
    const BLOCKS: &str = "
- name: Anna
  type: {appBlock: {block: member, appInstallation: app}}
  config: {nick: anna}
  inputs: {say: {config: {text: {news: 1, except: ola}}}}
- name: Ewa
  type: {appBlock: {block: member, appInstallation: app}}
  config: {nick: ewa}
- name: Ola
  type: {appBlock: {block: member, appInstallation: app}}
  config: {nick: ola}
  inputs: {say: {config: {text: nobody else hears}}}
- name: Iga
  type: {appBlock: {block: member, appInstallation: app}}
  config: {nick: iga}";
    let house = House::enter().await;
    let app = house.draft("store", "store of members", json!({})).await;
    app.status("ready").await;
    let other = house.draft("store", "store of others", json!({})).await;
    other.status("ready").await;
    let elsewhere = other.flow(BLOCKS).await;
    let flow = app.flow(BLOCKS).await;
    let said = flow.trigger("Anna", "say", json!({})).await;
    let text = json!({"news": 1, "except": "ola"});
    for hearer in ["Ewa", "Iga"] {
        let heard = flow.emitted(hearer, "heard", 1).await;
        assert_eq!(bodies(&heard), [json!({"last": text, "from": "anna"})]);
        assert_eq!(heard[0]["parent"], said.as_str());
        let kept = flow.kv(hearer, "la").await;
        assert_eq!(kept, [("last".to_owned(), text.clone())]);
    }
    house
        .until("the app has noted what was said", async || {
            let kept = app.kv("said:").await;
            let to = json!({"text": text, "to": ["Ewa", "Iga"]});
            (kept == [("said:anna".to_owned(), to)]).then_some(())
        })
        .await;
    let events = flow.quiet().await;
    assert!(flow.of(events, "Ola", "heard").is_empty());
    // Another installation hears nothing.
    assert!(elsewhere.events().await.is_empty());
}
