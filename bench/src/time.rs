//! Real time and plain threads, which a benchmark needs: the only file that asks for them.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// The stack of a thread: each stream has one, and a TLS handshake must fit in it.
const STACK_BYTES: usize = 256 * 1024;

/// Nanoseconds on the steady clock, which is the same for all processes of the machine.
pub(crate) fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// The steady clock now.
#[expect(clippy::disallowed_methods, reason = "a benchmark is about real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits.
#[expect(clippy::disallowed_methods, reason = "a benchmark is about real time")]
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// Starts a thread with a small stack.
pub(crate) fn spawn<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    std::thread::Builder::new().stack_size(STACK_BYTES).spawn(body)
}
