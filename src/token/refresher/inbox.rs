//! The events of a refresher, their senders, and the callers that wait for an outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::token::places::Seeker;
use crate::token::refresher::setup::Setup;
use crate::token::store::Generation;

/// An event that wakes a refresher, besides its timer. `done` is dropped once the outcome is published.
pub(super) enum Event {
    /// Refresh now.
    Force(Sender<()>),
    /// The provider refused the token of this generation.
    Rejected(Generation, Sender<()>),
    /// A request found no usable token; None if it does not wait for one.
    Wanted(Option<Sender<()>>),
    /// Another host changed the stored record, or the shared store is back.
    News,
    /// The configuration was read again. The part about this chain is unchanged; other parts may have changed.
    Reloaded(Box<Seeker>),
    /// Continue under another configuration.
    Change(Box<Change>),
    /// No provider uses the chain any more: refresh nothing, but write any unwritten record.
    Retire,
    /// End, after a refresh under way has been stored.
    Stop,
}

/// A reload's orders to a running refresher.
pub struct Change {
    /// The whole new setup, except for its jitter.
    pub setup: Setup,
    /// True if its chain in the shared store stays the same.
    pub keeps_chain: bool,
    /// Told once the earlier place is empty.
    pub leaving: Sender<()>,
}

/// Sends requests to a refresher, from any thread.
#[derive(Clone, Debug)]
pub struct Inbox {
    events: Sender<Event>,
    /// True if the refresher has an unread event that its token is wanted.
    is_told_wanted: Arc<AtomicBool>,
    /// The number of unread events that end a running command.
    endings: Arc<AtomicUsize>,
}

impl Event {
    /// True if nobody needs the outcome of a command that began before it.
    fn ends_command(&self) -> bool {
        matches!(self, Self::Change(_) | Self::Retire | Self::Stop)
    }
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

    /// Reports that a request waits for a token, so that a clock that jumped is noticed at once and a long wait for the
    /// next try is cut short. The receiver is closed once the refresher has published its reaction.
    pub fn wait_for_token(&self) -> Receiver<()> {
        self.ask(|done| Event::Wanted(Some(done)))
    }

    /// Reports that the provider was skipped for a request because it has no token.
    pub fn passed_over(&self) {
        // Many requests in a row send one event, or the inbox would grow while the refresher waits for an answer.
        if !self.is_told_wanted.swap(true, Ordering::Relaxed) {
            self.tell(Event::Wanted(None));
        }
    }

    /// Reports that the shared store may have changed.
    pub fn news(&self) {
        self.tell(Event::News);
    }

    /// The number of unread events, for tests that step a refresher.
    pub fn unheard(&self) -> usize {
        self.events.len()
    }

    /// Sends an event, without waiting for its effect.
    pub(super) fn tell(&self, event: Event) {
        self.endings.fetch_add(usize::from(event.ends_command()), Ordering::Relaxed);
        // A refresher that has ended needs no event.
        let _ = self.events.send(event);
    }

    fn ask(&self, event: impl FnOnce(Sender<()>) -> Event) -> Receiver<()> {
        let (done, outcome) = bounded(1);
        // A refresher that has ended drops `done` with the event, which is an outcome too.
        self.tell(event(done));
        outcome
    }
}

/// The refresher's end of its inbox: the events and the waiting callers.
pub(super) struct Orders {
    pub(super) events: Receiver<Event>,
    is_told_wanted: Arc<AtomicBool>,
    endings: Arc<AtomicUsize>,
    /// The callers that wait for the outcome of the next refresh.
    waiting: Vec<Sender<()>>,
    /// The number of events that came before the last refresh ended.
    joined: Option<usize>,
}

/// An inbox, and the refresher's end of it.
pub(super) fn inbox() -> (Inbox, Orders) {
    let (sender, events) = unbounded();
    let is_told_wanted: Arc<AtomicBool> = Arc::default();
    let endings: Arc<AtomicUsize> = Arc::default();
    let orders = Orders {
        events,
        is_told_wanted: is_told_wanted.clone(),
        endings: endings.clone(),
        waiting: Vec::new(),
        joined: None,
    };
    (Inbox { events: sender, is_told_wanted, endings }, orders)
}

impl Orders {
    /// Notes that an event has been read.
    pub(super) fn note(&self, event: &Event) {
        if matches!(event, Event::Wanted(None)) {
            self.is_told_wanted.store(false, Ordering::Relaxed);
        }
        self.endings.fetch_sub(usize::from(event.ends_command()), Ordering::Relaxed);
    }

    /// True if an unread event ends a running command.
    pub(super) fn ends_command(&self) -> bool {
        self.endings.load(Ordering::Relaxed) > 0
    }

    /// Lets `done` wait for the outcome of the next refresh.
    pub(super) fn join(&mut self, done: Sender<()>) {
        self.waiting.push(done);
    }

    /// Tells all waiting callers that there is an outcome.
    pub(super) fn answer(&mut self) {
        self.waiting.clear();
    }

    /// Notes that a refresh begins.
    pub(super) fn begin(&mut self) {
        self.joined = None;
    }

    /// Notes the outcome of the refresh: a later order is about the next one.
    pub(super) fn end(&mut self) {
        self.joined = Some(self.events.len());
    }

    /// As [`Orders::end`], unless the outcome was noted before.
    pub(super) fn end_at_last(&mut self) {
        self.joined.get_or_insert(self.events.len());
    }

    /// The number of events that came while the last refresh was under way.
    pub(super) fn take_joined(&mut self) -> usize {
        self.joined.take().unwrap_or(0)
    }
}
