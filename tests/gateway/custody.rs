//! A job is handed out, put back, fenced, ended: each hand-off by itself.

use serde_json::json;
use sluice_proto::frame::{FromBridge, FromGateway};
use sluice_proto::report::{Body, Cause, Failure, Level, LogLine, Origin, Outcome, RuntimeUse};

use crate::fixture::{Fixture, finished, report, succeeded, until};

#[async_std::test]
async fn a_job_goes_out_and_its_result_comes_back() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let id = fixture.submit("6 * 7").await;
    let job = bridge.job().await;
    assert_eq!((job.id.as_str(), job.dispatch), (id.as_str(), 1));
    let payload: serde_json::Value = serde_json::from_slice(&job.payload).expect("JSON");
    assert_eq!(
        payload,
        json!({"expressions": {"value": "6 * 7"}, "scope": {}})
    );
    bridge.accept(&job).await;
    let runtime = RuntimeUse {
        container: "c".to_owned(),
        origin: Origin::Cold,
    };
    bridge
        .report(report(&job.id, 1, 1, Body::Started { runtime }))
        .await;
    let started = fixture.look(&id).await;
    assert_eq!(started["state"], "started", "{started}");
    assert_eq!(started["worker"], "testhost/1/1");
    let line = LogLine {
        seq: 0,
        at_us: 9,
        level: Level::Info,
        text: "hello".to_owned(),
    };
    let log = report(&job.id, 1, 1, Body::Log { lines: vec![line] });
    bridge.report(log.clone()).await;
    bridge.report(log).await;
    bridge
        .report(finished(&job.id, 1, 1, succeeded(r#"{"value":42}"#)))
        .await;
    let ended = fixture.wait(&id).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!(ended["outcome"], json!({"result": {"value": 42}}));
    assert_eq!(
        (&ended["attempt"], &ended["container"], &ended["origin"]),
        (&json!("1.1"), &json!("sluice-test"), &json!("warm"))
    );
    let log = fixture.get(&format!("/api/v1/jobs/{id}/log")).await;
    assert_eq!(
        log.as_array().map(Vec::len),
        Some(1),
        "a line that came twice is one line: {log}"
    );
    let trace = fixture.get(&format!("/api/v1/jobs/{id}/trace")).await;
    let times: Vec<_> = trace["hops"]
        .as_array()
        .expect("hops")
        .iter()
        .map(|hop| hop["at_us"].as_u64())
        .collect();
    assert!(times.len() >= 8 && times.is_sorted(), "{trace}");
}

#[async_std::test]
async fn a_session_cut_before_acceptance_hands_the_job_out_again_and_fences_the_first() {
    let fixture = Fixture::start().await;
    let mut first = fixture.bridge("a", 8).await;
    let id = fixture.submit("1").await;
    assert_eq!(first.job().await.dispatch, 1);
    drop(first);
    let mut second = fixture.bridge("b", 8).await;
    let job = second.job().await;
    assert_eq!((job.id.as_str(), job.dispatch), (id.as_str(), 2));
    second.accept(&job).await;
    // The first dispatch had reached a worker after all; what it says is received, and changes nothing.
    second
        .report(finished(&job.id, 1, 1, succeeded("\"old\"")))
        .await;
    let state = fixture.look(&id).await["state"].clone();
    assert!(state == "accepted" || state == "dispatched", "{state}");
    let pool = fixture
        .get(&format!("/api/v1/pools/{}", fixture.pool))
        .await;
    assert_eq!(pool["reports_refused"]["older_attempt"], 1, "{pool}");
    second
        .report(finished(&job.id, 2, 1, succeeded("\"new\"")))
        .await;
    let ended = fixture.wait(&id).await;
    assert_eq!(ended["outcome"]["result"], "new");
    // Repeats of the end and of older attempts leave the queue too.
    second
        .report(finished(&job.id, 2, 1, succeeded("\"new\"")))
        .await;
    second
        .report(finished(&job.id, 1, 2, succeeded("\"old\"")))
        .await;
    assert_eq!(fixture.look(&id).await["outcome"]["result"], "new");
}

#[async_std::test]
async fn a_later_delivery_fences_an_earlier_one() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let id = fixture.submit("1").await;
    let job = bridge.job().await;
    bridge.accept(&job).await;
    let runtime = || RuntimeUse {
        container: "c".to_owned(),
        origin: Origin::Cold,
    };
    bridge
        .report(report(&job.id, 1, 2, Body::Started { runtime: runtime() }))
        .await;
    bridge
        .report(report(&job.id, 1, 1, Body::Started { runtime: runtime() }))
        .await;
    bridge
        .report(finished(
            &job.id,
            1,
            1,
            Outcome::Failed(Failure::new(Cause::Crashed, "x")),
        ))
        .await;
    assert_eq!(fixture.look(&id).await["attempt"], "1.2");
    bridge.report(finished(&job.id, 1, 2, succeeded("1"))).await;
    assert_eq!(fixture.wait(&id).await["state"], "succeeded");
}

#[async_std::test]
async fn what_a_bridge_cannot_place_is_handed_out_again() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let id = fixture.submit("1").await;
    let job = bridge.job().await;
    bridge
        .send(&FromBridge::Rejected {
            job: job.id.clone(),
            dispatch: 1,
            reason: "the queue is full".to_owned(),
        })
        .await;
    until("the job waits again", async || {
        let waiting = fixture.look(&id).await["waiting"].clone();
        waiting["sentence"]
            .as_str()?
            .contains("the queue is full")
            .then_some(())
    })
    .await;
    let again = bridge.job().await;
    assert_eq!((again.id.as_str(), again.dispatch), (id.as_str(), 2));
}

#[async_std::test]
async fn a_restart_rebuilds_everything() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 2).await;
    let accepted = fixture.submit("1").await;
    let job = bridge.job().await;
    bridge.accept(&job).await;
    let dispatched = fixture.submit("2").await;
    assert_eq!(bridge.job().await.id.as_str(), dispatched);
    until("the acceptance is heard", async || {
        (fixture.look(&accepted).await["state"] == "accepted").then_some(())
    })
    .await;
    let fixture = fixture.restart().await;
    assert_eq!(fixture.look(&accepted).await["state"], "accepted");
    assert_eq!(fixture.look(&dispatched).await["state"], "queued");
    let mut bridge = fixture.bridge("a", 2).await;
    let again = bridge.job().await;
    assert_eq!(
        (again.id.as_str(), again.dispatch),
        (dispatched.as_str(), 2)
    );
    bridge.report(finished(&job.id, 1, 1, succeeded("1"))).await;
    assert_eq!(fixture.wait(&accepted).await["state"], "succeeded");
    bridge.finish(&again, 1, "2").await;
    assert_eq!(fixture.wait(&dispatched).await["outcome"]["result"], 2);
}

#[async_std::test]
async fn cancelling_is_at_once_or_asked_for_and_may_be_repeated() {
    let fixture = Fixture::start().await;
    let queued = fixture.submit("1").await;
    let path = |id: &str| format!("/api/v1/jobs/{id}/cancel");
    let body = json!({"reason": "enough"});
    let job = fixture.post(&path(&queued), &body).await;
    assert_eq!(
        (&job["state"], &job["outcome"]["reason"]),
        (&json!("cancelled"), &json!("enough"))
    );
    assert_eq!(
        fixture.post(&path(&queued), &body).await["state"],
        "cancelled"
    );

    let mut bridge = fixture.bridge("a", 8).await;
    let running = fixture.submit("2").await;
    let job = bridge.job().await;
    bridge.accept(&job).await;
    let marked = fixture.post(&path(&running), &body).await;
    assert_eq!(marked["cancelling"]["reason"], "enough", "{marked}");
    let asked = |frame: &FromGateway| matches!(frame, FromGateway::Cancel { jobs, reason } if jobs == std::slice::from_ref(&job.id) && reason == "enough");
    assert!(asked(&bridge.next().await));
    drop(bridge);
    let mut bridge = fixture.bridge("a", 8).await;
    assert!(
        asked(&bridge.next().await),
        "a session that comes back is asked again"
    );
    let reason = "enough".to_owned();
    bridge
        .report(finished(&job.id, 1, 1, Outcome::Cancelled { reason }))
        .await;
    let ended = fixture.wait(&running).await;
    assert_eq!(
        (&ended["state"], &ended["outcome"]["reason"]),
        (&json!("cancelled"), &json!("enough"))
    );
}

#[async_std::test]
async fn a_cancelled_job_that_no_session_had_accepted_ends_with_its_session() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let id = fixture.submit("1").await;
    bridge.job().await;
    fixture
        .post(&format!("/api/v1/jobs/{id}/cancel"), &json!({}))
        .await;
    drop(bridge);
    assert_eq!(fixture.wait(&id).await["state"], "cancelled");
}

#[async_std::test]
async fn a_job_that_is_not_worth_starting_any_more_says_so() {
    let fixture = Fixture::start().await;
    let mut body = fixture.job("1");
    body["expires_ms"] = json!(fixture.get_now_ms().await + 300);
    let job = fixture.post("/api/v1/jobs?wait=20", &body).await;
    assert_eq!(
        (&job["state"], &job["outcome"]["cause"]),
        (&json!("failed"), &json!("expired"))
    );
}

#[async_std::test]
async fn a_forged_result_or_a_foreign_pool_changes_nothing_for_others() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 8).await;
    let id = fixture.submit("1").await;
    let job = bridge.job().await;
    bridge.finish(&job, 1, "{\"broken").await;
    assert_eq!(
        fixture.wait(&id).await["outcome"]["cause"],
        "result_not_json"
    );

    let other = fixture
        .post("/api/v1/pools", &json!({"name": "other"}))
        .await;
    let (pool, token) = (
        other["id"].as_str().expect("an id"),
        other["token"].as_str().expect("a token"),
    );
    let mut stranger = crate::fixture::Bridge::dial_pool(&fixture, pool, token)
        .await
        .expect("a session");
    stranger
        .hello(pool, "stranger", sluice_proto::PROTOCOL)
        .await;
    stranger.next().await;
    let id = fixture.submit("2").await;
    let job = bridge.job().await;
    bridge.accept(&job).await;
    stranger
        .report(finished(&job.id, 1, 1, succeeded("\"forged\"")))
        .await;
    assert_ne!(fixture.look(&id).await["state"], "succeeded");
    bridge.report(finished(&job.id, 1, 1, succeeded("2"))).await;
    assert_eq!(fixture.wait(&id).await["outcome"]["result"], 2);
}

#[async_std::test]
async fn high_priority_goes_first() {
    let fixture = Fixture::start().await;
    let normal = fixture.submit("1").await;
    let mut body = fixture.job("2");
    body["priority"] = json!("high");
    let high = fixture.post("/api/v1/jobs", &body).await["id"].clone();
    let mut bridge = fixture.bridge("a", 1).await;
    let first = bridge.job().await;
    assert_eq!(first.id.as_str(), high);
    bridge.accept(&first).await;
    assert_eq!(bridge.job().await.id.as_str(), normal);
}

impl Fixture {
    async fn get_now_ms(&self) -> u64 {
        let (_, health) = self.call("GET", "/health", None).await;
        health["data"]["now_ms"].as_u64().expect("a time")
    }
}
