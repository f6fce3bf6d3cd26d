//! What must be looked at while invocations run: their deadlines, and the
//! memory of their runtimes where the kernel does not watch it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::future::timeout;

use crate::runtime::death::Verdict;
use crate::runtime::harness::Conversation;
use crate::runtime::pool::{Shared, Use};

/// How often it looks. An invocation's end may be this much late, and a
/// runtime may grow for this long past its limit.
const TICK: Duration = Duration::from_millis(50);

/// Looks until the pool has stopped.
pub(super) async fn clock(shared: Arc<Shared>, memory_bytes_max: u64) {
    let stopped = shared.stop_receiver();
    // The time-out is the tick; the end of the wait is the end of the pool.
    while timeout(TICK, stopped.recv()).await.is_err() {
        let talking = shared.ledger().talking();
        for handle in talking {
            let conversation = handle.conversation;
            conversation.tick(Instant::now());
            let used = conversation.pid().and_then(private_bytes);
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
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(Use {
        container: conversation.container().to_owned(),
        memory_bytes: private_bytes(pid)?,
        cpu_us: cpu_us(&stat)?,
    })
}

/// CPU time of a process and its threads, from `/proc/PID/stat`. Linux counts
/// it there in hundredths of a second, whatever the kernel's own clock.
fn cpu_us(stat: &str) -> Option<u64> {
    // The name in parentheses may hold anything, so fields are counted after the last one.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<u64>().ok();
    Some((ticks(fields.next())? + ticks(fields.next())?) * 10_000)
}

/// The memory that is a process's own, in bytes: resident without what is
/// shared with other runtimes (the Node binary).
fn private_bytes(pid: i32) -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm
        .split(' ')
        .skip(1)
        .map(|field| field.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared) * PAGE_BYTES)
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
