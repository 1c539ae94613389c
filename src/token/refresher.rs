//! The handle of the thread that keeps the tokens of one chain fresh.
//!
//! `actor` is the thread: it receives events (`inbox`), asks `life`, which holds the lifecycle and reports events,
//! makes each `attempt`, and keeps the outcome in the `vault`.

use std::time::Duration;

use crossbeam_channel::{Receiver, after, bounded};

use crate::clock::Deadline;
use crate::thread::{self, Thread};
use crate::token::places::Seeker;
use crate::token::refresher::actor::Actor;
use crate::token::refresher::inbox::{Event, inbox};
use crate::token::refresher::setup::Purpose;
use crate::token::store::Posting;

mod actor;
mod attempt;
mod desk;
mod hindrance;
mod hold;
mod inbox;
mod issuer;
mod life;
mod login;
mod moves;
mod secrets;
mod setup;
mod vault;
mod words;

pub(crate) use hold::NotStored;
pub(crate) use inbox::{Change, Inbox};
pub use login::{EndingTokens, log_out, store_login};
pub(crate) use setup::Timer;
pub use setup::{Setup, TICK_MS};

/// The time between two looks of a stop at an ending refresher.
const END_LOOK_EVERY: Duration = Duration::from_millis(5);
/// The longest wait of a start for a refresher's first look at its stored record.
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
    /// Starts the thread, and waits for its first look at the stored record: at most `FIRST_LOOK_MAX`, so that a
    /// hanging disk holds up no other provider. If another refresher has yet to leave the state file, the thread reads
    /// nothing before `left` says so, the start does not wait for it, and it ends if that never happens.
    pub fn start(setup: Setup, left: Option<Receiver<()>>) -> std::io::Result<Self> {
        setup.store.publish(setup.provider, Posting { refreshing: true, ..Posting::default() });
        let (inbox, orders) = inbox();
        let (looking, has_looked) = bounded::<()>(0);
        let look_max = if left.is_none() { FIRST_LOOK_MAX } else { Duration::ZERO };
        let body = move || {
            if left.is_none_or(|left| left.recv().is_ok()) {
                let actor = Actor::new(setup, orders, Purpose::Serve);
                drop(looking);
                actor.run();
            }
        };
        let thread = thread::spawn("refresher", STACK_BYTES, body)?;
        // The thread drops its end after the look, without sending anything.
        let _ = has_looked.recv_timeout(look_max);
        Ok(Self { inbox, thread: Some(thread) })
    }

    /// Tells the refresher to end, without waiting.
    pub fn stop(&self) {
        self.inbox.tell(Event::Stop);
    }

    /// Waits for the refresher's end, at most until `deadline`; then leaves it behind. Returns true if it has ended.
    pub fn end_before(mut self, deadline: Deadline) -> bool {
        self.stop();
        let has_ended = |thread: &Option<Thread>| thread.as_ref().is_none_or(Thread::is_finished);
        while !has_ended(&self.thread) && !deadline.has_passed() {
            // Only the end of the timer matters.
            let _ = after(END_LOOK_EVERY.min(deadline.left())).recv();
        }
        let ended = has_ended(&self.thread);
        if !ended && let Some(thread) = self.thread.take() {
            thread.detach();
        }
        ended
    }

    /// Tells the refresher that a reload left its configuration unchanged.
    pub fn reloaded(&self, seeker: Seeker) {
        self.inbox.tell(Event::Reloaded(Box::new(seeker)));
    }

    /// Changes the refresher's setup, after a refresh under way.
    pub fn change(&self, change: Change) {
        self.inbox.tell(Event::Change(Box::new(change)));
    }

    /// Tells the refresher that no provider uses it any more.
    pub fn retire(&self) {
        self.inbox.tell(Event::Retire);
    }

    /// The refresher's inbox, for requests.
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

/// Refreshes once without a thread, for `evertoken refresh`. True if there is a new token, and it is stored.
pub(crate) fn refresh_once(mut setup: Setup) -> bool {
    // A person is waiting for the command.
    setup.watches_disk = false;
    // Nobody sends it events.
    let (_inbox, orders) = inbox();
    Actor::new(setup, orders, Purpose::Refresh).refresh_once()
}

/// Makes sure of a valid token without a thread, for `evertoken token`; the posting in the setup's store has it, or
/// the reason why there is none. A token that is not about to end stays.
pub(crate) fn obtain_once(mut setup: Setup) {
    setup.watches_disk = false;
    let (_inbox, orders) = inbox();
    Actor::new(setup, orders, Purpose::Obtain).obtain_once();
}

#[cfg(test)]
mod tests;
