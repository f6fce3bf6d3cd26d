//! Keys and tokens: how they are made, stored and told apart.
//!
//! | secret | form | stored |
//! |---|---|---|
//! | API key | `sfapi_` and 64 hex digits (32 random bytes) | SHA-256 |
//! | pool token | 64 lower-case letters and digits | SHA-256 |
//! | code, access and refresh token of a login | a word and 64 hex digits | SHA-256; codes in memory alone |
//! | job token | `sfjob_JOB.DISPATCH.MAC` | not at all: derived from the gateway's own secret |
//!
//! A job token opens the agent API for one dispatch of one job; whether that
//! dispatch is still the current one is asked of the line, so it dies with it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "sfapi_";
/// What the access token of a login begins with.
pub const ACCESS_TOKEN_PREFIX: &str = "sfaccess_";
const JOB_TOKEN_PREFIX: &str = "sfjob_";
const SECRET_BYTES: usize = 32;
const POOL_TOKEN_CHARS: usize = 64;
/// The longest credential that is looked at, in bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 256;

/// Derives and checks job tokens.
#[derive(Clone)]
pub struct JobTokens {
    secret: [u8; SECRET_BYTES],
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(bytes)
}

/// A new API key.
pub fn api_key() -> anyhow::Result<String> {
    token(API_KEY_PREFIX)
}

/// A new random secret of 32 bytes behind a word that says what it is.
pub fn token(prefix: &str) -> anyhow::Result<String> {
    Ok(format!("{prefix}{}", hex(&random::<SECRET_BYTES>()?)))
}

/// A new pool token.
pub fn pool_token() -> anyhow::Result<String> {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut token = String::with_capacity(POOL_TOKEN_CHARS);
    while token.len() < POOL_TOKEN_CHARS {
        // 252 is the largest multiple of 36 in a byte: above it letters would not be equally likely.
        for byte in random::<POOL_TOKEN_CHARS>()?
            .into_iter()
            .filter(|byte| *byte < 252)
        {
            if token.len() < POOL_TOKEN_CHARS {
                token.push(char::from(LETTERS[usize::from(byte % 36)]));
            }
        }
    }
    Ok(token)
}

/// How a secret is stored: SHA-256 in hex. Enough for what is random and long.
pub fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// The SHA-256 of some bytes, in hex.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Compares without telling by the time it takes where the difference is.
pub fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// Writes a file that only its owner can read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    // A left-over of a crash may have any mode; a new file gets ours.
    let _ = std::fs::remove_file(&partial);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)
        .with_context(|| format!("create {}", partial.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("name {}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// === impl JobTokens ===

impl JobTokens {
    /// Reads the gateway's own secret, or makes it.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            write_private(path, &hex(&random::<SECRET_BYTES>()?))?;
        }
        let text = std::fs::read_to_string(path).context("read the gateway's own secret")?;
        Ok(Self {
            secret: Sha256::digest(text.trim().as_bytes()).into(),
        })
    }

    pub fn issue(&self, job: &str, dispatch: u32) -> String {
        format!(
            "{JOB_TOKEN_PREFIX}{job}.{dispatch}.{}",
            self.mac(job, dispatch)
        )
    }

    /// The job and dispatch a genuine token is for.
    pub fn check(&self, token: &str) -> Option<(String, u32)> {
        let mut parts = token.strip_prefix(JOB_TOKEN_PREFIX)?.split('.');
        let (job, dispatch, mac) = (parts.next()?, parts.next()?, parts.next()?);
        let dispatch = dispatch.parse().ok()?;
        let genuine = parts.next().is_none() && same(&self.mac(job, dispatch), mac);
        genuine.then(|| (job.to_owned(), dispatch))
    }

    /// A text for somebody to keep and bring back, who cannot change it unseen.
    /// It is not hidden from them. A seal for one purpose is none for another.
    pub fn seal(&self, purpose: &str, text: &str) -> String {
        let text = URL_SAFE_NO_PAD.encode(text);
        format!("{text}.{}", self.seal_mac(purpose, &text))
    }

    /// The text under a genuine seal.
    pub fn unseal(&self, purpose: &str, sealed: &str) -> Option<String> {
        let (text, mac) = sealed.split_once('.')?;
        if !same(&self.seal_mac(purpose, text), mac) {
            return None;
        }
        String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    fn seal_mac(&self, purpose: &str, text: &str) -> String {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.secret)
            .expect("HMAC takes a key of any length");
        // No job's id begins with a zero, so this is never the MAC of a job token.
        mac.update(&[0]);
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(text.as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    fn mac(&self, job: &str, dispatch: u32) -> String {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.secret)
            .expect("HMAC takes a key of any length");
        mac.update(job.as_bytes());
        mac.update(&[0]);
        mac.update(&dispatch.to_be_bytes());
        hex(&mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_the_form_that_clients_know() {
        let key = api_key().expect("random");
        assert!(key.starts_with("sfapi_") && key.len() == 70);
        let token = pool_token().expect("random");
        assert_eq!(token.len(), 64);
        assert!(
            token
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert_ne!(token, pool_token().expect("random"));
    }

    #[test]
    fn a_seal_holds_for_its_text_and_purpose() {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens = JobTokens::load(&dir.path().join("secret")).expect("made");
        let sealed = tokens.seal("page", "a text");
        assert_eq!(tokens.unseal("page", &sealed).as_deref(), Some("a text"));
        assert_eq!(tokens.unseal("client", &sealed), None);
        let other = tokens.seal("page", "other");
        let (_, mac) = sealed.split_once('.').expect("two parts");
        let (text, _) = other.split_once('.').expect("two parts");
        assert_eq!(tokens.unseal("page", &format!("{text}.{mac}")), None);
        assert_eq!(tokens.unseal("page", ""), None);
    }

    #[test]
    fn a_job_token_is_for_one_dispatch_of_one_job() {
        let dir = tempfile::tempdir().expect("a directory");
        let tokens = JobTokens::load(&dir.path().join("secret")).expect("made");
        let token = tokens.issue("job-1", 2);
        assert_eq!(tokens.check(&token), Some(("job-1".to_owned(), 2)));
        assert_eq!(tokens.check(&token.replace(".2.", ".3.")), None);
        assert_eq!(tokens.check(&token.replace("job-1", "job-2")), None);
        assert_eq!(tokens.check(&format!("{token}.x")), None);
        let again = JobTokens::load(&dir.path().join("secret")).expect("read");
        assert!(again.check(&token).is_some(), "it survives a restart");
        let other = JobTokens::load(&dir.path().join("other")).expect("made");
        assert_eq!(other.check(&token), None);
    }
}
