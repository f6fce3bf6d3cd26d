//! `sluice bench soak`: steady load with random faults, for minutes.
//!
//! ```text
//!  stream ═════════════════════════════════════════════▶ every job's fate
//!     harm ─▶ back ─▶ a while ─▶ harm ─▶ …                memory and descriptors, sampled
//! ```
//!
//! A process that was killed starts anew, so what is compared is what each role
//! needs in the first and in the last third, and that nothing is left at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::backoff::jitter;
use crate::cli::bench::load::{Fates, Load, Target};
use crate::cli::bench::say;
use crate::cli::rig::harm::{Harm, Victim};
use crate::cli::rig::{Rig, RigOptions, Sample, on_a_rig};
use crate::shutdown::Shutdown;

/// How long jobs may take to end after the last harm.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between the return of one victim and the next harm, at most.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// How long a stopped process stays stopped.
const STOPPED: Duration = Duration::from_secs(4);
/// How often memory and descriptors are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How much more memory a role may need in the last third than in the first, in MiB.
const GROWTH_MIB_MAX: f64 = 24.0;
/// How many more descriptors.
const GROWTH_FDS_MAX: f64 = 32.0;

/// Run steady load with random faults: nothing may be lost, grow or be left over.
///
/// Example: sluice bench soak --minutes 10
#[derive(Debug, clap::Args)]
pub struct Soak {
    /// Print one summary object as the last line of standard output.
    #[arg(long)]
    json: bool,
    /// For how long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// How many workers to start.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
}

/// What was seen while it ran.
#[derive(Default)]
struct Seen {
    /// Samples of each role, in their order.
    samples: BTreeMap<String, Vec<Sample>>,
    faults: BTreeMap<String, u32>,
}

// === impl Soak ===

impl Soak {
    /// Runs for its time; answers with the exit code.
    pub async fn run(self, settings: Vec<(String, String)>, shutdown: Shutdown) -> i32 {
        match self.measure(settings, &shutdown).await {
            Ok(summary) => {
                if self.json {
                    println!("{summary}");
                } else {
                    println!("{summary:#}");
                }
                i32::from(summary["ok"] != true)
            }
            Err(error) => {
                say(&format!("bench soak: {error:#}"));
                1
            }
        }
    }

    async fn measure(
        &self,
        settings: Vec<(String, String)>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Value> {
        let options = RigOptions {
            workers: self.workers,
            settings,
        };
        let (mut summary, left) =
            on_a_rig(options, shutdown, async |rig: &mut Rig| self.all(rig).await).await?;
        summary["ok"] = json!(summary["ok"] == true && left.is_empty());
        summary["left"] = json!(left);
        Ok(summary)
    }

    async fn all(&self, rig: &mut Rig) -> anyhow::Result<Value> {
        let (project, pool) = rig.project_and_pool("bench").await?;
        rig.start_agent(&pool).await?;
        let target = Target::new(rig, &project, &pool);
        target.submit("1", 30).await.context("warm up")?;
        let load = Load::new(target.clone());
        let mut seen = Seen::default();
        let mischief = async {
            let done = self.harm_at_random(rig, &mut seen).await;
            load.stop();
            done
        };
        let ((), harmed) = futures::join!(load.run(1), mischief);
        harmed?;
        say("Waiting for what still runs");
        let fates = target.fates(load.take_ids(), PATIENCE).await;
        Ok(self.summary(&seen, &fates, load.unanswered()))
    }

    async fn harm_at_random(&self, rig: &mut Rig, seen: &mut Seen) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(self.minutes * 60);
        let pick = |count: usize| ((jitter() * count as f64) as usize).min(count - 1);
        while Instant::now() < until {
            let pause_until = Instant::now() + PAUSE_MAX.mul_f64(0.25 + 0.75 * jitter());
            while Instant::now() < pause_until.min(until) {
                async_std::task::sleep(SAMPLE_EVERY).await;
                seen.note(rig);
            }
            let victim = Victim::ALL[pick(Victim::ALL.len())];
            let harm = Harm::ALL[pick(Harm::ALL.len())];
            if !rig.has(victim) {
                continue;
            }
            let what = format!("{} {}", victim.as_str(), harm.as_str());
            say(&format!("  {what}"));
            // Runtimes may all be on their way out just now: then there is none to harm.
            if let Err(error) = rig.harm(victim, harm, STOPPED).await
                && victim != Victim::Runtime
            {
                return Err(error.context(what));
            }
            *seen.faults.entry(what).or_default() += 1;
        }
        Ok(())
    }

    fn summary(&self, seen: &Seen, fates: &Fates, unanswered: u64) -> Value {
        let growth = seen.growth();
        let flat = growth
            .values()
            .all(|(mib, fds)| *mib <= GROWTH_MIB_MAX && *fds <= GROWTH_FDS_MAX);
        let growth: BTreeMap<_, _> = growth
            .iter()
            .map(|(role, (mib, fds))| (role, json!({"mib": mib, "fds": fds})))
            .collect();
        let last: BTreeMap<_, _> = seen
            .samples
            .iter()
            .filter_map(|(role, samples)| {
                let last = samples.last()?;
                Some((role, json!({"mib": last.rss_mib.round(), "fds": last.fds})))
            })
            .collect();
        json!({
            "ok": flat && fates.lost.is_empty() && fates.failed.is_empty(),
            "minutes": self.minutes,
            "jobs": fates.jobs,
            "lost": fates.lost.len(),
            "failed": fates.failed,
            "repeated": fates.repeated,
            "unanswered": unanswered,
            "faults": seen.faults,
            "growth": growth,
            "at_the_end": last,
        })
    }
}

// === impl Seen ===

impl Seen {
    fn note(&mut self, rig: &Rig) {
        for (role, sample) in rig.samples() {
            self.samples.entry(role).or_default().push(sample);
        }
    }

    /// By role: how much more memory (MiB) and how many more descriptors it
    /// needs in the last third than in the first, by the middle of each.
    fn growth(&self) -> BTreeMap<String, (f64, f64)> {
        let middle = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let difference = |samples: &[Sample], of: fn(&Sample) -> f64| {
            let third = samples.len().div_ceil(3);
            let first = middle(samples[..third].iter().map(of).collect());
            let last = middle(samples[samples.len() - third..].iter().map(of).collect());
            ((last - first) * 10.0).round() / 10.0
        };
        self.samples
            .iter()
            .map(|(role, samples)| {
                let mib = difference(samples, |sample| sample.rss_mib);
                let fds = difference(samples, |sample| sample.fds as f64);
                (role.clone(), (mib, fds))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_between_the_middles_of_the_first_and_the_last_third() {
        let sample = |rss_mib: f64, fds: u64| Sample {
            rss_mib,
            private_mib: rss_mib,
            fds,
        };
        let grown = [(1.0, 5), (2.0, 5), (3.0, 5), (9.0, 5), (10.0, 5), (11.0, 7)];
        let mut seen = Seen::default();
        let samples = grown.iter().map(|(mib, fds)| sample(*mib, *fds)).collect();
        seen.samples.insert("bridge".into(), samples);
        assert_eq!(seen.growth()["bridge"], (9.0, 2.0));
        seen.samples.insert("worker".into(), vec![sample(3.0, 4)]);
        assert_eq!(seen.growth()["worker"], (0.0, 0.0));
    }
}
