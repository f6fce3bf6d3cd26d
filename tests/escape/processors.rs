//! More processors than a runtime may use.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use async_std::task;

use crate::pace::Pace;
use crate::runtimes::{Engine, House, app, start};

const APP: &str = include_str!("../apps/escape/harm.mjs");

/// How long its processor time is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// One processor, and what a clock of hundredths of a second may be off.
const PROCESSORS_MAX: f64 = 1.15;

/// As many threads compute, two of them in processes of their own; gVisor shows
/// each by threads of its own.
const BUSY_MIN: usize = 4;

const PATIENCE: Duration = Duration::from_secs(30);

pub async fn a_hog_gets_its_processors_and_no_more(engine: Engine) {
    let house = House::start(engine.config(), engine.owner()).await;
    let pace = Pace::take(&house).await;
    let lease = house.claim(&app("hog"), APP).await.expect("a runtime");
    let running = start(&lease, "harm.processors()", 120_000).await;
    let pid = first_process(lease.container());
    let begun = Instant::now();
    while busy(pid) < BUSY_MIN {
        assert!(begun.elapsed() < PATIENCE, "it never computes");
        task::sleep(Duration::from_millis(50)).await;
    }
    let (spent, since) = (spent_s(pid), Instant::now());
    task::sleep(WATCHED).await;
    let used = (spent_s(pid) - spent) / since.elapsed().as_secs_f64();
    println!("it used {used:.2} processors");
    assert!(used <= PROCESSORS_MAX, "{used}");
    // Held to one, whoever made it and when; a cgroup would hold them without.
    if std::thread::available_parallelism().is_ok_and(|count| count.get() > 1) && !delegated() {
        let allowed: HashSet<String> = statuses(pid).into_iter().collect();
        assert_eq!(allowed.len(), 1, "{allowed:?}");
        assert!(allowed.iter().all(|list| !list.contains(['-', ','])));
    }
    pace.check(&house, "a hog that goes on").await;
    drop((running, lease));
    house.stop().await;
}

/// Whether cgroup v2 holds runtimes to their processors here.
fn delegated() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn first_process(container: &str) -> u32 {
    let output = Command::new("podman")
        .args(["inspect", "--format", "{{.State.Pid}}", container])
        .output()
        .expect("podman runs");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().expect("a process id")
}

/// The threads of a process and of all below it, by their directories.
fn threads(pid: u32) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    let mut processes = vec![pid];
    while let Some(pid) = processes.pop() {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            processes.extend(
                children
                    .split_whitespace()
                    .map(|id| -> u32 { id.parse().expect("a process id") }),
            );
            all.push(task.path());
        }
    }
    all
}

/// Processor time of each thread, in seconds.
fn times(pid: u32) -> Vec<f64> {
    let time = |thread: std::path::PathBuf| {
        let text = std::fs::read_to_string(thread.join("stat")).ok()?;
        let fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = fields.map_while(|field| field.parse::<f64>().ok());
        Some((ticks.next()? + ticks.next()?) / 100.0)
    };
    threads(pid).into_iter().filter_map(time).collect()
}

fn busy(pid: u32) -> usize {
    times(pid).iter().filter(|spent| **spent > 0.2).count()
}

fn spent_s(pid: u32) -> f64 {
    times(pid).iter().sum()
}

/// Where each thread may run, as the kernel lists it.
fn statuses(pid: u32) -> Vec<String> {
    let status = |thread: std::path::PathBuf| {
        let text = std::fs::read_to_string(thread.join("status")).ok()?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some(line.trim().to_owned())
    };
    threads(pid).into_iter().filter_map(status).collect()
}
