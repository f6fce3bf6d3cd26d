//! `sluice queue top`: the overview, full-screen and live.
//!
//! ```text
//!  overview every second ─┐
//!                         ├─▶ Screen ──draw──▶ terminal
//!  keys ──▶ Action ───────┘      │
//!                                └─ one request to the local API, its answer in the note below
//! ```
//!
//! [`Screen`] is a value: what is drawn and what a key means follows from it alone.

mod draw;

use std::time::Duration;

use anyhow::Context;
use futures::future::{Either, select};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};

use crate::cli::admin::{Failure, segment};
use crate::cli::queue::access::Access;
use crate::cli::queue::top::draw::{draw, jobs};
use crate::cli::queue::views;
use crate::shutdown::{Shutdown, unblock};
use crate::telemetry;

/// How often everything is looked at.
const REFRESH: Duration = Duration::from_secs(1);
/// How long one look for a key blocks its thread.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// How far an answer moves with one key: less than is seen of it.
const PAGE_LINES: i32 = 5;

/// Everything on the screen.
#[derive(Debug, Default)]
struct Screen {
    overview: Value,
    jobs: Vec<Value>,
    selected: usize,
    note: String,
    /// Lines of the note that are above what is seen of it.
    scrolled: u16,
    /// The job that the next `c` cancels.
    doomed: Option<String>,
}

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Nothing,
    Quit,
    Peek(String),
    Trace(String),
    Why(String),
    Cancel(String),
    Pause,
    Resume,
}

/// Runs until `q`, or a signal to end. Either way the terminal is as it was.
pub async fn run(access: Access) -> Result<i32, Failure> {
    // Before the screen is taken: an error now is an ordinary one.
    let overview = access.get("/v1/queues").await?;
    let ended = Shutdown::new();
    ended.on_signals().map_err(anyhow::Error::from)?;
    let mut terminal =
        ratatui::try_init().context("a terminal is needed: `sluice queue ls` needs none")?;
    telemetry::mute(true);
    let watching = Box::pin(watch(&access, overview, &mut terminal));
    let ran = match select(watching, Box::pin(ended.draining())).await {
        Either::Left((ran, _)) => ran,
        Either::Right(((), _)) => Ok(0),
    };
    ratatui::restore();
    telemetry::mute(false);
    ran
}

async fn watch(
    access: &Access,
    overview: Value,
    terminal: &mut ratatui::DefaultTerminal,
) -> Result<i32, Failure> {
    let mut screen = Screen::default();
    screen.see(overview);
    let refresh = || {
        Box::pin(async {
            async_std::task::sleep(REFRESH).await;
            access.get("/v1/queues").await
        })
    };
    // Both go on while the other is answered, so no key and no look is lost.
    let (mut key, mut look) = (Box::pin(next_key()), refresh());
    loop {
        terminal
            .draw(|frame| draw(frame, &screen))
            .map_err(anyhow::Error::from)?;
        match select(&mut key, &mut look).await {
            Either::Left((pressed, _)) => {
                key = Box::pin(next_key());
                let Some((code, modifiers)) = pressed? else {
                    continue;
                };
                match screen.press(code, modifiers) {
                    Action::Quit => return Ok(0),
                    Action::Nothing => {}
                    action => screen.say(act(access, action).await),
                }
            }
            Either::Right((seen, _)) => {
                look = refresh();
                match seen {
                    Ok(overview) => screen.see(overview),
                    Err(failure) => screen.say(failure.to_string()),
                }
            }
        }
    }
}

/// The next key, or nothing after a moment.
async fn next_key() -> Result<Option<(KeyCode, KeyModifiers)>, Failure> {
    let read = unblock(|| {
        if !event::poll(KEY_WAIT)? {
            return Ok(None);
        }
        Ok(match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => Some((key.code, key.modifiers)),
            _ => None,
        })
    });
    let read: std::io::Result<_> = read.await;
    Ok(read.map_err(anyhow::Error::from)?)
}

async fn act(access: &Access, action: Action) -> String {
    let job_path = |id: &str, what: &str| format!("/v1/jobs/{}{what}", segment(id));
    let asked = match &action {
        Action::Peek(id) => {
            let path = "/v1/peek/in-flight?limit=1000&payload=1";
            access.get(path).await.map(|seen| {
                let jobs = seen["jobs"].as_array().cloned().unwrap_or_default();
                let job = jobs.into_iter().find(|job| job["job"] == id.as_str());
                job.map_or("it is no longer running".to_owned(), |job| {
                    format!("{:#}", job["payload"])
                })
            })
        }
        Action::Trace(id) => access
            .get(&job_path(id, "/trace"))
            .await
            .map(|trace| views::trace(&trace)),
        Action::Why(id) => access
            .get(&job_path(id, "/why"))
            .await
            .map(|why| views::why(&why)),
        Action::Cancel(id) => access
            .post(
                &job_path(id, "/cancel"),
                &json!({"reason": "cancelled in sluice queue top"}),
            )
            .await
            .map(|_| format!("Job {id} is being cancelled.")),
        Action::Pause => access
            .post(
                "/v1/pause",
                &json!({"mode": "paused", "reason": "paused in sluice queue top"}),
            )
            .await
            .map(|_| "The pool is paused here.".to_owned()),
        Action::Resume => access
            .post("/v1/resume", &json!({}))
            .await
            .map(|_| "Work is taken again.".to_owned()),
        Action::Quit | Action::Nothing => Ok(String::new()),
    };
    asked.unwrap_or_else(|failure| failure.to_string())
}

// === impl Screen ===

impl Screen {
    /// Takes a new overview; the chosen job stays chosen if it still runs.
    fn see(&mut self, overview: Value) {
        let chosen = self.chosen();
        self.jobs = jobs(&overview);
        self.overview = overview;
        if let Some(at) = self
            .jobs
            .iter()
            .position(|job| job["job"].as_str() == chosen.as_deref())
        {
            self.selected = at;
        }
        self.selected = self.selected.min(self.jobs.len().saturating_sub(1));
    }

    fn chosen(&self) -> Option<String> {
        let job = self.jobs.get(self.selected)?;
        job["job"].as_str().map(str::to_owned)
    }

    fn say(&mut self, note: String) {
        self.note = note;
        self.scrolled = 0;
    }

    fn scroll(&mut self, lines: i32) {
        let last = self.note.lines().count().saturating_sub(1);
        let to = i64::from(self.scrolled) + i64::from(lines);
        let to = to.clamp(0, i64::try_from(last).unwrap_or(0));
        self.scrolled = u16::try_from(to).unwrap_or(u16::MAX);
    }

    fn press(&mut self, code: KeyCode, modifiers: KeyModifiers) -> Action {
        let doomed = self.doomed.take();
        let chosen = self.chosen();
        if chosen.is_none() && matches!(code, KeyCode::Char('p' | 't' | 'w')) {
            self.say("No job runs here now, so there is none to look at.".to_owned());
        }
        let on_job = |action: fn(String) -> Action| chosen.map_or(Action::Nothing, action);
        match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Action::Quit,
            KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
            KeyCode::Up | KeyCode::Char('k') => {
                self.selected = self.selected.saturating_sub(1);
                Action::Nothing
            }
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected = (self.selected + 1).min(self.jobs.len().saturating_sub(1));
                Action::Nothing
            }
            KeyCode::PageUp => {
                self.scroll(-PAGE_LINES);
                Action::Nothing
            }
            KeyCode::PageDown => {
                self.scroll(PAGE_LINES);
                Action::Nothing
            }
            KeyCode::Char('p') => on_job(Action::Peek),
            KeyCode::Char('t') => on_job(Action::Trace),
            KeyCode::Char('w') => on_job(Action::Why),
            KeyCode::Char('c') => match self.chosen() {
                Some(id) if doomed.as_deref() == Some(&id) => Action::Cancel(id),
                Some(id) => {
                    self.say(format!("Press c once more to cancel {id}."));
                    self.doomed = Some(id);
                    Action::Nothing
                }
                None => Action::Nothing,
            },
            KeyCode::Char(' ') if self.overview["order"].is_null() => Action::Pause,
            KeyCode::Char(' ') => Action::Resume,
            _ => Action::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn overview() -> Value {
        let job = |id: &str, since_us: u64| {
            json!({
                "job": id, "kind": "event", "since_us": since_us, "running": true,
                "runtime": {"container": "sluice-c"}, "last_line": "hello \u{1b}[2J there",
            })
        };
        json!({
            "pool": "p-1", "now_us": 20_000_000, "accepted_per_s": 2.5, "ended_per_s": null, "order": null,
            "queues": [{"role": "jobs", "depth": 1234, "oldest_s": 61, "unacked": 2, "consumers": 1}],
            "workers": [{
                "worker": "host/1/0", "state": "running", "slots": 4, "in_flight": 2, "refusing": null,
                "holds": {
                    "jobs": [job("young", 19_000_000), job("old", 5_000_000)],
                    "runtimes": [["busy", 2], ["stem", 0]],
                    "containers": [{"container": "c", "memory_bytes": 73_400_320, "cpu_us": 1_500_000}],
                },
            }],
            "dead": [{"cause": "poison", "jobs": 3}], "unknown": [],
        })
    }

    fn screen() -> Screen {
        let mut screen = Screen::default();
        screen.see(overview());
        screen
    }

    #[test]
    fn the_screen_shows_queues_workers_and_jobs() {
        let mut terminal = Terminal::new(TestBackend::new(130, 30)).expect("a terminal");
        let screen = screen();
        terminal.draw(|frame| draw(frame, &screen)).expect("drawn");
        let text = terminal.backend().to_string();
        for part in [
            "pool p-1  in 2.5/s  out -  dead 3",
            "jobs         1234       61 s",
            "host/1/0",
            "2/4",
            "2 busy",
            "70 MiB",
            "1.5 s",
            "jobs in flight: 2",
            "old",
            "15.0 s",
            "sluice-c",
            "hello [2J there",
            "q quit",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(
            text.find("old ") < text.find("young "),
            "the longest comes first\n{text}"
        );
    }

    #[test]
    fn a_small_terminal_is_no_panic() {
        let mut terminal = Terminal::new(TestBackend::new(20, 5)).expect("a terminal");
        let screen = screen();
        terminal.draw(|frame| draw(frame, &screen)).expect("drawn");
    }

    #[test]
    fn keys_act_on_the_chosen_job_and_a_cancel_is_asked_twice() {
        let none = KeyModifiers::NONE;
        let mut screen = screen();
        assert_eq!(
            screen.press(KeyCode::Char('p'), none),
            Action::Peek("old".into())
        );
        assert_eq!(
            screen.press(KeyCode::Char('t'), none),
            Action::Trace("old".into())
        );
        screen.press(KeyCode::Down, none);
        assert_eq!(
            screen.press(KeyCode::Char('w'), none),
            Action::Why("young".into())
        );
        assert_eq!(screen.press(KeyCode::Char('c'), none), Action::Nothing);
        assert!(screen.note.contains("once more"));
        assert_eq!(
            screen.press(KeyCode::Char('c'), none),
            Action::Cancel("young".into())
        );
        screen.press(KeyCode::Char('c'), none);
        screen.press(KeyCode::Up, none);
        assert_eq!(
            screen.press(KeyCode::Char('c'), none),
            Action::Nothing,
            "another job"
        );
        assert_eq!(screen.press(KeyCode::Char(' '), none), Action::Pause);
        screen.overview["order"] = json!({"mode": "paused"});
        assert_eq!(screen.press(KeyCode::Char(' '), none), Action::Resume);
        assert_eq!(screen.press(KeyCode::Char('q'), none), Action::Quit);
        assert_eq!(
            screen.press(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Action::Quit
        );
    }

    #[test]
    fn a_long_answer_can_be_read_to_its_end() {
        let mut screen = screen();
        screen.say((0..12).map(|n| format!("line {n}\n")).collect());
        let mut press = |code| {
            assert_eq!(screen.press(code, KeyModifiers::NONE), Action::Nothing);
            screen.scrolled
        };
        assert_eq!(press(KeyCode::PageUp), 0);
        let seen = [5, 10, 11, 11].map(|_| press(KeyCode::PageDown));
        assert_eq!(seen, [5, 10, 11, 11]);
        assert_eq!(press(KeyCode::PageUp), 6);
        let mut terminal = Terminal::new(TestBackend::new(100, 40)).expect("a terminal");
        terminal.draw(|frame| draw(frame, &screen)).expect("drawn");
        let text = terminal.backend().to_string();
        assert!(
            text.contains("line 11") && !text.contains("line 5"),
            "{text}"
        );
        screen.say("another".to_owned());
        assert_eq!(screen.scrolled, 0);
    }

    #[test]
    fn the_chosen_job_stays_chosen_when_others_go() {
        let mut screen = screen();
        screen.press(KeyCode::Down, KeyModifiers::NONE);
        let mut later = overview();
        later["workers"][0]["holds"]["jobs"]
            .as_array_mut()
            .expect("jobs")
            .remove(1);
        screen.see(later);
        assert_eq!(screen.chosen().as_deref(), Some("young"));
        screen.see(json!({}));
        assert_eq!(screen.chosen(), None);
        for key in ['p', 't', 'w'] {
            screen.note.clear();
            let pressed = screen.press(KeyCode::Char(key), KeyModifiers::NONE);
            assert_eq!(pressed, Action::Nothing);
            assert!(screen.note.contains("No job runs"), "{key} is answered");
        }
        assert_eq!(
            screen.press(KeyCode::Char('c'), KeyModifiers::NONE),
            Action::Nothing
        );
    }
}
