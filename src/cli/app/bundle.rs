//! A bundle: the one JavaScript file of an app version, alone or in an archive.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

/// The largest bundle, in bytes, as the gateway takes it and workers fetch it.
const BUNDLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Where an archive keeps the app's code: the name that is written, and the one that is documented.
const CODE_FILES: [&str; 2] = ["app.js", "main.js"];
const UI_FILE: &str = "ui.js";
/// Digits of a digest that tell versions of local code apart.
const DIGEST_DIGITS: usize = 16;

pub struct Bundle {
    pub code: String,
    pub ui_code: Option<String>,
}

// === impl Bundle ===

impl Bundle {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = std::fs::File::open(path).with_context(|| format!("read {shown}"))?;
        let mut bytes = Vec::new();
        file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BUNDLE_BYTES_MAX {
            bail!("{shown} is over the limit of {BUNDLE_BYTES_MAX} bytes");
        }
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Self::unpack(&bytes).with_context(|| format!("{shown}"));
        }
        let code = String::from_utf8(bytes).map_err(|_| {
            anyhow::anyhow!("{shown} is neither JavaScript in UTF-8 nor a gzip archive")
        })?;
        Ok(Self {
            code,
            ui_code: None,
        })
    }

    /// Takes the files out of an archive that may claim anything: by name, up to a size.
    fn unpack(gzip: &[u8]) -> anyhow::Result<Self> {
        let unzipped = flate2::read::GzDecoder::new(gzip).take(2 * BUNDLE_BYTES_MAX);
        let (mut code, mut ui_code) = (None, None);
        for entry in tar::Archive::new(unzipped).entries()? {
            let entry = entry.context("the archive is damaged")?;
            let path = entry.path()?.into_owned();
            let name = path.strip_prefix(".").unwrap_or(&path).to_owned();
            let slot = if CODE_FILES.iter().any(|file| name == Path::new(file)) {
                &mut code
            } else if name == Path::new(UI_FILE) {
                &mut ui_code
            } else {
                continue;
            };
            let mut text = String::new();
            entry
                .take(BUNDLE_BYTES_MAX + 1)
                .read_to_string(&mut text)
                .with_context(|| format!("{} is damaged, or no UTF-8", name.display()))?;
            if text.len() as u64 > BUNDLE_BYTES_MAX {
                bail!(
                    "{} is over the limit of {BUNDLE_BYTES_MAX} bytes",
                    name.display()
                );
            }
            *slot = Some(text);
        }
        Ok(Self {
            code: code.with_context(|| format!("the archive holds no {}", CODE_FILES[0]))?,
            ui_code,
        })
    }

    /// A gzipped tar, the same bytes for the same code.
    pub fn pack(&self) -> anyhow::Result<Vec<u8>> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let mut archive = tar::Builder::new(gzip);
        let files = [
            (CODE_FILES[0], Some(&self.code)),
            (UI_FILE, self.ui_code.as_ref()),
        ];
        for (name, text) in files {
            let Some(text) = text else { continue };
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, text.as_bytes())?;
        }
        Ok(archive.into_inner()?.finish()?)
    }

    /// What a version of this code is called when nobody says: another name
    /// for other code, since a published version never changes.
    pub fn version(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(&self.code);
        if let Some(ui_code) = &self.ui_code {
            digest.update([0]);
            digest.update(ui_code);
        }
        let mut hex = String::new();
        for byte in digest.finalize() {
            hex.push_str(&format!("{byte:02x}"));
        }
        hex.truncate(DIGEST_DIGITS);
        format!("0.0.0-local.x{hex}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut archive = tar::Builder::new(gzip);
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, name, text.as_bytes())
                .expect("appended");
        }
        archive.into_inner().expect("tar").finish().expect("gzip")
    }

    #[test]
    fn a_packed_bundle_reads_as_itself_and_its_version_is_of_its_code() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bundle.tar.gz");
        let mut bundle = Bundle {
            code: "a".into(),
            ui_code: Some("u".into()),
        };
        let packed = bundle.pack().expect("packed");
        assert_eq!(packed, bundle.pack().expect("packed again"));
        std::fs::write(&file, packed).expect("written");
        let read = Bundle::read(&file).expect("a bundle");
        assert_eq!((read.code, read.ui_code), ("a".into(), Some("u".into())));
        let version = bundle.version();
        bundle.ui_code = None;
        assert_ne!(bundle.version(), version);
    }

    #[test]
    fn text_and_archives_are_bundles() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bundle");
        std::fs::write(&file, "export const app = 1").expect("written");
        assert_eq!(
            Bundle::read(&file).expect("text").code,
            "export const app = 1"
        );
        std::fs::write(
            &file,
            archive(&[("app.js", "a"), ("ui.js", "u"), ("x/app.js", "no")]),
        )
        .expect("written");
        let bundle = Bundle::read(&file).expect("an archive");
        assert_eq!(
            (bundle.code.as_str(), bundle.ui_code.as_deref()),
            ("a", Some("u"))
        );
    }

    #[test]
    fn what_is_no_bundle_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("bundle");
        for (bytes, says) in [
            (archive(&[("index.js", "a")]), "holds no app.js"),
            (b"\x1f\x8bnonsense".to_vec(), "bundle"),
            (vec![0xff, 0xfe], "neither JavaScript"),
        ] {
            std::fs::write(&file, bytes).expect("written");
            let error = Bundle::read(&file).err().expect("no bundle");
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    }
}
