//! The demo's scenes with handlers: two at once, and one whose worker dies.

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::cli::demo::{Seen, Stage, handler};

impl Stage<'_> {
    pub(super) async fn two_handlers_at_once(
        &self,
        seen: &mut Seen,
        version: &str,
    ) -> anyhow::Result<()> {
        seen.say("Running two handlers of one installation at once");
        // The quick one may need a container first, which takes long on a slow machine.
        for seconds in [2, 4, 8] {
            if self.quick_beside_slow(seen, version, seconds).await? {
                return Ok(());
            }
        }
        bail!("the slow handler had ended before the quick one each time")
    }

    /// Whether the quick handler ended while the slow one ran.
    async fn quick_beside_slow(
        &self,
        seen: &mut Seen,
        version: &str,
        seconds: u32,
    ) -> anyhow::Result<bool> {
        let slow = handler(version, "slow", &json!({"seconds": seconds}));
        let slow = self.submit(seen, &slow).await?;
        self.started(&slow).await?;
        let greet = self
            .run(seen, &handler(version, "greet", &json!({"name": "Ada"})))
            .await?;
        ensure!(
            greet["state"] == "succeeded",
            "greet gave {}",
            greet["outcome"]
        );
        let meanwhile = self.rig.get(&format!("/api/v1/jobs/{slow}")).await?;
        let slow = self.wait(seen, &slow).await?;
        ensure!(
            slow["state"] == "succeeded",
            "slow gave {}",
            slow["outcome"]
        );
        if meanwhile["state"] != "started" {
            return Ok(false);
        }
        seen.say(&format!(
            "  greet ended while slow ran: containers {} and {}",
            greet["container"].as_str().unwrap_or("?"),
            slow["container"].as_str().unwrap_or("?")
        ));
        Ok(true)
    }

    pub(super) async fn a_worker_dies(
        &self,
        seen: &mut Seen,
        version: &str,
    ) -> anyhow::Result<String> {
        seen.say("Killing a worker with SIGKILL while a job runs on it");
        let id = self
            .submit(seen, &handler(version, "slow", &json!({"seconds": 3})))
            .await?;
        let first = self.started(&id).await?;
        let pid = first.split('/').nth(1).and_then(|pid| pid.parse().ok());
        let pid = nix::unistd::Pid::from_raw(
            pid.with_context(|| format!("worker name `{first}` holds no pid"))?,
        );
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
            .with_context(|| format!("kill worker {first}"))?;
        let job = self.wait(seen, &id).await?;
        let second = job["worker"].as_str().unwrap_or("?");
        ensure!(
            job["state"] == "succeeded",
            "the job ended as {}",
            job["outcome"]
        );
        ensure!(
            first != second,
            "the job claims to have ended on the worker that was killed"
        );
        seen.repeated += 1;
        seen.say(&format!(
            "  killed {first}; finished on {second} as attempt {}",
            job["attempt"]
        ));
        Ok(id)
    }
}
