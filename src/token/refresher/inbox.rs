//! What a refresher is told, by whom, and who waits for the outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::token::places::Seeker;
use crate::token::refresher::setup::Setup;
use crate::token::store::Generation;

/// What can wake a refresher besides its timer. `done` is dropped once the outcome is published.
pub(super) enum Event {
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

/// A reload's orders to a running refresher.
pub struct Change {
    /// Everything that it works with from now on, but for its jitter.
    pub setup: Setup,
    /// Whether its chain in the shared store is the one that it has already.
    pub keeps_chain: bool,
    /// Told once nothing is kept in the place before.
    pub leaving: Sender<()>,
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
            self.tell(Event::Wanted(None));
        }
    }

    /// Reports that there may be something else in the shared store.
    pub fn news(&self) {
        self.tell(Event::News);
    }

    /// How many events it has not heard yet: for tests that lead a refresher step by step.
    pub fn unheard(&self) -> usize {
        self.events.len()
    }

    /// Tells it something, without waiting for that.
    pub(super) fn tell(&self, event: Event) {
        // A refresher that has ended has nothing to do about it.
        let _ = self.events.send(event);
    }

    fn ask(&self, event: impl FnOnce(Sender<()>) -> Event) -> Receiver<()> {
        let (done, outcome) = bounded(1);
        // A refresher that has ended drops `done` with the event, which is an outcome too.
        self.tell(event(done));
        outcome
    }
}

/// The refresher's end of its inbox: what came in, and who waits.
pub(super) struct Orders {
    pub(super) events: Receiver<Event>,
    is_told_wanted: Arc<AtomicBool>,
    /// Those who wait for the outcome of the next refresh.
    waiting: Vec<Sender<()>>,
    /// How many events came before the last refresh ended.
    joined: Option<usize>,
}

/// An inbox, and its other end.
pub(super) fn inbox() -> (Inbox, Orders) {
    let (sender, events) = unbounded();
    let is_told_wanted: Arc<AtomicBool> = Arc::default();
    let orders = Orders {
        events,
        is_told_wanted: is_told_wanted.clone(),
        waiting: Vec::new(),
        joined: None,
    };
    (Inbox { events: sender, is_told_wanted }, orders)
}

impl Orders {
    /// An event is being dealt with.
    pub(super) fn note(&self, event: &Event) {
        if matches!(event, Event::Wanted(None)) {
            self.is_told_wanted.store(false, Ordering::Relaxed);
        }
    }

    /// `done` waits for the outcome of the next refresh.
    pub(super) fn join(&mut self, done: Sender<()>) {
        self.waiting.push(done);
    }

    /// Tells all who wait that there is an outcome.
    pub(super) fn answer(&mut self) {
        self.waiting.clear();
    }

    /// A refresh begins.
    pub(super) fn begin(&mut self) {
        self.joined = None;
    }

    /// The refresh has come to its outcome: an order that comes now is about the next one.
    pub(super) fn end(&mut self) {
        self.joined = Some(self.events.len());
    }

    /// As [`Orders::end`], unless the outcome came before.
    pub(super) fn end_at_last(&mut self) {
        self.joined.get_or_insert(self.events.len());
    }

    /// How many events came while the last refresh was under way.
    pub(super) fn take_joined(&mut self) -> usize {
        self.joined.take().unwrap_or(0)
    }
}
