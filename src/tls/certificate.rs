//! The certificate that clients see: read at the start, and again when its files change.

use std::fs;
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
use crate::regular_file::stamp::{Seen, Stamp};
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
    /// The states of certificate and key that have what is shown.
    seen: Option<[Seen; 2]>,
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

    /// Reads the files again if they may have changed. While they can't be used, such as in the middle of their
    /// replacement, or clients would refuse what they hold, the last good certificate is shown.
    pub(crate) fn look(&self, clock: &Clock) {
        // The files are read without the lock: a disk may not answer.
        let stamps = self.stamps();
        let before = {
            let (mut state, now) = (self.state(), clock.wall());
            if stamps.is_some_and(|stamps| state.has_seen(stamps)) {
                return state.remind(&self.paths.certificate, now);
            }
            state.shown.hash.clone()
        };
        let made = make(&self.paths, &self.ticketer, Some(&before));
        let (mut state, now) = (self.state(), clock.wall());
        let seen = state.seen.take();
        match made {
            Ok(None) => {
                state.renewal_problem = None;
                state.seen = stamps.map(|stamps| seen_again(seen, stamps, now));
            }
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

    /// The states of both files; None if one can't be seen.
    fn stamps(&self) -> Option<[Stamp; 2]> {
        let stamp = |path: &Path| Some(Stamp::of(&fs::metadata(path).ok()?));
        Some([stamp(&self.paths.certificate)?, stamp(&self.paths.key)?])
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
        Self { shown: Arc::new(shown), seen: None, renewal_problem, reminders }
    }

    /// True if files with these states have what is shown.
    fn has_seen(&self, stamps: [Stamp; 2]) -> bool {
        let is_same = |(seen, stamp): (&Seen, Stamp)| seen.stamp == stamp && seen.is_settled();
        self.seen.as_ref().is_some_and(|seen| seen.iter().zip(stamps).all(is_same))
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

/// The states of files that were read `now`, and perhaps `before`.
fn seen_again(before: Option<[Seen; 2]>, stamps: [Stamp; 2], now: Timestamp) -> [Seen; 2] {
    let first_at = match before {
        Some(before) if before.each_ref().map(|seen| seen.stamp) == stamps => before[0].first_at,
        _ => now,
    };
    stamps.map(|stamp| Seen { stamp, first_at, read_at: now })
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::atomic::AtomicI64;
    use crate::clock::Moment;

    /// Writes a new certificate of the same length as any other.
    fn write_pair(paths: &TlsPaths) {
        loop {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            let certificate = params.self_signed(&key).unwrap().pem();
            // The encoding of a signature may be some bytes shorter.
            if fs::metadata(&paths.certificate)
                .is_ok_and(|one| one.len() != certificate.len() as u64)
            {
                continue;
            }
            fs::write(&paths.certificate, certificate).unwrap();
            fs::write(&paths.key, key.serialize_pem()).unwrap();
            return;
        }
    }

    /// They were read every two seconds for good.
    #[test]
    fn files_that_have_not_changed_for_a_while_are_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let paths = TlsPaths {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        write_pair(&paths);
        let written = fs::metadata(&paths.certificate).unwrap();
        // Long after all writes below, however long they take.
        let start = Timestamp::from_system_time(written.modified().unwrap()).plus_millis(3_600_000);
        let time = Arc::new(AtomicI64::new(0));
        let source = time.clone();
        let clock = Clock::from_fn(move || Moment {
            wall: start.plus_millis(source.load(Ordering::SeqCst)),
            steady_ms: 0,
        });
        let own = OwnCertificate::read(paths.clone(), &clock).unwrap();
        let hash = |at_ms| {
            time.store(at_ms, Ordering::SeqCst);
            own.look(&clock);
            own.state().shown.hash.clone()
        };
        // On a disk whose times show two writes as one.
        let write_unseen = || {
            write_pair(&paths);
            let stamps = own.stamps().unwrap();
            let mut state = own.state();
            let seen = state.seen.iter_mut().flatten();
            seen.zip(stamps).for_each(|(seen, stamp)| seen.stamp = stamp);
        };
        let first = hash(2_000);
        write_unseen();
        let second = hash(4_000);
        assert_ne!(first, second, "a write soon after the first is noticed");
        for at_ms in [6_000, 8_000, 10_000] {
            assert_eq!(hash(at_ms), second);
        }
        write_unseen();
        assert_eq!(hash(12_000), second, "nothing is read");
        write_pair(&paths);
        // The times of some disks are too coarse to differ by themselves.
        let file = fs::File::options().write(true).open(&paths.certificate).unwrap();
        file.set_modified(written.modified().unwrap() + Duration::from_mins(1)).unwrap();
        assert_ne!(hash(14_000), second, "other times are noticed");
        // One that can't be used is looked at until it can.
        fs::write(&paths.key, "").unwrap();
        let third = hash(16_000);
        assert!(own.now().renewal_problem.is_some());
        assert_eq!(hash(18_000), third);
        fs::remove_file(&paths.certificate).unwrap();
        assert_eq!(hash(20_000), third);
        write_pair(&paths);
        assert_ne!(hash(22_000), third);
        assert!(own.now().renewal_problem.is_none());
    }
}
