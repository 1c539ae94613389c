//! The handle of the thread that keeps the tokens of one chain fresh.
//!
//! `actor` is the thread: it hears (`inbox`), asks `life`, which has the lifecycle and says what happens, has an
//! `attempt` made, and keeps the outcome in the `vault`.

use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded};

use crate::clock::Deadline;
use crate::thread::{self, Thread};
use crate::token::places::Seeker;
use crate::token::refresher::actor::Actor;
use crate::token::refresher::inbox::{Event, inbox};
use crate::token::store::Posting;

mod actor;
mod attempt;
mod desk;
mod hindrance;
mod inbox;
mod life;
mod login;
mod moves;
mod secrets;
mod setup;
mod vault;
mod words;

pub(crate) use inbox::{Change, Inbox};
pub use login::store_login;
pub(crate) use setup::{Send, Timer};
pub use setup::{Setup, TICK_MS, TokenAnswer};

/// How often a stop looks whether a refresher has ended.
const END_LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a start waits for a refresher to look at what is stored.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(2);
/// The stack of a refresher: a TLS handshake needs more than a forwarding worker's.
const STACK_BYTES: usize = 256 * 1024;

/// A running refresher. Dropping it stops the thread, after a refresh under way has been stored.
#[derive(Debug)]
pub struct Refresher {
    inbox: Inbox,
    thread: Option<Thread>,
}

impl Refresher {
    /// Starts the thread, and waits until it has looked at what is stored: at most `FIRST_LOOK_MAX`, so that a disk
    /// that hangs holds up no other provider. Where the state file is yet to be `left` by another refresher, the thread
    /// reads nothing before it is told so, is not waited for, and ends where that never happens.
    pub fn start(setup: Setup, left: Option<Receiver<()>>) -> std::io::Result<Self> {
        setup.store.publish(setup.provider, Posting { refreshing: true, ..Posting::default() });
        let (inbox, orders) = inbox();
        let (looking, has_looked) = bounded::<()>(0);
        let look_max = if left.is_none() { FIRST_LOOK_MAX } else { Duration::ZERO };
        let body = move || {
            if left.is_none_or(|left| left.recv().is_ok()) {
                let actor = Actor::new(setup, orders, false);
                drop(looking);
                actor.run();
            }
        };
        let thread = thread::spawn("refresher", STACK_BYTES, body)?;
        // It is dropped once that is done, and nothing is sent.
        let _ = has_looked.recv_timeout(look_max);
        Ok(Self { inbox, thread: Some(thread) })
    }

    /// Tells it to end, without waiting for that.
    pub fn stop(&self) {
        self.inbox.tell(Event::Stop);
    }

    /// Waits until it has ended, at most up to `deadline`; else it is left behind. Whether it has ended.
    pub fn end_before(mut self, deadline: Deadline) -> bool {
        self.stop();
        let has_ended = |thread: &Option<Thread>| thread.as_ref().is_none_or(Thread::is_finished);
        while !has_ended(&self.thread) && !deadline.has_passed() {
            // The timer's end is all that is waited for.
            let _ = after(END_LOOK_EVERY.min(deadline.left())).recv();
        }
        let ended = has_ended(&self.thread);
        if !ended && let Some(thread) = self.thread.take() {
            thread.detach();
        }
        ended
    }

    /// Tells it that the configuration was read again and is as it was.
    pub fn reloaded(&self, seeker: Seeker) {
        self.inbox.tell(Event::Reloaded(Box::new(seeker)));
    }

    /// Has it go on with what another configuration says, after a refresh under way.
    pub fn change(&self, change: Change) {
        self.inbox.tell(Event::Change(Box::new(change)));
    }

    /// Tells it that no provider uses it any more.
    pub fn retire(&self) {
        self.inbox.tell(Event::Retire);
    }

    /// A way to ask it for something.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        // The thread is joined by the field that is dropped after this.
        self.stop();
    }
}

/// Refreshes once without a thread, for `evertoken refresh`; the error is what the log says too.
pub(crate) fn refresh_once(mut setup: Setup) -> Result<(), String> {
    // Somebody waits in front of it.
    setup.watches_disk = false;
    // Nobody tells it anything.
    let (_inbox, orders) = inbox();
    Actor::new(setup, orders, true).refresh_once()
}

#[cfg(test)]
mod tests;
