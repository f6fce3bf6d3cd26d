//! Following a chain in the gateway until it is quiet.
//!
//! Quiet is a chain whose deliveries have all ended, when no job of the flow's
//! blocks and apps is under way, no event is pending and no timer is due within
//! the time allowed, and a further look finds nothing new.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::admin::{Admin, Failure};
use crate::cli::flow::chain::Chain;
use crate::cli::flow::tell::Teller;
use crate::cli::print;
use crate::telemetry::now_ms;

/// How often is looked: as often as the gateway's own stream looks into its store.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Events in one page; their bodies fit into one reply of the gateway.
const PAGE: usize = 15;

/// How following ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Nothing more comes; with a timer that is due after the time allowed.
    Quiet { later_ms: Option<i64> },
    /// What it still waited for.
    TimedOut(String),
}

/// What there was before the chain began, and is not waited for.
pub struct Before {
    seq: i64,
    pending: BTreeSet<String>,
}

pub struct Follow<'a> {
    pub admin: &'a Admin,
    pub flow: &'a str,
    pub teller: &'a Teller,
}

// === impl Follow ===

impl Follow<'_> {
    pub async fn before(&self) -> Result<Before, Failure> {
        let path = format!("/api/v1/flows/{}/events?limit=1", self.flow);
        let newest = self.admin.get(&path).await?;
        let pending = self.pending().await?;
        Ok(Before {
            seq: newest[0]["seq"].as_i64().unwrap_or(0),
            pending: pending.into_iter().map(|(id, _)| id).collect(),
        })
    }

    /// Tells of each event of the chain that begins with `root`.
    pub async fn to_the_end(
        &self,
        root: &str,
        before: &Before,
        limit: Duration,
    ) -> Result<(Ending, Chain), Failure> {
        let until = Instant::now() + limit;
        let until_ms = i64::try_from(now_ms().saturating_add(limit.as_millis() as u64));
        let until_ms = until_ms.unwrap_or(i64::MAX);
        let mut chain = Chain::new(root, before.seq);
        let mut was_settled = false;
        loop {
            let (mut wait, mut later_ms) = (None, None);
            if was_settled {
                (wait, later_ms) = self.outstanding(before, until_ms).await?;
            }
            let has_changed = self.look(&mut chain).await?;
            let is_settled = chain.events() > 0 && chain.unsettled == 0;
            if was_settled && is_settled && !has_changed && wait.is_none() {
                return Ok((Ending::Quiet { later_ms }, chain));
            }
            if Instant::now() > until {
                let unsettled = chain.unsettled;
                let wait = wait.unwrap_or_else(|| format!("{unsettled} events that are under way"));
                return Ok((Ending::TimedOut(wait), chain));
            }
            was_settled = is_settled;
            async_std::task::sleep(LOOK_EVERY).await;
        }
    }

    /// One look: everything after what is settled. Whether anything has changed.
    async fn look(&self, chain: &mut Chain) -> Result<bool, Failure> {
        let mut after = chain.after();
        let mut has_changed = false;
        chain.look();
        loop {
            let path = format!(
                "/api/v1/flows/{}/events?after={after}&limit={PAGE}",
                self.flow
            );
            let page = self.admin.get(&path).await?;
            let page = page.as_array().map(Vec::as_slice).unwrap_or_default();
            let (news, changed) = chain.take(page);
            news.iter().for_each(|news| self.teller.news(news));
            has_changed |= changed;
            match page.last().and_then(|event| event["seq"].as_i64()) {
                Some(seq) if page.len() == PAGE => after = seq,
                _ => return Ok(has_changed),
            }
        }
    }

    /// What is still to come though all deliveries have ended; and when the
    /// next timer is due that is not waited for.
    async fn outstanding(
        &self,
        before: &Before,
        until_ms: i64,
    ) -> Result<(Option<String>, Option<i64>), Failure> {
        let flow = self
            .admin
            .get(&format!("/api/v1/flows/{}", self.flow))
            .await?;
        let pending = self.pending().await?;
        let new: Vec<_> = pending
            .into_iter()
            .filter(|(id, _)| !before.pending.contains(id))
            .collect();
        let timer_ms = flow["next_timer_ms"].as_i64();
        let wait = if flow["jobs"].as_i64().unwrap_or(0) > 0 {
            Some(format!("{} jobs of its blocks and apps", flow["jobs"]))
        } else if let Some((_, status)) = new.first() {
            let status = status.as_ref().map(|status| format!(": {status}"));
            let status = status.unwrap_or_default();
            Some(format!("{} pending events{status}", new.len()))
        } else {
            let due = timer_ms.filter(|due_ms| *due_ms <= until_ms);
            due.map(|due_ms| {
                format!(
                    "a timer that is due at {}",
                    print::moment(Some(due_ms * 1_000))
                )
            })
        };
        Ok((wait, timer_ms.filter(|due_ms| *due_ms > until_ms)))
    }

    /// Ids of pending events, and what is said about them.
    async fn pending(&self) -> Result<Vec<(String, Option<String>)>, Failure> {
        let path = format!("/api/v1/flows/{}/pending", self.flow);
        let pending = self.admin.get(&path).await?;
        let one = |it: &Value| {
            let status = it["status"].as_str().map(print::harmless);
            (print::text(&it["id"]), status)
        };
        let pending = pending.as_array().into_iter().flatten();
        let open = pending.filter(|it| it["phase"] == "open");
        Ok(open.map(one).collect())
    }
}
