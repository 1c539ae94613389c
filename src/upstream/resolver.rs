//! Name resolution with a memory, so that a request does not wait for it each time.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver as UreqResolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

use crate::clock::{Deadline, Stopwatch};
use crate::thread;
use crate::upstream::watch;

/// How long an answer is used without asking again.
const FRESH_FOR: Duration = Duration::from_mins(1);
/// How often the client is looked at while an answer is waited for.
const SLICE: Duration = Duration::from_millis(250);
/// The most addresses of a name that are tried; `ureq` holds no more.
const ADDRESSES_MAX: usize = 16;
/// The stack of a thread that asks the system's resolver.
const STACK_BYTES: usize = 256 * 1024;

/// Remembers what names resolve to. When the system's resolver fails, an old answer goes on to be
/// used: addresses outlive outages of DNS more often than not.
#[derive(Debug)]
pub(super) struct Resolver {
    allowed: Duration,
    known: Mutex<HashMap<String, (Vec<SocketAddr>, Stopwatch)>>,
}

impl Resolver {
    /// `allowed` is how long a look-up may take.
    pub(super) fn new(allowed: Duration) -> Self {
        Self { allowed, known: Mutex::default() }
    }

    fn addresses(&self, name: &str) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some((addresses, since)) = &known
            && since.elapsed() < FRESH_FOR
        {
            return Ok(addresses.clone());
        }
        match (look_up(name.to_owned(), self.allowed), known) {
            (Ok(addresses), _) => {
                let entry = (addresses.clone(), Stopwatch::start());
                self.known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(name.to_owned(), entry);
                Ok(addresses)
            }
            (Err(_), Some((old, _))) if !watch::current().client_gone => Ok(old),
            (Err(error), _) => Err(error),
        }
    }
}

/// Asks the system on a thread of its own, since it can't be told to hurry.
fn look_up(name: String, allowed: Duration) -> Result<Vec<SocketAddr>, Error> {
    let (answer, answered) = bounded(1);
    let ask = move || {
        // Nobody listens any more once the time is over.
        let _ = answer.send(name.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    };
    thread::spawn("resolver", STACK_BYTES, ask).map_err(Error::Io)?.detach();
    let deadline = Deadline::after(allowed);
    loop {
        watch::check_client()?;
        match answered.recv_timeout(deadline.left().min(SLICE)) {
            Ok(Ok(addresses)) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(Error::HostNotFound),
            Err(RecvTimeoutError::Timeout) if deadline.has_passed() => {
                return Err(Error::Timeout(Timeout::Resolve));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

impl UreqResolver for Resolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let scheme = uri.scheme().ok_or(Error::HostNotFound)?;
        let authority = uri.authority().ok_or(Error::HostNotFound)?;
        let name = DefaultResolver::host_and_port(scheme, authority).ok_or(Error::HostNotFound)?;
        let mut resolved = self.empty();
        for address in self.addresses(&name)?.into_iter().take(ADDRESSES_MAX) {
            resolved.push(address);
        }
        Ok(resolved)
    }
}
