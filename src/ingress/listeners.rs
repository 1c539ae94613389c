//! The listeners of a run as the status shows them: their addresses, their counts, and their certificate.

use std::sync::Arc;

use crate::bound::Bound;
use crate::config::ServerKind;
use crate::ingress::bind::Listener;
use crate::ingress::live::Live;
use crate::ingress::tally::{ListenerCounts, ListenerTally};
use crate::tls::{CertificateNow, OwnCertificate};

/// All listeners.
#[derive(Debug, Default)]
pub struct Listeners {
    live: Arc<Live>,
    all: Vec<Shown>,
}

/// A listener.
#[derive(Debug)]
struct Shown {
    configured: Option<String>,
    bound: Bound,
    is_handed: bool,
    certificate: Option<Arc<OwnCertificate>>,
    /// None if the server does not count.
    tally: Option<Arc<ListenerTally>>,
}

/// A listener at one time.
#[derive(Debug)]
pub(crate) struct ListenerNow<'a> {
    /// The address as configured; None if a service manager handed the socket over.
    pub configured: Option<&'a str>,
    /// The address as bound.
    pub bound: &'a Bound,
    /// A service manager handed the socket over.
    pub is_handed: bool,
    /// Its certificate, if it has one.
    pub certificate: Option<CertificateNow>,
    /// Its counts; None if the server does not count.
    pub counts: Option<ListenerCounts>,
}

impl Listeners {
    /// These listeners, which a server of `kind` serves.
    pub(crate) fn of(listeners: &[Listener], kind: ServerKind) -> Self {
        let counts = kind == ServerKind::Builtin;
        let shown = listeners.iter().map(|one| Shown {
            configured: one.configured.clone(),
            bound: one.bound().clone(),
            is_handed: one.is_handed,
            certificate: one.tls.clone(),
            tally: counts.then(|| one.tally.clone()),
        });
        Self { live: Arc::default(), all: shown.collect() }
    }

    /// The open connections of all of them.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.clone()
    }

    /// The addresses as bound.
    pub(crate) fn bound(&self) -> Vec<Bound> {
        self.all.iter().map(|one| one.bound.clone()).collect()
    }

    /// All of them as they are now.
    pub(crate) fn now(&self) -> Vec<ListenerNow<'_>> {
        let tallies: Vec<_> = self.all.iter().filter_map(|one| one.tally.as_ref()).collect();
        let mut counted = self.live.counts(&tallies).into_iter();
        let shown = self.all.iter().map(|one| ListenerNow {
            configured: one.configured.as_deref(),
            bound: &one.bound,
            is_handed: one.is_handed,
            certificate: one.certificate.as_ref().map(|certificate| certificate.now()),
            counts: one.tally.as_ref().and_then(|_| counted.next()),
        });
        shown.collect()
    }
}
