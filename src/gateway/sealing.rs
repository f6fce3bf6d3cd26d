//! Secrets at rest: sealed with a key that is not in the database, so that a
//! copy of the database alone tells nobody.
//!
//! ```text
//!  gateway/secrets.key   64 hex digits a line: the first seals, all of them open
//!  value ─ AES-256-GCM, nonce of its own, bound to project and key ─▶ base64
//! ```
//!
//! At each start what is plain, or sealed with another than the first key, is
//! sealed anew: so a key is replaced by a line above it and a restart. A gateway
//! that lacks the key of a secret does not start. Owns the file and the
//! cryptography; rows are the store's.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::gateway::secrets::{digest, random, write_private};
use crate::store::engine::secrets::Kept;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Keys in the file; one that is replaced may go once the gateway has started.
const KEYS_MAX: usize = 16;
/// What names a key in the database: so many digits of its SHA-256.
const NAME_CHARS: usize = 16;

/// The keys of a gateway.
pub struct Sealing {
    path: PathBuf,
    /// The first one seals.
    keys: Vec<(String, LessSafeKey)>,
}

// === impl Sealing ===

impl Sealing {
    /// Reads the keys, or makes the first one.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            let key = random::<KEY_BYTES>()?;
            let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            write_private(path, &format!("{hex}\n"))?;
        }
        let shown = path.display();
        let meta = std::fs::metadata(path).with_context(|| format!("look at {shown}"))?;
        ensure!(
            meta.permissions().mode() & 0o077 == 0,
            "{shown} holds the keys of all secrets and is open to others: run chmod 600 on it"
        );
        let text = std::fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines
            .map(|line| key(line).with_context(|| format!("{shown}: a line is not 64 hex digits")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        ensure!(
            (1..=KEYS_MAX).contains(&keys.len()),
            "{shown} has not 1 to {KEYS_MAX} keys, one a line"
        );
        Ok(Self {
            path: path.to_owned(),
            keys,
        })
    }

    /// Seals a value for its place.
    pub fn seal(&self, project: &str, key: &str, value: &str) -> anyhow::Result<Kept> {
        let (name, sealer) = &self.keys[0];
        let nonce = random::<NONCE_LEN>()?;
        let mut sealed = value.as_bytes().to_vec();
        sealer
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                place(project, key),
                &mut sealed,
            )
            .map_err(|_| anyhow::anyhow!("a secret could not be sealed"))?;
        sealed.splice(0..0, nonce);
        Ok(Kept {
            value: BASE64.encode(sealed),
            sealed_by: Some(name.clone()),
        })
    }

    /// Opens a value that was sealed for this place. The error is a sentence
    /// that holds nothing of it.
    pub fn open(&self, project: &str, key: &str, kept: &Kept) -> anyhow::Result<String> {
        let Some(name) = &kept.sealed_by else {
            return Ok(kept.value.clone());
        };
        let Some((_, opener)) = self.keys.iter().find(|(known, _)| known == name) else {
            bail!(
                "secret `{key}` of project {project} is sealed with the key {name}, which is not in {}: \
                 bring back the line it had there",
                self.path.display()
            );
        };
        let damaged =
            || anyhow::anyhow!("secret `{key}` of project {project} is damaged: write it again");
        let mut sealed = BASE64.decode(&kept.value).map_err(|_| damaged())?;
        ensure!(sealed.len() > NONCE_LEN, damaged());
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&sealed[..NONCE_LEN]);
        let plain = opener
            .open_in_place(
                Nonce::assume_unique_for_key(nonce),
                place(project, key),
                &mut sealed[NONCE_LEN..],
            )
            .map_err(|_| damaged())?;
        String::from_utf8(plain.to_vec()).map_err(|_| damaged())
    }

    /// What stands in place of a value that is not sealed with the first key;
    /// `None` for one that is, and can be opened.
    pub fn renew(&self, project: &str, key: &str, kept: &Kept) -> anyhow::Result<Option<Kept>> {
        let value = self.open(project, key, kept)?;
        if kept.sealed_by.as_ref() == Some(&self.keys[0].0) {
            return Ok(None);
        }
        self.seal(project, key, &value).map(Some)
    }
}

/// What a value is bound to: moved to another row it opens no more.
fn place(project: &str, key: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("secret\n{project}\n{key}").into_bytes())
}

fn key(hex: &str) -> anyhow::Result<(String, LessSafeKey)> {
    ensure!(
        hex.len() == 2 * KEY_BYTES && hex.bytes().all(|b| b.is_ascii_hexdigit()),
        "no key"
    );
    let bytes = (0..KEY_BYTES)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16))
        .collect::<Result<Vec<_>, _>>()?;
    let mut name = digest(&bytes);
    name.truncate(NAME_CHARS);
    let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| anyhow::anyhow!("no key"))?;
    Ok((name, LessSafeKey::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealing(dir: &tempfile::TempDir) -> anyhow::Result<Sealing> {
        Sealing::load(&dir.path().join("secrets.key"))
    }

    #[test]
    fn a_value_opens_in_its_own_place_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let sealing = sealing(&dir).expect("made");
        let kept = sealing.seal("p", "TOKEN", "tell nobody").expect("sealed");
        assert!(!kept.value.contains("nobody"));
        let again = sealing.seal("p", "TOKEN", "tell nobody").expect("sealed");
        assert_ne!(kept.value, again.value, "a nonce of its own");
        let opened = sealing.open("p", "TOKEN", &kept).expect("opened");
        assert_eq!(opened, "tell nobody");
        for (project, key) in [("q", "TOKEN"), ("p", "OTHER"), ("p\nTOKEN", "")] {
            let error = sealing
                .open(project, key, &kept)
                .expect_err("another place");
            assert!(!error.to_string().contains(&kept.value), "{error}");
        }
        let mut damaged = kept.clone();
        damaged
            .value
            .replace_range(20..21, if &kept.value[20..21] == "A" { "B" } else { "A" });
        sealing.open("p", "TOKEN", &damaged).expect_err("damaged");
    }

    #[test]
    fn a_key_is_replaced_by_a_line_above_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let old = sealing(&dir).expect("made");
        let kept = old.seal("p", "K", "v").expect("sealed");
        assert!(old.renew("p", "K", &kept).expect("opened").is_none());
        let path = dir.path().join("secrets.key");
        let text = std::fs::read_to_string(&path).expect("read");
        write_private(&path, &format!("{}\n{text}", "ab".repeat(32))).expect("written");
        let both = sealing(&dir).expect("read");
        let renewed = both
            .renew("p", "K", &kept)
            .expect("opened")
            .expect("renewed");
        write_private(&path, &"ab".repeat(32)).expect("written");
        let new = sealing(&dir).expect("read");
        assert_eq!(new.open("p", "K", &renewed).expect("opened"), "v");
        let error = new.open("p", "K", &kept).expect_err("its key is gone");
        assert!(error.to_string().contains("bring back"), "{error}");
    }

    #[test]
    fn a_file_that_is_open_to_others_or_damaged_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        sealing(&dir).expect("made");
        let path = dir.path().join("secrets.key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
        let error = sealing(&dir).err().expect("open to others");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        write_private(&path, "key").expect("written");
        let error = sealing(&dir).err().expect("damaged");
        assert!(error.to_string().contains("64 hex digits"), "{error}");
    }
}
