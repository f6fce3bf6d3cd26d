//! What must be looked at while invocations run: their deadlines, and the
//! memory of their runtimes where the kernel does not watch it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::future::timeout;

use crate::config::Sandbox;
use crate::process::tree;
use crate::runtime::death::Verdict;
use crate::runtime::harness::Conversation;
use crate::runtime::pool::{Shared, Use};

/// How often it looks. An invocation's end may be this much late, and a
/// runtime may grow for this long past its limit.
const TICK: Duration = Duration::from_millis(50);

/// Every so many ticks the memory of the children of Node and that of idle
/// runtimes is counted too: it costs a dozen small files for each runtime.
const TICKS_WHOLE: u32 = 4;

/// Every so many ticks, a second, those without an invocation are looked at.
const TICKS_IDLE: u32 = 20;

/// How much of a second a runtime may compute without an invocation, in microseconds.
const IDLE_CPU_US_MAX: u64 = 500_000;

/// What the clock holds runtimes to.
pub(super) struct Watch {
    pub(super) memory_bytes_max: u64,
    pub(super) sandbox: Sandbox,
    /// Without an invocation for this long, a runtime is paused.
    pub(super) pause: Duration,
}

/// Looks until the pool has stopped.
pub(super) async fn clock(shared: Arc<Shared>, watch: Watch) {
    let memory_bytes_max = watch.memory_bytes_max;
    let stopped = shared.stop_receiver();
    let mut ticks: u32 = 0;
    let mut busy_before = HashMap::new();
    // The time-out is the tick; the end of the wait is the end of the pool.
    while timeout(TICK, stopped.recv()).await.is_err() {
        ticks = ticks.wrapping_add(1);
        let whole = ticks.is_multiple_of(TICKS_WHOLE);
        let talking = shared.ledger().talking();
        for handle in &talking {
            handle.conversation.tick(Instant::now());
        }
        if ticks.is_multiple_of(TICKS_IDLE) {
            watch_idle(&shared, watch.sandbox, &mut busy_before);
            let mut ledger = shared.ledger();
            for handle in ledger.pause(Instant::now(), watch.pause) {
                handle.conversation.pause();
            }
        }
        let watched = if whole {
            shared.ledger().loaded_ones()
        } else {
            talking
        };
        for handle in watched {
            let conversation = handle.conversation;
            let count = if whole { tree_bytes } else { private_bytes };
            let used = conversation.pid().and_then(count);
            if let Some(bytes) = used.filter(|&bytes| bytes > memory_bytes_max) {
                let verdict = Verdict::OutOfMemory {
                    bytes,
                    bytes_max: memory_bytes_max,
                };
                conversation.condemn(verdict, None);
            }
        }
        // Turns end and idle ones go by time alone.
        shared.change(|_| Vec::new());
    }
}

/// What a runtime uses, where its process can be seen.
pub(super) fn usage(conversation: &Conversation) -> Option<Use> {
    let pid = conversation.pid()?;
    Some(Use {
        container: conversation.container().to_owned(),
        memory_bytes: private_bytes(pid)?,
        cpu_us: spent_us(pid)?,
    })
}

fn spent_us(pid: i32) -> Option<u64> {
    cpu_us(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// CPU time of a process and its threads, from `/proc/PID/stat`. Linux counts
/// it there in hundredths of a second, whatever the kernel's own clock.
fn cpu_us(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, so fields are counted after the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
    Some((ticks(fields.next())? + ticks(fields.next())?) * 10_000)
}

/// Retires runtimes that go on when their invocations are over: what computes or
/// forks then is nobody's, and takes the processor from others. gVisor always
/// has processes of its own below it.
fn watch_idle(shared: &Shared, sandbox: Sandbox, before: &mut HashMap<i32, u64>) {
    let idle = shared.ledger().idle_for(Instant::now(), TICK * TICKS_IDLE);
    let mut now = HashMap::new();
    for handle in idle {
        let conversation = handle.conversation;
        let Some(pid) = conversation.pid() else {
            continue;
        };
        let tree = tree(pid);
        let total: u64 = tree.iter().filter_map(|&pid| spent_us(pid)).sum();
        let spent = total.saturating_sub(*before.get(&pid).unwrap_or(&total));
        now.insert(pid, total);
        let why = if spent > IDLE_CPU_US_MAX {
            "it computes"
        } else if tree.len() > 1 && sandbox == Sandbox::Container {
            "it has processes"
        } else {
            continue;
        };
        tracing::info!(
            container = conversation.container(),
            "A runtime is retired: {why} although no invocation is open"
        );
        conversation.retire();
    }
    *before = now;
}

/// The memory that is a process's own, in bytes: what it wrote itself, and
/// what it shares with its own children, but not the Node binary.
fn private_bytes(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")?) * 1024)
}

/// The same with every process below it.
fn tree_bytes(pid: i32) -> Option<u64> {
    let first = private_bytes(pid)?;
    let below = tree(pid).into_iter().skip(1);
    Some(first + below.filter_map(private_bytes).sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_anything_in_it() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 12 3 0 0 20 0 1 0 5 0";
        assert_eq!(cpu_us(stat), Some(150_000));
        assert_eq!(cpu_us("7 (a"), None);
    }
}
