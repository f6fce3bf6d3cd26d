//! Verdicts on what starts containers: OCI runtimes, gVisor, and the trial.

use crate::cli::doctor::judge::{Facts, Gvisor, Verdict, fault, ok, version, warning};
use crate::config::Sandbox;

/// A trial container says more than any version: crun, for example, fails beside a hybrid cgroup tree.
pub(super) fn trial(facts: &Facts) -> Option<Verdict> {
    const NAME: &str = "trial container";
    Some(match facts.oci_works.as_ref()? {
        Ok(oci) => ok(NAME, format!("ran with {oci}")),
        Err(why) => fault(
            NAME,
            why.clone(),
            "apt-get install runc crun, or set SLUICE_RUNTIME_OCI to one that works",
        ),
    })
}

pub(super) fn oci(facts: &Facts) -> Vec<Verdict> {
    if facts.oci_runtimes.is_empty() {
        return vec![fault(
            "oci runtime",
            "neither crun nor runc is installed".into(),
            "apt-get install runc crun",
        )];
    }
    facts
        .oci_runtimes
        .iter()
        .map(|(name, text)| oci_runtime(name, text))
        .collect()
}

pub(super) fn gvisor(facts: &Facts) -> Verdict {
    const NAME: &str = "gVisor";
    let wanted = facts.sandbox == Sandbox::Gvisor;
    let Some(Gvisor { version, works }) = &facts.gvisor else {
        return match wanted {
            true => fault(
                NAME,
                "FLOWS_RUNTIME_SANDBOX is gvisor, and runsc is not installed".into(),
                "apt-get install runsc, or unset FLOWS_RUNTIME_SANDBOX",
            ),
            false => ok(NAME, "not installed, and not asked for".into()),
        };
    };
    match works {
        Some(Ok(())) if wanted => ok(
            NAME,
            format!("{version} ran a trial container, and is used"),
        ),
        Some(Ok(())) => ok(
            NAME,
            format!("{version} ran a trial container; FLOWS_RUNTIME_SANDBOX=gvisor uses it"),
        ),
        Some(Err(why)) => {
            let grade = if wanted { fault } else { warning };
            grade(
                NAME,
                format!("{version} is installed, and runs no container here: {why}"),
                "install a runsc for this kernel, or leave FLOWS_RUNTIME_SANDBOX unset",
            )
        }
        None => warning(
            NAME,
            format!("{version} is installed, and was not tried"),
            "run `sluice doctor` as the agent's user once the runtime image is there",
        ),
    }
}

// runc before 1.2.8 / 1.3.3: CVE-2025-31133, -52565, -52881 (container escapes by races on /proc and mounts).
fn oci_runtime(name: &str, text: &str) -> Verdict {
    const NAME: &str = "oci runtime";
    let old = |v: (u32, u32, u32)| v < (1, 2, 8) || ((1, 3, 0)..(1, 3, 3)).contains(&v);
    match version(text) {
        Some(v) if name == "runc" && old(v) => warning(
            NAME,
            format!(
                "{text} predates the fixes of CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 unless your distribution has added them"
            ),
            "upgrade runc to 1.2.8, 1.3.3 or later, or check your distribution's changelog for these numbers",
        ),
        _ => ok(NAME, text.to_owned()),
    }
}
