//! `sluice queue top` as a person has it: the program in a real terminal (tmux),
//! at a real house. Each key does what it says, and the terminal is given back.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::house::House;
use crate::support::process::{PATIENCE, until};
use crate::support::{env, exe};
use crate::{seen, wait_for};

const SIZES: [(u16, u16); 4] = [(60, 18), (20, 5), (1, 1), (150, 44)];

/// A terminal with a shell in it, which runs one `sluice queue top` after the other.
struct Terminal {
    dir: PathBuf,
}

#[async_std::test]
async fn top_does_what_its_keys_say_and_gives_the_terminal_back() {
    let house = House::start(1).await;
    let (mut jobs, mut containers) = (Vec::new(), Vec::new());
    for name in ["first", "second"] {
        let code = format!("new Promise(() => console.log('{name} says so'))");
        let endless = json!({
            "kind": "evaluate", "timeout_ms": 300_000, "flow": name,
            "expressions": {"value": code}, "scope": {"outputs": {"marked": name}},
        });
        let id = house.submit(&endless).await;
        house.started(&id).await;
        let job = house.get(&format!("/api/v1/jobs/{id}")).await;
        let container = job["container"].as_str().expect("a container");
        containers.push(format!("container: {container}"));
        jobs.push(id);
    }
    let terminal = Terminal::open(&house);
    terminal.start();
    terminal.shows("jobs in flight: 2").await;
    terminal.shows("q quit").await;
    for id in &jobs {
        terminal.shows(id).await;
    }
    terminal.shows("first says so").await;
    keys_look_at_the_chosen_job(&terminal, &containers).await;
    sizes_do_no_harm(&terminal, &containers[0]).await;
    space_pauses_and_resumes(&terminal, &house).await;
    c_cancels_if_pressed_twice(&terminal, &house, &jobs).await;
    each_end_gives_the_terminal_back(&terminal, &house).await;
    house
        .post(&format!("/api/v1/jobs/{}/cancel", jobs[1]), &json!({}))
        .await;
    assert_eq!(house.wait(&jobs[1]).await["state"], "cancelled");
}

async fn keys_look_at_the_chosen_job(terminal: &Terminal, containers: &[String]) {
    // The longest-running is chosen.
    terminal.press("p");
    terminal.shows("\"marked\": \"first\"").await;
    terminal.press("Down");
    terminal.press("p");
    terminal.shows("\"marked\": \"second\"").await;
    terminal.press("t");
    terminal.shows(&containers[1]).await;
    terminal.press("w");
    terminal.shows("running").await;
    terminal.press("k");
    terminal.press("t");
    terminal.shows(&containers[0]).await;
    terminal.press("z");
    terminal.press("Up");
    terminal.press("p");
    terminal.shows("\"marked\": \"first\"").await;
}

async fn sizes_do_no_harm(terminal: &Terminal, container: &str) {
    for (width, height) in SIZES {
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&["resize-window", "-t", "top", "-x", &width, "-y", &height]);
        until("the window has the size", || {
            let format = "#{window_width}x#{window_height}";
            let size = terminal.tmux(&["display-message", "-p", "-t", "top", format]);
            (size.trim() == format!("{width}x{height}")).then_some(())
        })
        .await;
        // It goes on: the answer to a key comes from behind the change of size.
        terminal.press("w");
    }
    // A key that comes along with a change of size may wait for the next one, so
    // this one, which stands behind all of them, is followed by some without meaning.
    terminal.press("t");
    let nudge = || terminal.press("z");
    terminal.shows_after(container, nudge).await;
    terminal.shows("jobs in flight: 2").await;
}

async fn space_pauses_and_resumes(terminal: &Terminal, house: &House) {
    terminal.press("Space");
    terminal.shows("PAUSED").await;
    let pool = format!("/api/v1/pools/{}", house.pool);
    wait_for(house, "the bridge takes nothing", async || {
        let refusing = house.get(&pool).await["agents"][0]["refusing"].clone();
        refusing
            .as_str()
            .is_some_and(|why| why.contains("sluice queue top"))
    })
    .await;
    terminal.press("Space");
    terminal.shows("Work is taken again.").await;
    wait_for(house, "the bridge takes work", async || {
        house.get(&pool).await["agents"][0]["refusing"].is_null()
    })
    .await;
}

async fn c_cancels_if_pressed_twice(terminal: &Terminal, house: &House, jobs: &[String]) {
    terminal.press("c");
    terminal.shows("Press c once more to cancel").await;
    terminal.press("Down");
    terminal.press("Up");
    terminal.press("c");
    terminal.shows("Press c once more to cancel").await;
    assert_eq!(seen(house, &["why", &jobs[0]])["reason"], "running");
    terminal.press("c");
    terminal.shows("is being cancelled.").await;
    let job = house.wait(&jobs[0]).await;
    assert_eq!(
        (&job["state"], &job["outcome"]["reason"]),
        (&json!("cancelled"), &json!("cancelled in sluice queue top")),
        "{job}"
    );
    terminal.shows("jobs in flight: 1").await;
}

async fn each_end_gives_the_terminal_back(terminal: &Terminal, house: &House) {
    for end in ["q", "Escape", "C-c", "TERM", "INT"] {
        if end != "q" {
            terminal.start();
            terminal.shows("jobs in flight: 1").await;
        }
        match end {
            "TERM" => terminal.signal(house, Signal::SIGTERM),
            "INT" => terminal.signal(house, Signal::SIGINT),
            key => terminal.press(key),
        }
        // Said by the shell, on the screen that was there before.
        terminal.shows("ended with 0").await;
        let (alternate, cursor) = ("#{alternate_on}", "#{cursor_flag}");
        let flags = format!("{alternate} {cursor}");
        let flags = terminal.tmux(&["display-message", "-p", "-t", "top", &flags]);
        assert_eq!(
            flags.trim(),
            "0 1",
            "{end}: its own screen is left, the cursor is seen"
        );
        terminal.types("clear; stty -a; echo so''far");
        let screen = terminal.shows("sofar").await;
        for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
            let mut words = screen.split_whitespace();
            assert!(
                words.any(|word| word == mode),
                "{end}: {mode} is off: {screen}"
            );
        }
        terminal.types("clear");
    }
}

// === impl Terminal ===

impl Terminal {
    fn open(house: &House) -> Self {
        let terminal = Self {
            dir: house.path().to_owned(),
        };
        let script = terminal.dir.join("top.sh");
        let line = format!(
            "'{}' queue top --pool '{}'\ncode=$?\necho \"ended with $code\"\n",
            exe().display(),
            house.pool,
        );
        std::fs::write(&script, line).expect("written");
        let output = terminal
            .command()
            .args([
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-s",
                "top",
                "-x",
                "150",
                "-y",
                "44",
            ])
            .args(["env", "PS1=> ", "sh"])
            .env("SLUICE_DATA_DIR", house.path())
            .env("FLOWS_AGENT_POOL_TOKEN", &house.token)
            .env("FLOWS_ENDPOINT", house.http())
            .output();
        checked(output.expect("tmux is installed"));
        terminal
    }

    fn command(&self) -> Command {
        let pass = ["PATH", "HOME", "XDG_RUNTIME_DIR"];
        let mut command = Command::new("tmux");
        command
            .env_clear()
            .envs(pass.iter().filter_map(|name| Some((*name, env(name)?))))
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .args(["-u", "-S"])
            .arg(self.dir.join("tmux"));
        command
    }

    fn tmux(&self, words: &[&str]) -> String {
        checked(self.command().args(words).output().expect("tmux runs"))
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "top", key]);
    }

    fn types(&self, line: &str) {
        self.tmux(&["send-keys", "-t", "top", "-l", line]);
        self.press("Enter");
    }

    fn start(&self) {
        self.types(&format!("clear; . {}", self.dir.join("top.sh").display()));
    }

    /// Waits until the screen has these words; answers with the screen.
    async fn shows(&self, words: &str) -> String {
        self.shows_after(words, || ()).await
    }

    /// The same, with something done before each look.
    async fn shows_after(&self, words: &str, nudge: impl Fn()) -> String {
        let begun = Instant::now();
        loop {
            nudge();
            let screen = self.tmux(&["capture-pane", "-p", "-J", "-t", "top"]);
            if screen.contains(words) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "`{words}` is not on\n{screen}");
            async_std::task::sleep(Duration::from_millis(50)).await;
        }
    }

    fn signal(&self, house: &House, signal: Signal) {
        let shell = self.tmux(&["display-message", "-p", "-t", "top", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let children = std::fs::read_to_string(children).expect("the shell lives");
        let top = children.split_whitespace().find_map(|pid| pid.parse().ok());
        let top = top.unwrap_or_else(|| panic!("top does not run\n{}", house.logs()));
        kill(Pid::from_raw(top), signal).expect("it runs");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

fn checked(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
