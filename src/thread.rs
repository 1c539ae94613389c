//! Named threads with an explicit stack, joined when their handle is dropped.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle, panicking, scope};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::shortage::Shortage;

/// Enough stack for a worker: the largest frames of the exchange, and a TLS handshake where no thread is left for it.
pub(crate) const WORKER_STACK_MIN_BYTES: usize = 128 * 1024;
/// The factor for the stacks of workers, which come and go in numbers. glibc keeps up to 40 MB of the stacks of ended
/// threads, each with 16 KB of memory that was used: of larger stacks it keeps fewer. Only addresses are taken, of which
/// 64 bits have enough; a system that counts them (`vm.overcommit_memory=2`) counts 250 MB for 500 workers.
const LARGER: usize =
    if cfg!(all(target_env = "gnu", target_pointer_width = "64")) { 4 } else { 1 };
/// A worker's stack.
pub(crate) const WORKER_STACK_BYTES: usize = LARGER * WORKER_STACK_MIN_BYTES;
/// The stack of a TLS handshake, and of the session tickets that follow it. 128 KB would do. But glibc gives a new thread
/// the stack of an ended one unless that is more than four times as large as asked for, and a worker would keep what a
/// handshake left there for the life of a stream.
pub(crate) const HANDSHAKE_STACK_BYTES: usize = 6 * WORKER_STACK_BYTES;

/// A running thread. Dropping the handle waits for the thread's end, so close its inbox first.
#[derive(Debug)]
pub struct Thread(Option<JoinHandle<()>>);

/// The remedy for a panic that ends a thread of [`spawn`].
static ON_PANIC: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// From now on, calls `remedy` on each thread of [`spawn`] that ends by a panic. The first remedy stays.
pub(crate) fn on_panic(remedy: impl Fn() + Send + Sync + 'static) {
    let _ = ON_PANIC.set(Box::new(remedy));
}

/// Calls the remedy if its thread ends by a panic.
struct Remedied;

impl Drop for Remedied {
    fn drop(&mut self) {
        if let Some(remedy) = ON_PANIC.get().filter(|_| panicking()) {
            remedy();
        }
    }
}

/// Starts `body` on a thread called `name` with a stack of `stack_bytes`.
///
/// Fails if the system has no thread left; the error then holds a [`Shortage`].
pub fn spawn(
    name: &str,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    // Linux shows 15 bytes of a thread's name.
    let builder = Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    let remedied = move || {
        let _remedied = Remedied;
        body();
    };
    let handle = builder.spawn(remedied).map_err(|error| match Shortage::of_thread(&error) {
        Some(shortage) => shortage.into(),
        None => error,
    })?;
    Ok(Thread(Some(handle)))
}

/// Runs `body` on a separate thread and waits for its result, for work that takes much stack, or that leaves much in
/// its thread's share of the heap, which a long-lived thread would keep.
///
/// If the system has no thread left, it runs on this one.
pub(crate) fn on_own_thread<T: Send>(
    name: &str,
    stack_bytes: usize,
    body: impl FnOnce() -> T + Send,
) -> T {
    on_watched_thread(name, stack_bytes, Duration::MAX, &mut || {}, body)
}

/// Like [`on_own_thread`], for work that may hang, as a call to a disk may: calls `tell` after every `every` until the work
/// ends.
pub(crate) fn on_watched_thread<T: Send>(
    name: &str,
    stack_bytes: usize,
    every: Duration,
    tell: &mut dyn FnMut(),
    body: impl FnOnce() -> T + Send,
) -> T {
    let body = Mutex::new(Some(body));
    let run = || {
        let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
        (body.expect("it is run once"))()
    };
    let (done, end) = bounded::<()>(0);
    let builder = Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    let watched = || {
        // Dropped at the end, even by a panic.
        let _done = done;
        run()
    };
    scope(|scope| match builder.spawn_scoped(scope, watched) {
        Ok(handle) => {
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(every) {
                tell();
            }
            handle.join().unwrap_or_else(|panic| resume_unwind(panic))
        }
        Err(_) => run(),
    })
}

/// Runs `body` for all `items` at the same time, the last one on this thread and the others on separate threads, and
/// waits for their results, in the order of the items.
///
/// If the system has no thread left, this thread runs the remaining items too.
pub(crate) fn on_threads<I: Sync, T: Send>(
    name: &str,
    stack_bytes: usize,
    items: &[I],
    body: impl Fn(&I) -> T + Sync,
) -> Vec<T> {
    let Some((last, others)) = items.split_last() else { return Vec::new() };
    let body = &body;
    scope(|scope| {
        let begin = |item| {
            let builder = Builder::new().name(name.to_owned()).stack_size(stack_bytes);
            builder.spawn_scoped(scope, move || body(item)).map_err(|_| item)
        };
        let running: Vec<_> = others.iter().map(begin).collect();
        let of_last = body(last);
        let ends = running.into_iter().map(|one| match one {
            Ok(handle) => handle.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(item) => body(item),
        });
        let mut all: Vec<T> = ends.collect();
        all.push(of_last);
        all
    })
}

impl Thread {
    /// True if the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the thread continue by itself, for connection workers, which end with their connection.
    pub fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            let name = handle.thread().name().unwrap_or("unnamed").to_owned();
            if handle.join().is_err() {
                log::error!("Thread {name} ended by a panic; please report this");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACK_BYTES: usize = 64 * 1024;

    #[test]
    fn what_is_done_together_keeps_its_order() {
        let all = std::sync::Barrier::new(3);
        let double = |item: &u32| {
            all.wait();
            item * 2
        };
        assert_eq!(on_threads("t", STACK_BYTES, &[1, 2, 3], double), [2, 4, 6]);
        assert_eq!(on_threads("t", STACK_BYTES, &[], double), [0; 0]);
    }

    #[test]
    fn work_that_takes_long_is_told_of_until_its_end() {
        let (release, held) = bounded::<()>(1);
        let mut told = 0;
        let mut tell = || {
            told += 1;
            if told == 3 {
                release.send(()).unwrap();
            }
        };
        let every = Duration::from_millis(1);
        let outcome = on_watched_thread("t", STACK_BYTES, every, &mut tell, || held.recv());
        assert_eq!(outcome, Ok(()));
        assert!(told >= 3);
    }

    #[test]
    fn what_runs_aside_gives_its_value_and_its_panic_is_ours() {
        let here = std::thread::current().id();
        assert_ne!(on_own_thread("t", STACK_BYTES, || std::thread::current().id()), here);
        // More stack than address space: no thread.
        assert_eq!(on_own_thread("t", usize::MAX / 2, || std::thread::current().id()), here);
        let panicking = || on_own_thread("t", STACK_BYTES, || panic!("as it should"));
        assert!(std::panic::catch_unwind(panicking).is_err());
    }
}
