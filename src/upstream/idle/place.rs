//! One place in which idle connections lie, with a lock of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Stopwatch;
use crate::upstream::wire::Wire;

/// Connections in the order in which they came, alone on their line of the processors' caches.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Place(Mutex<Vec<Kept>>);

/// An idle connection.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) wire: Wire,
    /// Since when it is idle.
    pub(super) since: Stopwatch,
    /// Whether nothing can have followed its last answer unseen.
    pub(super) is_trusted: bool,
    /// The number of the thread that used it.
    pub(super) by: usize,
}

impl Place {
    /// All of them, the oldest first.
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        // Connections are put in and taken out whole; there is nothing half done to fear.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one in and returns how many there are.
    pub(super) fn put(&self, one: Kept) -> usize {
        let mut kept = self.lock();
        kept.push(one);
        kept.len()
    }

    /// The one that came last.
    pub(super) fn take(&self) -> Option<Kept> {
        self.lock().pop()
    }

    /// The one that came last of those that thread `number` used.
    pub(super) fn take_of(&self, number: usize) -> Option<Kept> {
        let mut kept = self.lock();
        let at = kept.iter().rposition(|one| one.by == number)?;
        Some(kept.remove(at))
    }
}
