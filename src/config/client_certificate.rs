//! `client_cert_file` and `client_key_file`: the certificate that a client shows in TLS handshakes (RFC 8705).

use std::path::{Path, PathBuf};

use crate::config::assertion::SecretFile;
use crate::config::missing::{Missing, SecretLookup};

/// The certificate chain and the private key of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, in PEM.
    pub chain: SecretFile,
    /// The key, in PEM; it may be the same file.
    pub key: SecretFile,
}

/// The paths of a client's certificate and key, which each handshake reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl ClientCertificate {
    /// Its files, one if the key is in the same.
    pub fn files(&self) -> impl Iterator<Item = &SecretFile> {
        let key = Some(&self.key).filter(|key| key.path != self.chain.path);
        std::iter::once(&self.chain).chain(key)
    }

    /// Their paths.
    pub fn paths(&self) -> ClientCertificateFiles {
        ClientCertificateFiles { chain: self.chain.path.clone(), key: self.key.path.clone() }
    }

    /// Reads its files again with `read`. Files that don't fit each other count as missing.
    pub(crate) fn read_again(&mut self, read: &dyn Fn(&Path) -> SecretLookup) {
        self.chain.found = read(&self.chain.path);
        self.key.found = read(&self.key.path);
        if let Err(missing) = self.check() {
            self.chain.found = Err(missing);
        }
    }

    /// The reason why the files can't be used, if there is one.
    fn check(&self) -> Result<(), Missing> {
        let key = self.key.signing_key()?.map_err(|why| self.key.unusable(&why))?;
        let certificate = self.chain.certificate()?;
        let certificate = certificate.map_err(|why| self.chain.unusable(&why))?;
        if !certificate.is_of(&key) {
            return Err(self.chain.unusable(&OTHER_KEY));
        }
        Ok(())
    }
}

/// The words for a certificate of another key.
const OTHER_KEY: &str = "its certificate belongs to another key";
