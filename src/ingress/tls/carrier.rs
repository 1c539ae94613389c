//! A thread that carries the bytes of many TLS connections, none of which it waits for.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::Receiver;
use log::{debug, error};

use crate::clock::Deadline;
use crate::ingress::hosting::Word as DoorWord;
use crate::ingress::reception::Reception;
use crate::ingress::tally::ConnectionTally;
use crate::ingress::tls::session::{Session, SessionState};
use crate::platform::{Events, Interest, Poller, Readiness, Wake};
use crate::shortage::Shortage;
use crate::tls::OwnCertificate;

/// The number of the wake-up call among those of the sockets.
pub(super) const WAKE_ID: u64 = u64::MAX;
/// The sockets that are handled in one turn.
const EVENTS_MAX: usize = 64;
/// The stay of handshakes, and of clients whose handshake failed, once the server has stopped.
const STOP_MAX: Duration = Duration::from_millis(500);
/// The wait before the next try if there are no descriptors for a connection whose handshake is done.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(50);

/// A message to a thread.
pub(super) enum Word {
    /// A client's connection.
    Client(Client),
    /// All has to be out by then.
    Stop(Deadline),
}

/// A client that is yet to shake hands.
pub(super) struct Client {
    pub(super) stream: Arc<TcpStream>,
    pub(super) address: IpAddr,
    pub(super) pending: Pending,
}

/// Counts a connection until it is served.
pub(super) type Pending = (HandshakeCount, ConnectionTally);

/// Counts a handshake while it lives.
pub(super) struct HandshakeCount(Arc<AtomicUsize>);

impl HandshakeCount {
    pub(super) fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::SeqCst);
        Self(all.clone())
    }
}

impl Drop for HandshakeCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The inputs of the threads, the same for every connection.
#[derive(Clone)]
pub(super) struct TlsSetup {
    pub(super) certificate: Arc<OwnCertificate>,
    pub(super) handshake_max: Duration,
    /// Handshakes at once in a thread.
    pub(super) thread_max: usize,
    pub(super) reception: Reception,
}

/// The state of the thread.
pub(super) struct Carrier {
    inbox: Receiver<Word>,
    wake: Arc<Wake>,
    poller: Poller,
    setup: TlsSetup,
    sessions: BTreeMap<u64, Box<Carried>>,
    /// The number of those that shake hands.
    handshakes: usize,
    /// The sessions that end by themselves at some time: mostly those that shake hands.
    due: BTreeMap<u64, Deadline>,
    /// Those that had more to do at the end of their turn.
    unfinished: Vec<u64>,
    /// Those whose handshake is done, and for which there were no descriptors.
    starving: Vec<u64>,
    next_id: u64,
    /// Set by a stop: all has to be out by then.
    stopping: Option<Deadline>,
}

/// A session, and what is needed once its handshake is done.
struct Carried {
    session: Session,
    address: IpAddr,
    /// None once the handshake is done.
    pending: Option<Pending>,
}

impl Carrier {
    pub(super) fn new(
        inbox: Receiver<Word>,
        wake: Arc<Wake>,
        poller: Poller,
        setup: TlsSetup,
    ) -> Self {
        Self {
            inbox,
            wake,
            poller,
            setup,
            sessions: BTreeMap::new(),
            handshakes: 0,
            due: BTreeMap::new(),
            unfinished: Vec::new(),
            starving: Vec::new(),
            next_id: 0,
            stopping: None,
        }
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.has_stopped() {
            if let Err(error) = self.poller.wait(&mut events, self.wait()) {
                return error!("Connections over TLS end: {error}");
            }
            for id in std::mem::take(&mut self.unfinished) {
                self.step(id);
            }
            for id in std::mem::take(&mut self.starving) {
                self.step(id);
            }
            for (number, now) in events.iter() {
                match number {
                    WAKE_ID => self.hear(),
                    number => self.on_event(number, now),
                }
            }
            self.end_what_is_due();
        }
    }

    fn has_stopped(&self) -> bool {
        self.stopping.is_some_and(|until| self.sessions.is_empty() || until.has_passed())
    }

    fn wait(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let next = self.due.values().copied().chain(self.stopping).reduce(Deadline::min);
        // Rounded up, so that the time has come when the wait is over.
        let wait = next.map(|due| due.left() + Duration::from_millis(1));
        if self.starving.is_empty() {
            return wait;
        }
        Some(wait.map_or(EXHAUSTED_WAIT, |wait| wait.min(EXHAUSTED_WAIT)))
    }

    fn hear(&mut self) {
        self.wake.clear();
        // Connections that come meanwhile have their own wake-up call.
        for _ in 0..self.inbox.len() {
            match self.inbox.try_recv() {
                Ok(Word::Client(client)) => self.begin(client),
                Ok(Word::Stop(until)) => self.stop(until),
                Err(_) => return,
            }
        }
    }

    /// Served connections go on until `until`; the others are about to end.
    fn stop(&mut self, until: Deadline) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(until);
        let soon = Deadline::after(STOP_MAX).min(until);
        for (id, carried) in &mut self.sessions {
            if !carried.session.is_served() {
                let due = carried.session.due.map_or(soon, |due| due.min(soon));
                carried.session.due = Some(due);
                self.due.insert(*id, due);
            }
        }
    }

    fn begin(&mut self, client: Client) {
        if self.handshakes >= self.setup.thread_max
            && let Some(oldest) = first_of(self.due.keys(), |id| self.shakes_hands(id))
        {
            self.end(oldest);
        }
        let id = self.next_id;
        self.next_id += 1;
        let due = Deadline::after(self.setup.handshake_max);
        let Client { stream, address, pending } = client;
        // A client that can't be served is closed.
        let Some(session) = Session::new(stream, self.setup.certificate.server(), due) else {
            return;
        };
        if self.watch(&session.client, client_number(id)).is_ok() {
            let carried = Carried { session, address, pending: Some(pending) };
            self.sessions.insert(id, Box::new(carried));
            self.handshakes += 1;
            self.due.insert(id, due);
        }
    }

    fn shakes_hands(&self, id: u64) -> bool {
        self.sessions.get(&id).is_some_and(|carried| carried.pending.is_some())
    }

    /// Registers a wake-up for each change of what can be done with `socket`.
    fn watch(&self, socket: &Arc<TcpStream>, number: u64) -> io::Result<()> {
        self.poller.add(socket, number, Interest::Changes)
    }

    fn on_event(&mut self, number: u64, now: Readiness) {
        let id = number / 2;
        let Some(carried) = self.sessions.get_mut(&id) else { return };
        if number == client_number(id) {
            carried.session.client_is_ready(now);
        } else {
            carried.session.server_is_ready(now);
        }
        self.step(id);
    }

    fn step(&mut self, id: u64) {
        let Some(carried) = self.sessions.get_mut(&id) else { return };
        // A panic costs its connection alone.
        let stepped = catch_unwind(AssertUnwindSafe(|| carried.session.step()));
        let state = stepped.unwrap_or_else(|_| {
            error!("A connection over TLS ended by a panic; please report this");
            SessionState::Over
        });
        match carried.session.due {
            Some(due) => _ = self.due.insert(id, due),
            None => _ = self.due.remove(&id),
        }
        match state {
            SessionState::Waits => {
                let [client, server] = carried.session.waits();
                self.poller.would_wait(client_number(id), client.read, client.write);
                self.poller.would_wait(server_number(id), server.read, server.write);
            }
            SessionState::HasMore => self.unfinished.push(id),
            SessionState::HasShakenHands => match self.serve(id) {
                // The first request may have come with the end of the handshake.
                Ok(()) => self.unfinished.push(id),
                Err(why) => self.on_unserved(id, &why),
            },
            SessionState::Over => {
                // A client that leaves without a word, such as a probe of the port, wanted no handshake.
                if carried.session.is_new() && carried.pending.take().is_some() {
                    self.handshakes -= 1;
                }
                self.end(id);
            }
        }
    }

    /// Without descriptors, a connection that waits for its next request ends in favour of this one, which is tried again
    /// soon.
    fn on_unserved(&mut self, id: u64, why: &io::Error) {
        let Some(shortage) = Shortage::of(why) else {
            debug!("A connection over TLS can't be served: {why}");
            return self.end(id);
        };
        shortage.say("a connection over TLS waits");
        self.setup.reception.live.give_way();
        self.setup.reception.hosting.door.say(DoorWord::Shed);
        if !self.starving.contains(&id) {
            self.starving.push(id);
        }
    }

    /// Has a connection served whose handshake is done.
    fn serve(&mut self, id: u64) -> io::Result<()> {
        let (served, own) = UnixStream::pair()?;
        let own = Arc::new(TcpStream::from(OwnedFd::from(own)));
        self.watch(&own, server_number(id))?;
        let Some(carried) = self.sessions.get_mut(&id) else { return Ok(()) };
        let client = carried.session.client.clone();
        carried.session.serve(own);
        let Some((_counted, tally)) = carried.pending.take() else { return Ok(()) };
        self.handshakes -= 1;
        self.due.remove(&id);
        let served = Arc::new(TcpStream::from(OwnedFd::from(served)));
        self.setup.reception.receive(served, client, Some(carried.address), tally)
    }

    fn end(&mut self, id: u64) {
        self.due.remove(&id);
        if let Some(carried) = self.sessions.remove(&id) {
            if let Some((_, tally)) = &carried.pending {
                self.handshakes -= 1;
                tally.fail_handshake();
            }
            // Its descriptor may live on elsewhere for a moment.
            self.poller.remove(&carried.session.client);
        }
    }

    fn end_what_is_due(&mut self) {
        let due = self.due.iter().filter(|(_, due)| due.has_passed());
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(id);
        }
    }
}

/// The oldest session that shakes hands. Older ones may be about to end too, with an answer that is still to be taken.
fn first_of<'a>(
    mut due: impl Iterator<Item = &'a u64>,
    shakes_hands: impl Fn(u64) -> bool,
) -> Option<u64> {
    due.find(|id| shakes_hands(**id)).copied()
}

/// The number of a session's client among all sockets.
const fn client_number(id: u64) -> u64 {
    id * 2
}

/// The number of the socket to the server.
const fn server_number(id: u64) -> u64 {
    id * 2 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_handshake_too_many_ends_no_answer_that_is_still_to_be_taken() {
        let has_answer = |id: u64| id < 2;
        assert_eq!(first_of([0, 1, 5, 7].iter(), |id| !has_answer(id)), Some(5));
        assert_eq!(first_of([0, 1].iter(), |id| !has_answer(id)), None);
    }
}
