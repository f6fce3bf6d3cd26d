//! How many jobs a second go through the gateway and its store, with a bridge
//! that answers at once. The floor is far below what a release build does: it
//! is there to notice that group commit no longer works.

use std::time::{Duration, Instant};

use async_std::channel;
use async_std::future::timeout;
use sluice::shutdown::spawn_detached;
use sluice_proto::frame::{FromBridge, FromGateway, Numbered, Taken};

use crate::fixture::{Bridge, Client, Fixture, finished, succeeded};

const CLIENTS: usize = 128;
const JOBS: usize = 4_000;
/// One commit per write would allow a few hundred on most disks.
const RATE_MIN: f64 = 300.0;

#[async_std::test]
async fn many_jobs_share_their_commits() {
    let fixture = Fixture::start().await;
    let bridge = fixture.bridge("a", 512).await;
    let (stop, stopped) = channel::bounded::<()>(1);
    spawn_detached(answer_at_once(bridge, stopped));
    let body = fixture.job("1 + 1").to_string();
    let mut client = fixture.client().await;
    let mut latencies = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        run(&mut client, &fixture.key, &body).await;
        latencies.push(start.elapsed());
    }
    latencies.sort();
    let start = Instant::now();
    let runs = (0..CLIENTS).map(|_| async {
        let mut client = fixture.client().await;
        for _ in 0..JOBS / CLIENTS {
            run(&mut client, &fixture.key, &body).await;
        }
    });
    futures::future::join_all(runs).await;
    let rate = (JOBS / CLIENTS * CLIENTS) as f64 / start.elapsed().as_secs_f64();
    stop.close();
    println!(
        "{rate:.0} jobs/s; one at a time p50 {:?}, p99 {:?}",
        latencies[100], latencies[198]
    );
    assert!(rate > RATE_MIN, "{rate:.0} jobs/s");
}

async fn run(client: &mut Client, key: &str, body: &str) {
    let path = "/api/v1/jobs?wait=30";
    let answer = client.request("POST", path, key, body.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer.body);
    let ended = text.contains(r#""outcome":{"result":{"value":2}}"#);
    assert!(answer.status == 200 && ended, "{text}");
}

async fn answer_at_once(mut bridge: Bridge, stopped: channel::Receiver<()>) {
    let mut number = 0;
    while !stopped.is_closed() {
        let next = timeout(Duration::from_secs(1), bridge.receiver.next()).await;
        let Ok(Ok(Some(FromGateway::Dispatch { jobs }))) = next else {
            continue;
        };
        let taken = jobs.iter().map(|job| Taken {
            job: job.id.clone(),
            dispatch: job.dispatch,
        });
        let taken = taken.collect();
        bridge.send(&FromBridge::Accepted { jobs: taken }).await;
        let items = jobs.iter().map(|job| {
            number += 1;
            let report = finished(&job.id, job.dispatch, 1, succeeded(r#"{"value":2}"#));
            Numbered { number, report }
        });
        let items = items.collect();
        bridge.send(&FromBridge::Reports { items }).await;
    }
}
