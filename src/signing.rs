//! Keys that sign assertions (RFC 7518), from the PEM files in which people have them, and the certificates that belong
//! to them; the only room that signs.

mod algorithm;
mod certificate;
mod der;
mod key;
mod name;
mod pem;

pub(crate) use algorithm::{Algorithm, KeyKind};
pub(crate) use certificate::{Certificate, CertificateProblem};
pub(crate) use key::{KeyProblem, SigningKey, hmac_sha256};
pub(crate) use name::CertificateName;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// The random bytes of an identifier that nobody can guess.
const ID_BYTES: usize = 16;

/// A new identifier that nobody can guess, in hex; None if the system gives no random bytes.
pub(crate) fn random_id() -> Option<String> {
    let mut bytes = [0; ID_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The random bytes of a key: 256 bits.
const KEY_BYTES: usize = 32;

/// A new text that nobody can guess, for a key; None if the system gives no random bytes.
pub(crate) fn random_text() -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    SystemRandom::new().fill(&mut *bytes).ok()?;
    Some(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes)))
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::key::tests::{ED25519, P256, RSA};
}
