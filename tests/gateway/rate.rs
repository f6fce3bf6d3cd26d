//! How many jobs a second go through the gateway and its store, with a bridge
//! that answers at once. The floor is far below what a release build does: it
//! is there to notice that group commit no longer works.

use std::time::{Duration, Instant};

use async_std::future::timeout;
use async_std::task;
use sluice::shutdown::spawn_detached;
use sluice_proto::frame::{FromBridge, FromGateway, Numbered, Taken};

use crate::fixture::{Fixture, finished, succeeded};

const CLIENTS: usize = 128;
const JOBS: usize = 4_000;
/// One commit per write would allow a few hundred on most disks.
const RATE_MIN: f64 = 400.0;

#[async_std::test]
async fn many_jobs_share_their_commits() {
    let fixture = Fixture::start().await;
    let mut bridge = fixture.bridge("a", 512).await;
    let stop = async_std::channel::bounded::<()>(1);
    let stopped = stop.1;
    spawn_detached(async move {
        let mut number = 0;
        while stopped.is_empty() {
            let Ok(Ok(Some(frame))) = timeout(Duration::from_secs(1), bridge.receiver.next()).await
            else {
                continue;
            };
            let FromGateway::Dispatch { jobs } = frame else {
                continue;
            };
            let taken = jobs
                .iter()
                .map(|job| Taken {
                    job: job.id.clone(),
                    dispatch: job.dispatch,
                })
                .collect();
            bridge.send(&FromBridge::Accepted { jobs: taken }).await;
            let items = jobs
                .iter()
                .map(|job| {
                    number += 1;
                    let report = finished(&job.id, job.dispatch, 1, succeeded(r#"{"value":2}"#));
                    Numbered { number, report }
                })
                .collect();
            bridge.send(&FromBridge::Reports { items }).await;
        }
    });
    let body = fixture.job("1 + 1").to_string();
    let mut latencies = Vec::new();
    let mut client = fixture.client().await;
    for _ in 0..200 {
        let start = Instant::now();
        let answer = client
            .request(
                "POST",
                "/api/v1/jobs?wait=30",
                &fixture.key,
                body.as_bytes(),
            )
            .await;
        assert_eq!(answer.status, 200);
        latencies.push(start.elapsed());
    }
    latencies.sort();
    let start = Instant::now();
    let runs = (0..CLIENTS).map(|_| async {
        let mut client = fixture.client().await;
        for _ in 0..JOBS / CLIENTS {
            let answer = client
                .request(
                    "POST",
                    "/api/v1/jobs?wait=30",
                    &fixture.key,
                    body.as_bytes(),
                )
                .await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                answer.status == 200 && text.contains(r#""outcome":{"result":{"value":2}}"#),
                "{text}"
            );
        }
    });
    futures::future::join_all(runs).await;
    let rate = (JOBS / CLIENTS * CLIENTS) as f64 / start.elapsed().as_secs_f64();
    println!(
        "{rate:.0} jobs/s; one at a time p50 {:?}, p99 {:?}",
        latencies[100], latencies[198]
    );
    stop.0.close();
    task::yield_now().await;
    assert!(rate > RATE_MIN, "{rate:.0} jobs/s");
}
