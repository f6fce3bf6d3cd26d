//! Several agents on one pool, each with a broker of its own: both get work,
//! either may die with what it holds, and one drains while the other works on.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::house::House;
use crate::support::process::{Process, until};
use crate::support::{env, exe};
use crate::{in_flow, lent, seen, state, submit_to};

/// Enough that both have some in every state.
const JOBS: usize = 24;

/// Two agents of one pool; the first is the house's own.
struct Pair {
    house: House,
    pool: String,
    dirs: [PathBuf; 2],
    second: Process,
}

#[async_std::test]
async fn two_agents_share_a_pool_and_either_may_die_or_drain() {
    let mut pair = Pair::start().await;
    pair.both_are_shown();
    pair.a_killed_one_finishes_what_it_held_when_it_is_back()
        .await;
    pair.one_drains_and_the_other_works_on().await;
    let id = std::fs::read_to_string(pair.dirs[1].join("agent/id")).expect("an id");
    let label = format!("label=io.sluice.agent={}", id.trim());
    let output = Command::new("podman")
        .args(["ps", "-aq", "--filter", &label])
        .output();
    let left = String::from_utf8_lossy(&output.expect("podman runs").stdout).into_owned();
    assert_eq!(left, "", "containers are left");
}

/// Whatever of its queues the node had registered by then.
#[async_std::test]
async fn a_first_start_that_was_cut_off_is_made_anew() {
    let house = House::build().await;
    let dir = house.path().join("b");
    std::fs::create_dir(&dir).expect("a directory");
    let pool = lent(&house).await;
    let rabbitmq = dir.join("agent/rabbitmq");
    let mut second = Process::spawn(&dir, "agent", "agent", &house.lender);
    until("the node has data", || {
        let mut entries = std::fs::read_dir(rabbitmq.join("mnesia")).ok()?;
        entries.next().map(drop)
    })
    .await;
    kill_whole(&dir, &mut second);
    assert!(rabbitmq.join("first-start").exists(), "it was too fast");

    let second = Process::spawn(&dir, "agent", "agent", &house.lender);
    let pair = Pair {
        dirs: [house.path().to_owned(), dir],
        house,
        pool,
        second,
    };
    pair.connected(2).await;
    assert!(!rabbitmq.join("first-start").exists());
    let said = pair.second.log();
    assert!(said.contains("it is made anew"), "{said}");
    let slow = "new Promise((done) => setTimeout(() => done('through'), 500))";
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(pair.submit(slow).await);
    }
    let mut its = 0;
    for job in &jobs {
        let ended = pair.finished(job).await;
        assert_eq!(ended["outcome"]["result"]["value"], "through", "{ended}");
        its += usize::from(pair.holder(job).await == Some(1));
    }
    assert!(its > 0, "it has a part in them");
}

// === impl Pair ===

impl Pair {
    async fn start() -> Self {
        let house = House::build().await;
        let dirs = [house.path().to_owned(), house.path().join("b")];
        std::fs::create_dir(&dirs[1]).expect("a directory");
        let pool = lent(&house).await;
        let second = Process::spawn(&dirs[1], "agent", "agent", &house.lender);
        let pair = Self {
            house,
            pool,
            dirs,
            second,
        };
        pair.connected(2).await;
        pair
    }

    /// Waits until so many agents are there, each with its worker.
    async fn connected(&self, agents: usize) {
        seen(
            &self.house,
            &format!("/api/v1/pools/{}", self.pool),
            |pool| {
                let all = pool["agents"].as_array().expect("a list");
                all.len() == agents && all.iter().all(|agent| agent["workers"] == 1)
            },
        )
        .await;
    }

    fn both_are_shown(&self) {
        let pass = ["PATH", "HOME"];
        let output = Command::new(exe())
            .args(["pool", "show", "lender", "--json"])
            .env_clear()
            .envs(pass.iter().filter_map(|name| Some((*name, env(name)?))))
            .env("SLUICE_DATA_DIR", self.house.path())
            .env("SLUICE_URL", self.house.http())
            .output()
            .expect("the program starts");
        let shown: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let mut agents: Vec<_> = shown["agents"].as_array().expect("a list").iter().collect();
        agents.sort_by_key(|agent| agent["agent"].to_string());
        let mut ids: Vec<_> = self.dirs.iter().map(|dir| id_of(dir)).collect();
        ids.sort();
        let shown: Vec<_> = agents
            .iter()
            .filter_map(|agent| agent["agent"].as_str())
            .collect();
        assert_eq!(shown, ids, "{output:?}");
    }

    async fn submit(&self, code: &str) -> String {
        submit_to(&self.house, &self.pool, in_flow("shared", code, 60_000)).await
    }

    /// Which of the two runs the job, or ran it last.
    async fn holder(&self, job: &str) -> Option<usize> {
        let job = self.house.get(&format!("/api/v1/jobs/{job}")).await;
        let worker = job["worker"].as_str()?.rsplit('/').nth(1)?.to_owned();
        let is_its = |dir: &PathBuf| {
            let record = std::fs::read_to_string(dir.join("agent/pids/worker-0"));
            record.is_ok_and(|record| record.split_whitespace().next() == Some(&*worker))
        };
        self.dirs.iter().position(is_its)
    }

    /// Waits for its end, however long a broker takes to recover beside everything
    /// else that runs in these tests.
    async fn finished(&self, job: &str) -> Value {
        let mut seen = self.house.wait(job).await;
        for _ in 0..2 {
            if seen["finished_us"].is_null() {
                seen = self.house.wait(job).await;
            }
        }
        seen
    }

    async fn a_killed_one_finishes_what_it_held_when_it_is_back(&mut self) {
        let slow = "new Promise((done) => setTimeout(() => done('through'), 4000))";
        let mut jobs = Vec::new();
        for _ in 0..JOBS {
            jobs.push(self.submit(slow).await);
        }
        let mut held: [Vec<String>; 2] = Default::default();
        for job in &jobs {
            state(&self.house, job, "started").await;
            let holder = self.holder(job).await.expect("an agent has it");
            held[holder].push(job.clone());
        }
        let counts = held.each_ref().map(Vec::len);
        assert!(
            counts.iter().all(|count| *count >= JOBS / 4),
            "both get work: {counts:?}"
        );

        // As when its host loses power: all of it, at once.
        kill_whole(&self.dirs[1], &mut self.second);
        self.connected(1).await;
        for job in &held[0] {
            let job = self.house.wait(job).await;
            assert_eq!(job["outcome"]["result"]["value"], "through", "{job}");
        }
        let fresh = self.submit("'fresh'").await;
        assert_eq!(
            self.house.wait(&fresh).await["outcome"]["result"]["value"],
            "fresh"
        );
        assert_eq!(self.holder(&fresh).await, Some(0));
        for job in &held[1] {
            let job = self.house.get(&format!("/api/v1/jobs/{job}")).await;
            assert!(
                job["finished_us"].is_null(),
                "it lies in a broker that is away: {job}"
            );
        }
        self.second = Process::spawn(&self.dirs[1], "agent", "agent", &self.house.lender);
        self.connected(2).await;
        for job in &held[1] {
            let job = self.finished(job).await;
            let log = self.second.log_tail();
            assert_eq!(job["outcome"]["result"]["value"], "through", "{job}\n{log}");
            assert_eq!(job["attempt"], "1.2", "once more, by its own agent: {job}");
        }
    }

    async fn one_drains_and_the_other_works_on(&mut self) {
        let slow = "new Promise((done) => setTimeout(() => done('through'), 3000))";
        let mut held = self.submit(slow).await;
        state(&self.house, &held, "started").await;
        // Which of the two gets it is theirs to decide.
        while self.holder(&held).await != Some(1) {
            held = self.submit(slow).await;
            state(&self.house, &held, "started").await;
        }
        kill(self.second.pid(), Signal::SIGTERM).expect("it runs");
        seen(
            &self.house,
            &format!("/api/v1/pools/{}", self.pool),
            |pool| {
                let all = pool["agents"].as_array().expect("a list");
                let drains = |agent: &&Value| agent["agent"] == id_of(&self.dirs[1]).as_str();
                all.iter()
                    .find(drains)
                    .is_none_or(|agent| !agent["refusing"].is_null())
            },
        )
        .await;
        for _ in 0..JOBS {
            let job = self.submit("1").await;
            assert_eq!(self.house.wait(&job).await["state"], "succeeded");
            assert_eq!(self.holder(&job).await, Some(0));
        }
        let job = self.house.wait(&held).await;
        assert_eq!(
            (&job["outcome"]["result"]["value"], &job["attempt"]),
            (&json!("through"), &json!("1.1")),
            "{job}"
        );
        let code = until("it ends", || self.second.exit_code()).await;
        assert_eq!(code, 0, "{}", self.second.log_tail());
    }
}

fn id_of(dir: &Path) -> String {
    let id = std::fs::read_to_string(dir.join("agent/id")).expect("an id");
    id.trim().to_owned()
}

/// SIGKILL for an agent and every child of it that it has written down.
fn kill_whole(dir: &Path, agent: &mut Process) {
    let pids = std::fs::read_dir(dir.join("agent/pids")).expect("its children");
    let texts = pids
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let children: Vec<i32> = texts
        .filter_map(|text| text.split_whitespace().next()?.parse().ok())
        .collect();
    agent.kill();
    for child in children {
        // One may have ended with its parent already.
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
}
