//! Waits for many sockets at once, by poll(2).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::ptr::addr_eq;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::platform::portable::departure::{DEPARTURE, DEPARTURE_BEHIND_BYTES, has_left};
use crate::platform::portable::wake::Wake;
use crate::platform::values::{Interest, Readiness};

/// Waits for many sockets at once. Any thread may add and remove them; one waits.
pub(crate) struct Poller {
    state: Mutex<PollerState>,
    /// Ends a wait whose sockets are not the right ones any more.
    changed: Wake,
}

#[derive(Default)]
struct PollerState {
    watched: BTreeMap<u64, Watched>,
    is_waiting: bool,
}

/// A socket, and what is to be told about it.
struct Watched {
    /// Held by its owner alone, so that the end of a connection does not wait for us.
    socket: Weak<dyn AsFd + Send + Sync>,
    interest: Interest,
    /// Changes that have not been told since a call would have waited.
    to_read: bool,
    to_write: bool,
    /// Of one whose departure is watched: bytes wait to be read.
    has_bytes: bool,
    /// There is nothing more to tell.
    is_over: bool,
}

/// A socket that is waited for, with the events to poll for.
struct Polled {
    id: u64,
    socket: Arc<dyn AsFd + Send + Sync>,
    flags: PollFlags,
}

/// The events of a wait.
pub(crate) struct Events(Vec<(u64, Readiness)>);

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poller(..)")
    }
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { state: Mutex::default(), changed: Wake::new()? })
    }

    fn state(&self) -> MutexGuard<'_, PollerState> {
        // Sockets are added and removed whole, so a panic leaves no half-made change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells about `socket` as `id` from now on. Fails for one that is there already.
    pub(crate) fn add<S: AsFd + Send + Sync + 'static>(
        &self,
        socket: &Arc<S>,
        id: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut state = self.state();
        if state.id_of(socket).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.watched.insert(id, Watched::new(socket, interest));
        self.note_change(&state);
        Ok(())
    }

    /// Tells something else about `socket`. Fails for one that is not there.
    pub(crate) fn change<S: AsFd + Send + Sync + 'static>(
        &self,
        socket: &Arc<S>,
        id: u64,
        interest: Interest,
    ) -> io::Result<()> {
        let mut state = self.state();
        let known = state.id_of(socket).ok_or(io::ErrorKind::NotFound)?;
        state.watched.remove(&known);
        state.watched.insert(id, Watched::new(socket, interest));
        self.note_change(&state);
        Ok(())
    }

    /// Tells no more about `socket`, whose descriptor may live on elsewhere.
    pub(crate) fn remove<S: AsFd + Send + Sync + 'static>(&self, socket: &Arc<S>) {
        let mut state = self.state();
        if let Some(id) = state.id_of(socket) {
            state.watched.remove(&id);
            self.note_change(&state);
        }
    }

    fn note_change(&self, state: &PollerState) {
        if state.is_waiting {
            self.changed.ring();
        }
    }

    /// Says that a call on the socket of `id`, which was added for [`Interest::Changes`], would have waited: the next
    /// change is to be told.
    pub(crate) fn would_wait(&self, id: u64, to_read: bool, to_write: bool) {
        if let Some(watched) = self.state().watched.get_mut(&id) {
            watched.to_read |= to_read;
            watched.to_write |= to_write;
        }
    }

    /// Waits for events, at most for `limit`. A signal, or a change of the sockets, is an end without any.
    pub(crate) fn wait(&self, events: &mut Events, limit: Option<Duration>) -> io::Result<()> {
        events.0.clear();
        let sockets = self.state().begin_to_wait();
        let mut fds = vec![PollFd::new(&self.changed, PollFlags::IN)];
        fds.extend(
            sockets.iter().map(|one| PollFd::from_borrowed_fd(one.socket.as_fd(), one.flags)),
        );
        // A limit too long for the system is none.
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let outcome = poll(&mut fds, limit.as_ref());
        let mut state = self.state();
        state.is_waiting = false;
        self.changed.clear();
        match outcome {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for (one, fd) in sockets.iter().zip(&fds[1..]) {
            // One that another thread removed meanwhile has nothing to say.
            let watched = state.watched.get_mut(&one.id).filter(|watched| watched.is(&one.socket));
            let told = watched.and_then(|watched| watched.tell(&one.socket, fd.revents()));
            events.0.extend(told.map(|readiness| (one.id, readiness)));
        }
        Ok(())
    }
}

impl PollerState {
    fn id_of<S: AsFd>(&self, socket: &Arc<S>) -> Option<u64> {
        let mut all = self.watched.iter();
        all.find(|(_, one)| addr_eq(one.socket.as_ptr(), Arc::as_ptr(socket))).map(|(id, _)| *id)
    }

    /// The sockets to wait for; those that have ended are forgotten.
    fn begin_to_wait(&mut self) -> Vec<Polled> {
        self.is_waiting = true;
        self.watched.retain(|_, one| one.socket.strong_count() > 0);
        let to_wait_for = self.watched.iter().filter(|(_, one)| !one.is_over);
        let polled = to_wait_for.filter_map(|(id, one)| {
            Some(Polled { id: *id, socket: one.socket.upgrade()?, flags: one.flags() })
        });
        polled.collect()
    }
}

impl Watched {
    fn new<S: AsFd + Send + Sync + 'static>(socket: &Arc<S>, interest: Interest) -> Self {
        let socket: Weak<S> = Arc::downgrade(socket);
        Self { socket, interest, to_read: true, to_write: true, has_bytes: false, is_over: false }
    }

    fn is(&self, socket: &Arc<dyn AsFd + Send + Sync>) -> bool {
        addr_eq(self.socket.as_ptr(), Arc::as_ptr(socket))
    }

    /// The events to poll for. The end of a connection is told even if nothing is asked for, but not on every system.
    fn flags(&self) -> PollFlags {
        let mut flags = PollFlags::HUP;
        match self.interest {
            Interest::Read => flags |= PollFlags::IN,
            Interest::Write => flags |= PollFlags::OUT,
            Interest::Both => flags |= PollFlags::IN | PollFlags::OUT,
            Interest::Changes => {
                flags.set(PollFlags::IN, self.to_read);
                flags.set(PollFlags::OUT, self.to_write);
            }
            Interest::Departure if self.has_bytes => flags = DEPARTURE_BEHIND_BYTES,
            Interest::Departure => flags = DEPARTURE,
            Interest::End => {}
        }
        flags
    }

    /// The news in `events`, if there are any.
    fn tell(&mut self, socket: &dyn AsFd, events: PollFlags) -> Option<Readiness> {
        let has_ended = events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        let told = Readiness {
            read: has_ended || events.contains(PollFlags::IN),
            write: has_ended || events.contains(PollFlags::OUT),
            has_ended,
        };
        match self.interest {
            Interest::Read | Interest::Write | Interest::Both => {}
            Interest::Changes => {
                self.to_read &= !told.read;
                self.to_write &= !told.write;
                self.is_over = has_ended;
            }
            Interest::End => self.is_over = has_ended,
            Interest::Departure => {
                self.is_over = has_left(socket, events);
                self.has_bytes |= told.read;
                return self.is_over.then_some(told);
            }
        }
        (told != Readiness::default()).then_some(told)
    }
}

impl Events {
    /// Room for the events that are handled in one turn.
    pub(crate) fn with_capacity(max: usize) -> Self {
        Self(Vec::with_capacity(max))
    }

    /// The ids of sockets, with what can be done.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Readiness)> {
        self.0.iter().copied()
    }
}
