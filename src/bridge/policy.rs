//! What the bridge decides, as functions of what it knows. Pure.

use sluice_proto::frame::AgentStatus;

use crate::bridge::roster::Crew;
use crate::config::{EXIT_REFUSED, EXIT_USAGE};
use crate::shutdown::Stage;

/// Most jobs that may be on their way from the gateway, unanswered: enough to
/// keep the broker busy over a long wire, few enough to be repeated lightly
/// when the session is lost.
const WINDOW_MAX: u32 = 1_024;
/// Most jobs that wait in the agent's queue; what is over it waits in the gateway.
const QUEUED_MAX: u64 = 1_000_000;
/// How often refused credentials are tried again by a bridge that had been
/// connected: a rotation may reach the gateway and the bridge in either order.
const REFUSALS_MAX: u32 = 6;

/// All that the flow of work depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub stage: Stage,
    /// Why there is no working link to the broker, if so.
    pub no_link: Option<String>,
    /// Why the broker takes nothing at present, if so.
    pub blocked: Option<String>,
    /// Why nothing is taken in although all is well, if so: somebody wants it.
    pub paused: Option<String>,
    /// Jobs in the agent's queue.
    pub queued: u64,
    pub disk_free_bytes: u64,
    pub disk_free_bytes_min: u64,
    pub crew: Crew,
}

/// How a session ended, or why there was none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// This side is going, in good order.
    Drained,
    /// The gateway does not accept pool or token, or this version.
    Refused(String),
    /// The settings lead nowhere.
    Unusable(String),
    /// Whatever else; it may pass.
    Lost(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Retry,
    Exit(i32),
}

/// How many jobs may be unanswered, and why none may.
pub fn window(facts: &Facts) -> (u32, Option<String>) {
    let Facts { crew, queued, .. } = facts;
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let none = |reason: String| (0, Some(reason));
    if facts.stage != Stage::Running {
        return none("The agent is draining.".into());
    }
    if let Some(why) = &facts.paused {
        return none(format!("{why}."));
    }
    if let Some(why) = &facts.no_link {
        return none(format!("The agent has no broker: {why}."));
    }
    if let Some(why) = &facts.blocked {
        return none(format!("The agent's broker takes nothing: {why}."));
    }
    if facts.disk_free_bytes < facts.disk_free_bytes_min {
        return none(format!(
            "The agent's disk is nearly full: {} MiB are free, and {} MiB must be.",
            mib(facts.disk_free_bytes),
            mib(facts.disk_free_bytes_min)
        ));
    }
    if crew.taking == 0 {
        return none(match &crew.refusing {
            Some(why) => format!("No worker takes work: {why}"),
            None if crew.alive > 0 => "No worker takes work yet.".into(),
            None => "No worker is alive.".into(),
        });
    }
    match QUEUED_MAX.saturating_sub(*queued) {
        0 => none(format!("The agent's queue is full: {queued} jobs wait.")),
        room => (
            WINDOW_MAX.min(u32::try_from(room).unwrap_or(WINDOW_MAX)),
            None,
        ),
    }
}

/// How the agent is, for the gateway and for people.
pub fn status(facts: &Facts) -> AgentStatus {
    AgentStatus {
        workers: facts.crew.alive,
        in_flight: facts.crew.in_flight,
        queued: facts.queued,
        refusing: window(facts).1.or_else(|| {
            let crew = &facts.crew;
            let why = crew.refusing.as_ref()?;
            let not = crew.alive - crew.taking;
            Some(format!(
                "{not} of {} workers take no work: {why}",
                crew.alive
            ))
        }),
    }
}

/// What to do after a session ended so; `refusals` counts those in a row,
/// this one with them.
pub fn verdict(end: &End, connected_before: bool, refusals: u32) -> Verdict {
    match end {
        End::Drained => Verdict::Exit(0),
        End::Unusable(_) => Verdict::Exit(EXIT_USAGE),
        End::Refused(_) if connected_before && refusals <= REFUSALS_MAX => Verdict::Retry,
        End::Refused(_) => Verdict::Exit(EXIT_REFUSED),
        End::Lost(_) => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            stage: Stage::Running,
            no_link: None,
            blocked: None,
            paused: None,
            queued: 0,
            disk_free_bytes: 10 << 20,
            disk_free_bytes_min: 5 << 20,
            crew: Crew {
                alive: 2,
                taking: 2,
                in_flight: 3,
                refusing: None,
            },
        }
    }

    #[test]
    fn work_flows_when_nothing_speaks_against_it() {
        assert_eq!(window(&facts()), (WINDOW_MAX, None));
        let nearly_full = Facts {
            queued: QUEUED_MAX - 7,
            ..facts()
        };
        assert_eq!(window(&nearly_full), (7, None));
    }

    #[test]
    fn everything_that_stops_the_flow_says_why() {
        let none = Crew::default();
        let complaining = Crew {
            alive: 1,
            refusing: Some("Podman does not answer.".into()),
            ..Crew::default()
        };
        let cases = [
            (
                Facts {
                    stage: Stage::Draining,
                    ..facts()
                },
                "draining",
            ),
            (
                Facts {
                    no_link: Some("gone".into()),
                    ..facts()
                },
                "gone",
            ),
            (
                Facts {
                    blocked: Some("low on disk".into()),
                    ..facts()
                },
                "low on disk",
            ),
            (
                Facts {
                    disk_free_bytes: 4 << 20,
                    ..facts()
                },
                "4 MiB are free, and 5 MiB",
            ),
            (
                Facts {
                    crew: none,
                    ..facts()
                },
                "No worker is alive.",
            ),
            (
                Facts {
                    crew: complaining,
                    ..facts()
                },
                "Podman does not answer.",
            ),
            (
                Facts {
                    queued: QUEUED_MAX + 1,
                    ..facts()
                },
                "full",
            ),
        ];
        for (facts, part) in cases {
            let (jobs, reason) = window(&facts);
            let reason = reason.expect(part);
            assert_eq!(jobs, 0, "{part}");
            assert!(reason.contains(part), "{reason}");
            assert_eq!(status(&facts).refusing, Some(reason));
        }
    }

    #[test]
    fn a_part_of_the_crew_that_takes_no_work_is_told_while_work_flows() {
        let mut facts = facts();
        facts.crew.taking = 1;
        facts.crew.refusing = Some("no image".into());
        assert_eq!(window(&facts), (WINDOW_MAX, None));
        let told = status(&facts).refusing.expect("a sentence");
        assert_eq!(told, "1 of 2 workers take no work: no image");
    }

    #[test]
    fn wrong_credentials_end_a_new_bridge_at_once_and_an_old_one_soon() {
        let refused = End::Refused("no".into());
        assert_eq!(verdict(&refused, false, 1), Verdict::Exit(EXIT_REFUSED));
        assert_eq!(verdict(&refused, true, 1), Verdict::Retry);
        assert_eq!(verdict(&refused, true, REFUSALS_MAX), Verdict::Retry);
        let over = REFUSALS_MAX + 1;
        assert_eq!(verdict(&refused, true, over), Verdict::Exit(EXIT_REFUSED));
        assert_eq!(verdict(&End::Lost("x".into()), false, 9), Verdict::Retry);
        assert_eq!(verdict(&End::Drained, true, 0), Verdict::Exit(0));
        let unusable = End::Unusable("x".into());
        assert_eq!(verdict(&unusable, true, 0), Verdict::Exit(EXIT_USAGE));
    }
}
