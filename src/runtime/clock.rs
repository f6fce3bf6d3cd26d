//! What must be looked at while invocations run: their deadlines, and the
//! memory of their runtimes where the kernel does not watch it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::future::timeout;

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

/// How much of a second a runtime may compute without an invocation, in the
/// kernel's hundredths.
const IDLE_CPU_MAX: u64 = 50;

/// What the clock holds runtimes to.
pub(super) struct Watch {
    pub(super) memory_bytes_max: u64,
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
            watch_idle(&shared, &mut busy_before);
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
        memory_bytes: tree_bytes(pid)?,
        // Linux counts in hundredths of a second there, whatever the kernel's own clock.
        cpu_us: processor_ticks(pid)? * 10_000,
    })
}

/// Retires runtimes that go on when their invocations are over: what computes or
/// forks then is nobody's, and takes the processor from others.
fn watch_idle(shared: &Shared, before: &mut HashMap<i32, u64>) {
    let idle = shared.ledger().idle_for(Instant::now(), TICK * TICKS_IDLE);
    let mut now = HashMap::new();
    for handle in idle {
        let conversation = handle.conversation;
        let Some(pid) = conversation.pid() else {
            continue;
        };
        let ticks = processor_ticks(pid).unwrap_or(0);
        let spent = ticks.saturating_sub(*before.get(&pid).unwrap_or(&ticks));
        now.insert(pid, ticks);
        let why = if spent > IDLE_CPU_MAX {
            "it computes"
        } else if !children(pid).is_empty() {
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

/// The time a process has computed, with all its threads, in hundredths of a second.
fn processor_ticks(pid: i32) -> Option<u64> {
    ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same from the text of `/proc/PID/stat`.
fn ticks(stat: &str) -> Option<u64> {
    // The name before it may hold anything, also spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
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

/// The same with every process below it. Whatever loses its parent inside a
/// container becomes a child of its first process, so this is all of it.
fn tree_bytes(pid: i32) -> Option<u64> {
    let first = private_bytes(pid)?;
    let mut below = children(pid);
    let mut bytes = first;
    let mut at = 0;
    while let Some(&pid) = below.get(at) {
        bytes += private_bytes(pid).unwrap_or(0);
        below.extend(children(pid));
        at += 1;
    }
    Some(bytes)
}

/// The children of all threads of a process; none where the kernel does not tell.
fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<i32>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_name_with_anything_in_it() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 12 3 0 0 20 0 1 0 5 0";
        assert_eq!(ticks(stat), Some(15));
        assert_eq!(ticks("7 (a"), None);
    }
}
