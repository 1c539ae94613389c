//! The TLS configuration of connections that show a client certificate (RFC 8705): made anew when its files change.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{ClientCertificateFiles, secret_file};
use crate::secret::Secret;
use crate::upstream::fault::Fault;
use crate::upstream::roots;

/// A client certificate, as its files have it.
#[derive(Debug)]
pub(super) struct Identity {
    files: ClientCertificateFiles,
    roots: Arc<RootCertStore>,
    last: Mutex<Last>,
}

/// The last configuration, and the last problem.
#[derive(Debug, Default)]
struct Last {
    /// The configuration, with the hash of the files that it was made of.
    made: Option<(String, Arc<ClientConfig>)>,
    /// The problem that the log has already.
    said: Option<String>,
}

impl Identity {
    pub(super) fn new(files: ClientCertificateFiles, roots: RootCertStore) -> Self {
        Self { files, roots: Arc::new(roots), last: Mutex::default() }
    }

    /// The configuration of the next handshake. While the files can't be used, such as in the middle of their
    /// replacement, the last good certificate serves.
    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, Fault> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read(last.made.as_ref()) {
            Ok((hash, config)) => {
                *last = Last { made: Some((hash, config.clone())), said: None };
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
        let (chain, key) = (read(&self.files.chain)?, read(&self.files.key)?);
        let hash = [chain.hash(), key.hash()].concat();
        if let Some(same) = made.filter(|(of, _)| *of == hash) {
            return Ok(same.clone());
        }
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(chain.expose().as_bytes()).collect();
        let certificates = certificates.map_err(|why| unusable(&self.files.chain, &why))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
            .map_err(|why| unusable(&self.files.key, &why))?;
        let config = roots::trusting(self.roots.clone())
            .with_client_auth_cert(certificates, key)
            .map_err(|why| unusable(&self.files.chain, &why))?;
        Ok((hash, Arc::new(config)))
    }
}
