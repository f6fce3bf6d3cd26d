//! What becomes of a job after one try: pure.

use sluice_proto::queue::DELIVERIES_MAX;
use sluice_proto::report::{Cause, Failure, Outcome};

use crate::worker::job_runner::{Again, End};

/// How a delivery is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Report the outcome, then ack.
    Report(Outcome),
    /// Report the failure, then put the job away to be looked at.
    ReportAndBury(Failure),
    /// It goes round once more, after a moment.
    Retry(Failure),
    /// It was not its turn: back to the queue as it was.
    Requeue,
    /// It goes on elsewhere: what came of it here counts for nothing.
    Forget,
}

/// Judges the end of a try. `cancelled` is the reason of whoever wants the job
/// to end, `delivery` counts from 1.
pub fn after(end: End, cancelled: Option<String>, delivery: u32) -> Verdict {
    match (end, cancelled) {
        // What was done is done, whatever somebody wished meanwhile.
        (End::Succeeded(result), _) => Verdict::Report(Outcome::Succeeded { result }),
        (End::Superseded, _) => Verdict::Forget,
        (End::Aborted, Some(reason)) => Verdict::Report(Outcome::Cancelled { reason }),
        // Ended for the sake of this process alone.
        (End::Aborted, None) => Verdict::Requeue,
        (
            End::Failed {
                failure,
                again: Again::No,
            },
            _,
        ) => Verdict::Report(Outcome::Failed(failure)),
        // Nobody wants another try of it.
        (End::Failed { .. }, Some(reason)) => Verdict::Report(Outcome::Cancelled { reason }),
        (
            End::Failed {
                failure,
                again: Again::Maybe,
            },
            None,
        ) if delivery < DELIVERIES_MAX => Verdict::Retry(failure),
        (
            End::Failed {
                failure,
                again: Again::Maybe,
            },
            None,
        ) => Verdict::ReportAndBury(failure),
    }
}

/// Judges a delivery before anything is run: a job that came too often without
/// an end takes its workers down with it.
pub fn before(delivery: u32) -> Option<Verdict> {
    (delivery > DELIVERIES_MAX).then(|| {
        Verdict::ReportAndBury(Failure::new(
            Cause::Poison,
            format!(
                "The job was delivered {DELIVERIES_MAX} times and never came to an end: it may bring down whoever runs it."
            ),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(cause: Cause, again: Again) -> End {
        let failure = Failure::new(cause, "x");
        End::Failed { failure, again }
    }

    #[test]
    fn a_failure_of_the_job_itself_is_reported_at_once() {
        let verdict = after(failed(Cause::Threw, Again::No), None, 1);
        assert_eq!(
            verdict,
            Verdict::Report(Outcome::Failed(Failure::new(Cause::Threw, "x")))
        );
    }

    #[test]
    fn a_failure_that_may_pass_is_tried_again_a_bounded_number_of_times() {
        let failure = Failure::new(Cause::Collateral, "x");
        for delivery in 1..DELIVERIES_MAX {
            let verdict = after(failed(Cause::Collateral, Again::Maybe), None, delivery);
            assert_eq!(verdict, Verdict::Retry(failure.clone()));
        }
        let verdict = after(
            failed(Cause::Collateral, Again::Maybe),
            None,
            DELIVERIES_MAX,
        );
        assert_eq!(verdict, Verdict::ReportAndBury(failure));
    }

    #[test]
    fn a_cancelled_job_is_not_tried_again_but_a_result_stands() {
        let cancelled = Verdict::Report(Outcome::Cancelled {
            reason: "stop".into(),
        });
        let reason = Some("stop".to_owned());
        assert_eq!(after(End::Aborted, reason.clone(), 1), cancelled);
        let failed = failed(Cause::RuntimeUnavailable, Again::Maybe);
        assert_eq!(after(failed, reason.clone(), 1), cancelled);
        let result = b"1".to_vec();
        assert_eq!(
            after(End::Succeeded(result.clone()), reason, 1),
            Verdict::Report(Outcome::Succeeded { result })
        );
    }

    #[test]
    fn a_job_that_was_ended_for_our_sake_goes_back_whatever_its_count() {
        assert_eq!(after(End::Aborted, None, 1), Verdict::Requeue);
        assert_eq!(after(End::Aborted, None, DELIVERIES_MAX), Verdict::Requeue);
    }

    #[test]
    fn what_counts_elsewhere_is_not_reported_here() {
        assert_eq!(after(End::Superseded, None, 1), Verdict::Forget);
        let reason = Some("stop".to_owned());
        assert_eq!(after(End::Superseded, reason, 1), Verdict::Forget);
    }

    #[test]
    fn poison_is_known_by_its_count() {
        assert_eq!(before(DELIVERIES_MAX), None);
        let Some(Verdict::ReportAndBury(failure)) = before(DELIVERIES_MAX + 1) else {
            panic!("one over the limit is poison");
        };
        assert_eq!(failure.cause, Cause::Poison);
    }
}
