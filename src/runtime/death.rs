//! Why a runtime died, and which of its invocations is to blame. Pure.
//!
//! A verdict of our own (we killed it) comes before anything the corpse says,
//! because the kill is what the exit code shows. Without one, memory comes
//! before a plain crash: V8 says so in words before it aborts, the kernel
//! through the container's state.

use sluice_proto::report::{Cause, Failure};

/// How much of the end of a runtime's standard error is looked at, in bytes:
/// V8's report of its heap with a stack trace is about 4 KiB.
pub(super) const LOG_TAIL_BYTES_MAX: usize = 16 * 1024;

/// What is found of a runtime that ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// As the engine has it: above 128 is a signal.
    pub code: Option<i64>,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// The end of its standard error.
    pub log_tail: String,
}

/// Why we ended a runtime ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its private memory was over the limit.
    OutOfMemory { bytes: u64, bytes_max: u64 },
    /// No echo in time.
    EventLoopBlocked,
    /// It sent what no harness sends.
    Violation(String),
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::OutOfMemory { bytes, bytes_max } => Failure::new(
                Cause::OutOfMemory,
                format!(
                    "the runtime used {} MiB of memory, its limit is {} MiB",
                    bytes >> 20,
                    bytes_max >> 20
                ),
            ),
            Self::EventLoopBlocked => Failure::new(
                Cause::EventLoopBlocked,
                "the time allowed passed while JavaScript never yielded",
            ),
            Self::Violation(what) => Failure::new(
                Cause::Crashed,
                format!("the runtime was ended because it broke its protocol: {what}"),
            ),
        }
    }
}

/// What the invocation that brought a runtime down is told.
pub(super) fn classify(exit: &Exit, memory_bytes: u64) -> Failure {
    let limit = memory_bytes >> 20;
    if exit.oom_killed {
        return Failure::new(
            Cause::OutOfMemory,
            format!("the kernel killed the runtime: it was over its memory limit of {limit} MiB"),
        );
    }
    let tail = &exit.log_tail;
    let words = [
        "heap out of memory",
        "FATAL ERROR: Reached heap limit",
        "process out of memory",
    ];
    if words.iter().any(|words| tail.contains(words)) {
        return Failure::new(
            Cause::OutOfMemory,
            format!("the JavaScript heap is full: the runtime's memory limit is {limit} MiB"),
        );
    }
    Failure::new(
        Cause::Crashed,
        format!("the runtime's process {}", ending(exit.code)),
    )
}

/// Whether somebody else ended it: no code inside is to blame, and the same
/// job may end well in another runtime. Code that kills its own process looks
/// the same, and is tried again as often as any other.
pub(super) fn is_from_outside(exit: &Exit) -> bool {
    const KILLED: i64 = 128 + 9;
    const TERMINATED: i64 = 128 + 15;
    !exit.oom_killed && matches!(exit.code, Some(KILLED | TERMINATED))
}

/// What the others are told.
pub(super) fn collateral(why: &Failure) -> Failure {
    Failure::new(
        Cause::Collateral,
        format!(
            "the runtime went down, perhaps by another invocation: {}",
            why.message
        ),
    )
}

fn ending(code: Option<i64>) -> String {
    match code {
        None => "hung up, and its end was not seen".into(),
        Some(code @ 129..=192) => {
            let number = code - 128;
            let name = i32::try_from(number)
                .ok()
                .and_then(|number| nix::sys::signal::Signal::try_from(number).ok())
                .map_or_else(|| format!("signal {number}"), |signal| signal.to_string());
            format!("ended by {name}")
        }
        Some(code) => format!("ended with exit code {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i64, tail: &str) -> Exit {
        Exit {
            code: Some(code),
            oom_killed: false,
            log_tail: tail.into(),
        }
    }

    #[test]
    fn a_full_heap_is_told_by_its_words_whatever_the_exit_code() {
        let tail =
            "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory";
        for code in [133, 134, 139] {
            assert_eq!(
                classify(&exit(code, tail), 1 << 28).cause,
                Cause::OutOfMemory
            );
        }
    }

    #[test]
    fn the_kernels_kill_is_out_of_memory_and_a_bare_kill_is_a_crash() {
        let mut killed = exit(137, "");
        assert_eq!(classify(&killed, 1 << 28).cause, Cause::Crashed);
        killed.oom_killed = true;
        let failure = classify(&killed, 1 << 28);
        assert_eq!(failure.cause, Cause::OutOfMemory);
        assert!(failure.message.contains("256 MiB"), "{}", failure.message);
    }

    #[test]
    fn a_signal_that_only_others_send_comes_from_outside() {
        assert!(is_from_outside(&exit(137, "")) && is_from_outside(&exit(143, "")));
        for code in [0, 1, 134, 139] {
            assert!(!is_from_outside(&exit(code, "")), "{code}");
        }
        let mut killed = exit(137, "");
        killed.oom_killed = true;
        assert!(!is_from_outside(&killed));
    }

    #[test]
    fn a_crash_names_its_exit_code_or_signal() {
        let text = |code| classify(&exit(code, ""), 0).message;
        assert!(text(3).ends_with("with exit code 3"), "{}", text(3));
        assert!(text(139).ends_with("by SIGSEGV"), "{}", text(139));
    }
}
