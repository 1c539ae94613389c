//! `Secret`: a text that cannot be printed, only exposed by name.

use std::fmt;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The length of a SHA-256.
pub(crate) const SHA256_BYTES: usize = 32;

/// A token, key or client secret. It has no `Display`, its `Debug` is redacted, and its memory is
/// wiped when the last copy goes.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself, only for a request header, a token request or the state file.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if `text` contains it. A shorter text than a secret's is no secret.
    pub fn is_within(&self, text: &str) -> bool {
        const SECRET_MIN_BYTES: usize = 6;
        self.0.len() >= SECRET_MIN_BYTES && text.contains(&**self.0)
    }

    /// True if a header field may hold it as one word.
    pub fn is_visible(&self) -> bool {
        self.0.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
    }

    /// True if it begins with `byte`.
    pub fn begins_with(&self, byte: u8) -> bool {
        self.0.as_bytes().first() == Some(&byte)
    }

    /// True if it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// SHA-256 in lower-case hex, which distinguishes secrets on disk without storing them.
    pub fn hash(&self) -> String {
        hex(&sha256(self.0.as_bytes()))
    }

    /// Its SHA-256.
    pub(crate) fn sha256(&self) -> [u8; SHA256_BYTES] {
        sha256(self.0.as_bytes())
    }

    /// The first 64 bits of the hash: enough to tell accounts apart.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(&self.hash())
    }

    /// Compares in a time that depends only on the lengths.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }
}

/// The first 64 bits of a [`Secret::hash`].
pub(crate) fn fingerprint(hash: &str) -> u64 {
    hash.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; SHA256_BYTES] {
    let mut hash = [0; SHA256_BYTES];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// `bytes` in lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(..)");
        assert_eq!(format!("{:#?}", Some(Secret::new("hunter2"))), "Some(\n    Secret(..),\n)");
    }

    #[test]
    fn equality_and_hash() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert!(!Secret::new("a").matches(b"aa"));
        assert_eq!(
            Secret::new("abc").hash(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Secret::new("abc").fingerprint(), 0xba78_16bf_8f01_cfea);
        assert_eq!(fingerprint("short"), 0);
    }
}
