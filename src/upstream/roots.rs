//! Who is trusted over TLS: the public roots, and those of a `ca_file` beside them.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::Egress;

/// Who is trusted.
#[derive(Clone, Debug)]
pub(super) enum Roots {
    /// The public roots.
    Public,
    /// They and others.
    Own(Arc<ClientConfig>),
}

impl Roots {
    /// Those for `egress`; the error says what is wrong with its certificates.
    pub(super) fn of(egress: &Egress) -> Result<Self, String> {
        match &egress.extra_roots_pem {
            None => Ok(Self::Public),
            Some(pem) => Ok(Self::Own(Arc::new(trusting(with_own(pem)?)))),
        }
    }

    /// What a TLS session is made with.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        match self {
            Self::Public => public(),
            Self::Own(config) => config.clone(),
        }
    }
}

/// Trusts the public roots. One for all providers, since it holds nothing of any of them; made when
/// it is first needed.
fn public() -> Arc<ClientConfig> {
    static PUBLIC: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    PUBLIC.get_or_init(|| Arc::new(trusting(public_roots()))).clone()
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// The public roots and those in `pem`.
fn with_own(pem: &str) -> Result<RootCertStore, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let mut roots = public_roots();
    // A bundle may hold certificates of a kind that webpki does not know; the others count.
    let (added, _) = roots.add_parsable_certificates(certificates.map_err(|e| e.to_string())?);
    if added == 0 {
        return Err("there is no certificate in the ca_file".to_owned());
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
