//! What a refresher does besides its own work where several hosts share its chain: it enters a lease before
//! a refresh, writes through to the shared store, and takes up what other hosts wrote.

use log::{error, warn};

use crate::clock::{Due, Moment};
use crate::record::Saved;
use crate::shared::chain::{Found, Put, SharedChain};
use crate::shared::lease::InHand;
use crate::token::grant::Failure;
use crate::token::lifecycle::{Presented, Step};
use crate::token::refresher::actor::Actor;

/// Whether a refresh may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The lease is ours, or none is needed.
    Ours,
    /// Another host was faster; there is nothing to refresh.
    Settled,
    /// Another host is at it, or was and may come back.
    Busy,
    /// The shared store can't be used.
    Away,
}

/// How a refresh went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// To its end, well or not.
    Through,
    /// Another process or host is at it.
    Busy,
    /// The shared store can't be used, and nothing is refreshed without it.
    Away,
    /// The state file is there and can't be read.
    Unread,
}

/// Why an attempt brought no grant.
pub(super) enum NoGrant {
    /// It failed.
    Failed(Failure),
    /// It was given up before anything was sent.
    Withdrawn(Went),
}

impl From<Failure> for NoGrant {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Actor {
    /// Takes the lease on the chain; not while another host refreshes it, or may still bring the answer
    /// to a refresh that it began.
    pub(super) fn enter(&mut self) -> Entry {
        let Some(chain) = &mut self.setup.chain else { return Entry::Ours };
        let Ok(found) = chain.look() else { return self.away() };
        let is_held = found.is_held;
        self.take_up_shared(found);
        let now = self.setup.clock.now();
        if self.machine.next(now) != Step::Refresh {
            return Entry::Settled;
        }
        if is_held || self.patience_left_ms(now) > 0 {
            return Entry::Busy;
        }
        if self.token_request(&self.machine.presented()).is_err() {
            // Nothing will be sent, so no other host has to be kept off.
            return Entry::Ours;
        }
        let lead_ms = self.lead_ms();
        let least = self.machine.saved().fence;
        let Some(chain) = &mut self.setup.chain else { return Entry::Ours };
        match chain.take(lead_ms, least) {
            Ok(Some((fence, found))) => self.entered(fence, found),
            Ok(None) => Entry::Busy,
            Err(_) => self.away(),
        }
    }

    /// The lease is ours; what was written since the last look counts.
    fn entered(&mut self, fence: u64, found: Found) -> Entry {
        if found.mark < self.machine.saved().mark() {
            // The server went back in time since; the next look tells it what is newest first.
            return Entry::Busy;
        }
        self.take_up_shared(found);
        let now = self.setup.clock.now();
        if self.machine.next(now) != Step::Refresh {
            return Entry::Settled;
        }
        if self.patience_left_ms(now) > 0 {
            return Entry::Busy;
        }
        self.machine.set_fence(fence);
        Entry::Ours
    }

    /// Whether what the state folder has is older than what all hosts have.
    pub(super) fn is_older_than_shared(&self, stored: &Saved) -> bool {
        self.setup.chain.is_some() && stored.mark() <= self.machine.saved().mark()
    }

    /// Gives the lease back.
    pub(super) fn leave(&mut self) {
        if let Some(chain) = &mut self.setup.chain {
            chain.release();
        }
    }

    /// Marks a refresh as begun, in the shared store first, and has a last look at the lease.
    pub(super) fn begin(&mut self, presented: &Presented) -> Result<(), NoGrant> {
        let before = self.machine.saved().clone();
        let lead_ms = self.lead_ms();
        if let Some(marked) = self.machine.begin(presented, self.setup.clock.now()) {
            if let Some(chain) = &mut self.setup.chain {
                match chain.write(&marked, lead_ms) {
                    Ok(Put::Done) => {}
                    Ok(Put::Refused(found)) => return Err(self.withdraw(before, *found)),
                    Err(_) => {
                        if self.away() == Entry::Away {
                            self.machine.put_back(before);
                            return Err(NoGrant::Withdrawn(Went::Away));
                        }
                    }
                }
            }
            self.store(marked);
        }
        let now = self.setup.clock.now();
        if self.setup.chain.as_ref().is_none_or(|chain| chain.may_send(now)) {
            return Ok(());
        }
        warn!(
            provider = self.setup.name.as_str();
            "The lease on the tokens of provider {} ran out before the refresh was sent; trying again",
            self.setup.name
        );
        Err(NoGrant::Withdrawn(Went::Busy))
    }

    /// Gives up a refresh of which nothing was sent, for another host was faster.
    fn withdraw(&mut self, before: Saved, found: Found) -> NoGrant {
        self.machine.put_back(before);
        self.adopt(found);
        NoGrant::Withdrawn(Went::Busy)
    }

    /// Puts `saved` into the shared store; what is newest then. A newer record there stays.
    pub(super) fn share(&mut self, saved: Saved) -> Saved {
        let lead_ms = self.lead_ms();
        let Some(chain) = &mut self.setup.chain else { return saved };
        match chain.write(&saved, lead_ms) {
            Ok(Put::Done) => {
                self.unshared = false;
                saved
            }
            Ok(Put::Refused(found)) => {
                self.unshared = false;
                if found.mark != saved.mark() {
                    warn!(
                        provider = self.setup.name.as_str();
                        "Another host stored a newer token for provider {} in the meantime; using that",
                        self.setup.name
                    );
                }
                self.adopt(*found);
                self.machine.saved().clone()
            }
            Err(trouble) => {
                if !self.unshared {
                    error!(
                        provider = self.setup.name.as_str();
                        "What is newest of provider {} can't be put into the token store {} \
                         ({trouble}); it is used from here and put there as soon as that works",
                        self.setup.name,
                        chain.place()
                    );
                }
                self.unshared = true;
                saved
            }
        }
    }

    /// Another host wrote something, or the server came back: the newer of the two wins. Whether it
    /// brought another token that is still good.
    pub(super) fn compare_with_shared(&mut self) -> bool {
        let Some(chain) = &mut self.setup.chain else { return false };
        // Where it can't be reached, the keeper says so, and tells again once it can.
        let Ok(found) = chain.look() else { return false };
        let brought = self.take_up_shared(found);
        self.publish(false);
        brought
    }

    /// Takes up what was found where it is newer, and offers what is known here where that is. Whether it
    /// brought another token that is still good.
    fn take_up_shared(&mut self, found: Found) -> bool {
        let now = self.setup.clock.now();
        let known = self.machine.saved();
        if found.mark < known.mark() {
            let known = known.clone();
            let newest = self.share(known.clone());
            if newest != known {
                self.store(newest);
            }
            return false;
        }
        self.unshared = false;
        let newer = found.saved.filter(|saved| saved.mark() > known.mark());
        let Some(saved) = newer else { return false };
        let brought = self.machine.take_up_shared(saved, now);
        self.took_up_shared(brought, now);
        brought
    }

    /// What the store has is known here: it is kept in the state folder too.
    fn took_up_shared(&mut self, brought: bool, now: Moment) {
        self.store(self.machine.saved().clone());
        if brought {
            self.refreshed_elsewhere(now);
        }
        self.note_taken_up(brought);
    }

    /// Goes by what was found, whatever is known here.
    fn adopt(&mut self, found: Found) {
        let now = self.setup.clock.now();
        if let Some(saved) = found.saved.filter(|saved| saved != self.machine.saved()) {
            let brought = self.machine.adopt_shared(saved, now);
            self.took_up_shared(brought, now);
        }
    }

    /// The chain's token, whether or not it is used here: a host with a seed of its own must not spoil a refresh
    /// that another began on the chain.
    fn in_hand(&self) -> Option<InHand> {
        let (expires, refresh_at) = if let Some(token) = self.machine.token() {
            (token.expires, token.refresh_due_at)
        } else {
            let access = self.machine.saved().access.as_ref()?;
            (Due::at(access.expires_at, self.setup.clock.now()), access.refresh_at)
        };
        let lead_ms = expires.wall.millis_since(refresh_at);
        Some(InHand { expires, lead_ms: u64::try_from(lead_ms).unwrap_or(0) })
    }

    fn lead_ms(&self) -> Option<u64> {
        self.in_hand().map(|token| token.lead_ms)
    }

    fn patience_left_ms(&self, now: Moment) -> u64 {
        let chain = self.setup.chain.as_ref();
        chain.map_or(0, |chain| chain.patience_left_ms(self.in_hand(), now))
    }

    /// The shared store can't be used: what that means, by `token_store_fallback`.
    fn away(&mut self) -> Entry {
        let may_go_on = self.setup.chain.as_mut().is_none_or(SharedChain::go_alone);
        if may_go_on { Entry::Ours } else { Entry::Away }
    }

    /// Where the token store is and why it can't be used, while a refresh that is due waits for it.
    pub(super) fn store_in_trouble(&self) -> Option<(String, String)> {
        let is_due = self.machine.next(self.setup.clock.now()) == Step::Refresh;
        let chain = self.setup.chain.as_ref().filter(|_| is_due)?;
        chain.waits_for().map(|why| (chain.place(), why))
    }

    /// The same in words.
    pub(super) fn told_of_store(&self) -> Option<String> {
        let (place, why) = self.store_in_trouble()?;
        Some(format!("The token store {place} can't be used ({why}); waiting for it"))
    }
}
