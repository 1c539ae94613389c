//! Keys that sign assertions (RFC 7518), from the PEM files in which people have them, and the certificates that belong
//! to them; the only room that signs.

mod algorithm;
mod certificate;
mod der;
mod key;
mod pem;

pub(crate) use algorithm::{Algorithm, KeyKind};
pub(crate) use certificate::{Certificate, CertificateProblem};
pub(crate) use key::{KeyProblem, SigningKey, hmac_sha256};

use ring::rand::{SecureRandom, SystemRandom};

/// The random bytes of an identifier that nobody can guess.
const ID_BYTES: usize = 16;

/// A new identifier that nobody can guess, in hex; None if the system gives no random bytes.
pub(crate) fn random_id() -> Option<String> {
    let mut bytes = [0; ID_BYTES];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::key::tests::{ED25519, P256, RSA};
}
