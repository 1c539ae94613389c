//! The idle connections whose answers came in on one processor, under a lock of their own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::upstream::wire::Wire;

/// Connections in the order in which they came, alone on their line of the processors' caches.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct PerCpu(Mutex<Vec<IdleConnection>>);

/// An idle connection.
#[derive(Debug)]
pub(super) struct IdleConnection {
    pub(super) wire: Wire,
    /// Since when it is idle.
    pub(super) since: Stopwatch,
}

impl PerCpu {
    fn lock(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        // Connections are put in and taken out whole; there is nothing half done to fear.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// For how long the oldest has been idle.
    pub(super) fn age(&self, now: Stopwatch) -> Option<Duration> {
        self.lock().first().map(|one| one.since.until(now))
    }

    /// Puts one in and returns how many there are.
    pub(super) fn put(&self, one: IdleConnection) -> usize {
        let mut kept = self.lock();
        kept.push(one);
        kept.len()
    }

    /// The one that came last.
    pub(super) fn take(&self) -> Option<IdleConnection> {
        self.lock().pop()
    }

    /// The one that came first, where it `goes`.
    pub(super) fn take_oldest_if(
        &self,
        goes: impl FnOnce(&IdleConnection) -> bool,
    ) -> Option<IdleConnection> {
        let mut kept = self.lock();
        kept.first().is_some_and(goes).then(|| kept.remove(0))
    }
}
