//! Refreshes that a signal or a new start of the program must not cut off: the issuer may have used up the refresh token, and its answer has the next.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The refreshes of this process.
struct Refreshes {
    under_way: usize,
    /// True if the process ends after them, so that nothing else begins.
    is_ending: bool,
}

static REFRESHES: Mutex<Refreshes> = Mutex::new(Refreshes { under_way: 0, is_ending: false });
static CHANGED: Condvar = Condvar::new();

/// A refresh under way, up to the end of the work with its answer. A server that stops waits for its refreshers instead.
pub(super) struct Uninterrupted(());

impl Uninterrupted {
    /// Begins a refresh. Does not return if the process is ending.
    pub(super) fn begin() -> Self {
        let mut refreshes = until_not_ending(lock());
        refreshes.under_way += 1;
        Self(())
    }
}

impl Drop for Uninterrupted {
    /// Does not return if the process is ending: it ends by the signal, whatever came of the refresh.
    fn drop(&mut self) {
        let mut refreshes = lock();
        refreshes.under_way -= 1;
        CHANGED.notify_all();
        drop(until_not_ending(refreshes));
    }
}

/// Lets no other refresh begin. Returns true if one is under way.
pub(crate) fn forbid() -> bool {
    let mut refreshes = lock();
    refreshes.is_ending = true;
    refreshes.under_way > 0
}

/// Waits until no refresh is under way.
pub(crate) fn wait() {
    let _ended = CHANGED
        .wait_while(lock(), |refreshes| refreshes.under_way > 0)
        .unwrap_or_else(PoisonError::into_inner);
}

/// Waits until no refresh is under way, or for `most`.
pub(crate) fn wait_at_most(most: Duration) {
    let _ended = CHANGED
        .wait_timeout_while(lock(), most, |refreshes| refreshes.under_way > 0)
        .unwrap_or_else(PoisonError::into_inner);
}

fn until_not_ending(refreshes: MutexGuard<'static, Refreshes>) -> MutexGuard<'static, Refreshes> {
    CHANGED
        .wait_while(refreshes, |refreshes| refreshes.is_ending)
        .unwrap_or_else(PoisonError::into_inner)
}

fn lock() -> MutexGuard<'static, Refreshes> {
    REFRESHES.lock().unwrap_or_else(PoisonError::into_inner)
}
