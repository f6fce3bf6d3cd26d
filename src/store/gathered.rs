//! Job writes on their way to the disk: many become few statements.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnection;

use crate::store::bulk::{Bound, Statement};
use crate::store::int;
use crate::store::jobs::{Ending, JobWrite, LogLine, Progress, Spec, Tried};

/// The writes of one transaction, one per job and table: a later progress of a
/// job replaces an earlier one before either is written.
#[derive(Default)]
pub(super) struct Gathered {
    created: Vec<(Arc<Spec>, Progress, Arc<Vec<u8>>)>,
    created_at: HashMap<i64, usize>,
    updated: HashMap<i64, Progress>,
    ended: Vec<(i64, Ending)>,
    lines: Vec<LogLine>,
    tried: Vec<Tried>,
    bytes: usize,
}

const INSERT_JOB: Statement = Statement {
    head: "INSERT INTO jobs (seq, id, pool, project, kind, high, identity, block, timeout_ms, \
           expires_ms, created_us, replay_of, state, dispatch, delivery, agent, worker, container, origin, \
           dispatched_us, accepted_us, started_us, finished_us, cancel_reason, cancel_us)",
    columns: 25,
    tail: "",
};
const INSERT_PAYLOAD: Statement = Statement {
    head: "INSERT INTO payloads (seq, payload)",
    columns: 2,
    tail: "",
};
const UPDATE_JOB: Statement = Statement {
    head: "UPDATE jobs SET state = v.column2, dispatch = v.column3, delivery = v.column4, \
           agent = v.column5, worker = v.column6, container = v.column7, origin = v.column8, \
           dispatched_us = v.column9, accepted_us = v.column10, started_us = v.column11, \
           finished_us = v.column12, cancel_reason = v.column13, cancel_us = v.column14 FROM (",
    columns: 14,
    tail: ") AS v WHERE jobs.seq = v.column1",
};
const INSERT_ENDING: Statement = Statement {
    head: "INSERT OR REPLACE INTO endings (seq, outcome, hops, log_bytes_dropped, sdk_calls)",
    columns: 5,
    tail: "",
};
const INSERT_LINE: Statement = Statement {
    head: "INSERT OR IGNORE INTO logs (job, dispatch, delivery, line, at_us, level, text)",
    columns: 7,
    tail: "",
};

const INSERT_TRIED: Statement = Statement {
    head: "INSERT OR REPLACE INTO tried (job, dispatch, delivery, started_us, worker, container, origin)",
    columns: 7,
    tail: "",
};

// === impl Gathered ===

impl Gathered {
    pub(super) fn add(&mut self, write: JobWrite) {
        match write {
            JobWrite::Create {
                spec,
                progress,
                payload,
            } => {
                self.bytes += payload.len();
                self.created_at.insert(spec.seq, self.created.len());
                self.created.push((spec, progress, payload));
            }
            JobWrite::Update { seq, progress } => self.progress(seq, progress),
            JobWrite::End {
                seq,
                progress,
                ending,
            } => {
                self.bytes += ending.outcome.len();
                self.progress(seq, progress);
                self.ended.push((seq, ending));
            }
            JobWrite::Log(lines) => {
                self.bytes += lines.iter().map(|line| line.text.len()).sum::<usize>();
                self.lines.extend(lines);
            }
            JobWrite::Tried(tried) => self.tried.push(tried),
        }
    }

    fn progress(&mut self, seq: i64, progress: Progress) {
        match self.created_at.get(&seq) {
            Some(at) => self.created[*at].1 = progress,
            None => drop(self.updated.insert(seq, progress)),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.created.is_empty()
            && self.updated.is_empty()
            && self.ended.is_empty()
            && self.lines.is_empty()
            && self.tried.is_empty()
    }

    pub(super) async fn write(&self, c: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        INSERT_JOB
            .run(c, &self.created, |q, (spec, progress, _)| {
                bind_progress(bind_spec(q, spec), progress)
            })
            .await?;
        INSERT_PAYLOAD
            .run(c, &self.created, |q, (spec, _, payload)| {
                q.bind(spec.seq).bind(payload.clone())
            })
            .await?;
        let updated: Vec<_> = self.updated.iter().collect();
        UPDATE_JOB
            .run(c, &updated, |q, (seq, progress)| {
                bind_progress(q.bind(**seq), progress)
            })
            .await?;
        INSERT_ENDING
            .run(c, &self.ended, |q, (seq, ending)| {
                q.bind(*seq)
                    .bind(ending.outcome.clone())
                    .bind(ending.hops.clone())
                    .bind(int(ending.log_bytes_dropped))
                    .bind(ending.sdk_calls)
            })
            .await?;
        INSERT_LINE
            .run(c, &self.lines, |q, line| {
                q.bind(line.job)
                    .bind(line.dispatch)
                    .bind(line.delivery)
                    .bind(line.line)
                    .bind(int(line.at_us))
                    .bind(line.level.clone())
                    .bind(line.text.clone())
            })
            .await?;
        INSERT_TRIED
            .run(c, &self.tried, |q, tried| {
                q.bind(tried.job)
                    .bind(tried.dispatch)
                    .bind(tried.delivery)
                    .bind(int(tried.started_us))
                    .bind(tried.worker.clone())
                    .bind(tried.container.clone())
                    .bind(tried.origin)
            })
            .await
    }
}

fn bind_spec<'q>(query: Bound<'q>, spec: &Spec) -> Bound<'q> {
    query
        .bind(spec.seq)
        .bind(spec.id.clone())
        .bind(spec.pool.clone())
        .bind(spec.project.clone())
        .bind(spec.kind.clone())
        .bind(spec.high)
        .bind(spec.identity.clone())
        .bind(spec.block.clone())
        .bind(spec.timeout_ms)
        .bind(spec.expires_ms.map(int))
        .bind(int(spec.created_us))
        .bind(spec.replay_of.clone())
}

fn bind_progress<'q>(query: Bound<'q>, progress: &Progress) -> Bound<'q> {
    query
        .bind(progress.state.as_str())
        .bind(progress.dispatch)
        .bind(progress.delivery)
        .bind(progress.agent.clone())
        .bind(progress.worker.clone())
        .bind(progress.container.clone())
        .bind(progress.origin)
        .bind(progress.dispatched_us.map(int))
        .bind(progress.accepted_us.map(int))
        .bind(progress.started_us.map(int))
        .bind(progress.finished_us.map(int))
        .bind(progress.cancel_reason.clone())
        .bind(progress.cancel_us.map(int))
}
