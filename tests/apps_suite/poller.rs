//! Schedules, syncs that ask to be repeated, and drains that take their time.

use serde_json::{Value, json};

use crate::house::House;

const BLOCKS: &str = "
- name: Feed
  type: {appBlock: {block: feed, appInstallation: app}}
  config: {source: news}
- name: Bucket
  type: {appBlock: {block: resource, appInstallation: app}}";

#[async_std::test]
async fn schedules_trigger_and_a_drain_takes_the_steps_it_needs() {
    let house = House::enter().await;
    let app = house.install("poller", json!({})).await;
    let mut flow = app.unready_flow(BLOCKS).await;
    // What its first sync says, while it is made.
    house
        .until("the bucket is being made", async || {
            let bucket = flow.block("Bucket").await;
            (bucket["signals"]["state"] == "making" && bucket["status"] == "in_progress")
                .then_some(())
        })
        .await;
    flow.block_status("Bucket", "ready").await;
    house
        .until("the bucket was looked at again", async || {
            let bucket = flow.block("Bucket").await;
            let looks = bucket["signals"]["looks"].as_i64()?;
            let before = bucket["signals"]["before"].as_i64()?;
            assert_eq!(before, looks - 1, "{bucket}");
            assert_eq!(bucket["status"], "ready", "a poll is no news: {bucket}");
            (bucket["status_text"] == format!("looked at {looks} times")).then_some(())
        })
        .await;
    let ticked = async |output: &str| {
        let events = flow.of(flow.events().await, "Feed", output);
        (events.len() >= 2).then_some(events)
    };
    let items = house
        .until("the feed has polled", async || ticked("item").await)
        .await;
    let ticks = house
        .until("the feed has ticked", async || ticked("tick").await)
        .await;
    // A second trigger does not wait for the end of the first, so both may count one.
    assert_eq!(items[0]["body"], json!({"item": 1, "source": "news"}));
    assert_eq!(items[1]["body"]["source"], "news");
    assert!(items[0]["parent"].is_null() && ticks[0]["body"].is_null());
    house
        .until("the app has its own schedule", async || {
            let kept = app.kv("beats").await;
            let beats = kept.first()?.1.clone();
            (beats["count"].as_i64() >= Some(2) && beats["url"] == app.url.as_str()).then_some(())
        })
        .await;

    let bucket = flow.block_id("Bucket").to_owned();
    flow.apply(&app, "").await;
    let shown = async || {
        house
            .call("GET", &format!("/api/v1/blocks/{bucket}"), None)
            .await
    };
    let draining = house
        .until("the bucket drains", async || {
            let (_, reply) = shown().await;
            (reply["data"]["status_text"] == "step 1").then_some(reply["data"].clone())
        })
        .await;
    assert_eq!(draining["status"], "draining");
    assert_eq!(draining["signals"].get("state"), None, "{draining}");
    house
        .until("the bucket is gone", async || {
            (shown().await.0 == 404).then_some(())
        })
        .await;
    let drains = app.kv("drains").await;
    assert_eq!(drains, [("drains of Bucket".to_owned(), Value::from(3))]);
    app.delete().await;
    app.is_gone().await;
}
