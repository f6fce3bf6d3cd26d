//! Processes of this host, as `/proc` shows them: who one is, who is below it,
//! and where a program is that would become one.
//!
//! Owns nothing, and starts and signals nobody. A number alone says little, as
//! it is used again: whoever keeps one keeps a [`Process`].

use std::path::{Path, PathBuf};

/// One process, told apart from a later one with its number.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Process {
    pub pid: i32,
    /// In clock ticks since boot, as `/proc/PID/stat` has it.
    pub started: u64,
    pub boot: String,
}

/// Fields of `/proc/PID/stat` behind the name, from 0.
const STATE: usize = 0;
const THREADS: usize = 17;
const STARTED: usize = 19;

// === impl Process ===

impl Process {
    /// The process with this number now, if there is one that is not dead. One
    /// that waits to be buried is, unless other threads of it still run.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::from_stat(pid, &stat, &boot().unwrap_or_default())
    }

    fn from_stat(pid: i32, stat: &str, boot: &str) -> Option<Self> {
        // The name in parentheses may hold anything, so fields are counted after the last one.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let dead = matches!(*fields.get(STATE)?, "Z" | "X")
            && fields
                .get(THREADS)
                .is_none_or(|threads| matches!(*threads, "0" | "1"));
        let started = fields.get(STARTED)?.parse().ok()?;
        (!dead).then(|| Self {
            pid,
            started,
            boot: boot.to_owned(),
        })
    }

    /// What [`std::fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        })
    }

    /// The process that is written down in a file, if it still runs.
    pub fn recorded(file: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(file).ok()?).filter(Self::is_alive)
    }

    /// Whether the very same process still runs; another with its number does not count.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.pid, self.started, self.boot)
    }
}

/// The kernel's name for this boot.
pub fn boot() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

/// A process and every one below it. Whatever loses its parent inside a
/// container becomes a child of its first process, so this is all of it.
pub fn tree(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        all.extend(children(pid));
        at += 1;
    }
    all
}

/// The children of all threads of a process; none where the kernel does not tell.
fn children(pid: i32) -> Vec<i32> {
    let threads = threads(pid).into_iter();
    let texts = threads.filter_map(|thread| {
        std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok()
    });
    texts
        .flat_map(|text| {
            let pids = text.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<i32>>()
        })
        .collect()
}

/// The threads of a process; none if it is gone.
pub fn threads(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let threads = threads.flatten();
    threads
        .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
        .collect()
}

/// A program on a search path, or in one of the directories `beside` it.
pub fn find_program(name: &str, path: &str, beside: &[&str]) -> Option<PathBuf> {
    path.split(':')
        .chain(beside.iter().copied())
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_apart_from_another_with_its_number() {
        let pid = std::process::id().cast_signed();
        let me = Process::of(pid).expect("this test runs");
        assert!(me.is_alive());
        assert_eq!(Process::parse(&me.to_string()), Some(me.clone()));
        let other = Process {
            started: me.started + 1,
            ..me.clone()
        };
        assert!(!other.is_alive(), "the number was used again");
        let before = Process {
            boot: "earlier".into(),
            ..me
        };
        assert!(!before.is_alive(), "it was before a reboot");
        assert_eq!(Process::parse("no number"), None);
    }

    #[test]
    fn a_zombie_and_a_name_with_parentheses_are_understood() {
        let stat = |state: &str, threads: u32| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 4242 1000 10 0")
        };
        let alive = Process::from_stat(7, &stat("S", 1), "b").expect("alive");
        assert_eq!(alive.started, 4242);
        assert_eq!(Process::from_stat(7, &stat("Z", 1), "b"), None);
        assert!(
            Process::from_stat(7, &stat("Z", 2), "b").is_some(),
            "another thread of it runs"
        );
    }
}
