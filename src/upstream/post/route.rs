//! The connections of token requests: evertoken's own, under `ureq`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector as UreqConnector, LazyBuffers, NextTimeout, Transport,
};

use crate::clock::Deadline;
use crate::upstream::connect::Connector;
use crate::upstream::fault::Fault;
use crate::upstream::origin::Origin;
use crate::upstream::talk::Talk;
use crate::upstream::watch::Watch;
use crate::upstream::wire::Wire;

/// Makes the connection of one request, and remembers its outcome.
#[derive(Clone, Debug)]
pub(super) struct ProxyHop {
    connector: Arc<Connector>,
    allowed: Duration,
    outcome: Arc<Mutex<HopOutcome>>,
    was_cut: Arc<AtomicBool>,
}

/// The outcome of the connection.
#[derive(Debug, Default)]
pub(super) enum HopOutcome {
    /// It was not requested yet.
    #[default]
    None,
    /// It was made.
    Connected,
    /// It could not be made.
    Failed(Fault),
}

/// A connection, with the start and length of its time for reading and writing.
pub(super) struct Wired {
    wire: Wire,
    watch: Watch,
    buffers: LazyBuffers,
    is_tls: bool,
    was_cut: Arc<AtomicBool>,
}

impl ProxyHop {
    /// A connection of `connector`, made within the `allowed` time.
    pub(super) fn over(connector: Arc<Connector>, allowed: Duration) -> Self {
        Self { connector, allowed, outcome: Arc::default(), was_cut: Arc::default() }
    }

    /// The outcome of the connection, which is then reset.
    pub(super) fn take_outcome(&self) -> HopOutcome {
        std::mem::take(&mut *self.outcome.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// True if the connection ended over TLS without announcing it, which `ureq` takes for the end of a body that
    /// ends with its connection.
    pub(super) fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::Relaxed)
    }

    fn note(&self, outcome: HopOutcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }
}

impl<In: Transport> UreqConnector<In> for ProxyHop {
    type Out = Wired;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        let origin = origin_of(details.uri)?;
        let watch = Watch::default();
        let left = details.timeout.not_zero().map_or(self.allowed, |left| self.allowed.min(*left));
        match self.connector.connect(&origin, &watch, Some(Deadline::after(left))) {
            Ok(wire) => {
                self.note(HopOutcome::Connected);
                let config = details.config;
                let buffers =
                    LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
                let (is_tls, was_cut) = (origin.is_tls, self.was_cut.clone());
                Ok(Some(Wired { wire, watch, buffers, is_tls, was_cut }))
            }
            Err(fault) => {
                self.note(HopOutcome::Failed(fault));
                Err(Error::ConnectionFailed)
            }
        }
    }
}

fn origin_of(uri: &Uri) -> Result<Origin, Error> {
    let both = uri.scheme_str().zip(uri.authority());
    let url = both.map(|(scheme, authority)| format!("{scheme}://{authority}"));
    url.and_then(|url| Origin::of(&url)).ok_or(Error::HostNotFound)
}

impl std::fmt::Debug for Wired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wired").finish_non_exhaustive()
    }
}

impl Transport for Wired {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let output = &self.buffers.output()[..amount];
        let mut talk = talk(&mut self.wire, &self.watch, timeout);
        talk.say(output).map_err(|fault| error_of(reason_of_end(&mut talk, fault), timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let room = self.buffers.input_append_buf();
        let mut talk = talk(&mut self.wire, &self.watch, timeout);
        let amount = talk.hear_some(room).map_err(|fault| {
            self.was_cut.fetch_or(matches!(fault, Fault::Cut), Ordering::Relaxed);
            error_of(fault, timeout)
        })?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.wire.is_quiet()
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

fn talk<'a>(wire: &'a mut Wire, watch: &'a Watch, timeout: NextTimeout) -> Talk<'a> {
    let left = timeout.not_zero().map_or(Duration::MAX, |left| *left);
    Talk { wire, watch, deadline: Deadline::after(left) }
}

/// The reason why a connection ended while it was written to: a server that refuses the client's certificate in TLS 1.3
/// says so in an alert, and closes, when the client has sent its request already.
fn reason_of_end(talk: &mut Talk<'_>, fault: Fault) -> Fault {
    if !matches!(fault, Fault::Io(_) | Fault::Closed) {
        return fault;
    }
    match talk.hear_some(&mut [0]) {
        Err(alert @ Fault::Tls(_)) => alert,
        Ok(_) | Err(_) => fault,
    }
}

fn error_of(fault: Fault, timeout: NextTimeout) -> Error {
    match fault {
        Fault::TimedOut => Error::Timeout(timeout.reason),
        Fault::Tls(error) => Error::Rustls(error),
        other => Error::Io(other.into()),
    }
}

/// A stand-in where `ureq` expects addresses: the connector finds them.
#[derive(Debug)]
pub(super) struct Unresolved;

impl Resolver for Unresolved {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
