//! Records sealed with a key, so that a reader of the server or its backups gets no token.
//!
//! ChaCha20-Poly1305 with a random nonce; the key is SHA-256 of the configured text. The record's place (provider,
//! fencing number, generation) is authenticated with it, so that a record can't pass as another's, or an old one as a
//! new one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::secret::Secret;

/// The beginning of a sealed record; an unsealed one begins with `{`.
const MARK: &str = "sealed:1:";

/// Seals `text`, which belongs to `context`; without a key the text stays unsealed.
pub(crate) fn seal(
    key: Option<&Secret>,
    context: &str,
    text: &Secret,
) -> Result<Secret, &'static str> {
    let Some(key) = key else { return Ok(text.clone()) };
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).map_err(|_| "the system gives no random numbers")?;
    let mut sealed = text.expose().as_bytes().to_vec();
    let aad = Aad::from(context.as_bytes());
    cipher(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
        .map_err(|_| "the record can't be sealed")?;
    let mut all = nonce.to_vec();
    all.extend(sealed);
    Ok(Secret::new(format!("{MARK}{}", STANDARD.encode(all))))
}

/// Opens a text from [`seal`]. With a key, an unsealed text is rejected.
pub(crate) fn open(
    key: Option<&Secret>,
    context: &str,
    text: &str,
) -> Result<Secret, &'static str> {
    const WRONG: &str = "its record can't be opened; do all hosts have the same token_store_key?";
    let (key, sealed) = match (key, text.strip_prefix(MARK)) {
        (None, None) => return Ok(Secret::new(text)),
        (None, Some(_)) => {
            return Err("its record is sealed, and there is no token_store_key here");
        }
        (Some(_), None) => {
            return Err("its record is not sealed, but there is a token_store_key here");
        }
        (Some(key), Some(sealed)) => (key, sealed),
    };
    let mut all = STANDARD.decode(sealed).map_err(|_| WRONG)?;
    if all.len() < NONCE_LEN {
        return Err(WRONG);
    }
    let mut sealed = all.split_off(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(&all).map_err(|_| WRONG)?;
    let opened = cipher(key).open_in_place(nonce, Aad::from(context.as_bytes()), &mut sealed);
    let text = opened.ok().and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.map(Secret::new).ok_or(WRONG)
}

fn cipher(key: &Secret) -> LessSafeKey {
    let digest = digest(&SHA256, key.expose().as_bytes());
    let key =
        UnboundKey::new(&CHACHA20_POLY1305, digest.as_ref()).expect("SHA-256 has the key's length");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_and_place_open_it() {
        let (key, other) = (Secret::new("k".repeat(32)), Secret::new("l".repeat(32)));
        let text = Secret::new("{\"refresh_token\":\"rt\"}");
        let sealed = seal(Some(&key), "p 1 2", &text).unwrap();
        assert!(sealed.expose().starts_with(MARK) && !sealed.expose().contains("rt\""));
        assert_ne!(seal(Some(&key), "p 1 2", &text).unwrap(), sealed, "the nonce differs");
        assert_eq!(open(Some(&key), "p 1 2", sealed.expose()).unwrap(), text);
        for (key, context) in [(Some(&other), "p 1 2"), (Some(&key), "p 1 3"), (None, "p 1 2")] {
            assert!(open(key, context, sealed.expose()).is_err(), "{context}");
        }
        assert!(open(Some(&key), "p 1 2", text.expose()).is_err(), "what is not sealed");
        assert_eq!(open(None, "p 1 2", text.expose()).unwrap(), text);
        assert_eq!(seal(None, "p 1 2", &text).unwrap(), text);
    }

    #[test]
    fn every_damage_is_noticed() {
        let key = Secret::new("k".repeat(32));
        let sealed = seal(Some(&key), "p", &Secret::new("text")).unwrap();
        let sealed = sealed.expose();
        for end in 0..sealed.len() {
            assert!(open(Some(&key), "p", &sealed[..end]).is_err(), "cut at {end}");
        }
        for at in MARK.len()..sealed.len() - 2 {
            let other = if sealed.as_bytes()[at] == b'A' { 'B' } else { 'A' };
            let damaged = format!("{}{other}{}", &sealed[..at], &sealed[at + 1..]);
            assert!(open(Some(&key), "p", &damaged).is_err(), "damaged at {at}");
        }
    }
}
