//! One provider's chain in the shared store: its connection, the lease on it, and its record.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Moment};
use crate::config::{Fallback, SharedStore};
use crate::record::{self, Mark, Saved};
use crate::shared::clocks::{Offset, shift_ms};
use crate::shared::engine::{Engine, Line, Names, StoreEntry, StoreError, Written};
use crate::shared::health::{Finder, Health, Use};
use crate::shared::lease::{InHand, LEASE_UNATTENDED_MS, Lease, Tenancy, length_ms};

/// The difference between two hosts' clocks above which one of them must be wrong.
const CLOCK_DIFFERENCE_MAX_MS: i64 = 60_000;
/// The longest time that a connection is kept without use: devices in between forget silent ones after a few minutes,
/// and then nobody answers on them.
const LINE_IDLE_MAX_MS: u64 = 60_000;
/// The most measurements of the clocks until one was quick enough.
const MEASUREMENTS_MAX: u32 = 3;

/// A lease, shared by the refresher that uses it and the keeper that renews it.
#[derive(Debug)]
pub struct Held {
    /// Its names on the server.
    pub names: Names,
    /// The holder: a different text for each refresher of each process.
    pub holder: String,
    known: Mutex<Known>,
}

/// The lease and the newest record of the chain, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    lease: Option<Lease>,
    newest: Mark,
}

impl Held {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Each of the two is replaced as a whole, so a panic leaves no half-made change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease; None where there is none.
    pub fn lease(&self) -> Option<Lease> {
        self.known().lease
    }

    /// True if the refresher knows something newer than a record at `mark`: the server went back in time, and must be
    /// told.
    pub fn knows_newer_than(&self, mark: Mark) -> bool {
        self.known().newest > mark
    }

    /// Takes the result of a renewal of `lease` that was sent at `sent`.
    pub fn renewed(&self, lease: Lease, sent: Moment, is_ours: bool) {
        let mut known = self.known();
        // It may have been given back meanwhile.
        if known.lease.is_some_and(|own| own.fence == lease.fence) {
            known.lease = is_ours.then(|| Lease::from(sent, lease.fence, lease.length_ms));
        }
    }
}

/// The server's knowledge of the chain.
#[derive(Clone, Debug)]
pub struct SharedRecord {
    /// The mark of its record.
    pub mark: Mark,
    /// The record, if there is one.
    pub saved: Option<Saved>,
    /// True if somebody holds the lease.
    pub is_held: bool,
}

/// The outcome of a write.
#[derive(Clone, Debug)]
pub enum Put {
    /// It is the newest record now.
    Done,
    /// There is a newer one.
    Refused(Box<SharedRecord>),
}

/// Makes a connection to the server.
pub(crate) type Connect = Arc<dyn Fn() -> Result<Box<dyn Engine>, StoreError> + Send + Sync>;

/// See the module's documentation.
pub struct SharedChain {
    store: SharedStore,
    connect: Connect,
    clock: Clock,
    health: Arc<Health>,
    finder: Finder,
    held: Arc<Held>,
    /// The connection, and the time of its last use.
    line: Option<(Box<dyn Engine>, Moment)>,
    /// The reason why the store could not be used, and for which use, until that works.
    trouble: Option<(StoreError, Use)>,
    tenancy: Tenancy,
    is_attended: bool,
    /// The server can't be reached, and this host refreshes for itself.
    is_alone: bool,
}

impl SharedChain {
    /// The chain of the provider called `slug`; `holder` must be another text each time.
    pub fn new(store: &SharedStore, slug: &str, holder: String, clock: Clock) -> Self {
        let own = store.clone();
        let connect = Arc::new(move || Ok(Box::new(Line::open(&own)?) as Box<dyn Engine>));
        Self::over(connect, store, slug, holder, clock)
    }

    /// The same, with connections made by `connect`.
    pub fn over(
        connect: Connect,
        store: &SharedStore,
        slug: &str,
        holder: String,
        clock: Clock,
    ) -> Self {
        let names = Names::new(&store.prefix, slug);
        Self {
            store: store.clone(),
            connect,
            clock,
            health: Arc::new(Health::new(store)),
            finder: Finder::Refresher(slug.to_owned()),
            held: Arc::new(Held { names, holder, known: Mutex::default() }),
            line: None,
            trouble: None,
            tenancy: Tenancy::default(),
            is_attended: false,
            is_alone: false,
        }
    }

    /// The same chain over another connection.
    pub fn again(&self) -> Self {
        let Finder::Refresher(slug) = &self.finder else { unreachable!("a chain is no keeper") };
        let (holder, clock) = (self.held.holder.clone(), self.clock.clone());
        Self::over(self.connect.clone(), &self.store, slug, holder, clock)
    }

    /// The lease for the keeper, which renews it from now on; findings go to `health`.
    pub fn attend(&mut self, health: &Arc<Health>) -> Arc<Held> {
        self.is_attended = true;
        self.health = health.clone();
        self.held.clone()
    }

    /// The reason why the store can't be used, if a refresh must wait for it.
    pub fn waits_for(&self) -> Option<String> {
        let (trouble, _) = self.trouble.as_ref().filter(|_| !self.may_go_alone())?;
        Some(trouble.to_string())
    }

    fn may_go_alone(&self) -> bool {
        self.store.fallback == Fallback::Local
    }

    /// The server can't be reached: returns true if this host may refresh for itself.
    pub fn go_alone(&mut self) -> bool {
        self.is_alone = self.may_go_alone();
        self.is_alone
    }

    /// The server's address, without user and password.
    pub fn place(&self) -> String {
        self.store.place.to_string()
    }

    /// Reads the server's knowledge of the chain.
    pub fn look(&mut self) -> Result<SharedRecord, StoreError> {
        let names = self.held.names.clone();
        self.compare_clocks()?;
        let seen = self.ask(Use::Reading, |line| line.look(&names))?;
        self.found(&seen)
    }

    /// Compares clocks, unless somebody did within a minute.
    fn compare_clocks(&mut self) -> Result<(), StoreError> {
        for _ in 0..MEASUREMENTS_MAX {
            let sent = self.clock.now();
            if self.health.offset(sent).is_some_and(|offset| offset.is_fresh(sent)) {
                break;
            }
            let Some(shown) = self.ask(Use::Reading, |line| line.time())? else { break };
            if let Some(offset) = Offset::measured(sent, shown, self.clock.now()) {
                self.health.measured(offset);
            }
        }
        Ok(())
    }

    /// The remaining wait for a refresh that another host began.
    pub fn patience_left_ms(&self, in_hand: Option<InHand>, now: Moment) -> u64 {
        self.tenancy.patience_left_ms(in_hand, now)
    }

    /// Takes the lease, with a fencing number above `least`, and returns the server's knowledge. None if the lease is
    /// not free.
    pub fn take(
        &mut self,
        lead_ms: Option<u64>,
        least: u64,
    ) -> Result<Option<(u64, SharedRecord)>, StoreError> {
        let length = if self.is_attended { length_ms(lead_ms) } else { LEASE_UNATTENDED_MS };
        let held = self.held.clone();
        let sent = self.clock.now();
        let taken =
            self.ask(Use::Writing, |line| line.take(&held.names, &held.holder, length, least));
        if taken.is_err() {
            self.tenancy.could_not_write(self.clock.now());
        }
        let Some(seen) = taken? else { return Ok(None) };
        let fence = seen.fence;
        held.known().lease = Some(Lease::from(sent, fence, length));
        self.tenancy.taken(fence);
        self.is_alone = false;
        match self.found(&seen) {
            Ok(found) => Ok(Some((fence, found))),
            Err(trouble) => {
                self.release();
                Err(trouble)
            }
        }
    }

    /// Replaces the record by `saved`, whose token is due `lead_ms` before its expiry, unless there is a newer one.
    pub fn write(&mut self, saved: &Saved, lead_ms: Option<u64>) -> Result<Put, StoreError> {
        let held = self.held.clone();
        let lease = held.lease();
        let grace = length_ms(lead_ms);
        let length = lease.map_or(grace, |lease| lease.length_ms);
        if self.health.offset(self.clock.now()).is_none() {
            self.compare_clocks()?;
        }
        let sent = self.clock.now();
        let shared = Saved {
            // This host's configuration does not concern others.
            configured_seed: None,
            client: None,
            store_offset_ms: self.health.offset(sent).map(|offset| offset.ms),
            ..saved.clone()
        };
        let (mark, text) = (saved.mark(), shared.to_json());
        let written = self.ask(Use::Writing, |line| {
            line.write(&held.names, mark, &text, &held.holder, (length, grace))
        })?;
        match written {
            Written::Done(is_ours) => {
                if let Some(lease) = lease {
                    held.renewed(lease, sent, is_ours);
                }
                self.tenancy.observe(mark, saved.pending.is_some(), sent);
                held.known().newest = mark;
                Ok(Put::Done)
            }
            Written::Refused(seen) => {
                held.known().newest = seen.mark;
                Ok(Put::Refused(Box::new(self.found(&seen)?)))
            }
        }
    }

    /// True if a token request may leave now.
    pub fn may_send(&self, now: Moment) -> bool {
        self.is_alone || self.held.lease().is_some_and(|lease| lease.runs(now))
    }

    /// Gives the lease back; if that fails, it expires.
    pub fn release(&mut self) {
        let held = self.held.clone();
        let lease = held.known().lease.take();
        if lease.is_some() {
            let _ = self.ask(Use::Writing, |line| line.release(&held.names, &held.holder));
        }
    }

    fn found(&mut self, seen: &StoreEntry) -> Result<SharedRecord, StoreError> {
        // Not the time of the request: the process may have been halted in between.
        let now = self.clock.now();
        let saved = seen.record.as_ref().map(|text| record::parse(text.expose())).transpose();
        let mut saved = saved.map_err(StoreError::Record)?;
        if let Some(saved) = &mut saved {
            (saved.fence, saved.revision) = (seen.mark.fence, seen.mark.generation);
            self.tell_by_own_clock(saved, now);
            let ahead_ms = saved.saved_at.millis_since(now.wall);
            if (0..CLOCK_DIFFERENCE_MAX_MS).contains(&ahead_ms) {
                // The writer's clock is a little ahead, which does not make this one wrong.
                saved.saved_at = now.wall;
            }
        }
        let pending = saved.as_ref().is_some_and(|saved| saved.pending.is_some());
        self.tenancy.observe(seen.mark, pending, now);
        let mut known = self.held.known();
        known.newest = known.newest.max(seen.mark);
        drop(known);
        Ok(SharedRecord { mark: seen.mark, saved, is_held: seen.is_held })
    }

    /// Converts a record's times from its writer's clock to this one.
    fn tell_by_own_clock(&self, saved: &mut Saved, now: Moment) {
        let offsets = saved.store_offset_ms.take().zip(self.health.offset(now));
        if let Some((theirs, ours)) = offsets {
            let age_max_ms = now.wall.millis_since(saved.saved_at);
            saved.shift(shift_ms(theirs, ours.ms, age_max_ms));
        }
    }

    /// Asks over the connection, which is made if there is none and dropped after an error.
    fn ask<T>(
        &mut self,
        of: Use,
        what: impl FnOnce(&mut dyn Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let asked = self.ask_line(what);
        let now = self.clock.now();
        match &asked {
            Ok(_) => {
                if of == Use::Writing || self.trouble.as_ref().is_some_and(|(_, own)| *own == of) {
                    self.trouble = None;
                }
                self.health.worked(&self.finder, of, now);
            }
            Err(trouble) => {
                self.trouble = Some((trouble.clone(), of));
                self.health.found(self.finder.clone(), trouble, of, now);
            }
        }
        asked
    }

    fn ask_line<T>(
        &mut self,
        what: impl FnOnce(&mut dyn Engine) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let now = self.clock.now();
        let kept = self.line.take().filter(|(_, used)| !is_idle_too_long(*used, now));
        let mut line = match kept {
            Some((line, _)) => line,
            None => (self.connect)()?,
        };
        let answer = what(&mut *line)?;
        self.line = Some((line, self.clock.now()));
        Ok(answer)
    }
}

/// True if the connection was unused for too long, by the clock that shows more, because the machine may have slept.
fn is_idle_too_long(used: Moment, now: Moment) -> bool {
    let by_wall_ms = u64::try_from(now.wall.millis_since(used.wall)).unwrap_or(0);
    now.steady_ms.saturating_sub(used.steady_ms).max(by_wall_ms) >= LINE_IDLE_MAX_MS
}

impl Drop for SharedChain {
    fn drop(&mut self) {
        // Its troubles must not count any more.
        self.health.worked(&self.finder, Use::Writing, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::atomic::AtomicU64;
    use crate::clock::Timestamp;
    use crate::config::store_address::StoreAddress;
    use crate::secret::Secret;

    /// A server without any records.
    struct Empty;

    impl Engine for Empty {
        fn look(&mut self, _: &Names) -> Result<StoreEntry, StoreError> {
            Ok(StoreEntry::default())
        }

        fn take(
            &mut self,
            _: &Names,
            _: &str,
            _: u64,
            _: u64,
        ) -> Result<Option<StoreEntry>, StoreError> {
            Ok(None)
        }

        fn write(
            &mut self,
            _: &Names,
            _: Mark,
            _: &Secret,
            _: &str,
            _: (u64, u64),
        ) -> Result<Written, StoreError> {
            Ok(Written::Done(true))
        }

        fn release(&mut self, _: &Names, _: &str) -> Result<(), StoreError> {
            Ok(())
        }

        fn time(&mut self) -> Result<Option<Timestamp>, StoreError> {
            Ok(None)
        }
    }

    /// Behind a router that forgets silent connections, the first question after an hour got no answer in time.
    #[test]
    fn a_connection_that_was_silent_for_a_minute_is_made_anew() {
        let store = SharedStore {
            place: StoreAddress::parse("redis://h").unwrap(),
            prefix: "e:".into(),
            key: None,
            ca_pem: None,
            fallback: Fallback::Wait,
        };
        let (now_ms, connected) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, shown) = (connected.clone(), now_ms.clone());
        let connect = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Empty) as Box<dyn Engine>)
        };
        let clock = Clock::from_fn(move || {
            let steady_ms = shown.load(Ordering::SeqCst);
            Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms }
        });
        let mut chain = SharedChain::over(Arc::new(connect), &store, "p", "h".into(), clock);
        for (passed_ms, connections) in [(0, 1), (LINE_IDLE_MAX_MS - 1, 1), (LINE_IDLE_MAX_MS, 2)] {
            now_ms.fetch_add(passed_ms, Ordering::SeqCst);
            chain.look().unwrap();
            assert_eq!(connected.load(Ordering::SeqCst), connections, "after {passed_ms} ms");
        }
        let slept = Moment { wall: Timestamp::from_secs(60), steady_ms: 5 };
        assert!(is_idle_too_long(Moment { wall: Timestamp::from_secs(0), steady_ms: 5 }, slept));
    }
}
