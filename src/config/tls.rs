//! `settings.tls`: the certificate and the key that clients on TCP see.

use std::path::PathBuf;

use crate::config::assertion::SecretFile;
use crate::signing::Certificate;

/// The certificate and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnTls {
    /// The chain in PEM, its own certificate first.
    pub certificate: SecretFile,
    /// The key in PEM; it may be the same file.
    pub key: SecretFile,
}

/// The paths of both files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPaths {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl OwnTls {
    /// The paths of both files.
    pub fn paths(&self) -> TlsPaths {
        TlsPaths { certificate: self.certificate.path.clone(), key: self.key.path.clone() }
    }

    /// The own certificate, if it belongs to the key.
    pub(crate) fn fitting_certificate(&self) -> Option<Certificate> {
        let key = self.key.signing_key().ok()?.ok()?;
        self.certificate.certificate().ok()?.ok().filter(|own| own.is_of(&key))
    }

    /// The own certificate in DER; None if it can't be read.
    pub(crate) fn certificate_der(&self) -> Option<Vec<u8>> {
        Some(self.certificate.certificate().ok()?.ok()?.der().to_vec())
    }
}
