//! The chain of a refresher in the token store that several hosts share: the lease of a refresh, writes, and the
//! records of other hosts.

use crate::clock::{Due, Moment};
use crate::record::Saved;
use crate::shared::chain::{Put, SharedChain, SharedRecord};
use crate::shared::engine::StoreError;
use crate::shared::lease::InHand;
use crate::token::lifecycle::{Presented, TOKEN_STORE};
use crate::token::refresher::desk::Desk;
use crate::token::refresher::hindrance::Hindrance;
use crate::token::refresher::life::Life;
use crate::token::refresher::vault::file::File;

pub(crate) struct Shared {
    /// None without a shared store.
    chain: Option<SharedChain>,
    /// True if the newest record could not be written there yet.
    is_behind: bool,
}

/// The permission to begin a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The lease is ours, or none is needed.
    Ours,
    /// Another host was faster, so there is nothing to refresh.
    Settled,
}

impl Shared {
    pub(crate) fn new(chain: Option<SharedChain>) -> Self {
        Self { chain, is_behind: false }
    }

    /// Changes to another chain, if there is one.
    pub(crate) fn change(&mut self, chain: Option<SharedChain>, life: &mut Life) {
        *self = Self { is_behind: chain.is_some(), chain };
        life.store_trouble = None;
    }

    /// True if the newest record could not be written there yet.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Notes that the newest record is not there yet.
    pub(super) fn fall_behind(&mut self) {
        self.is_behind = self.chain.is_some();
    }

    /// Uses the chain for `what`, and notes whether that worked; None without a shared store.
    fn ask<T>(&mut self, life: &mut Life, what: impl FnOnce(&mut SharedChain) -> T) -> Option<T> {
        let chain = self.chain.as_mut()?;
        let answer = what(chain);
        life.store_trouble = chain.waits_for().map(|why| (chain.place(), why));
        Some(answer)
    }

    fn write(&mut self, saved: &Saved, life: &mut Life) -> Option<Result<Put, StoreError>> {
        let lead_ms = lead_ms(life);
        self.ask(life, |chain| chain.write(saved, lead_ms))
    }

    /// Takes the lease on the chain, unless another host refreshes it, or may still bring the answer to a refresh that
    /// it began.
    pub(crate) fn enter(&mut self, file: &mut File, life: &mut Life) -> Result<Entry, Hindrance> {
        let Some(found) = self.ask(life, SharedChain::look) else { return Ok(Entry::Ours) };
        let Ok(found) = found else { return self.go_alone(life) };
        let is_held = found.is_held;
        self.take_up(found, file, life);
        if !life.is_due() {
            return Ok(Entry::Settled);
        }
        if is_held || self.has_patience(life) {
            return Err(Hindrance::Busy);
        }
        if life.token_request(&life.machine.presented()).is_err() {
            // Nothing will be sent, so no other host must be kept from refreshing.
            return Ok(Entry::Ours);
        }
        let (lead_ms, least) = (lead_ms(life), life.machine.saved().fence);
        match self.ask(life, |chain| chain.take(lead_ms, least)) {
            None => Ok(Entry::Ours),
            Some(Ok(Some((fence, found)))) => self.entered(fence, found, file, life),
            Some(Ok(None)) => Err(Hindrance::Busy),
            Some(Err(_)) => self.go_alone(life),
        }
    }

    /// The lease is ours, so records that were written since the last look count.
    fn entered(
        &mut self,
        fence: u64,
        found: SharedRecord,
        file: &mut File,
        life: &mut Life,
    ) -> Result<Entry, Hindrance> {
        if found.mark < life.machine.saved().mark() {
            // The server went back in time since; the next look sends it the newest record first.
            return Err(Hindrance::Busy);
        }
        self.take_up(found, file, life);
        if !life.is_due() {
            return Ok(Entry::Settled);
        }
        if self.has_patience(life) {
            return Err(Hindrance::Busy);
        }
        life.machine.set_fence(fence);
        Ok(Entry::Ours)
    }

    /// The store can't be used: `token_store_fallback` decides whether this host refreshes without it.
    fn go_alone(&mut self, life: &mut Life) -> Result<Entry, Hindrance> {
        match self.ask(life, SharedChain::go_alone) {
            Some(false) => Err(Hindrance::StoreAway),
            Some(true) | None => Ok(Entry::Ours),
        }
    }

    /// True if the state folder's record is older than the shared one.
    pub(super) fn is_newer_than(&self, stored: &Saved, life: &Life) -> bool {
        self.chain.is_some() && stored.mark() <= life.machine.saved().mark()
    }

    /// Gives back the lease.
    pub(super) fn leave(&mut self, life: &mut Life) {
        let _ = self.ask(life, SharedChain::release);
    }

    /// Marks a refresh as begun, in the store first, and checks the lease a last time.
    pub(crate) fn begin(
        &mut self,
        presented: &Presented,
        file: &mut File,
        life: &mut Life,
    ) -> Result<(), Hindrance> {
        let before = life.machine.saved().clone();
        if let Some(marked) = life.machine.begin(presented, life.now()) {
            match self.write(&marked, life) {
                None | Some(Ok(Put::Done)) => {}
                Some(Ok(Put::Refused(found))) => {
                    // Another host was faster, and nothing was sent.
                    life.machine.undo_begin(before);
                    adopt(*found, file, life);
                    return Err(Hindrance::Busy);
                }
                Some(Err(_)) => {
                    if let Err(hindrance) = self.go_alone(life) {
                        life.machine.undo_begin(before);
                        return Err(hindrance);
                    }
                }
            }
            if life.is_single && self.chain.is_none() && presented.token().is_some() {
                if let Err(why) = file.store_now(&marked, &mut life.desk) {
                    life.machine.undo_begin(before);
                    life.status.last_error = Some(why.into());
                    return Err(Hindrance::Unwritable);
                }
            } else {
                file.store(marked, &mut life.desk);
            }
        }
        let now = life.now();
        if self.chain.as_ref().is_none_or(|chain| chain.may_send(now)) {
            return Ok(());
        }
        life.desk.warn(format_args!(
            "The lease on the tokens of provider {} ran out before the refresh was sent; trying again",
            life.desk.name
        ));
        Err(Hindrance::Busy)
    }

    /// Writes `saved` to the store, and returns the newest record. A newer record there stays.
    pub(super) fn put(&mut self, saved: Saved, file: &mut File, life: &mut Life) -> Saved {
        match self.write(&saved, life) {
            None => saved,
            Some(Ok(Put::Done)) => {
                self.is_behind = false;
                saved
            }
            Some(Ok(Put::Refused(found))) => {
                self.is_behind = false;
                if found.mark != saved.mark() {
                    life.desk.warn(format_args!(
                        "Another host stored a newer token for provider {} in the meantime; using that",
                        life.desk.name
                    ));
                }
                adopt(*found, file, life);
                life.machine.saved().clone()
            }
            Some(Err(trouble)) => {
                self.say_behind(&trouble, &life.desk);
                saved
            }
        }
    }

    fn say_behind(&mut self, trouble: &StoreError, desk: &Desk) {
        let Some(chain) = self.chain.as_ref().filter(|_| !self.is_behind) else { return };
        desk.error(format_args!(
            "The newest record of provider {} can't be written to the token store {} ({trouble}); \
             this host uses it and writes it as soon as possible",
            desk.name,
            chain.place()
        ));
        self.is_behind = true;
    }

    /// Another host wrote something, or the server came back: the newer record wins. Returns true if it brought a
    /// different token that is still valid.
    pub(crate) fn compare(&mut self, file: &mut File, life: &mut Life) -> bool {
        // If it can't be reached, the keeper says so, and sends an event once it can.
        let Some(Ok(found)) = self.ask(life, SharedChain::look) else { return false };
        let brought = self.take_up(found, file, life);
        life.publish(false);
        brought
    }

    /// Takes up the `found` record if it is newer, and offers ours if that is newer. Returns true if it brought a
    /// different token that is still valid.
    fn take_up(&mut self, found: SharedRecord, file: &mut File, life: &mut Life) -> bool {
        let known = life.machine.saved();
        if found.mark < known.mark() {
            let known = known.clone();
            let newest = self.put(known.clone(), file, life);
            if newest != known {
                file.store(newest, &mut life.desk);
            }
            return false;
        }
        self.is_behind = false;
        let newer = found.saved.filter(|saved| saved.mark() > known.mark());
        let Some(saved) = newer else { return false };
        let brought = life.machine.take_up(TOKEN_STORE, saved, life.now());
        took_up(brought, file, life);
        brought
    }

    /// True if the refresh that another host began is still awaited.
    fn has_patience(&self, life: &Life) -> bool {
        let now = life.now();
        let chain = self.chain.as_ref();
        chain.is_some_and(|chain| chain.patience_left_ms(in_hand(life, now), now) > 0)
    }
}

/// Uses the `found` record, whatever is known here.
fn adopt(found: SharedRecord, file: &mut File, life: &mut Life) {
    if let Some(saved) = found.saved.filter(|saved| saved != life.machine.saved()) {
        let brought = life.machine.adopt(TOKEN_STORE, saved, life.now());
        took_up(brought, file, life);
    }
}

/// Keeps the store's record, which is known here now, in the state folder too.
fn took_up(brought: bool, file: &mut File, life: &mut Life) {
    file.store(life.machine.saved().clone(), &mut life.desk);
    if brought {
        let left_ms = life.machine.token().map_or(0, |token| token.expires.left_ms(life.now()));
        life.desk.info(format_args!(
            "Using the token that another host obtained for provider: {} (valid for {} s)",
            life.desk.name,
            left_ms / 1000
        ));
    }
    life.note_taken_up(brought);
}

/// The chain's token, whether or not it is used here: a host with a seed of its own must not spoil another host's
/// refresh of the chain.
fn in_hand(life: &Life, now: Moment) -> Option<InHand> {
    let (expires, refresh_at) = if let Some(token) = life.machine.token() {
        (token.expires, token.refresh_due_at)
    } else {
        let access = life.machine.saved().access.as_ref()?;
        (Due::at(access.expires_at, now), access.refresh_at)
    };
    let lead_ms = expires.wall.millis_since(refresh_at);
    Some(InHand { expires, lead_ms: u64::try_from(lead_ms).unwrap_or(0) })
}

fn lead_ms(life: &Life) -> Option<u64> {
    in_hand(life, life.now()).map(|token| token.lead_ms)
}
