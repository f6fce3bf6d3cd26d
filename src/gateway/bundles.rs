//! The code of app versions, as files named by their SHA-256. The same code is
//! stored once, however many versions hold it; a file never changes.
//!
//! Owns the directory; what may be in an archive is `archive`'s.

pub mod archive;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::gateway::bundles::archive::Code;
use crate::gateway::secrets::digest;
use crate::shutdown::unblock;

/// A version's code as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub digest: String,
    pub code_bytes: u64,
    pub ui_digest: Option<String>,
}

#[derive(Clone)]
pub struct Bundles {
    dir: PathBuf,
}

// === impl Bundles ===

impl Bundles {
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Stores bytes durably; answers with their digest.
    pub async fn put(&self, bytes: Vec<u8>) -> anyhow::Result<String> {
        let dir = self.dir.clone();
        unblock(move || {
            let digest = digest(&bytes);
            let path = dir.join(&digest);
            if path.exists() {
                return Ok(digest);
            }
            let mut file = tempfile::NamedTempFile::new_in(&dir).context("make a bundle's file")?;
            file.write_all(&bytes).context("write a bundle")?;
            file.as_file()
                .sync_all()
                .context("write a bundle to the disk")?;
            file.persist(&path).context("name a bundle")?;
            // The name is durable once the directory is.
            std::fs::File::open(&dir)
                .and_then(|dir| dir.sync_all())
                .context("write the bundles' directory to the disk")?;
            Ok(digest)
        })
        .await
    }

    /// Stores a version's code durably.
    pub async fn put_code(&self, code: Code) -> anyhow::Result<Stored> {
        let code_bytes = code.code.len() as u64;
        let digest = self.put(code.code).await?;
        let ui_digest = match code.ui {
            Some(ui) => Some(self.put(ui).await?),
            None => None,
        };
        Ok(Stored {
            digest,
            code_bytes,
            ui_digest,
        })
    }

    /// The bytes with a digest, which must be 64 hex digits.
    pub async fn get(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.dir.join(digest);
        unblock(move || std::fs::read(path).context("read a bundle")).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[async_std::test]
    async fn the_same_code_is_stored_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let bundles = Bundles::open(dir.path()).expect("opened");
        let one = bundles.put(b"code".to_vec()).await.expect("stored");
        let two = bundles.put(b"code".to_vec()).await.expect("stored");
        assert_eq!(one, two);
        assert_eq!(bundles.get(&one).await.expect("read"), b"code");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}
