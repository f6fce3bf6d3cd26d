//! A very long queue, made at once: each job into the gateway's store, as
//! accepted, and into the broker, confirmed, in this order per thousand.

use std::sync::Arc;

use anyhow::Context;
use futures::channel::oneshot;
use futures::{StreamExt, stream};
use sluice_proto::ids::{PoolId, ProjectId};
use sluice_proto::job::Job;
use sluice_proto::queue::Names;

use crate::cli::bench::pump::no_op_of;
use crate::cli::bench::say;
use crate::cli::rig::Rig;
use crate::queue::Link;
use crate::store::Store;
use crate::store::jobs::{JobWrite, Progress, Spec, State};
use crate::telemetry::now_us;

/// Publishes on their way: what keeps the broker busy.
const PUBLISHING_MAX: usize = 512;
/// Jobs in one transaction of the store.
const CHUNK: u64 = 1_000;
/// How often it is said how far it is, in jobs.
const SAY_EVERY: u64 = 100_000;

/// What is to wait.
pub(super) struct Backlog {
    pub project: String,
    pub pool: String,
    pub jobs: u64,
}

/// Makes the backlog of a rig whose gateway is down and whose workers are
/// paused; answers with the id of its oldest job.
pub(super) async fn fill(rig: &Rig, backlog: &Backlog) -> anyhow::Result<String> {
    let (store, writer) = Store::open(&rig.store_file())
        .await
        .context("open the gateway's store")?;
    let filling = async {
        let filled = into_both(rig, &store, backlog).await;
        // The writer ends once all is committed.
        store.close();
        filled
    };
    let (filled, ()) = futures::join!(filling, writer.run());
    filled
}

async fn into_both(rig: &Rig, store: &Store, backlog: &Backlog) -> anyhow::Result<String> {
    let names = Names::of(&PoolId::from(backlog.pool.as_str()));
    let link = Link::connect(&rig.amqp_url()?, "sluice bench", &names).await?;
    let agent: Arc<str> = rig.agent_id()?.into();
    let first = store.next_seq().await?;
    let mut oldest = None;
    let mut made = 0;
    while made < backlog.jobs {
        let count = CHUNK.min(backlog.jobs - made);
        let jobs: Vec<Job> = (0..count)
            .map(|_| {
                let mut job = no_op_of(&backlog.pool, "bench");
                job.project = ProjectId::from(backlog.project.as_str());
                job
            })
            .collect();
        let numbered = jobs.iter().zip(first + made.cast_signed()..);
        let writes = numbered
            .map(|(job, seq)| accepted(job, seq, &agent))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let (told, committed) = oneshot::channel();
        store.apply(writes, move || {
            // Whoever waited is gone only if the whole has failed.
            let _ = told.send(());
        });
        committed.await.context("the store did not commit")?;
        oldest.get_or_insert_with(|| jobs[0].id.to_string());
        let mut publishing = stream::iter(&jobs)
            .map(|job| link.publish_job(job, now_us()))
            .buffer_unordered(PUBLISHING_MAX);
        while let Some(confirmed) = publishing.next().await {
            confirmed?;
        }
        made += count;
        if made % SAY_EVERY == 0 {
            say(&format!("  {made} wait"));
        }
    }
    link.close().await;
    oldest.context("there is no job")
}

/// A job as the gateway's store has it once an agent's broker has confirmed it.
fn accepted(job: &Job, seq: i64, agent: &Arc<str>) -> anyhow::Result<JobWrite> {
    let now = now_us();
    let spec = Spec {
        seq,
        id: job.id.to_string(),
        pool: job.pool.to_string(),
        project: job.project.to_string(),
        kind: job.kind.as_str().to_owned(),
        high: false,
        identity: serde_json::to_string(&job.identity)?,
        block: None,
        timeout_ms: job.timeout_ms,
        expires_ms: None,
        created_us: job.created_us,
        purpose: None,
        replay_of: None,
    };
    let progress = Progress {
        state: State::Accepted,
        dispatch: job.dispatch,
        agent: Some(Arc::clone(agent)),
        dispatched_us: Some(now),
        accepted_us: Some(now),
        ..Progress::queued()
    };
    Ok(JobWrite::Create {
        spec: Arc::new(spec),
        progress,
        payload: Arc::new(job.payload.clone()),
    })
}
