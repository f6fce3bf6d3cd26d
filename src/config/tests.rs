//! Settings read from a list instead of the environment.

use super::*;

fn read<T>(vars: &[(&str, &str)], of: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, Error> {
    let look_up = |name: &str| {
        vars.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let mut reader = Reader::new(&look_up);
    let config = of(&mut reader);
    reader.finish(config)
}

#[test]
fn all_complaints_come_at_once_and_name_the_setting() {
    let error = read(
        &[
            ("HOME", "/home/u"),
            ("FLOWS_GATEWAY_ENDPOINT", "ftp://x"),
            ("SLUICE_DRAIN_S", "soon"),
        ],
        |reader| reader.bridge(),
    )
    .expect_err("nothing of it fits");
    let names: Vec<_> = error
        .complaints
        .iter()
        .filter_map(|c| c.split(' ').next())
        .collect();
    assert_eq!(
        names,
        [
            "FLOWS_GATEWAY_ENDPOINT",
            "FLOWS_AGENT_POOL_ID",
            "FLOWS_AGENT_POOL_TOKEN",
            "AMQP_URL",
            "SLUICE_DRAIN_S"
        ]
    );
}

#[test]
fn a_public_address_is_one_that_paths_can_be_put_behind() {
    let read = |url| {
        let vars = [("HOME", "/home/u"), ("SLUICE_PUBLIC_URL", url)];
        read(&vars, |reader| reader.gateway()).map(|config| config.public_url)
    };
    let below = read("https://flows.example.org/base/").expect("it fits");
    assert_eq!(below.as_deref(), Some("https://flows.example.org/base"));
    for wrong in [
        "flows.example.org",
        "ftp://flows.example.org",
        "https://x/?a=1",
    ] {
        let error = read(wrong).expect_err("no address").to_string();
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn an_endpoint_domain_is_the_name_of_a_host() {
    let read = |domain| {
        let vars = [("HOME", "/home/u"), ("SLUICE_ENDPOINT_DOMAIN", domain)];
        read(&vars, |reader| reader.gateway()).map(|config| config.endpoint_domain)
    };
    let domain = read("Flows.example.org").expect("it fits");
    assert_eq!(domain.as_deref(), Some("flows.example.org"));
    for wrong in [
        "https://flows.example.org",
        "flows.example.org:8080",
        "flows.example.org/x",
        "*.example.org",
        "127.0.0.1",
        "a b",
    ] {
        let error = read(wrong).expect_err("no domain").to_string();
        assert!(error.contains(wrong), "{error}");
    }
}

#[test]
fn the_names_that_docker_users_have_still_work() {
    let config = read(
        &[
            ("HOME", "/home/u"),
            ("FLOWS_DOCKER_RUNTIME_IMAGE", "node:24"),
            ("FLOWS_DOCKER_MOUNTS_TEMPDIR", "/m"),
        ],
        |reader| reader.runtime(),
    )
    .expect("all defaults");
    assert_eq!(
        (config.image.as_str(), config.mounts_dir),
        ("node:24", PathBuf::from("/m"))
    );
}

#[test]
fn additional_roots_are_unpacked_and_a_bad_entry_is_named() {
    let pem = BASE64.encode("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n");
    let json = format!("{{\"caCertificates\":[\"{pem}\",\"AAAA\"]}}");
    let error = read(
        &[("FLOWS_ADDITIONAL_ROOT_CAS", &BASE64.encode(json))],
        |reader| reader.egress(),
    )
    .expect_err("the second entry is no certificate");
    assert!(error.complaints[0].contains("entry 1"), "{error}");
}

#[test]
fn a_proxy_for_http_serves_https_too_unless_told_otherwise() {
    let config = read(
        &[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "a.b, .C")],
        |reader| reader.egress(),
    )
    .expect("fits");
    assert_eq!(config.https_proxy, config.http_proxy);
    assert_eq!(config.no_proxy, ["a.b", ".c"]);
}
