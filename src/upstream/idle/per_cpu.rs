//! The idle connections whose answers came in on one processor, under their own lock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::upstream::wire::Wire;

/// Connections in the order of arrival, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct PerCpu(Mutex<Vec<IdleConnection>>);

/// An idle connection.
#[derive(Debug)]
pub(super) struct IdleConnection {
    pub(super) wire: Wire,
    /// The time since when it is idle.
    pub(super) since: Stopwatch,
}

impl PerCpu {
    fn lock(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        // Connections are added and removed whole, so a panic leaves no half-made change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of connections.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// The idle time of the oldest.
    pub(super) fn age(&self, now: Stopwatch) -> Option<Duration> {
        self.lock().first().map(|one| one.since.until(now))
    }

    /// Adds one and returns their number.
    pub(super) fn put(&self, one: IdleConnection) -> usize {
        let mut kept = self.lock();
        kept.push(one);
        kept.len()
    }

    /// The one that came last.
    pub(super) fn take(&self) -> Option<IdleConnection> {
        self.lock().pop()
    }

    /// The one that came first, if `goes` holds for it.
    pub(super) fn take_oldest_if(
        &self,
        goes: impl FnOnce(&IdleConnection) -> bool,
    ) -> Option<IdleConnection> {
        let mut kept = self.lock();
        kept.first().is_some_and(goes).then(|| kept.remove(0))
    }
}
