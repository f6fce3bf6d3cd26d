//! What must be looked at while invocations run: their deadlines, and the
//! memory of their runtimes where the kernel does not watch it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::future::timeout;

use crate::runtime::death::Verdict;
use crate::runtime::pool::Shared;

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
