//! The handle of the thread that keeps one provider's token fresh, and what that thread works with.
//!
//! The thread itself is in `actor`, a refresh in `attempt`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, after, bounded, never, unbounded};
use fastrand::Rng;

use crate::clock::{Clock, Deadline};
use crate::config::AutoRefresh;
use crate::http::message::Headers;
use crate::shared::chain::SharedChain;
use crate::shortage::Shortage;
use crate::thread::{self, Thread};
use crate::token::grant::{Reached, TokenRequest};
use crate::token::places::Seeker;
use crate::token::state_file::StateFile;
use crate::token::store::{Generation, Posting, PostingKey, TokenStore};

mod actor;
mod attempt;
mod disk;
mod elsewhere;
mod hear;
mod hosts;
mod locks;
mod login;
mod missing;
mod refresh_end;
mod reload;
mod secrets;
mod wait;
mod words;

use actor::Actor;
pub use login::store_login;
pub use reload::Change;

/// The longest sleep of a refresher: after this at the latest a login that was stored meanwhile, a
/// suspended machine or a stepped clock is noticed, and a state file that could not be written is
/// tried again.
pub const TICK_MS: u64 = 30_000;
/// How often a stop looks whether a refresher has ended.
const END_LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a start waits for a refresher to look at what is stored.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(2);
/// The stack of a refresher: a TLS handshake needs more than a forwarding worker's.
const STACK_BYTES: usize = 256 * 1024;

/// A token endpoint's whole answer.
#[derive(Debug)]
pub struct TokenAnswer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The body, at most 1 MiB.
    pub body: Vec<u8>,
}

/// No answer came: whether the request may have been acted on, and why, without any secret.
#[derive(Debug)]
pub struct NoAnswer {
    /// Whether the request may have been acted on.
    pub reached: Reached,
    /// What happened.
    pub why: String,
    /// What we had run out of, where that is why: no fault of the issuer.
    pub shortage: Option<Shortage>,
}

impl NoAnswer {
    /// No answer of the issuer.
    pub fn of(reached: Reached, why: String) -> Self {
        Self { reached, why, shortage: None }
    }
}

/// Sends a token request and gives it the time stated.
pub type Send =
    Box<dyn Fn(&TokenRequest, Duration) -> Result<TokenAnswer, NoAnswer> + std::marker::Send>;

/// Makes a channel that is ready after a time: a test can hold the other end.
pub type Timer = Box<dyn Fn(Duration) -> Receiver<Instant> + std::marker::Send>;

/// What can wake a refresher besides its timer. `done` is dropped once the outcome is published.
#[derive(Debug)]
pub enum Event {
    /// Refresh now.
    Force(Sender<()>),
    /// The provider refused the token of this generation.
    Rejected(Generation, Sender<()>),
    /// A request found no token that it could use; None where it does not wait for one.
    Wanted(Option<Sender<()>>),
    /// Another host changed what is stored, or the shared store is back.
    News,
    /// The configuration was read again, and what it says of this token life is as it was; of others it may say
    /// something else.
    Reloaded(Box<Seeker>),
    /// Go on with what another configuration says.
    Change(Box<Change>),
    /// No provider uses it any more: refresh nothing, but keep what could not be written yet.
    Retire,
    /// End, after a refresh under way has been stored.
    Stop,
}

/// Everything a refresher works with.
pub struct Setup {
    /// Where its token is published.
    pub provider: PostingKey,
    /// The provider's name, for the log.
    pub name: String,
    /// What to ask for and how.
    pub config: AutoRefresh,
    /// Where tokens are kept.
    pub state: StateFile,
    /// Looks for them where they are not there.
    pub seeker: Seeker,
    /// What is shared with other hosts; None where nothing is.
    pub chain: Option<SharedChain>,
    /// Where tokens are published.
    pub store: Arc<TokenStore>,
    /// The time.
    pub clock: Clock,
    /// For waits.
    pub timer: Timer,
    /// The way to the token endpoint.
    pub send: Send,
    /// For jitter.
    pub rng: Rng,
    /// Whether a disk that hangs is said: each call to it takes a thread then.
    pub watches_disk: bool,
}

impl Setup {
    /// What a command calls the provider, wherever its tokens are.
    fn called(&self) -> &str {
        self.seeker.provider().unwrap_or(self.state.slug())
    }
}

/// Asks a refresher for something, from any thread.
#[derive(Clone, Debug)]
pub struct Inbox {
    events: Sender<Event>,
    /// The refresher was told that its token is wanted, and has not heard it yet.
    is_told_wanted: Arc<AtomicBool>,
}

impl Inbox {
    /// Asks for a refresh now; the receiver is closed once the outcome is published.
    pub fn force(&self) -> Receiver<()> {
        self.ask(Event::Force)
    }

    /// Reports that the provider refused the token of `generation`.
    pub fn reject(&self, generation: Generation) -> Receiver<()> {
        self.ask(|done| Event::Rejected(generation, done))
    }

    /// Reports that a request waits for a token, so that a clock that jumped is noticed at once and a long
    /// wait for the next try cut short. The receiver is closed once the refresher has published what it
    /// does about it.
    pub fn wait_for_token(&self) -> Receiver<()> {
        self.ask(|done| Event::Wanted(Some(done)))
    }

    /// Reports that a request was not given to the provider, for it has no token.
    pub fn passed_over(&self) {
        // Many requests in a row are told once, lest the inbox grow while the refresher waits for an answer.
        if !self.is_told_wanted.swap(true, Ordering::Relaxed) {
            // A refresher that has ended has nothing to notice.
            let _ = self.events.send(Event::Wanted(None));
        }
    }

    /// Reports that there may be something else in the shared store.
    pub fn news(&self) {
        // A refresher that has ended takes nothing up.
        let _ = self.events.send(Event::News);
    }

    /// How many events it has not heard yet: for tests that lead a refresher step by step.
    pub fn unheard(&self) -> usize {
        self.events.len()
    }

    fn ask(&self, event: impl FnOnce(Sender<()>) -> Event) -> Receiver<()> {
        let (done, outcome) = bounded(1);
        // A refresher that has ended drops `done` with the event, which is an outcome too.
        let _ = self.events.send(event(done));
        outcome
    }
}

/// A running refresher. Dropping it stops the thread, after a refresh under way has been stored.
#[derive(Debug)]
pub struct Refresher {
    inbox: Inbox,
    thread: Option<Thread>,
}

impl Refresher {
    /// Starts the thread, and waits until it has looked at what is stored: at most `FIRST_LOOK_MAX`, so that a disk
    /// that hangs holds up no other provider.
    pub fn start(setup: Setup) -> std::io::Result<Self> {
        setup.store.publish(setup.provider, Posting { refreshing: true, ..Posting::default() });
        let (looking, has_looked) = bounded::<()>(0);
        let started = Self::spawn(|inbox, is_told_wanted| {
            move || {
                let actor = Actor::new(setup, inbox, is_told_wanted, false);
                drop(looking);
                actor.run();
            }
        })?;
        // It is dropped once that is done, and nothing is sent.
        let _ = has_looked.recv_timeout(FIRST_LOOK_MAX);
        Ok(started)
    }

    /// Starts the thread, which reads nothing before it is told that the state file is `left` by another
    /// refresher, and ends where that never happens.
    pub fn start_after(setup: Setup, left: Receiver<()>) -> std::io::Result<Self> {
        setup.store.publish(setup.provider, Posting { refreshing: true, ..Posting::default() });
        Self::spawn(|inbox, is_told_wanted| {
            move || {
                if left.recv().is_ok() {
                    Actor::new(setup, inbox, is_told_wanted, false).run();
                }
            }
        })
    }

    fn spawn<Body>(
        body: impl FnOnce(Receiver<Event>, Arc<AtomicBool>) -> Body,
    ) -> std::io::Result<Self>
    where
        Body: FnOnce() + std::marker::Send + 'static,
    {
        let (events, inbox) = unbounded();
        let is_told_wanted: Arc<AtomicBool> = Arc::default();
        let body = body(inbox, is_told_wanted.clone());
        let thread = thread::spawn("refresher", STACK_BYTES, body)?;
        Ok(Self { inbox: Inbox { events, is_told_wanted }, thread: Some(thread) })
    }

    /// Tells it to end, without waiting for that.
    pub fn stop(&self) {
        // A refresher that has ended already needs no telling.
        let _ = self.inbox.events.send(Event::Stop);
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
        // A refresher that has ended has nothing to try again.
        let _ = self.inbox.events.send(Event::Reloaded(Box::new(seeker)));
    }

    /// Has it go on with what another configuration says, after a refresh under way.
    pub fn change(&self, change: Change) {
        // A refresher that has ended goes on with nothing.
        let _ = self.inbox.events.send(Event::Change(Box::new(change)));
    }

    /// Tells it that no provider uses it any more.
    pub fn retire(&self) {
        // A refresher that has ended refreshes nothing.
        let _ = self.inbox.events.send(Event::Retire);
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
pub fn refresh_once(mut setup: Setup) -> Result<(), String> {
    // Somebody waits in front of it.
    setup.watches_disk = false;
    Actor::new(setup, never(), Arc::default(), true).refresh_once()
}

#[cfg(test)]
mod tests;
