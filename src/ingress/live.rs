//! The open connections: which ones a stop waits for, which one gives way to a newer one, and their number from each
//! address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::PollFlags;
use socket2::SockRef;

use crate::atomic::AtomicU64;
use crate::clock::Deadline;
use crate::ingress::tally::{ByteCounts, ConnectionTally, ListenerCounts, ListenerTally};
use crate::ingress::tunnels::{Tunnel, Tunnels};
use crate::liveness::has_event;

/// All open connections.
#[derive(Debug, Default)]
pub struct Live {
    draining: AtomicBool,
    /// Numbers the waits, so that the longest is found.
    next_wait: AtomicU64,
    state: Mutex<LiveState>,
    changed: Condvar,
    /// Carries those that have become WebSockets.
    tunnels: Tunnels,
}

/// Tells connections apart, for as long as the proxy runs.
pub(crate) type ConnectionId = u64;

#[derive(Debug, Default)]
struct LiveState {
    next_id: ConnectionId,
    open: HashMap<ConnectionId, Arc<Open>>,
    by_origin: HashMap<PeerNetwork, usize>,
}

#[derive(Debug)]
struct Open {
    stream: Arc<TcpStream>,
    /// The client's own connection: the same, unless it speaks TLS.
    client: Arc<TcpStream>,
    /// None for a connection over a unix socket.
    origin: Option<PeerNetwork>,
    /// `SERVING`, `GAVE_WAY`, or the number of the wait, which is even; odd with `MAY_FINISH`.
    wait: AtomicU64,
    /// No request has been read from it: its first may be on the way.
    is_new: AtomicBool,
    /// It carries no requests any more, but a WebSocket.
    is_tunnel: AtomicBool,
    /// Its end would look like the end of the answer under way.
    ends_answer: AtomicBool,
    tally: ConnectionTally,
}

/// Counts the bytes of a connection that leaves its worker's hands.
#[derive(Clone, Debug)]
pub(crate) struct ByteCounter(Arc<Open>);

impl ByteCounter {
    /// The counts.
    pub(super) fn counts(&self) -> &ByteCounts {
        self.0.tally.bytes()
    }
}

const SERVING: u64 = 0;
const GAVE_WAY: u64 = u64::MAX;
/// A stop lets it finish: of the head that is waited for some bytes are there, or the client is to read its answer.
const MAY_FINISH: u64 = 1;

/// The time for which a stop waits for a connection's first request, because every client that connects sends one.
const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(1);

/// The time in which a tunnel takes leave of both ends once it is to end.
pub(crate) const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// The time after that in which its thread is done with it.
const FAREWELL_SLACK: Duration = Duration::from_millis(500);

/// The unit that shares a part of the pool: an IPv4 address, or the /64 that an IPv6 host commonly has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PeerNetwork(IpAddr);

impl PeerNetwork {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                Self(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)))
            }
            other => Self(other),
        }
    }
}

/// One connection's entry, removed on drop.
#[derive(Debug)]
pub struct LiveConnection {
    live: Arc<Live>,
    open: Arc<Open>,
    id: ConnectionId,
}

impl Live {
    fn state(&self) -> MutexGuard<'_, LiveState> {
        // Entries are put in and taken out whole; there is nothing half done to fear.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new connection in. It gives way to no other until [`LiveConnection::begin_wait`].
    /// `client` is the client's own connection, which is another one than the served `stream` if it speaks TLS, and
    /// `from` its address; None for a unix socket. `tally` counts it.
    pub fn enter(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        client: Arc<TcpStream>,
        from: Option<IpAddr>,
        tally: ConnectionTally,
    ) -> LiveConnection {
        let origin = from.map(PeerNetwork::of);
        let wait = AtomicU64::new(SERVING);
        let open = Arc::new(Open {
            stream,
            client,
            origin,
            wait,
            is_new: AtomicBool::new(true),
            is_tunnel: AtomicBool::new(false),
            ends_answer: AtomicBool::new(false),
            tally,
        });
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        state.open.insert(id, open.clone());
        if let Some(origin) = origin {
            *state.by_origin.entry(origin).or_default() += 1;
        }
        LiveConnection { live: self.clone(), open, id }
    }

    /// The counts of these listeners, with the bytes of their open connections.
    pub(super) fn counts(&self, listeners: &[&Arc<ListenerTally>]) -> Vec<ListenerCounts> {
        // A connection that ends meanwhile would be counted twice, or not at all.
        let state = self.state();
        let of = |listener: &&Arc<ListenerTally>| {
            let mut counts = listener.counts();
            let open = state.open.values().filter(|open| open.tally.is_of(listener));
            open.for_each(|open| open.tally.add_to(&mut counts));
            counts
        };
        listeners.iter().map(of).collect()
    }

    /// Ends the connection that waits longest: false if none waits.
    pub(crate) fn give_way(&self) -> bool {
        self.longest_wait_ends(|_, _| true)
    }

    fn longest_wait_ends(&self, eligible: impl Fn(ConnectionId, &Open) -> bool) -> bool {
        let state = self.state();
        loop {
            let waits = state.open.iter().filter(|(id, open)| eligible(**id, open));
            let waits = waits.map(|(_, open)| (open.wait.load(Ordering::SeqCst), open));
            let mut waits: Vec<_> =
                waits.filter(|(wait, _)| *wait != SERVING && *wait != GAVE_WAY).collect();
            waits.sort_unstable_by_key(|(wait, _)| *wait);
            let longest = waits.into_iter().find(|(wait, open)| !open.is_about_to_be_read(*wait));
            let Some((wait, open)) = longest else { return false };
            if open.exchange(wait, GAVE_WAY) {
                // Its worker wakes up and finds nothing to read; it may still write an answer.
                let _ = open.stream.shutdown(Shutdown::Read);
                return true;
            }
        }
    }

    /// Asks everything to end: idle connections are closed, those that brought no request yet have a
    /// moment to do so, the others may go on for `grace` and are cut off then. Tunnels take leave instead, in
    /// [`FAREWELL_MAX`]. Returns how many were cut off.
    pub fn drain(&self, grace: Duration) -> usize {
        let deadline = Deadline::after(grace);
        let first_requests = Deadline::after(grace.min(FIRST_REQUEST_WAIT));
        self.draining.store(true, Ordering::SeqCst);
        let state = self.state();
        close(&state, |open| open.is_idle() && !open.is_new());
        let state = self.wait_for_none(state, first_requests);
        close(&state, Open::is_idle);
        let state = self.wait_for_none(state, deadline);
        let cut = cut_off(&state, |open| !open.is_tunnel());
        self.tunnels.take_leave();
        let farewell = Deadline::after(FAREWELL_MAX + FAREWELL_SLACK);
        let state =
            self.wait_while(state, farewell, |open| open.values().any(|one| one.is_tunnel()));
        cut + cut_off(&state, Open::is_tunnel)
    }

    fn wait_for_none<'a>(
        &'a self,
        state: MutexGuard<'a, LiveState>,
        deadline: Deadline,
    ) -> MutexGuard<'a, LiveState> {
        self.wait_while(state, deadline, |open| !open.is_empty())
    }

    fn wait_while<'a>(
        &'a self,
        mut state: MutexGuard<'a, LiveState>,
        deadline: Deadline,
        are_left: fn(&HashMap<ConnectionId, Arc<Open>>) -> bool,
    ) -> MutexGuard<'a, LiveState> {
        while are_left(&state.open) && !deadline.has_passed() {
            state = self
                .changed
                .wait_timeout(state, deadline.left())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state
    }
}

impl Open {
    fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Ordering::SeqCst)
    }

    fn is_tls(&self) -> bool {
        !Arc::ptr_eq(&self.client, &self.stream)
    }

    /// True if it waits for a request of which no byte has come.
    fn is_idle(&self) -> bool {
        let wait = self.wait.load(Ordering::SeqCst);
        wait != SERVING && wait & MAY_FINISH == 0
    }

    fn is_new(&self) -> bool {
        self.is_new.load(Ordering::SeqCst)
    }

    fn ends_answer(&self) -> bool {
        self.ends_answer.load(Ordering::SeqCst)
    }

    /// True if its first request has begun to come and its worker, which has just been woken, has not read it yet.
    fn is_about_to_be_read(&self, wait: u64) -> bool {
        self.is_new() && wait & MAY_FINISH == 0 && has_event(&*self.stream, PollFlags::IN)
    }

    /// The directions in which a stop ends it. If the end of our side would complete the answer under way, the stop ends
    /// the client's side alone: that wakes a worker who reads, which leaves a reset; a worker who writes leaves one at its
    /// own end. A unix socket knows no reset, and TLS has an end of its own.
    fn end(&self) -> Shutdown {
        let is_reset = self.ends_answer() && self.origin.is_some() && !self.is_tls();
        if is_reset { Shutdown::Read } else { Shutdown::Both }
    }

    /// Makes it end in a way that can't be taken for an end in order: with a reset, or in TLS without a `close_notify`.
    fn cut(&self) {
        let _ = SockRef::from(&*self.client).set_linger(Some(Duration::ZERO));
        if self.is_tls() {
            let _ = self.client.shutdown(Shutdown::Both);
        }
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.wait.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Closes those for which `which` holds, before TLS says that all is complete, and counts them.
fn cut_off(state: &LiveState, which: impl Fn(&Open) -> bool) -> usize {
    for open in state.open.values().filter(|open| open.is_tls() && which(open)) {
        let _ = open.client.shutdown(Shutdown::Both);
    }
    close(state, which)
}

/// Closes those for which `which` holds and counts them.
fn close(state: &LiveState, which: impl Fn(&Open) -> bool) -> usize {
    let chosen = state.open.values().filter(|open| which(open));
    // A failure means that the client closed it first.
    chosen.map(|open| drop(open.stream.shutdown(open.end()))).count()
}

impl LiveConnection {
    /// Notes that the connection waits for a request, and may be ended for the sake of another;
    /// `in_head` says that some of the head is there. Returns false where it is to end instead.
    pub fn begin_wait(&self, in_head: bool) -> bool {
        self.note_wait(if in_head { MAY_FINISH } else { 0 });
        // After the store: a stop either sees the wait, or is seen here.
        in_head || self.open.is_new() || !self.is_draining()
    }

    /// Notes that the connection waits for its client to close, and may be ended for the sake of another, but by a stop
    /// only at the end of the grace.
    pub(super) fn begin_linger(&self) {
        self.note_wait(MAY_FINISH);
    }

    fn note_wait(&self, kind: u64) {
        let number = self.live.next_wait.fetch_add(2, Ordering::SeqCst) + 2;
        let renew = |wait| (wait != GAVE_WAY).then_some(number | kind);
        // A connection that gave way before its worker came to it stays so.
        let _ = self.open.wait.fetch_update(Ordering::SeqCst, Ordering::SeqCst, renew);
    }

    /// Notes that some of the head that is waited for is there, so that a stop lets it be answered.
    pub fn head_begins(&self) {
        self.open.wait.fetch_or(MAY_FINISH, Ordering::SeqCst);
    }

    /// Notes that the connection's first head was read; false for the later ones.
    pub fn is_first(&self) -> bool {
        self.open.is_new.swap(false, Ordering::SeqCst)
    }

    /// Notes that a request is served. Returns false where the connection gave way to another.
    pub fn end_wait(&self) -> bool {
        let wait = self.open.wait.load(Ordering::SeqCst);
        wait != GAVE_WAY && (wait == SERVING || self.open.exchange(wait, SERVING))
    }

    /// Notes that the connection becomes a tunnel. Fails if there is no thread for tunnels, and none can be made.
    pub(crate) fn become_tunnel(&self) -> io::Result<()> {
        self.live.tunnels.start()?;
        self.open.is_tunnel.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Lets the thread of tunnels carry the one that it has become, at whose end `rest` is dropped too.
    pub(super) fn carry(self, tunnel: Box<dyn Tunnel>, rest: impl Send + 'static) {
        let live = self.live.clone();
        live.tunnels.carry(tunnel, Box::new((self, rest)));
    }

    /// True if no request has been read from it.
    pub fn is_new(&self) -> bool {
        self.open.is_new()
    }

    /// True if the connection was ended for the sake of another.
    pub fn gave_way(&self) -> bool {
        self.open.wait.load(Ordering::SeqCst) == GAVE_WAY
    }

    /// Notes that an answer begins whose end may be the end of the connection: until it is whole, the connection is cut
    /// however it ends, even with the process.
    pub(super) fn begin_answer(&self) {
        self.open.ends_answer.store(true, Ordering::SeqCst);
        // Over TLS, what ends with the process lacks a `close_notify` anyway.
        if !self.open.is_tls() {
            self.open.cut();
        }
    }

    /// Notes that this answer is whole.
    pub(super) fn end_answer(&self) {
        self.open.ends_answer.store(false, Ordering::SeqCst);
        let _ = SockRef::from(&*self.open.client).set_linger(None);
    }

    /// Counts its bytes.
    pub(super) fn bytes(&self) -> &ByteCounts {
        self.open.tally.bytes()
    }

    /// The same for a part of the program that can't borrow it.
    pub(super) fn byte_counter(&self) -> ByteCounter {
        ByteCounter(self.open.clone())
    }

    /// True if it came over a unix socket.
    pub(crate) fn is_by_unix(&self) -> bool {
        self.open.origin.is_none()
    }

    /// True if a stop was requested.
    pub fn is_draining(&self) -> bool {
        self.live.draining.load(Ordering::SeqCst)
    }

    /// True if its address has its share of `max_connections_per_address`, or one of its own connections gave way.
    /// This machine's own addresses and unix sockets are not counted.
    pub fn has_share(&self, max_connections_per_address: usize) -> bool {
        let Some(origin) = self.open.origin else { return true };
        let count = self.live.state().by_origin.get(&origin).copied().unwrap_or(0);
        origin.0.is_loopback()
            || count <= max_connections_per_address
            || self.live.longest_wait_ends(|id, open| open.origin == Some(origin) && id != self.id)
    }
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        if self.open.ends_answer() {
            self.open.cut();
        }
        let mut state = self.live.state();
        self.open.tally.settle();
        state.open.remove(&self.id);
        if let Some(origin) = self.open.origin
            && let Some(count) = state.by_origin.get_mut(&origin)
        {
            *count -= 1;
            if *count == 0 {
                state.by_origin.remove(&origin);
            }
        }
        drop(state);
        self.live.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
