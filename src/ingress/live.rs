//! The connections that are open, so that a stop can close the idle ones and wait for the others.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Deadline;

/// All open connections.
#[derive(Debug, Default)]
pub struct Live {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    draining: bool,
    next_id: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    stream: Arc<TcpStream>,
    idle: bool,
}

/// One connection's entry, taken out when it is dropped.
#[derive(Debug)]
pub struct Entry {
    live: Arc<Live>,
    id: u64,
}

impl Live {
    fn state(&self) -> MutexGuard<'_, State> {
        // Entries are put in and taken out whole; there is nothing half done to fear.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new connection in, idle.
    pub fn enter(self: &Arc<Self>, stream: Arc<TcpStream>) -> Entry {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        state.open.insert(id, Open { stream, idle: true });
        Entry { live: self.clone(), id }
    }

    /// Whether a stop was asked for.
    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Asks everything to end: idle connections are closed, the others may go on for `grace` and are
    /// cut off then. Returns how many that were.
    pub fn drain(&self, grace: Duration) -> usize {
        let deadline = Deadline::after(grace);
        let mut state = self.state();
        state.draining = true;
        close(&state, |open| open.idle);
        while !state.open.is_empty() && !deadline.has_passed() {
            state = self
                .changed
                .wait_timeout(state, deadline.left())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        close(&state, |_| true)
    }
}

/// Closes those for which `which` holds and counts them.
fn close(state: &State, which: impl Fn(&Open) -> bool) -> usize {
    let chosen = state.open.values().filter(|open| which(open));
    // A failure means that the client closed it first.
    chosen.map(|open| drop(open.stream.shutdown(Shutdown::Both))).count()
}

impl Entry {
    /// Notes whether the connection waits for a request. Returns false where it is to end instead.
    pub fn set_idle(&self, idle: bool) -> bool {
        let mut state = self.live.state();
        let draining = state.draining;
        if let Some(open) = state.open.get_mut(&self.id) {
            open.idle = idle;
        }
        !(idle && draining)
    }

    /// Whether a stop was asked for.
    pub fn is_draining(&self) -> bool {
        self.live.is_draining()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.live.state().open.remove(&self.id);
        self.live.changed.notify_all();
    }
}
