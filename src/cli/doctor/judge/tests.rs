//! Hosts that have everything, and hosts that do not.

use super::*;

fn healthy() -> Facts {
    Facts {
        uid: 1000,
        user: "ada".into(),
        subuids: 65_536,
        subgids: 65_536,
        has_newuidmap: true,
        cgroup: Some(Cgroup::V2 {
            delegated: ["cpu", "memory", "pids"].map(str::to_owned).into(),
        }),
        podman: Some("podman version 5.4.2".into()),
        oci_runtimes: vec![("crun".into(), "crun version 1.21".into())],
        oci_works: Some(Ok("runc".into())),
        storage_driver: Some("overlay".into()),
        image: "localhost/sluice-runtime:latest".into(),
        image_present: Some(true),
        rabbitmq: Broker::Private {
            program: Some("rabbitmq-server".into()),
        },
        gateway: Some(Reach::Ok("answers".into())),
        endpoint: Some(Reach::Ok("answers".into())),
        clock_skew_ms: Some(20),
        disk_free_bytes: Some(1 << 40),
        disk_free_bytes_min: 1 << 29,
        open_files: Some(65_536),
        user_namespaces: Some(15_000),
        has_ip: true,
        has_nsenter: true,
        network_helper: Some("slirp4netns".into()),
    }
}

fn worst(facts: &Facts) -> (Grade, Vec<&'static str>) {
    let verdicts = judge(facts);
    let worst = verdicts
        .iter()
        .map(|v| v.grade)
        .max()
        .expect("there are verdicts");
    let names = verdicts
        .iter()
        .filter(|v| v.grade != Grade::Ok)
        .map(|v| v.name)
        .collect();
    (worst, names)
}

#[test]
fn a_healthy_host_has_nothing_to_mend() {
    assert_eq!(worst(&healthy()), (Grade::Ok, vec![]));
}

#[test]
fn every_complaint_says_what_mends_it() {
    let bare = Facts {
        image: "localhost/x".into(),
        ..Facts::default()
    };
    for verdict in judge(&bare) {
        assert_eq!(
            verdict.grade == Grade::Ok,
            verdict.mend.is_none(),
            "{verdict:?}"
        );
    }
}

#[test]
fn a_runc_with_known_escapes_is_named() {
    for (text, bad) in [
        ("runc version 1.1.5", true),
        ("runc version 1.2.8", false),
        ("runc version 1.3.2", true),
        ("runc version 1.3.3", false),
    ] {
        let facts = Facts {
            oci_runtimes: vec![("runc".into(), text.into())],
            ..healthy()
        };
        assert_eq!(worst(&facts).0 == Grade::Warning, bad, "{text}");
    }
}

#[test]
fn root_is_a_fault() {
    let facts = Facts {
        uid: 0,
        ..healthy()
    };
    assert_eq!(worst(&facts), (Grade::Fault, vec!["user"]));
}

#[test]
fn a_host_where_no_container_runs_is_at_fault() {
    let facts = Facts {
        oci_works: Some(Err("crun: no cgroup".into())),
        ..healthy()
    };
    assert_eq!(worst(&facts), (Grade::Fault, vec!["trial container"]));
}
