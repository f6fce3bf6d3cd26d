//! Who gets the next job, and why a job waits: pure policy.
//!
//! Credit is level-triggered: a session may have as many jobs unanswered as
//! its last window says. Of the sessions with room the least loaded per worker
//! takes the job; among equals the one with the most room.

/// What is known of one session when a job is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// How many jobs may be unanswered.
    pub window: u32,
    pub unanswered: u32,
    /// Jobs its agent has accepted and not ended.
    pub held: u64,
    pub workers: u32,
}

/// What is known of a pool when somebody asks why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    pub revoked: bool,
    pub sessions: usize,
    /// Whether any session has room.
    pub room: bool,
    /// Why sessions take nothing, where they said so.
    pub refusals: Vec<String>,
    /// What a bridge said when it could not place this very job.
    pub rejected: Option<String>,
}

/// Why a job waits: a word for machines and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub reason: &'static str,
    pub sentence: String,
}

/// The index of the session that takes the next job, if one has room.
pub fn choose(rooms: &[Room]) -> Option<usize> {
    rooms
        .iter()
        .enumerate()
        .filter(|(_, room)| room.left() > 0)
        .min_by_key(|(_, room)| (room.load(), std::cmp::Reverse(room.left())))
        .map(|(index, _)| index)
}

/// Why a queued job is not with an agent.
pub fn waiting(backlog: &Backlog) -> Waiting {
    let say = |reason, sentence: String| Waiting { reason, sentence };
    if backlog.revoked {
        return say(
            "pool_revoked",
            "every token of the agent pool is revoked: rotate its token and restart its agents with the new one"
                .to_owned(),
        );
    }
    if backlog.sessions == 0 {
        return say(
            "no_agent_connected",
            "no agent of the agent pool is connected".to_owned(),
        );
    }
    if let Some(why) = &backlog.rejected {
        return say(
            "agent_rejected",
            format!("the agent could not place the job and it will be tried again: {why}"),
        );
    }
    if backlog.room {
        return say(
            "next",
            "an agent has room, and the job is about to be handed out".to_owned(),
        );
    }
    match backlog.refusals.first() {
        Some(why) => say(
            "agent_refuses",
            format!("every connected agent takes no work at present: {why}"),
        ),
        None => say(
            "no_credit",
            "every connected agent holds as many unanswered jobs as it allows".to_owned(),
        ),
    }
}

// === impl Room ===

impl Room {
    /// Jobs it may still be handed.
    pub fn left(self) -> u32 {
        self.window.saturating_sub(self.unanswered)
    }

    /// Jobs per worker, in thousandths, so that two workers carry twice as many.
    fn load(self) -> u64 {
        let jobs = self.held.saturating_add(u64::from(self.unanswered));
        jobs.saturating_mul(1_000) / u64::from(self.workers.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        window: 10,
        unanswered: 0,
        held: 0,
        workers: 1,
    };

    #[test]
    fn a_session_never_gets_more_than_its_window() {
        let full = Room {
            unanswered: 10,
            ..ROOM
        };
        let closed = Room { window: 0, ..ROOM };
        let over = Room {
            window: 3,
            unanswered: 10,
            ..ROOM
        };
        assert_eq!(choose(&[full, closed, over]), None);
        assert_eq!(choose(&[full, ROOM, closed]), Some(1));
    }

    #[test]
    fn the_least_loaded_per_worker_goes_first() {
        let busy = Room { held: 6, ..ROOM };
        let busy_but_many = Room {
            held: 8,
            workers: 4,
            ..ROOM
        };
        assert_eq!(choose(&[busy, busy_but_many]), Some(1));
        let wide = Room { window: 20, ..ROOM };
        assert_eq!(choose(&[ROOM, wide]), Some(1));
    }

    #[test]
    fn the_reason_for_waiting_is_the_first_thing_to_mend() {
        let mut backlog = Backlog {
            revoked: true,
            sessions: 0,
            room: false,
            refusals: vec!["the disk is full".to_owned()],
            rejected: None,
        };
        assert_eq!(waiting(&backlog).reason, "pool_revoked");
        backlog.revoked = false;
        assert_eq!(waiting(&backlog).reason, "no_agent_connected");
        backlog.sessions = 1;
        let refused = waiting(&backlog);
        assert_eq!(refused.reason, "agent_refuses");
        assert!(refused.sentence.contains("the disk is full"));
        backlog.refusals.clear();
        assert_eq!(waiting(&backlog).reason, "no_credit");
        backlog.room = true;
        assert_eq!(waiting(&backlog).reason, "next");
    }
}
