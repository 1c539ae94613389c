//! The certificate that clients see: read at the start, and again when its files change.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{info, warn};
use rustls::crypto::ring;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig};

use crate::clock::{Clock, Timestamp};
use crate::config::{TlsPaths, secret_file};
use crate::secret::Secret;
use crate::signing::{Certificate, CertificateName, SigningKey};
use crate::tls::trust;
use crate::tls::validity::{Reminders, Validity};

/// The one protocol within TLS (RFC 7301).
const HTTP_1: &[u8] = b"http/1.1";

/// Our certificate, as its files have it.
#[derive(Debug)]
pub(crate) struct OwnCertificate {
    paths: TlsPaths,
    /// Seals tickets, with keys that it changes itself; a new certificate changes nothing about them.
    ticketer: Arc<dyn ProducesTickets>,
    state: Mutex<CertificateState>,
}

/// The certificate at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateNow {
    /// The time in which the certificate that clients see is valid.
    pub validity: Validity,
    /// The reason why clients do not see what its files hold now.
    pub renewal_problem: Option<String>,
}

#[derive(Debug)]
struct CertificateState {
    shown: Arc<Shown>,
    /// The problem of the files as they are now, which the log has already.
    renewal_problem: Option<String>,
    reminders: Reminders,
}

/// The certificate made of one content of the files.
#[derive(Debug)]
struct Shown {
    /// The hash of the files.
    hash: String,
    server: Arc<ServerConfig>,
    /// Trusts the certificate.
    client: Arc<ClientConfig>,
    validity: Validity,
    names: Vec<CertificateName>,
}

impl OwnCertificate {
    /// Reads the files; the error names the one that can't be used.
    pub(crate) fn read(paths: TlsPaths, clock: &Clock) -> Result<Self, String> {
        let ticketer = ring::Ticketer::new().map_err(|why| why.to_string())?;
        let shown = make(&paths, &ticketer, None)?.expect("nothing was made before");
        let mut state = CertificateState::of(shown);
        state.remind(&paths.certificate, clock.wall());
        Ok(Self { paths, ticketer, state: Mutex::new(state) })
    }

    /// Reads the files again. While they can't be used, such as in the middle of their replacement, or clients would
    /// refuse what they hold, the last good certificate is shown.
    pub(crate) fn look(&self, clock: &Clock) {
        // The files are read without the lock: a disk may not answer.
        let before = self.state().shown.hash.clone();
        let made = make(&self.paths, &self.ticketer, Some(&before));
        let (mut state, now) = (self.state(), clock.wall());
        match made {
            Ok(None) => state.renewal_problem = None,
            Ok(Some(shown)) => {
                let file = self.paths.certificate.display();
                match shown.validity.doubt(now) {
                    Some(doubt) if state.shown.validity.doubt(now).is_none() => {
                        state.keep(&format!("'{file}' has a new certificate, which {doubt}"));
                    }
                    doubt => {
                        // Otherwise the reminder says what clients think of it.
                        if doubt.is_none() {
                            let ends = shown.validity.ends;
                            info!("'{file}' has a new certificate, which ends at {ends}");
                        }
                        if let Some(lost) = shown.lost_names(&state.shown) {
                            warn!("'{file}' has a new certificate, which is no longer for {lost}");
                        }
                        *state = CertificateState::of(shown);
                    }
                }
            }
            Err(why) => state.keep(&why),
        }
        state.remind(&self.paths.certificate, now);
    }

    /// The configuration of the next handshake.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        self.state().shown.server.clone()
    }

    /// The certificate as it is now.
    pub(crate) fn now(&self) -> CertificateNow {
        let state = self.state();
        let renewal_problem = state.renewal_problem.clone();
        CertificateNow { validity: state.shown.validity, renewal_problem }
    }

    /// The configuration of a client that trusts the certificate that is shown.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        self.state().shown.client.clone()
    }

    fn state(&self) -> MutexGuard<'_, CertificateState> {
        // It is set as a whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// The names of the certificate `before` that this one is not for, if there are any.
    fn lost_names(&self, before: &Self) -> Option<String> {
        let has = |name: &str| self.names.iter().any(|own| own.is_for(name));
        let mut lost: Vec<_> = before.names.iter().map(ToString::to_string).collect();
        lost.retain(|name| !has(name));
        (!lost.is_empty()).then(|| lost.join(", "))
    }
}

impl CertificateState {
    fn of(shown: Shown) -> Self {
        let (renewal_problem, reminders) = (None, Reminders::default());
        Self { shown: Arc::new(shown), renewal_problem, reminders }
    }

    /// Goes on with the certificate that is shown, because `why` another one can't be; says so once.
    fn keep(&mut self, why: &str) {
        let problem = format!("{why}; the one before it is still shown");
        if self.renewal_problem.as_ref() != Some(&problem) {
            warn!("{problem}");
            self.renewal_problem = Some(problem);
        }
    }

    /// Says that clients refuse the certificate in `file`, or soon will, once a day.
    fn remind(&mut self, file: &Path, now: Timestamp) {
        let Some(words) = self.reminders.due(self.shown.validity, now) else { return };
        let file = file.display();
        match &self.renewal_problem {
            None => warn!("The certificate '{file}' {words}"),
            Some(problem) => warn!("The certificate that clients see {words}. {problem}"),
        }
    }
}

/// The certificate in the files; None if their hash is the one `before`.
fn make(
    paths: &TlsPaths,
    ticketer: &Arc<dyn ProducesTickets>,
    before: Option<&str>,
) -> Result<Option<Shown>, String> {
    let unusable = |path: &Path, why: &dyn std::fmt::Display| {
        format!("'{}' of settings.tls can't be used: {why}", path.display())
    };
    let read =
        |path: &Path| secret_file::read(path).map(Secret::new).map_err(|why| unusable(path, &why));
    let (chain, key_text) = (read(&paths.certificate)?, read(&paths.key)?);
    let hash = [chain.hash(), key_text.hash()].concat();
    if before == Some(&hash) {
        return Ok(None);
    }
    let own = Certificate::first_in(chain.expose());
    let own = own.map_err(|why| unusable(&paths.certificate, &why))?;
    let key = SigningKey::parse(key_text.expose()).map_err(|why| unusable(&paths.key, &why))?;
    // rustls compares both too, but only of certificates of version 3.
    if !own.is_of(&key) {
        return Err(unusable(&paths.certificate, &"its certificate belongs to another key"));
    }
    let certificates =
        Certificate::chain_in(chain.expose()).map_err(|why| unusable(&paths.certificate, &why))?;
    let certificates = certificates.into_iter().map(CertificateDer::from).collect();
    let key = PrivateKeyDer::from_pem_slice(key_text.expose().as_bytes())
        .map_err(|why| unusable(&paths.key, &why))?;
    let key = any_supported_type(&key).map_err(|why| unusable(&paths.key, &why))?;
    let client = trust::trusting(own.der().to_vec(), None);
    let server = server_config(CertifiedKey::new(certificates, key), ticketer.clone());
    let validity = Validity { begins: own.begins, ends: own.ends };
    Ok(Some(Shown { hash, server, client, validity, names: own.names() }))
}

fn server_config(shown: CertifiedKey, ticketer: Arc<dyn ProducesTickets>) -> Arc<ServerConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    // Sessions are resumed by tickets, which take no memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer;
    Arc::new(config)
}
