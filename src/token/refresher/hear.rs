//! What a refresher does about what it is told.

use std::sync::atomic::Ordering;

use crossbeam_channel::{Sender, TryRecvError};
use log::{info, warn};

use crate::token::lifecycle::{OnRejection, Step};
use crate::token::refresher::Event;
use crate::token::refresher::actor::Actor;
use crate::token::store::Generation;

impl Actor {
    pub(super) fn hear(&mut self, event: Event) {
        if matches!(event, Event::Wanted(None)) {
            self.is_told_wanted.store(false, Ordering::Relaxed);
        }
        match event {
            Event::Change(change) => {
                self.hold_off = None;
                self.change(*change);
            }
            Event::Reloaded(seeker) => {
                self.hold_off = None;
                self.reloaded(*seeker);
            }
            Event::Retire => self.retire(),
            // Whoever asks is told by what was published last.
            _ if self.is_retired => {}
            Event::Force(done) => self.ordered(done),
            Event::Rejected(generation, done) => self.rejected(generation, done),
            Event::Wanted(_) => {
                // The clocks are looked at right after this, whether or not it brings the next try forward.
                if self.machine.wanted(self.setup.clock.now()) {
                    self.publish(false);
                }
            }
            Event::News => {
                let brought = self.compare_with_shared();
                if brought || self.machine.next(self.setup.clock.now()) != Step::Refresh {
                    // What is waited for has come from another host, or that there is no use in trying.
                    self.waiting.clear();
                }
            }
            Event::Stop => {}
        }
    }

    fn ordered(&mut self, done: Sender<()>) {
        if self.take_up_login() && self.has_valid_token() {
            // The login that was just stored is what was asked for.
            return;
        }
        self.machine.order(self.setup.clock.now());
        self.waiting.push(done);
        self.hold_off = None;
    }

    fn rejected(&mut self, generation: Generation, done: Sender<()>) {
        let name = &self.setup.name;
        match self.machine.rejected(generation, self.setup.clock.now()) {
            OnRejection::Refresh => {
                // Said once a token: while the token store is away, each request has the refresh tried.
                if self.refused.replace(generation) != Some(generation) {
                    warn!(
                        provider = self.setup.name.as_str();
                        "Provider {name} refused its token; refreshing"
                    );
                }
                self.waiting.push(done);
            }
            OnRejection::Join => self.waiting.push(done),
            OnRejection::Later(wait_ms) => info!(
                provider = self.setup.name.as_str();
                "Provider {name} refused the new token too; the next refresh for that is in {} s",
                wait_ms.div_ceil(1000)
            ),
            OnRejection::Nothing => {}
        }
    }

    /// A refresh has ended. Who asked for one while it ran has joined it; false where it is time to end.
    pub(super) fn hear_who_joined(&mut self) -> bool {
        if !self.falls_back {
            self.waiting.clear();
        }
        // An order that comes after another configuration is about that one.
        let mut is_of_now = true;
        for _ in 0..self.joined.take().unwrap_or(0) {
            match self.inbox.try_recv() {
                Ok(Event::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(Event::Force(done)) if is_of_now && self.falls_back => self.waiting.push(done),
                Ok(Event::Force(_)) if is_of_now => {}
                Ok(Event::Change(change)) => {
                    is_of_now = false;
                    self.hear(Event::Change(change));
                }
                // A reload that changed nothing of it is an order too.
                Ok(Event::Reloaded(seeker)) => {
                    self.is_retired = false;
                    self.setup.seeker = *seeker;
                    self.setup.seeker.reconfigure(&self.setup.config);
                }
                Ok(event) => self.hear(event),
                Err(TryRecvError::Empty) => break,
            }
        }
        true
    }

    /// A refresh could not even be tried: who waits for it learns so.
    pub(super) fn give_up_waiting(&mut self) {
        let was_ordered = self.machine.withdrawn();
        self.waiting.clear();
        if let Some(told) = self.told_of_store().filter(|_| was_ordered) {
            warn!(
                provider = self.setup.name.as_str();
                "Provider {} was not refreshed as ordered: {told}", self.setup.name
            );
        }
    }

    fn has_valid_token(&self) -> bool {
        let now = self.setup.clock.now();
        self.machine.token().is_some_and(|token| !token.expires.reached(now))
    }
}
