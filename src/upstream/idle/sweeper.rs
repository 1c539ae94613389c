//! Closes kept connections that have grown old though no request comes: one thread for all providers, which lives as long as
//! there are any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use log::debug;

use crate::clock::Stopwatch;
use crate::thread;

/// The time between two sweeps.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
const STACK_BYTES: usize = 64 * 1024;

/// The kept connections to one provider.
pub(super) trait Swept: Send + Sync {
    /// True while the sweeper looks after them.
    fn is_swept(&self) -> &AtomicBool;

    /// Closes the connections that are too old.
    fn sweep(&self, now: Stopwatch);

    /// True if no connection is left.
    fn is_empty(&self) -> bool;
}

type List = Mutex<Vec<Weak<dyn Swept>>>;

/// The providers with connections. The thread runs unless this is empty.
static SWEPT: List = Mutex::new(Vec::new());

/// Looks after `kept` until no connection is left.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn begin(kept: Arc<dyn Swept>) {
    if register(&SWEPT, kept)
        && let Err(error) = thread::spawn("sweeper", STACK_BYTES, run).map(thread::Thread::detach)
    {
        debug!("No thread to close old connections: {error}");
        sweep_no_more();
    }
}

/// Adds `kept` to `swept`; true if it is the first there.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a reference to an `Arc` of another type is none to this"
)]
fn register(swept: &List, kept: Arc<dyn Swept>) -> bool {
    let mut swept = swept.lock().unwrap_or_else(PoisonError::into_inner);
    // Of several callers at once, one does it.
    if kept.is_swept().swap(true, Ordering::Relaxed) {
        return false;
    }
    swept.push(Arc::downgrade(&kept));
    swept.len() == 1
}

/// Forgets all: the next connection of each that is kept tries again.
fn sweep_no_more() {
    let mut swept = SWEPT.lock().unwrap_or_else(PoisonError::into_inner);
    for kept in swept.drain(..).filter_map(|one| one.upgrade()) {
        kept.is_swept().store(false, Ordering::Relaxed);
    }
}

fn run() {
    loop {
        // Only the end of the timer matters.
        let _ = crossbeam_channel::after(SWEEP_EVERY).recv();
        if !sweep(&SWEPT, Stopwatch::start()) {
            return;
        }
    }
}

/// Closes connections that are too old, and forgets providers without any; false if no provider is left.
fn sweep(swept: &List, now: Stopwatch) -> bool {
    let lock = || swept.lock().unwrap_or_else(PoisonError::into_inner);
    let all: Vec<_> = lock().iter().filter_map(Weak::upgrade).collect();
    // Closed without the lock.
    for kept in all {
        kept.sweep(now);
    }
    let mut swept = lock();
    swept.retain(|one| {
        let Some(kept) = one.upgrade() else { return false };
        // Whoever keeps a connection after the look below sees this, and then waits for the lock.
        kept.is_swept().store(false, Ordering::Relaxed);
        let has_some = !kept.is_empty();
        kept.is_swept().store(has_some, Ordering::Relaxed);
        has_some
    });
    !swept.is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Connections of which one is closed at each sweep.
    #[derive(Default)]
    struct Kept {
        count: AtomicUsize,
        is_swept: AtomicBool,
    }

    impl Swept for Kept {
        fn is_swept(&self) -> &AtomicBool {
            &self.is_swept
        }

        fn sweep(&self, _: Stopwatch) {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }

        fn is_empty(&self) -> bool {
            self.count.load(Ordering::Relaxed) == 0
        }
    }

    #[test]
    fn a_provider_is_looked_after_until_no_connection_is_left_and_begins_anew() {
        let swept = List::default();
        let [first, second, gone] =
            [2, 1, 9].map(|count| Arc::new(Kept { count: count.into(), ..Kept::default() }));
        assert!(register(&swept, first.clone()), "the thread begins with the first");
        assert!(!register(&swept, first.clone()), "once");
        assert!(!register(&swept, second.clone()) && !register(&swept, gone));
        let now = Stopwatch::start();
        assert!(sweep(&swept, now));
        let is_swept = |one: &Kept| one.is_swept.load(Ordering::Relaxed);
        assert_eq!((is_swept(&first), is_swept(&second)), (true, false));
        assert!(!sweep(&swept, now), "the thread ends");
        assert!(!is_swept(&first));
        assert!(register(&swept, second), "the next one that is kept begins anew");
    }
}
