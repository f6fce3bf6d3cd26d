//! The figures of a run for the person who started it, on standard output.

use serde_json::Value;

/// What most want to know of the whole summary.
pub fn print(summary: &Value) {
    let latency = |key: &str| {
        format!(
            "p50 {:.2} ms, p99 {:.2} ms",
            summary[key]["p50"].as_f64().unwrap_or(0.0),
            summary[key]["p99"].as_f64().unwrap_or(0.0)
        )
    };
    println!(
        "broker to confirmed report  {}",
        latency("broker_to_report_ms")
    );
    println!(
        "API to result               {}",
        latency("api_to_result_ms")
    );
    for (name, key, unit) in [
        ("API", "api_jobs_per_s", "jobs/s"),
        ("pipeline", "pipeline_jobs_per_s", "jobs/s"),
        ("two bare hops", "two_hop_per_s", "messages/s"),
    ] {
        println!("{name:<27} {} {unit}", summary[key]);
    }
    for (name, key) in [
        ("first call, on a stem", "stem_first_call_ms"),
        ("first call, cold", "cold_ms"),
        ("a paused runtime's call", "resume_ms"),
        ("podman run, Node hello", "podman_run_ms"),
    ] {
        println!("{name:<27} {}", latency(key));
    }
    println!(
        "an idle runtime, PSS        {} MiB",
        summary["runtime_pss_mib"]
    );
    for (name, key) in [
        ("pipeline", "pipeline_cpu_us_per_job"),
        ("API", "api_cpu_us_per_job"),
    ] {
        println!("{name:<9} CPU µs per job    {}", summary[key]);
    }
    println!("resident memory, MiB        {}", summary["rss_mib"]);
    println!("private memory, MiB         {}", summary["private_mib"]);
}
