//! A registry served by a test: an index, versions, archives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_std::io::{ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::Digest;
use sluice::shutdown::spawn_detached;

/// A web server with files in memory.
#[derive(Clone)]
pub struct Site {
    pub address: String,
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
    pub async fn open() -> Self {
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

    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut files = self.files.lock().expect("unharmed");
        files.insert(path.to_owned(), File::Bytes(bytes.to_vec()));
    }

    pub fn redirect(&self, path: &str, to: &str) {
        let mut files = self.files.lock().expect("unharmed");
        files.insert(path.to_owned(), File::Redirect(to.to_owned()));
    }

    /// Lists apps, each by its key.
    pub fn list(&self, keys: &[&str]) {
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
    pub fn publish(&self, key: &str, versions: &[(&str, &[u8])]) {
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
    pub fn say(&self, key: &str, versions: &[(&str, String)]) {
        let version = |(number, checksum): &(&str, String)| {
            json!({"version": number, "artifactUrl": format!("{number}.tar.gz"),
                "artifactChecksum": checksum})
        };
        let list: Vec<_> = versions.iter().map(version).collect();
        let text = json!({"versions": list}).to_string();
        self.put(&format!("/r/apps/{key}/versions.json"), text.as_bytes());
    }

    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("unharmed"))
    }
}

pub fn checksum(bytes: &[u8]) -> String {
    let digest = sha2::Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
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

pub fn app(text: &str) -> Vec<u8> {
    archive(&[("app.js", text.as_bytes()), ("ui.js", b"ui")])
}
