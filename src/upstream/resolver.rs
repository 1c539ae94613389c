//! Name resolution with a memory, so that a request does not wait for it each time.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use socket2::{Domain, Socket, Type};

use crate::clock::{Deadline, Stopwatch};
use crate::shortage::Shortage;
use crate::thread;
use crate::upstream::connect::literal;
use crate::upstream::fault::Fault;
use crate::upstream::watch::Watch;

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
    known: Mutex<Known>,
}

/// Addresses by name and port, and since when.
type Known = HashMap<(String, u16), (Vec<SocketAddr>, Stopwatch)>;

impl Resolver {
    /// `allowed` is how long a look-up may take.
    pub(super) fn new(allowed: Duration) -> Self {
        Self { allowed, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of `host`, which may be one itself, without brackets.
    pub(super) fn addresses(
        &self,
        host: &str,
        port: u16,
        watch: &Watch,
    ) -> Result<Vec<SocketAddr>, Fault> {
        if let Some(address) = literal(host, port) {
            return Ok(vec![address]);
        }
        let key = (host.to_owned(), port);
        let known = self.known().get(&key).cloned();
        if let Some((addresses, since)) = &known
            && since.elapsed() < FRESH_FOR
        {
            return Ok(addresses.clone());
        }
        match (look_up(key.clone(), self.allowed, watch), known) {
            (Ok(addresses), _) => {
                self.known().insert(key, (addresses.clone(), Stopwatch::start()));
                Ok(addresses)
            }
            (Err(Fault::ClientGone), _) => Err(Fault::ClientGone),
            (Err(_), Some((old, _))) => Ok(old),
            (Err(fault), None) => Err(fault),
        }
    }
}

/// Why a name was not found. Without a descriptor the system's resolver can ask nobody, and says the same as
/// of a name that does not exist.
fn unknown() -> Fault {
    let shortage = Socket::new(Domain::IPV4, Type::DGRAM, None).err();
    match shortage.and_then(|error| Shortage::of(&error)) {
        Some(shortage) => Fault::Short(shortage),
        None => Fault::Bad("the host name is not known".to_owned()),
    }
}

/// Asks the system on a thread of its own, since it can't be told to hurry.
// Not part of its caller: what it needs of the stack would stay with the worker.
#[inline(never)]
fn look_up(
    name: (String, u16),
    allowed: Duration,
    watch: &Watch,
) -> Result<Vec<SocketAddr>, Fault> {
    let (answer, answered) = bounded(1);
    let ask = move || {
        let addresses = name.to_socket_addrs();
        // Nobody listens any more once the time is over.
        let _ = answer.send(addresses.map(|all| all.take(ADDRESSES_MAX).collect::<Vec<_>>()));
    };
    thread::spawn("resolver", STACK_BYTES, ask)?.detach();
    let deadline = Deadline::after(allowed);
    loop {
        watch.check()?;
        match answered.recv_timeout(deadline.left().min(SLICE)) {
            Ok(Ok(addresses)) if !addresses.is_empty() => return Ok(addresses),
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(unknown()),
            Err(RecvTimeoutError::Timeout) if deadline.has_passed() => {
                return Err(Fault::TimedOut);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
