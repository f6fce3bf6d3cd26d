//! Which processors a runtime may use, where no cgroup bounds its time.
//!
//! A runtime is bound to as many processors as it may use, the next one to the
//! next ones. A thread keeps the binding of the one that made it, and the filter
//! of system calls leaves runtimes no way to change it: so what is bound before
//! user code is there stays bound, with every thread and child that comes later.

use std::collections::HashSet;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::process::{threads, tree};
use crate::runtime::Error;

/// How often a process is looked through for threads that are new. Each that is
/// found bound makes bound ones; only more than this would be nothing that boots.
const LOOKS_MAX: usize = 100;

/// The processors of this worker, dealt out in turns.
pub(super) struct Processors {
    all: Vec<usize>,
    each: usize,
    next: usize,
}

// === impl Processors ===

impl Processors {
    /// `each` for a runtime; the workers of a host begin at different ones.
    pub(super) fn new(each: u32, worker: u32) -> Self {
        let each = each as usize;
        Self {
            all: own(),
            each,
            next: worker as usize * each,
        }
    }

    /// Those of the next runtime; none if it may use all there are.
    pub(super) fn next(&mut self) -> Option<Vec<usize>> {
        if self.each >= self.all.len() {
            return None;
        }
        let dealt = (0..self.each).map(|at| self.all[(self.next + at) % self.all.len()]);
        let dealt = dealt.collect();
        self.next = (self.next + self.each) % self.all.len();
        Some(dealt)
    }
}

/// Those that this process may use; none if the kernel does not say.
fn own() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|&processor| set.is_set(processor).unwrap_or(false))
        .collect()
}

/// Binds every thread of a process and of those below it. The worker's user
/// owns the user namespace they are in, or one above it, and so may.
pub(super) fn bind(pid: i32, processors: &[usize]) -> Result<(), Error> {
    let unbound =
        |what: String| Error::NotSealed(format!("it could not be bound to its processors: {what}"));
    let mut set = CpuSet::new();
    for &processor in processors {
        set.set(processor)
            .map_err(|error| unbound(error.to_string()))?;
    }
    let mut bound = HashSet::new();
    for _ in 0..LOOKS_MAX {
        let threads = tree(pid).into_iter().flat_map(threads);
        let fresh: Vec<i32> = threads.filter(|id| !bound.contains(id)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for id in fresh {
            match sched_setaffinity(Pid::from_raw(id), &set) {
                // One that is gone meanwhile made none that is not listed next time.
                Ok(()) | Err(Errno::ESRCH) => bound.insert(id),
                Err(error) => return Err(unbound(error.desc().to_owned())),
            };
        }
    }
    Err(unbound("it makes threads faster than that".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_dealt_out_in_turns_unless_a_runtime_may_use_all() {
        let mut three = Processors {
            all: vec![0, 2, 5],
            each: 2,
            next: 0,
        };
        let dealt: Vec<_> = (0..3).filter_map(|_| three.next()).collect();
        assert_eq!(dealt, [vec![0, 2], vec![5, 0], vec![2, 5]]);
        let mut one = Processors {
            all: vec![0],
            each: 1,
            next: 7,
        };
        assert_eq!(one.next(), None);
    }

    #[test]
    fn a_process_is_bound_with_its_threads() {
        let Some(&first) = own().first() else {
            panic!("this process runs on some processor");
        };
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("it starts");
        let pid = i32::try_from(child.id()).expect("an id");
        let outcome = bind(pid, &[first]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        child.kill().and_then(|()| child.wait()).expect("it ends");
        outcome.expect("it is ours");
        let wanted = format!("Cpus_allowed_list:\t{first}\n");
        assert!(status.expect("it lives").contains(&wanted));
    }
}
