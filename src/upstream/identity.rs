//! The TLS configuration of connections that show a client certificate (RFC 8705): made anew when its files change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{ClientCertificateFiles, secret_file};
use crate::secret::Secret;
use crate::signing::{Certificate, SigningKey};
use crate::upstream::fault::Fault;
use crate::upstream::roots;

/// A client certificate, as its files have it.
#[derive(Debug)]
pub(super) struct TlsIdentity {
    files: ClientCertificateFiles,
    roots: Arc<RootCertStore>,
    last: Mutex<LastIdentity>,
}

/// The last configuration, and the last problem.
#[derive(Debug, Default)]
struct LastIdentity {
    /// The configuration, with the hash of the files that it was made of.
    made: Option<(String, Arc<ClientConfig>)>,
    /// The problem that the log has already.
    said: Option<String>,
}

impl TlsIdentity {
    pub(super) fn new(files: ClientCertificateFiles, roots: RootCertStore) -> Self {
        Self { files, roots: Arc::new(roots), last: Mutex::default() }
    }

    /// The configuration of the next handshake. While the files can't be used, such as in the middle of their
    /// replacement, the last good certificate serves.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, Fault> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read(last.made.as_ref()) {
            Ok((hash, config)) => {
                *last = LastIdentity { made: Some((hash, config.clone())), said: None };
                Ok(config)
            }
            Err(why) => {
                let Some((_, config)) = last.made.clone() else { return Err(Fault::Bad(why)) };
                if last.said.as_ref() != Some(&why) {
                    warn!("{why}; the one before it is still shown");
                    last.said = Some(why);
                }
                Ok(config)
            }
        }
    }

    fn read(
        &self,
        made: Option<&(String, Arc<ClientConfig>)>,
    ) -> Result<(String, Arc<ClientConfig>), String> {
        let unusable = |path: &Path, why: &dyn std::fmt::Display| {
            format!("the client certificate of '{}' can't be used: {why}", path.display())
        };
        let read = |path: &Path| {
            secret_file::read(path).map(Secret::new).map_err(|why| unusable(path, &why))
        };
        let (chain, key_text) = (read(&self.files.chain)?, read(&self.files.key)?);
        let hash = [chain.hash(), key_text.hash()].concat();
        if let Some(same) = made.filter(|(of, _)| *of == hash) {
            return Ok(same.clone());
        }
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(chain.expose().as_bytes()).collect();
        let certificates = certificates.map_err(|why| unusable(&self.files.chain, &why))?;
        let key = PrivateKeyDer::from_pem_slice(key_text.expose().as_bytes())
            .map_err(|why| unusable(&self.files.key, &why))?;
        let key = any_supported_type(&key).map_err(|why| unusable(&self.files.key, &why))?;
        // rustls compares certificate and key too, but only of version 3; openssl writes version 1 without extensions.
        if !fits(&chain, &key_text) {
            return Err(unusable(&self.files.chain, &"it belongs to another key"));
        }
        let shown = Arc::new(SingleCertAndKey::from(CertifiedKey::new(certificates, key)));
        let config = roots::trusting(self.roots.clone()).with_client_cert_resolver(shown);
        Ok((hash, Arc::new(config)))
    }
}

/// True if the first certificate of a chain is that of the key, both in PEM.
fn fits(chain: &Secret, key: &Secret) -> bool {
    let certificate = Certificate::first_in(chain.expose());
    let key = SigningKey::parse(key.expose());
    certificate.is_ok_and(|certificate| key.is_ok_and(|key| certificate.is_of(&key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of these files of `tests/data/keys`.
    fn made(chain: &str, key: &str) -> Result<Arc<ClientConfig>, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys");
        let files = ClientCertificateFiles { chain: folder.join(chain), key: folder.join(key) };
        TlsIdentity::new(files, RootCertStore::empty()).config().map_err(|fault| fault.to_string())
    }

    /// rustls refuses them where it compares certificate and key.
    #[test]
    fn a_certificate_of_version_1_as_openssl_writes_it_could_not_be_shown() {
        assert!(made("p256-expired-cert.pem", "p256.pem").is_ok());
        assert!(made("rsa-cert.pem", "rsa-pkcs1.pem").is_ok());
    }

    #[test]
    fn files_that_can_t_be_used_are_named() {
        for (chain, key, part) in [
            ("rsa-cert.pem", "p256.pem", "rsa-cert.pem' can't be used: it belongs to another key"),
            ("rsa-cert.pem", "none.pem", "none.pem' can't be used"),
            ("rsa-cert.pem", "rsa-cert.pem", "rsa-cert.pem' can't be used"),
            ("rsa.pem", "rsa.pem", "rsa.pem' can't be used: it belongs to another key"),
        ] {
            let told = made(chain, key).unwrap_err();
            assert!(
                told.starts_with("the client certificate of '") && told.contains(part),
                "{told}"
            );
        }
    }
}
