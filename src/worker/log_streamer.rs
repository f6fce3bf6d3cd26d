//! What an invocation logs, cut into reports.
//!
//! Pure: it takes lines and the time and says what is to be sent. A line that
//! does not fit (the job's own limit, or that of all jobs of this worker while
//! the broker is slow) is counted and leaves a gap in the numbering; the
//! invocation never waits for its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sluice_proto::report::{
    LOG_JOB_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_REPORT_BYTES_MAX, Level, LogLine,
};

use crate::redaction::Redactor;

/// How long a line may wait for company: a person who watches a log sees it as
/// immediate, and a chatty job costs five messages a second.
pub const LOG_WAIT_MAX: Duration = Duration::from_millis(200);

/// Log that all jobs of one worker may hold unsent, in bytes: sixteen jobs that
/// write all they may before the broker takes any of it.
pub const LOG_HELD_BYTES_MAX: usize = 16 * LOG_JOB_BYTES_MAX;

/// What a line costs beside its text, in bytes, in memory and on the wire.
const LINE_OVERHEAD_BYTES: usize = 64;

/// Stands at the end of a line that was cut.
const CUT_MARK: &str = " … (cut)";

/// The log that all jobs of a worker hold unsent. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<AtomicUsize>);

/// The log of one job.
#[derive(Debug)]
pub struct LogStreamer {
    budget: Budget,
    /// Lines not yet handed out, oldest first.
    lines: Vec<LogLine>,
    lines_bytes: usize,
    /// When the oldest of `lines` came.
    since: Option<Instant>,
    /// Text taken in so far, which is what the job's limit counts.
    taken_bytes: usize,
    dropped_bytes: u64,
    seq: u32,
    redactor: Arc<Redactor>,
}

// === impl LogStreamer ===

impl LogStreamer {
    /// `redactor` takes the job's secrets out of each line before anything else is done with it.
    pub fn new(budget: Budget, redactor: Arc<Redactor>) -> Self {
        Self {
            budget,
            lines: Vec::new(),
            lines_bytes: 0,
            since: None,
            taken_bytes: 0,
            dropped_bytes: 0,
            seq: 0,
            redactor,
        }
    }

    /// Takes one line in, or counts it.
    pub fn push(&mut self, now: Instant, at_us: u64, level: Level, mut text: String) {
        let seq = self.seq;
        self.seq = self.seq.saturating_add(1);
        text = self.redactor.redact(text);
        let whole = text.len();
        if whole > LOG_LINE_BYTES_MAX {
            text.truncate(text.floor_char_boundary(LOG_LINE_BYTES_MAX - CUT_MARK.len()));
            self.dropped_bytes += (whole - text.len()) as u64;
            text.push_str(CUT_MARK);
        }
        let cost = text.len() + LINE_OVERHEAD_BYTES;
        if self.taken_bytes + text.len() > LOG_JOB_BYTES_MAX || !self.budget.take(cost) {
            self.dropped_bytes += text.len() as u64;
            return;
        }
        self.taken_bytes += text.len();
        self.lines_bytes += cost;
        self.since.get_or_insert(now);
        self.lines.push(LogLine {
            seq,
            at_us,
            level,
            text,
        });
    }

    /// When the next report is due: at once if there is enough for a full one.
    pub fn due_at(&self) -> Option<Instant> {
        let since = self.since?;
        Some(if self.is_full() {
            since
        } else {
            since + LOG_WAIT_MAX
        })
    }

    /// Whether there is more than fits into one report.
    pub fn is_full(&self) -> bool {
        self.lines_bytes >= LOG_REPORT_BYTES_MAX
    }

    /// The oldest lines, as many as one report may carry.
    pub fn take(&mut self) -> Vec<LogLine> {
        let mut bytes = 0;
        let count = self
            .lines
            .iter()
            .take_while(|line| {
                bytes += line.text.len() + LINE_OVERHEAD_BYTES;
                bytes <= LOG_REPORT_BYTES_MAX
            })
            .count();
        let rest = self.lines.split_off(count);
        let taken = std::mem::replace(&mut self.lines, rest);
        let bytes: usize = taken
            .iter()
            .map(|line| line.text.len() + LINE_OVERHEAD_BYTES)
            .sum();
        self.lines_bytes -= bytes;
        self.budget.give_back(bytes);
        if self.lines.is_empty() {
            self.since = None;
        }
        taken
    }

    /// Bytes of log that are not kept, by us.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes
    }
}

impl Drop for LogStreamer {
    fn drop(&mut self) {
        self.budget.give_back(self.lines_bytes);
    }
}

// === impl Budget ===

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        // Relaxed: the number guards memory use, nothing is published through it.
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                let more = held + bytes;
                (more <= LOG_HELD_BYTES_MAX).then_some(more)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamer(budget: Budget) -> LogStreamer {
        LogStreamer::new(budget, Arc::default())
    }

    #[test]
    fn secrets_go_before_a_line_is_cut_so_no_piece_is_left_at_the_cut() {
        let redactor = Arc::new(Redactor::of(br#"{"redact":["s3cr3t-value"]}"#));
        let mut streamer = LogStreamer::new(Budget::default(), redactor);
        let filler = "x".repeat(LOG_LINE_BYTES_MAX - CUT_MARK.len() - 6);
        push(
            &mut streamer,
            Instant::now(),
            &format!("{filler}s3cr3t-value"),
        );
        let lines = streamer.take();
        assert!(!lines[0].text.contains("s3cr3t"), "{}", lines[0].text);
    }

    fn push(streamer: &mut LogStreamer, now: Instant, text: &str) {
        streamer.push(now, 0, Level::Info, text.to_owned());
    }

    #[test]
    fn a_line_waits_for_company_and_a_full_report_does_not() {
        let now = Instant::now();
        let mut streamer = streamer(Budget::default());
        assert_eq!(streamer.due_at(), None);
        push(&mut streamer, now, "one");
        push(&mut streamer, now + Duration::from_millis(150), "two");
        assert_eq!(streamer.due_at(), Some(now + LOG_WAIT_MAX));
        while !streamer.is_full() {
            push(&mut streamer, now, &"x".repeat(LOG_LINE_BYTES_MAX));
        }
        assert_eq!(streamer.due_at(), Some(now));
    }

    #[test]
    fn reports_keep_the_order_and_their_limit() {
        let now = Instant::now();
        let mut streamer = streamer(Budget::default());
        for n in 0..40 {
            push(&mut streamer, now, &format!("{n} {}", "x".repeat(4_000)));
        }
        let mut seqs = Vec::new();
        loop {
            let lines = streamer.take();
            if lines.is_empty() {
                break;
            }
            let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
            assert!(bytes <= LOG_REPORT_BYTES_MAX);
            seqs.extend(lines.iter().map(|line| line.seq));
        }
        assert_eq!(seqs, (0..40).collect::<Vec<_>>());
        assert_eq!(streamer.due_at(), None);
        assert_eq!(streamer.dropped_bytes(), 0);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_marked() {
        let mut streamer = streamer(Budget::default());
        let text = "é".repeat(LOG_LINE_BYTES_MAX);
        push(&mut streamer, Instant::now(), &text);
        let lines = streamer.take();
        let kept = lines[0].text.strip_suffix(CUT_MARK).expect("the mark");
        assert!(lines[0].text.len() <= LOG_LINE_BYTES_MAX);
        assert!(text.starts_with(kept));
        assert_eq!(streamer.dropped_bytes(), (text.len() - kept.len()) as u64);
    }

    #[test]
    fn what_is_over_the_jobs_limit_is_counted_and_leaves_a_gap() {
        let now = Instant::now();
        let mut streamer = streamer(Budget::default());
        let line = "x".repeat(LOG_LINE_BYTES_MAX);
        let fitting = LOG_JOB_BYTES_MAX / LOG_LINE_BYTES_MAX;
        for _ in 0..fitting + 3 {
            push(&mut streamer, now, &line);
            streamer.take();
        }
        assert_eq!(streamer.dropped_bytes(), 3 * line.len() as u64);
        assert_eq!(streamer.seq as usize, fitting + 3);
    }

    #[test]
    fn jobs_share_what_a_worker_may_hold_and_give_it_back() {
        let now = Instant::now();
        let budget = Budget::default();
        let line = "x".repeat(LOG_LINE_BYTES_MAX);
        let mut jobs: Vec<_> = (0..20).map(|_| streamer(budget.clone())).collect();
        for streamer in &mut jobs {
            for _ in 0..LOG_JOB_BYTES_MAX / LOG_LINE_BYTES_MAX {
                push(streamer, now, &line);
            }
        }
        assert!(budget.0.load(Ordering::Relaxed) <= LOG_HELD_BYTES_MAX);
        let last = jobs.last().expect("twenty jobs");
        assert_eq!(last.dropped_bytes(), LOG_JOB_BYTES_MAX as u64);
        drop(jobs);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
