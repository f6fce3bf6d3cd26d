//! Who gets a session, and who no longer.

use serde_json::json;
use sluice::wire::Error;
use sluice_proto::PROTOCOL;
use sluice_proto::frame::FromGateway;

use crate::fixture::{Bridge, Fixture, until};

fn refusal(result: Result<Bridge, Error>) -> (u16, String) {
    match result {
        Err(Error::Refused { status, reason }) => (status, reason),
        Err(other) => panic!("{other} instead of a refusal"),
        Ok(_) => panic!("a session instead of a refusal"),
    }
}

#[async_std::test]
async fn a_wrong_token_and_an_unknown_pool_are_refused_for_their_own_reasons() {
    let fixture = Fixture::start().await;
    let (status, reason) = refusal(Bridge::dial(&fixture, &"0".repeat(64)).await);
    assert!(
        status == 401 && reason.contains("FLOWS_AGENT_POOL_TOKEN"),
        "{status} {reason}"
    );
    let (status, reason) = refusal(Bridge::dial_pool(&fixture, "nowhere", &fixture.token).await);
    assert!(
        status == 401 && reason.contains("FLOWS_AGENT_POOL_ID"),
        "{status} {reason}"
    );
    let other = fixture
        .post("/api/v1/pools", &json!({"name": "other"}))
        .await;
    let token = other["token"].as_str().expect("a token");
    let (status, _) = refusal(Bridge::dial(&fixture, token).await);
    assert_eq!(status, 401, "another pool's token opens nothing here");
}

#[async_std::test]
async fn a_rotated_token_works_for_its_overlap_and_the_new_one_at_once() {
    let fixture = Fixture::start().await;
    let path = format!("/api/v1/pools/{}/rotate", fixture.pool);
    let rotated = fixture.post(&path, &json!({"overlap_s": 60})).await;
    let second = rotated["token"].as_str().expect("a token").to_owned();
    Bridge::dial(&fixture, &fixture.token)
        .await
        .expect("the overlap");
    Bridge::dial(&fixture, &second).await.expect("the new one");
    fixture.post(&path, &json!({"overlap_s": 0})).await;
    for token in [&fixture.token, &second] {
        let (status, reason) = refusal(Bridge::dial(&fixture, token).await);
        assert!(
            status == 403 && reason.contains("rotated out"),
            "{status} {reason}"
        );
    }
}

#[async_std::test]
async fn revoking_closes_sessions_and_says_why_jobs_wait() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 1).await;
    fixture.connected(1).await;
    fixture
        .post(
            &format!("/api/v1/pools/{}/revoke", fixture.pool),
            &json!({}),
        )
        .await;
    let mut reason = String::new();
    while let Some(frame) = bridge.maybe().await {
        if let FromGateway::Goodbye { reason: said } = frame {
            reason = said;
        }
    }
    assert!(reason.contains("revoked"), "{reason}");
    let (status, reason) = refusal(Bridge::dial(&fixture, &fixture.token).await);
    assert!(
        status == 403 && reason.contains("revoked"),
        "{status} {reason}"
    );
    fixture.connected(0).await;
    let id = fixture.submit("1").await;
    assert_eq!(fixture.look(&id).await["waiting"]["reason"], "pool_revoked");
    let rotated = fixture
        .post(
            &format!("/api/v1/pools/{}/rotate", fixture.pool),
            &json!({}),
        )
        .await;
    let token = rotated["token"].as_str().expect("a token");
    Bridge::dial(&fixture, token)
        .await
        .expect("a new token opens the pool again");
    assert_eq!(
        fixture.look(&id).await["waiting"]["reason"],
        "no_agent_connected"
    );
}

#[async_std::test]
async fn a_peer_of_another_version_or_without_manners_is_told_so() {
    let fixture = Fixture::start().await;
    let mut bridge = Bridge::dial(&fixture, &fixture.token)
        .await
        .expect("a session");
    bridge.hello(&fixture.pool, "a", PROTOCOL + 1).await;
    match bridge.next().await {
        FromGateway::Refused { reason, retry } => {
            assert!(reason.contains("newer") && !retry, "{reason}");
        }
        other => panic!("{other:?} instead of a refusal"),
    }
    let mut bridge = Bridge::dial(&fixture, &fixture.token)
        .await
        .expect("a session");
    bridge.window(1, None).await;
    match bridge.next().await {
        FromGateway::Refused { reason, .. } => assert!(reason.contains("Hello"), "{reason}"),
        other => panic!("{other:?} instead of a refusal"),
    }
    fixture.connected(0).await;
}

#[async_std::test]
async fn a_pool_shows_its_agents_and_a_newer_session_replaces_an_older_one() {
    let fixture = Fixture::start().await;
    let mut old = fixture.bridge("same", 3).await;
    fixture.connected(1).await;
    let _new = fixture.bridge("same", 4).await;
    while old.maybe().await.is_some() {}
    let agents = until("the newer one alone", async || {
        let pool = fixture
            .get(&format!("/api/v1/pools/{}", fixture.pool))
            .await;
        let agents = pool["agents"].clone();
        (pool["connected_agents"] == 1 && agents[0]["window"] == 4).then_some(agents)
    })
    .await;
    assert_eq!(agents[0]["host"], "testhost");
    assert_eq!(agents[0]["workers"], 2);
    assert_eq!(agents[0]["agent"], "same");
    assert!(agents[0]["since_ms"].as_u64() > Some(1));
}

#[async_std::test]
async fn why_a_job_waits_is_said_at_every_step() {
    let fixture = Fixture::start().await;
    let id = fixture.submit("1").await;
    let reason = async || fixture.look(&id).await["waiting"].clone();
    assert_eq!(reason().await["reason"], "no_agent_connected");
    let mut bridge = fixture.bridge("a", 0).await;
    bridge.window(0, Some("the disk is full")).await;
    let waiting = until("the agent's refusal is heard", async || {
        let waiting = reason().await;
        waiting["sentence"]
            .as_str()?
            .contains("the disk is full")
            .then_some(waiting)
    })
    .await;
    assert_eq!(waiting["reason"], "agent_refuses");
    bridge.window(1, None).await;
    let first = bridge.job().await;
    assert_eq!(first.id.as_str(), id);
    let second = fixture.submit("2").await;
    assert_eq!(
        fixture.look(&second).await["waiting"]["reason"],
        "no_credit"
    );
    bridge.accept(&first).await;
    assert_eq!(
        bridge.job().await.id.as_str(),
        second,
        "an answer gives the credit back"
    );
}

#[async_std::test]
async fn draining_says_goodbye_and_ends_with_success() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 1).await;
    fixture.connected(1).await;
    assert_eq!(fixture.stop().await, 0);
    let mut frames = Vec::new();
    while let Some(frame) = bridge.maybe().await {
        frames.push(frame);
    }
    assert!(
        matches!(frames.last(), Some(FromGateway::Goodbye { .. })),
        "{frames:?}"
    );
    assert!(!fixture.path().join("gateway/listen.json").exists());
}
