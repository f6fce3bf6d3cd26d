//! Authorization codes: what stands between a person's yes and the tokens.
//!
//! ```text
//!  issued ──redeemed, all fits──▶ spent ──shown again──▶ its login ends
//!     └──redeemed, something differs, or a minute passed──▶ gone
//! ```
//!
//! In memory alone: a code lives for a minute, and after a restart the person
//! logs in once more.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::gateway::secrets;

/// How long a code may be redeemed, in milliseconds.
const CODE_MS: u64 = 60 * 1_000;
/// Codes held at once; each is some hundred bytes, and needed a good API key.
const CODES_MAX: usize = 1_000;
/// Lengths of a verifier, by RFC 7636.
const VERIFIER_CHARS_MIN: usize = 43;
const VERIFIER_CHARS_MAX: usize = 128;

/// What the person said yes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Hash of the client's id.
    pub client: String,
    /// As the client wrote it.
    pub redirect_uri: String,
    /// SHA-256 of the verifier, as base64url.
    pub challenge: String,
    pub scopes: String,
    /// Id of the API key that proved who the person is.
    pub api_key: String,
}

#[derive(Default)]
pub struct Codes {
    // Locked for a look-up, never across an await.
    held: Mutex<HashMap<String, Held>>,
}

struct Held {
    consent: Consent,
    until_ms: u64,
    /// The login that came of it.
    spent: Option<String>,
}

/// What a code that was shown is worth.
#[derive(Debug, PartialEq, Eq)]
pub enum Redeemed {
    Good(Consent),
    Unknown,
    /// It was good once; the login of then must end.
    Replayed(String),
}

// === impl Codes ===

impl Codes {
    /// Holds a consent under a code; false when there are too many.
    pub fn hold(&self, code: &str, consent: Consent, now_ms: u64) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| held.until_ms > now_ms);
        if held.len() >= CODES_MAX {
            return false;
        }
        let entry = Held {
            consent,
            until_ms: now_ms + CODE_MS,
            spent: None,
        };
        held.insert(secrets::hash(code), entry);
        true
    }

    /// Takes a code; `login` is what it is spent for. One that does not fit is
    /// gone: whoever shows a code with a wrong verifier is not its owner.
    pub fn redeem(
        &self,
        code: &str,
        client: &str,
        redirect_uri: &str,
        verifier: &str,
        login: &str,
        now_ms: u64,
    ) -> Redeemed {
        let hash = secrets::hash(code);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = held.get_mut(&hash) else {
            return Redeemed::Unknown;
        };
        if let Some(login) = &found.spent {
            return Redeemed::Replayed(login.clone());
        }
        let consent = &found.consent;
        let fits = found.until_ms > now_ms
            && secrets::same(&consent.client, client)
            && consent.redirect_uri == redirect_uri
            && is_verified(&consent.challenge, verifier);
        if !fits {
            held.remove(&hash);
            return Redeemed::Unknown;
        }
        found.spent = Some(login.to_owned());
        Redeemed::Good(found.consent.clone())
    }
}

/// Whether a text can be the challenge of method S256.
pub fn is_challenge(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text)
        .is_ok_and(|bytes| bytes.len() == 32)
}

fn is_verified(challenge: &str, verifier: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_formed = (VERIFIER_CHARS_MIN..=VERIFIER_CHARS_MAX).contains(&verifier.len())
        && verifier.bytes().all(unreserved);
    let hashed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    is_formed && secrets::same(&hashed, challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn consent() -> Consent {
        Consent {
            client: "c".to_owned(),
            redirect_uri: "http://127.0.0.1:1/cb".to_owned(),
            challenge: CHALLENGE.to_owned(),
            scopes: "api".to_owned(),
            api_key: "k".to_owned(),
        }
    }

    fn redeem(codes: &Codes, change: impl FnOnce(&mut [&str; 3]), now_ms: u64) -> Redeemed {
        let mut given = ["c", "http://127.0.0.1:1/cb", VERIFIER];
        change(&mut given);
        codes.redeem("code", given[0], given[1], given[2], "login", now_ms)
    }

    #[test]
    fn a_code_is_good_once() {
        let codes = Codes::default();
        assert!(codes.hold("code", consent(), 0));
        assert_eq!(redeem(&codes, |_| (), 1), Redeemed::Good(consent()));
        let replayed = Redeemed::Replayed("login".to_owned());
        assert_eq!(redeem(&codes, |_| (), 2), replayed);
    }

    #[test]
    fn a_code_that_does_not_fit_is_gone() {
        let changes: [fn(&mut [&str; 3]); 4] = [
            |given| given[0] = "other",
            |given| given[1] = "http://127.0.0.1:2/cb",
            |given| given[2] = "wrong-wrong-wrong-wrong-wrong-wrong-wrong-wrong",
            |given| given[2] = "short",
        ];
        for change in changes {
            let codes = Codes::default();
            assert!(codes.hold("code", consent(), 0));
            assert_eq!(redeem(&codes, change, 1), Redeemed::Unknown);
            assert_eq!(redeem(&codes, |_| (), 1), Redeemed::Unknown);
        }
        let codes = Codes::default();
        assert!(codes.hold("code", consent(), 0));
        assert_eq!(redeem(&codes, |_| (), CODE_MS), Redeemed::Unknown);
    }

    #[test]
    fn codes_are_bounded_and_end() {
        let codes = Codes::default();
        for number in 0..CODES_MAX {
            assert!(codes.hold(&number.to_string(), consent(), 0));
        }
        assert!(!codes.hold("more", consent(), 1));
        assert!(codes.hold("more", consent(), CODE_MS));
    }

    #[test]
    fn a_challenge_is_a_hash() {
        assert!(is_challenge(CHALLENGE));
        assert!(!is_challenge("") && !is_challenge(VERIFIER.get(1..).unwrap_or_default()));
    }
}
