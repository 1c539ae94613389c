//! Clients that leave during their request: one thread watches them all, and ends the exchange of each that left.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{debug, error};

use crate::platform::{Events, Interest, Poller};
use crate::thread;

const STACK_BYTES: usize = 64 * 1024;
/// The departures that are handled in one turn.
const EVENTS_MAX: usize = 64;

/// While this lives, the exchange ends when its client leaves: the connection to the provider is then shut down, so
/// that its reader finds the end.
#[derive(Debug)]
pub(super) struct Departure {
    watcher: Arc<DepartureWatcher>,
    id: u64,
}

#[derive(Debug)]
struct DepartureWatcher {
    poller: Poller,
    state: Mutex<DepartureState>,
}

#[derive(Debug, Default)]
struct DepartureState {
    next_id: u64,
    watched: HashMap<u64, WatchedSocket>,
}

/// Both ends of an exchange.
#[derive(Debug)]
struct WatchedSocket {
    client: Arc<TcpStream>,
    provider: Arc<TcpStream>,
}

impl Departure {
    /// Watches `client` while `provider` is read for it. None if the system has no thread or descriptor left.
    pub(super) fn of(client: &Arc<TcpStream>, provider: &Arc<TcpStream>) -> Option<Self> {
        static ONLY: Only = Mutex::new(None);
        let watcher = only(&ONLY, DepartureWatcher::start)?;
        let ends = WatchedSocket { client: client.clone(), provider: provider.clone() };
        watcher.add(ends).map(|id| Self { watcher, id })
    }
}

/// The process's one watcher, which is made when it is first needed.
type Only = Mutex<Option<Arc<DepartureWatcher>>>;

/// The watcher in `place`, which `start` makes if there is none; None if that fails, and the next caller tries again.
/// Of several callers at once, the first makes it and the others wait, because a second watcher would never end.
fn only(
    place: &Only,
    start: impl FnOnce() -> io::Result<Arc<DepartureWatcher>>,
) -> Option<Arc<DepartureWatcher>> {
    // It is set as a whole.
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if place.is_none() {
        match start() {
            Ok(watcher) => *place = Some(watcher),
            Err(error) => debug!("No thread to watch clients: {error}"),
        }
    }
    place.clone()
}

impl Drop for Departure {
    fn drop(&mut self) {
        let watched = self.watcher.state().watched.remove(&self.id);
        if let Some(watched) = watched {
            // It is registered until now.
            self.watcher.poller.remove(&watched.client);
        }
    }
}

impl DepartureWatcher {
    fn start() -> io::Result<Arc<Self>> {
        let watcher = Arc::new(Self { poller: Poller::new()?, state: Mutex::default() });
        let work = watcher.clone();
        thread::spawn("departures", STACK_BYTES, move || work.run())?.detach();
        Ok(watcher)
    }

    fn state(&self) -> MutexGuard<'_, DepartureState> {
        // Entries are added and removed whole, so a panic leaves no half-made change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, watched: WatchedSocket) -> Option<u64> {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        // A client that has already left is reported at once.
        self.poller.add(&watched.client, id, Interest::Departure).ok()?;
        state.watched.insert(id, watched);
        Some(id)
    }

    fn run(&self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            if let Err(error) = self.poller.wait(&mut events, None) {
                return error!("Clients that leave are not noticed any more: {error}");
            }
            let state = self.state();
            for (id, _) in events.iter() {
                // Exchanges that ended meanwhile are no longer there.
                if let Some(watched) = state.watched.get(&id) {
                    let _ = watched.provider.shutdown(Shutdown::Both);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn pair() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Arc::new(listener.accept().unwrap().0), peer)
    }

    #[test]
    fn many_who_need_it_at_once_make_one_watcher_and_a_failure_is_not_for_ever() {
        static PLACE: Only = Mutex::new(None);
        const CALLERS: usize = 8;
        let fail = || Err(io::ErrorKind::OutOfMemory.into());
        assert!(only(&PLACE, fail).is_none());
        let (together, started) = (Barrier::new(CALLERS), AtomicUsize::new(0));
        let call = || {
            together.wait();
            only(&PLACE, || {
                started.fetch_add(1, Ordering::SeqCst);
                DepartureWatcher::start()
            })
        };
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
            assert!(calls.into_iter().all(|call| call.join().unwrap().is_some()));
        });
        assert_eq!(started.into_inner(), 1);
    }

    #[test]
    fn who_leaves_ends_the_read_and_who_is_not_watched_any_more_does_not() {
        let (client, client_peer) = pair();
        let (provider, mut provider_peer) = pair();
        let departure = Departure::of(&client, &provider).unwrap();
        assert!(Departure::of(&client, &provider).is_none(), "one exchange at a time");
        drop(client_peer);
        assert_eq!((&*provider).read(&mut [0]).unwrap(), 0);
        assert_eq!(provider_peer.read(&mut [0]).unwrap(), 0, "the provider is told");
        drop(departure);

        // A client that left before it was watched.
        let (provider, _peer) = pair();
        let departure = Departure::of(&client, &provider).unwrap();
        assert_eq!((&*provider).read(&mut [0]).unwrap(), 0);
        drop(departure);

        let (client, client_peer) = pair();
        let (provider, mut provider_peer) = pair();
        drop(Departure::of(&client, &provider).unwrap());
        drop(client_peer);
        // Another departure is noticed after that one.
        let (other, other_peer) = pair();
        let (third, _peer) = pair();
        let _departure = Departure::of(&other, &third).unwrap();
        drop(other_peer);
        assert_eq!((&*third).read(&mut [0]).unwrap(), 0);
        std::io::Write::write_all(&mut provider_peer, b"x").unwrap();
        assert_eq!((&*provider).read(&mut [0]).unwrap(), 1);
    }
}
