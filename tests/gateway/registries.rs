//! Registries: followed, listed, installed from, and refused where they do not
//! keep their word. What is served is served by this test.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use async_std::io::{ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::Digest;
use sluice::shutdown::spawn_detached;

use crate::fixture::Fixture;

/// A web server with files in memory.
#[derive(Clone)]
struct Site {
    address: String,
    files: Arc<Mutex<BTreeMap<String, File>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
enum File {
    Bytes(Vec<u8>),
    Redirect(String),
}

// === impl Site ===

impl Site {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let site = Self {
            address: format!("http://{}", listener.local_addr().expect("an address")),
            files: Arc::default(),
            asked: Arc::default(),
        };
        let served = site.clone();
        spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_detached(served.clone().answer(stream));
            }
        });
        site
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte).await {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let file = self.files.lock().expect("unharmed").get(&path).cloned();
        let etag = |bytes: &[u8]| format!("\"{}\"", &checksum(bytes)[7..17]);
        let (status, more, body) = match file {
            None => (404, String::new(), Vec::new()),
            Some(File::Redirect(to)) => (302, format!("location: {to}\r\n"), Vec::new()),
            Some(File::Bytes(bytes)) if head.contains(&etag(&bytes)) => {
                (304, String::new(), Vec::new())
            }
            Some(File::Bytes(bytes)) => (200, format!("etag: {}\r\n", etag(&bytes)), bytes),
        };
        self.note(format!("{path} {status}"));
        let head = format!(
            "HTTP/1.1 {status} X\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        // A client that has seen enough hangs up.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body).await;
    }

    fn note(&self, line: String) {
        self.asked.lock().expect("unharmed").push(line);
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let mut files = self.files.lock().expect("unharmed");
        files.insert(path.to_owned(), File::Bytes(bytes.to_vec()));
    }

    fn redirect(&self, path: &str, to: &str) {
        let mut files = self.files.lock().expect("unharmed");
        files.insert(path.to_owned(), File::Redirect(to.to_owned()));
    }

    /// Lists apps, each by its key.
    fn list(&self, keys: &[&str]) {
        let app = |key: &&str| {
            let metadata = format!("apps/{key}/versions.json");
            let app = json!({"name": key.to_uppercase(), "description": "d",
                "blockStyle": {"color": "#123"}, "appMetadataUrl": metadata});
            ((*key).to_owned(), app)
        };
        let apps: serde_json::Map<_, _> = keys.iter().map(app).collect();
        let index = json!({"apps": apps}).to_string();
        self.put("/r/registry.json", index.as_bytes());
    }

    /// Publishes versions of an app with their archives; the checksum is that of the archive.
    fn publish(&self, key: &str, versions: &[(&str, &[u8])]) {
        let list: Vec<_> = versions
            .iter()
            .map(|(number, archive)| {
                self.put(&format!("/r/apps/{key}/{number}.tar.gz"), archive);
                (*number, checksum(archive))
            })
            .collect();
        self.say(key, &list);
    }

    /// Publishes versions with these checksums.
    fn say(&self, key: &str, versions: &[(&str, String)]) {
        let version = |(number, checksum): &(&str, String)| {
            json!({"version": number, "artifactUrl": format!("{number}.tar.gz"),
                "artifactChecksum": checksum})
        };
        let list: Vec<_> = versions.iter().map(version).collect();
        let text = json!({"versions": list}).to_string();
        self.put(&format!("/r/apps/{key}/versions.json"), text.as_bytes());
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("unharmed"))
    }

    async fn follow(&self, fixture: &Fixture) -> Value {
        let url = format!("{}/r/registry.json", self.address);
        let body = json!({"name": "ours", "url": url});
        fixture.post("/api/v1/registries", &body).await
    }
}

fn checksum(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        // By hand, as the builder refuses names that lead out.
        header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).expect("in memory");
    }
    tar.into_inner().expect("tar").finish().expect("gzip")
}

fn app(text: &str) -> Vec<u8> {
    archive(&[("app.js", text.as_bytes()), ("ui.js", b"ui")])
}

async fn install(fixture: &Fixture, app: &str, version: Option<&str>) -> (u16, Value) {
    let body = match version {
        Some(version) => json!({"app": app, "version": version}),
        None => json!({"app": app}),
    };
    let path = "/api/v1/registries/ours/install";
    fixture.call("POST", path, Some(&body)).await
}

/// The sentence of an installation that must be refused.
async fn refused(fixture: &Fixture, app: &str, version: Option<&str>) -> (u16, String) {
    let (status, reply) = install(fixture, app, version).await;
    assert!(status >= 400, "{status} {reply}");
    let sentence = reply["error"].as_str().expect("a sentence").to_owned();
    (status, sentence)
}

#[async_std::test]
async fn a_version_comes_from_a_registry_into_a_project() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    site.list(&["mail", "empty"]);
    site.publish("mail", &[("1.2.0", &app("two")), ("1.10.0", &app("ten"))]);
    site.publish("empty", &[]);
    let registry = site.follow(&fixture).await;
    assert_eq!(
        (&registry["name"], &registry["error"]),
        (&json!("ours"), &Value::Null)
    );
    let apps = fixture.get("/api/v1/registries/ours/apps").await;
    assert_eq!(
        (&apps[0]["key"], &apps[1]["name"]),
        (&json!("empty"), &json!("MAIL"))
    );
    assert_eq!(apps[1]["style"]["color"], "#123");
    let (status, newest) = install(&fixture, "MAIL", None).await;
    assert_eq!(
        (status, &newest["data"]["version"]),
        (200, &json!("1.10.0"))
    );
    assert_eq!(newest["data"]["digest"], json!(checksum(b"ten")[7..]));
    assert!(newest["data"]["ui_digest"].is_string(), "{newest}");
    site.asked();
    let again = install(&fixture, "mail", Some("v1.10.0")).await;
    assert_eq!(again.1, newest, "it is fetched once");
    assert_eq!(site.asked(), Vec::<String>::new());
    let versions = fixture
        .get("/api/v1/registries/ours/apps/mail/versions")
        .await;
    let seen: Vec<_> = versions.as_array().expect("a list").iter().collect();
    assert_eq!(
        (&seen[0]["version"], &seen[0]["id"]),
        (&json!("1.10.0"), &newest["data"]["id"])
    );
    assert_eq!(
        (&seen[1]["state"], &seen[1]["id"]),
        (&json!("listed"), &Value::Null)
    );
    // The provider's users name it, with and without its registry.
    for body in [
        json!({"registry": "ours", "name": "MAIL"}),
        json!({"name": "mail", "version": "1.10.0"}),
    ] {
        let found = fixture.post("/provider/apps/get_version_id", &body).await;
        assert_eq!(found["id"], newest["data"]["id"], "{body}");
    }
    serves_every_project(&fixture, &newest["data"]["id"]).await;
}

async fn serves_every_project(fixture: &Fixture, version: &Value) {
    // Whoever has a key of any project may use it.
    let key = json!({"name": "k", "projects": [fixture.project]});
    let key = fixture.post("/api/v1/keys", &key).await["key"].clone();
    let key = key.as_str().expect("a key");
    let body = json!({"project": fixture.project, "pool": fixture.pool, "name": "Mail",
        "version": version})
    .to_string();
    let (status, made) = fixture
        .call_as(key, "POST", "/api/v1/installations", body.as_bytes())
        .await;
    assert_eq!(status, 201, "{made}");
    let (status, _) = fixture
        .call_as(key, "DELETE", "/api/v1/registries/ours", b"")
        .await;
    assert_eq!(status, 403, "registries are an admin's");
    assert_eq!(
        fixture
            .call("DELETE", "/api/v1/registries/ours", None)
            .await
            .0,
        200
    );
    let id = version.as_str().expect("an id");
    fixture.get(&format!("/api/v1/versions/{id}")).await;
}

#[async_std::test]
async fn a_version_that_was_changed_is_refused() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    site.list(&["mail"]);
    site.publish("mail", &[("1.0.0", &app("good")), ("1.1.0", &app("next"))]);
    site.follow(&fixture).await;
    assert_eq!(install(&fixture, "mail", Some("1.0.0")).await.0, 200);
    site.publish(
        "mail",
        &[("1.0.0", &app("evil")), ("1.1.0", &app("evil too"))],
    );
    // The archive is another one than the registry's list says.
    let (status, sentence) = refused(&fixture, "mail", Some("1.1.0")).await;
    assert_eq!(status, 502);
    assert!(sentence.contains(&checksum(&app("next"))), "{sentence}");
    assert!(sentence.contains(&checksum(&app("evil too"))), "{sentence}");
    // And now the list says so too.
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    for number in ["1.0.0", "1.1.0"] {
        let (status, sentence) = refused(&fixture, "mail", Some(number)).await;
        assert_eq!(status, 409);
        assert!(sentence.contains("when it was first seen"), "{sentence}");
    }
    let (status, sentence) = refused(&fixture, "mail", None).await;
    assert_eq!(
        (status, sentence.contains("not found")),
        (404, true),
        "{sentence}"
    );
    let versions = fixture
        .get("/api/v1/registries/ours/apps/mail/versions")
        .await;
    assert_eq!(versions[0]["state"], "changed", "{versions}");
    // A version that was withdrawn and comes back is compared with what it was.
    site.publish("mail", &[]);
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    let versions = fixture
        .get("/api/v1/registries/ours/apps/mail/versions")
        .await;
    assert_eq!(versions[0]["state"], "gone", "{versions}");
    site.publish(
        "mail",
        &[("1.0.0", &app("good")), ("1.1.0", &app("evil too"))],
    );
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    assert_eq!(
        install(&fixture, "mail", None).await.1["data"]["version"],
        "1.0.0"
    );
    assert_eq!(refused(&fixture, "mail", Some("1.1.0")).await.0, 409);
}

#[async_std::test]
async fn an_archive_that_is_none_or_too_much_is_refused() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1024 * 1024];
    for _ in 0..34 {
        bomb.write_all(&zeros).expect("in memory");
    }
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("out", archive(&[("../app.js", b"x")]), "leads out"),
        ("text", b"no archive".to_vec(), "cannot be read"),
        ("none", archive(&[("index.js", b"x")]), "no `app.js`"),
        (
            "bomb",
            bomb.finish().expect("in memory"),
            "cannot be installed",
        ),
        ("large", vec![1; 17 * 1024 * 1024], "over the limit"),
    ];
    let keys: Vec<_> = cases.iter().map(|(key, _, _)| *key).collect();
    site.list(&keys);
    for (key, bytes, _) in &cases {
        site.publish(key, &[("1.0.0", bytes)]);
    }
    site.follow(&fixture).await;
    for (key, _, says) in &cases {
        let (status, sentence) = refused(&fixture, key, Some("1.0.0")).await;
        assert_eq!(status, 502, "{key}: {sentence}");
        assert!(sentence.contains(says), "{key}: {sentence}");
    }
    let apps = fixture.get("/api/v1/apps").await;
    assert_eq!(apps, json!([]), "nothing is left of them");
}

#[async_std::test]
async fn a_registry_is_asked_sparingly_and_says_what_is_wrong() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    let url = format!("{}/r/registry.json", site.address);
    let body = json!({"name": "ours", "url": url});
    let (status, reply) = fixture
        .call("POST", "/api/v1/registries", Some(&body))
        .await;
    assert_eq!(status, 502, "{reply}");
    assert!(
        reply["error"]
            .as_str()
            .expect("why")
            .contains("answered 404"),
        "{reply}"
    );
    assert_eq!(
        fixture.get("/api/v1/registries").await,
        json!([]),
        "it is not followed"
    );
    site.list(&["mail", "bad", "away"]);
    site.publish("mail", &[("1.0.0", &app("x"))]);
    site.say("bad", &[("1.0.0", "md5:1".to_owned())]);
    site.redirect(
        "/r/apps/away/versions.json",
        "http://127.0.0.2:1/versions.json",
    );
    site.follow(&fixture).await;
    let apps = fixture.get("/api/v1/registries/ours/apps").await;
    let error = |at: usize| apps[at]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(0).contains("own place"), "away: {apps}");
    assert!(
        error(1).contains("checksum of version 1.0.0"),
        "bad: {apps}"
    );
    assert_eq!(apps[2]["error"], Value::Null, "mail: {apps}");
    site.asked();
    fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    let asked = site.asked();
    assert!(
        asked.contains(&"/r/registry.json 304".to_owned()),
        "{asked:?}"
    );
    assert!(
        asked.contains(&"/r/apps/mail/versions.json 304".to_owned()),
        "{asked:?}"
    );
    // Its list is kept while it is away.
    site.put("/r/registry.json", b"<html>");
    let state = fixture
        .post("/api/v1/registries/ours/refresh", &json!({}))
        .await;
    assert!(
        state["error"]
            .as_str()
            .expect("why")
            .contains("registry.json"),
        "{state}"
    );
    let wait_ms =
        state["next_ms"].as_i64().expect("a time") - state["checked_ms"].as_i64().expect("a time");
    assert!((59_000..=121_000).contains(&wait_ms), "{wait_ms}");
    assert_eq!(install(&fixture, "mail", None).await.0, 200);
}

#[async_std::test]
async fn a_name_or_address_is_followed_once_and_must_be_one() {
    let (fixture, site) = (Fixture::start().await, Site::open().await);
    site.list(&[]);
    let registry = site.follow(&fixture).await;
    let url = registry["url"].as_str().expect("an address");
    for body in [
        json!({"name": "ours", "url": format!("{}/other.json", site.address)}),
        json!({"name": "other", "url": url}),
    ] {
        let (status, reply) = fixture
            .call("POST", "/api/v1/registries", Some(&body))
            .await;
        assert_eq!(status, 409, "{reply}");
    }
    for bad in [
        "ftp://x/y",
        "registry",
        "https://user:word@example.org/r.json",
    ] {
        let body = json!({"name": "other", "url": bad});
        let (status, reply) = fixture
            .call("POST", "/api/v1/registries", Some(&body))
            .await;
        assert_eq!(status, 400, "{reply}");
    }
}
