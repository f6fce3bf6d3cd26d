//! Takes the ends of the engine's jobs in, in the order of their commits, many
//! in one transaction.
//!
//! ```text
//!  store: unsettled ends ─┐
//!  line: ends ────────────┴─▶ batch ─▶ step: for each, mark settled + what follows ─▶ commit
//!                                        └ one that cannot be taken in ─▶ alone ─▶ given up, said in the log
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::backoff::{Backoff, jitter};
use crate::gateway::engine::component::{Event, RunResult};
use crate::gateway::engine::run::purpose::Purpose;
use crate::gateway::engine::run::step::{Step, Todo};
use crate::gateway::engine::run::{Engine, Fault};
use crate::store::engine::components;
use crate::store::engine::deliveries::{self, State};
use crate::store::engine::steps::{self, Ended};
use crate::store::jobs;

/// Ends in one transaction: enough to share one commit, few enough that a
/// waiting SDK call is not held up for long.
const BATCH_MAX: usize = 128;
/// How long to wait before the store is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// What a job's end says.
type Said = Result<Value, String>;

/// Settles until the engine is stopped.
pub(super) async fn run(engine: &Arc<Engine>) {
    let ended = &engine.ended;
    match engine.store.unsettled().await {
        Ok(old) => {
            if !old.is_empty() {
                tracing::info!(jobs = old.len(), "The engine goes on where it stopped");
            }
            for batch in old.chunks(BATCH_MAX) {
                settle(engine, batch.to_vec()).await;
            }
        }
        Err(error) => {
            tracing::error!(%error, "The engine cannot read what it has left undone");
        }
    }
    while let Ok(first) = ended.recv().await {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX
            && let Ok(next) = ended.try_recv()
        {
            batch.push(next);
        }
        settle(engine, batch).await;
    }
}

async fn settle(engine: &Arc<Engine>, batch: Vec<Ended>) {
    if let Err(fault) = try_batch(engine, batch.clone(), true).await {
        tracing::warn!(error = %fault, jobs = batch.len(), "A batch of ends is taken in one by one");
        for ended in batch {
            settle_alone(engine, ended).await;
        }
    }
}

/// One whose step fails again and again must not hold up the others.
async fn settle_alone(engine: &Arc<Engine>, ended: Ended) {
    let mut failures = 0;
    loop {
        let Err(fault) = try_batch(engine, vec![ended.clone()], true).await else {
            return;
        };
        if engine.ended.is_closed() {
            return;
        }
        if matches!(&fault, Fault::Store(error) if error.is_transient()) {
            async_std::task::sleep(AGAIN.delay(failures, jitter())).await;
            failures += 1;
            continue;
        }
        tracing::error!(job.id = ended.id, error = %fault, "The end of a job has no effect");
        drop(try_batch(engine, vec![ended], false).await);
        return;
    }
}

async fn try_batch(
    engine: &Arc<Engine>,
    batch: Vec<Ended>,
    with_effect: bool,
) -> Result<(), Fault> {
    engine
        .step(move |step| {
            Box::pin(async move {
                for ended in batch {
                    if steps::settle(step.tx, ended.seq).await? && with_effect {
                        step.settle(&ended).await?;
                        step.finish().await?;
                    }
                }
                Ok(())
            })
        })
        .await
}

// === impl Step ===

impl Step<'_> {
    async fn settle(&mut self, ended: &Ended) -> Result<(), Fault> {
        let Some(purpose) = Purpose::read(&ended.purpose) else {
            tracing::error!(job.id = ended.id, "A job has a purpose that nobody knows");
            return Ok(());
        };
        match purpose {
            Purpose::Describe { digest } => self.described(&digest, said(ended)).await,
            Purpose::Config { component, number } => {
                self.config_evaluated(&component, number, said(ended)).await
            }
            Purpose::Run { component, run, .. } => {
                self.run_ended(&component, run, said(ended)).await
            }
            Purpose::Inputs { delivery } => self.input_evaluated(delivery, said(ended)).await,
            Purpose::Customize { event } => self.customized(&event, said(ended)).await,
            Purpose::Handle { delivery, .. } => self.handled(delivery, ended).await,
            Purpose::Request { delivery } => self.requested(delivery, ended.seq, said(ended)).await,
            Purpose::Http { request, .. } => {
                if let Err(why) = said(ended) {
                    self.request_failed(&request, &why);
                }
                Ok(())
            }
            // Whoever asked for suggestions hears of them from the line.
            Purpose::Suggest { .. } | Purpose::Tell { .. } => Ok(()),
        }
    }

    async fn run_ended(&mut self, component: &str, run: u64, said: Said) -> Result<(), Fault> {
        let Some(mut component) = components::get(self.tx, component).await? else {
            return Ok(());
        };
        let event = match said.and_then(RunResult::read) {
            Ok(result) => Event::RunFinished { run, result },
            Err(reason) => Event::RunFailed { run, reason },
        };
        self.happen(&mut component, event).await?;
        // Another run may be due by now.
        self.later(Todo::Pump {
            component: component.id,
        });
        Ok(())
    }

    async fn handled(&mut self, delivery: i64, ended: &Ended) -> Result<(), Fault> {
        if ended.state == jobs::State::Succeeded {
            return Ok(deliveries::done(self.tx, delivery, self.now_ms).await?);
        }
        let Some(delivery) = deliveries::get(self.tx, delivery).await? else {
            return Ok(());
        };
        // A replay may have given it another job.
        if delivery.state != State::Started || delivery.job != Some(ended.seq) {
            return Ok(());
        }
        let why = said(ended).err().unwrap_or_default();
        self.fail(delivery, &why).await
    }
}

/// The result, or a sentence that says why there is none.
fn said(ended: &Ended) -> Said {
    let mut outcome: Value = serde_json::from_slice(&ended.outcome).unwrap_or_default();
    match ended.state {
        jobs::State::Succeeded => Ok(outcome["result"].take()),
        jobs::State::Cancelled => Err(format!(
            "cancelled: {}",
            outcome["reason"].as_str().unwrap_or_default()
        )),
        _ => {
            let message = outcome["message"].as_str().unwrap_or("it failed");
            match outcome["key"].as_str() {
                Some(key) => Err(format!("`{key}`: {message}")),
                None => Err(message.to_owned()),
            }
        }
    }
}
