//! The thread that carries all WebSockets: it waits for their sockets, and gives each tunnel its turn when something has
//! happened.
//!
//! One thread for all, because most are silent for long: a thread for each would keep its stack all that time.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use log::{debug, error};

use crate::clock::Deadline;
use crate::http::message::memory;
use crate::platform::{Events, Interest, Poller, Readiness, Wake};
use crate::spare;
use crate::thread;

const STACK_BYTES: usize = 128 * 1024;
/// The number of the wake-up call among those of the sockets.
const WAKE_ID: u64 = u64::MAX;
/// The sockets that are handled in one turn.
const EVENTS_MAX: usize = 64;
/// The silence after which the thread gives up its buffers.
const REST_AFTER: Duration = Duration::from_secs(1);

/// A WebSocket after its 101. No call of it waits.
pub trait Tunnel: Send {
    /// The client's socket, and the provider's.
    fn sockets(&self) -> [Arc<TcpStream>; 2];

    /// Passes on what is there; `now` is the news of both sockets.
    fn turn(&mut self, now: [Readiness; 2]) -> Turn;

    /// Lets it end in order, because evertoken stops.
    fn take_leave(&mut self);

    /// Reports its end.
    fn end(self: Box<Self>);
}

/// The state of a tunnel after its turn.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// There is more to do, once the others have had their turn.
    HasMore,
    /// It waits for these events, at the latest until this time.
    Waits([Interest; 2], Deadline),
    /// It has ended.
    Over,
}

/// The counts in which a tunnel stands while it lives: they change when this is dropped.
pub(crate) type Place = Box<dyn Any + Send>;

/// The thread, which is started for the first tunnel.
#[derive(Default)]
pub(crate) struct Tunnels(Mutex<State>);

#[derive(Default)]
struct State {
    thread: Option<TunnelThread>,
    /// All tunnels are to end.
    take_leave: bool,
}

/// The way to the thread.
struct TunnelThread {
    // Without a limit, so that nobody waits for the thread; the pool limits the connections.
    words: Sender<Word>,
    wake: Arc<Wake>,
}

/// A message to the thread.
enum Word {
    /// One more tunnel.
    Tunnel(Box<dyn Tunnel>, Place),
    /// All tunnels are to end, and those that come later.
    TakeLeave,
    /// Nobody will say anything more.
    Stop,
}

impl fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnels(..)")
    }
}

impl Tunnels {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one store.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread, unless it runs.
    pub(super) fn start(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.thread.is_none() {
            let thread = TunnelThread::start()?;
            if state.take_leave {
                thread.say(Word::TakeLeave);
            }
            state.thread = Some(thread);
        }
        Ok(())
    }

    /// Carries `tunnel` until its end, and drops `place` then.
    pub(super) fn carry(&self, tunnel: Box<dyn Tunnel>, place: Place) {
        if let Some(thread) = &self.state().thread {
            thread.say(Word::Tunnel(tunnel, place));
        }
    }

    /// Lets all tunnels end in order, and those that come later.
    pub(super) fn take_leave(&self) {
        let mut state = self.state();
        state.take_leave = true;
        if let Some(thread) = &state.thread {
            thread.say(Word::TakeLeave);
        }
    }
}

impl TunnelThread {
    fn start() -> io::Result<Self> {
        let (words, inbox) = unbounded();
        let wake = Arc::new(Wake::new()?);
        let poller = Poller::new()?;
        poller.add(&wake, WAKE_ID, Interest::Read)?;
        let carrier = Carrier::new(inbox, wake.clone(), poller);
        // It is not waited for: with the last tunnel, its owner may be dropped on it.
        thread::spawn("tunnels", STACK_BYTES, move || carrier.run())?.detach();
        Ok(Self { words, wake })
    }

    fn say(&self, word: Word) {
        // Once it has ended, a tunnel just closes.
        if self.words.send(word).is_ok() {
            self.wake.ring();
        }
    }
}

impl Drop for TunnelThread {
    fn drop(&mut self) {
        self.say(Word::Stop);
    }
}

/// The state of the thread.
struct Carrier {
    inbox: Receiver<Word>,
    wake: Arc<Wake>,
    poller: Poller,
    tunnels: BTreeMap<u64, Carried>,
    /// Those that had more to do at the end of their turn.
    unfinished: BTreeSet<u64>,
    /// The time when a tunnel may have waited for long enough: never later than the end of any wait.
    next_look: Option<Deadline>,
    next_id: u64,
    takes_leave: bool,
    has_stopped: bool,
}

/// A tunnel, and what is known of it.
struct Carried {
    tunnel: Box<dyn Tunnel>,
    sockets: [Arc<TcpStream>; 2],
    interests: [Interest; 2],
    until: Option<Deadline>,
    _place: Place,
}

impl Carrier {
    fn new(inbox: Receiver<Word>, wake: Arc<Wake>, poller: Poller) -> Self {
        Self {
            inbox,
            wake,
            poller,
            tunnels: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            next_look: None,
            next_id: 0,
            takes_leave: false,
            has_stopped: false,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut is_at_rest = false;
        while !self.has_stopped || !self.tunnels.is_empty() {
            let limit = self.wait(is_at_rest);
            if let Err(error) = self.poller.wait(&mut events, limit) {
                return error!("WebSockets end: {error}");
            }
            let unfinished = std::mem::take(&mut self.unfinished);
            let is_silent = unfinished.is_empty() && events.iter().next().is_none();
            for id in unfinished {
                self.turn(id, [Readiness::default(); 2]);
            }
            for (number, now) in events.iter() {
                match number {
                    WAKE_ID => self.hear(),
                    number => self.on_event(number, now),
                }
            }
            self.look_for_long_waits();
            if is_silent && !is_at_rest {
                spare::free();
                memory::free();
            }
            is_at_rest = is_silent;
        }
    }

    /// The longest wait for the next event.
    fn wait(&self, is_at_rest: bool) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        // Rounded up, so that the time has come when the wait is over.
        let next_look = self.next_look.map(|due| due.left() + Duration::from_millis(1));
        let rest = (!is_at_rest).then_some(REST_AFTER);
        next_look.into_iter().chain(rest).min()
    }

    fn hear(&mut self) {
        self.wake.clear();
        // Words that come meanwhile have their own wake-up call.
        for _ in 0..self.inbox.len() {
            match self.inbox.try_recv() {
                Ok(Word::Tunnel(tunnel, place)) => self.begin(tunnel, place),
                Ok(Word::TakeLeave) => self.take_leave(),
                Ok(Word::Stop) => self.has_stopped = true,
                Err(_) => return,
            }
        }
    }

    fn begin(&mut self, mut tunnel: Box<dyn Tunnel>, place: Place) {
        if self.takes_leave {
            tunnel.take_leave();
        }
        let id = self.next_id;
        self.next_id += 1;
        let sockets = tunnel.sockets();
        let interests = [Interest::Read; 2];
        let mut watched = Ok(());
        for (number, socket) in numbers(id).into_iter().zip(&sockets) {
            watched = watched.and_then(|()| self.poller.add(socket, number, Interest::Read));
        }
        let carried = Carried { tunnel, sockets, interests, until: None, _place: place };
        self.tunnels.insert(id, carried);
        match watched {
            // Bytes that came together with the handshake are passed on at once.
            Ok(()) => self.turn(id, [Readiness { read: true, ..Readiness::default() }; 2]),
            Err(error) => self.end_unwatched(id, &error),
        }
    }

    fn take_leave(&mut self) {
        self.takes_leave = true;
        for id in self.tunnels.keys().copied().collect::<Vec<_>>() {
            if let Some(carried) = self.tunnels.get_mut(&id) {
                carried.tunnel.take_leave();
            }
            self.turn(id, [Readiness::default(); 2]);
        }
    }

    fn on_event(&mut self, number: u64, news: Readiness) {
        let mut now = [Readiness::default(); 2];
        now[usize::from(number % 2 == 1)] = news;
        self.turn(number / 2, now);
    }

    fn turn(&mut self, id: u64, now: [Readiness; 2]) {
        let Some(carried) = self.tunnels.get_mut(&id) else { return };
        // A panic costs its tunnel alone.
        match catch_unwind(AssertUnwindSafe(|| carried.tunnel.turn(now))) {
            Ok(Turn::HasMore) => _ = self.unfinished.insert(id),
            Ok(Turn::Waits(interests, until)) => {
                carried.until = Some(until);
                self.next_look = Some(self.next_look.map_or(until, |next| next.min(until)));
                if let Err(error) = carried.watch(id, interests, &self.poller) {
                    self.end_unwatched(id, &error);
                }
            }
            Ok(Turn::Over) => {
                if let Some(carried) = self.remove(id) {
                    carried.tunnel.end();
                }
            }
            Err(_) => {
                error!("A WebSocket ended by a panic; please report this");
                self.remove(id);
            }
        }
    }

    fn end_unwatched(&mut self, id: u64, error: &io::Error) {
        debug!("A WebSocket can't be waited for: {error}");
        if let Some(carried) = self.remove(id) {
            carried.tunnel.end();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Carried> {
        let carried = self.tunnels.remove(&id)?;
        // Their descriptors may live on elsewhere for a moment.
        carried.sockets.iter().for_each(|socket| self.poller.remove(socket));
        Some(carried)
    }

    /// Gives a turn to each tunnel that has waited for long enough.
    fn look_for_long_waits(&mut self) {
        if !self.next_look.is_some_and(Deadline::has_passed) {
            return;
        }
        let has_waited = |one: &Carried| one.until.is_some_and(Deadline::has_passed);
        let due = self.tunnels.iter().filter(|(_, one)| has_waited(one));
        for id in due.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.turn(id, [Readiness::default(); 2]);
        }
        self.next_look = self.tunnels.values().filter_map(|one| one.until).reduce(Deadline::min);
    }
}

impl Carried {
    /// Waits for these events of its sockets from now on.
    fn watch(&mut self, id: u64, interests: [Interest; 2], poller: &Poller) -> io::Result<()> {
        for (index, number) in numbers(id).into_iter().enumerate() {
            if self.interests[index] != interests[index] {
                poller.change(&self.sockets[index], number, interests[index])?;
                self.interests[index] = interests[index];
            }
        }
        Ok(())
    }
}

/// The numbers of a tunnel's sockets among all.
const fn numbers(id: u64) -> [u64; 2] {
    [id * 2, id * 2 + 1]
}

#[cfg(test)]
mod tests;
