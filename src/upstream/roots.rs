//! The trusted roots of TLS: the public ones or the system's, and those of a `ca_file` besides.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::WantsClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::config::Egress;
use crate::tls;
use crate::upstream::error::SetupError;

/// The trusted roots.
#[derive(Clone, Debug)]
pub(super) enum Roots {
    /// The public roots.
    Public,
    /// Other roots.
    Own(Arc<ClientConfig>),
}

impl Roots {
    /// The roots for `egress`; the error names the problem of its certificates.
    pub(super) fn of(egress: &Egress) -> Result<Self, SetupError> {
        if let Some(own) = &egress.own_certificate {
            let others = if own.is_only { None } else { Some(store(egress)?) };
            return Ok(Self::Own(tls::trusting(own.certificate.clone(), others)));
        }
        match (&egress.system_roots_pem, &egress.extra_roots_pem) {
            (None, None) => Ok(Self::Public),
            (Some(pem), None) => system(pem).map(Self::Own),
            (_, Some(_)) => Ok(Self::Own(Arc::new(without_certificate(store(egress)?)))),
        }
    }

    /// The configuration of a TLS session.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        match self {
            Self::Public => public(),
            Self::Own(config) => config.clone(),
        }
    }
}

/// The roots for `egress`, of its own.
pub(super) fn store(egress: &Egress) -> Result<RootCertStore, SetupError> {
    let mut roots = match &egress.system_roots_pem {
        Some(pem) => system_roots(pem)?,
        None => public_roots(),
    };
    if let Some(extra) = &egress.extra_roots_pem {
        add(&mut roots, extra, "ca_file")?;
    }
    Ok(roots)
}

/// Trusts the public roots. One for all providers, because it holds nothing specific; made when it is first needed.
fn public() -> Arc<ClientConfig> {
    static PUBLIC: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    PUBLIC.get_or_init(|| Arc::new(without_certificate(public_roots()))).clone()
}

/// Trusts the roots in `pem`, which are the system's. One for all providers too.
fn system(pem: &Arc<str>) -> Result<Arc<ClientConfig>, SetupError> {
    static LAST: Mutex<Option<(Arc<str>, Arc<ClientConfig>)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, config)) = last.as_ref().filter(|(of, _)| of == pem) {
        return Ok(config.clone());
    }
    let config = Arc::new(without_certificate(system_roots(pem)?));
    *last = Some((pem.clone(), config.clone()));
    Ok(config)
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

fn system_roots(pem: &str) -> Result<RootCertStore, SetupError> {
    let mut roots = RootCertStore::empty();
    add(&mut roots, pem, "file of tls_roots")?;
    Ok(roots)
}

/// Adds the certificates in `pem`, the content of `file`.
fn add(roots: &mut RootCertStore, pem: &str, file: &'static str) -> Result<(), SetupError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let certificates = certificates.map_err(|error| SetupError::Certificates(file, error))?;
    // A bundle may contain certificates of a kind that webpki does not know; the others count.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(SetupError::NoCertificate(file));
    }
    Ok(())
}

fn without_certificate(roots: RootCertStore) -> ClientConfig {
    trusting(Arc::new(roots)).with_no_client_auth()
}

/// The configuration that trusts `roots`, up to the client's certificate.
pub(super) fn trusting(roots: Arc<RootCertStore>) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
}
