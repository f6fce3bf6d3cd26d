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
        podman_entry: Entry::Open,
        oci_runtimes: vec![("crun".into(), "crun version 1.21".into())],
        oci_works: Some(Ok("runc".into())),
        sandbox: Sandbox::Container,
        gvisor: None,
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
        network: Network::Full,
        network_needs_nft: false,
        has_ip: true,
        has_nsenter: true,
        has_nft: true,
        has_slirp4netns: true,
        tun: Ok(()),
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
        subuids: 0,
        has_newuidmap: false,
        cgroup: None,
        podman: None,
        oci_runtimes: Vec::new(),
        oci_works: None,
        storage_driver: None,
        image: "localhost/x".into(),
        image_present: None,
        rabbitmq: Broker::Unknown,
        gateway: None,
        endpoint: None,
        clock_skew_ms: None,
        disk_free_bytes: None,
        open_files: None,
        user_namespaces: None,
        has_slirp4netns: false,
        ..healthy()
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
fn a_podman_that_was_killed_whole_is_mended_and_its_image_not_called_missing() {
    let facts = Facts {
        podman_entry: Entry::CutOff,
        image_present: Some(false),
        ..healthy()
    };
    assert_eq!(
        worst(&facts),
        (Grade::Fault, vec!["podman", "runtime image"])
    );
    let verdicts = judge(&facts);
    let of = |name| verdicts.iter().find(|verdict| verdict.name == name);
    let podman = of("podman").expect("it is judged");
    assert_eq!(podman.mend.as_deref(), Some("podman system migrate"));
    let image = of("runtime image").expect("it is judged");
    assert_eq!(image.grade, Grade::Warning, "nobody knows");
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

#[test]
fn each_thing_that_an_apps_network_lacks_is_named_with_what_mends_it() {
    let look = |facts: Facts| {
        let verdict = network(&facts);
        let text = format!("{} {}", verdict.found, verdict.mend.unwrap_or_default());
        (verdict.grade, text)
    };
    let closed = || Facts {
        tun: Err("/dev/net/tun: Permission denied (os error 13)".into()),
        ..healthy()
    };
    let (grade, text) = look(closed());
    assert_eq!(grade, Grade::Fault);
    assert!(text.contains("chmod 666 /dev/net/tun"), "{text}");
    let none = Facts {
        network: Network::None,
        ..closed()
    };
    assert_eq!(look(none).0, Grade::Ok);
    let without_nft = |network, network_needs_nft| Facts {
        network,
        network_needs_nft,
        has_nft: false,
        ..healthy()
    };
    assert_eq!(look(without_nft(Network::Full, false)).0, Grade::Warning);
    let (grade, text) = look(without_nft(Network::Private, true));
    assert_eq!(grade, Grade::Fault);
    assert!(text.contains("apt-get install nftables"), "{text}");
    let neither = Facts {
        has_ip: false,
        ..without_nft(Network::Full, false)
    };
    assert_eq!(look(neither).0, Grade::Fault);
}

#[test]
fn gvisor_is_at_fault_only_where_it_is_asked_for() {
    let version = "runsc version release-20221122.0".to_owned();
    let broken = |works| {
        Some(Gvisor {
            version: version.clone(),
            works,
        })
    };
    let grade = |sandbox, gvisor| {
        let facts = Facts {
            sandbox,
            gvisor,
            ..healthy()
        };
        worst(&facts).0
    };
    let failed = || broken(Some(Err("ptrace is not permitted".to_owned())));
    assert_eq!(grade(Sandbox::Gvisor, None), Grade::Fault);
    assert_eq!(grade(Sandbox::Gvisor, failed()), Grade::Fault);
    assert_eq!(grade(Sandbox::Container, failed()), Grade::Warning);
    assert_eq!(grade(Sandbox::Gvisor, broken(Some(Ok(())))), Grade::Ok);
    assert_eq!(grade(Sandbox::Container, broken(None)), Grade::Warning);
}
