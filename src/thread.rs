//! Named threads with an explicit stack, joined when their handle goes.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, scope};

/// A running thread. Dropping the handle waits for the thread's end, so close its inbox first.
#[derive(Debug)]
pub struct Thread(Option<JoinHandle<()>>);

/// Starts `body` on a thread called `name` with a stack of `stack_bytes`.
///
/// Fails where the system has no thread left to give.
pub fn spawn(
    name: &str,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<Thread> {
    // Linux shows 15 bytes of a thread's name.
    let handle = Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(body)?;
    Ok(Thread(Some(handle)))
}

/// Runs `body` on a thread of its own and waits for what it gives: for work that takes much stack, or
/// leaves much behind in this thread's share of the heap, which a thread that lives on would keep.
///
/// Where the system has no thread left to give, it runs on this one.
pub fn aside<T: Send>(name: &str, stack_bytes: usize, body: impl FnOnce() -> T + Send) -> T {
    let body = Mutex::new(Some(body));
    let run = || {
        let body = body.lock().unwrap_or_else(PoisonError::into_inner).take();
        (body.expect("it is run once"))()
    };
    let builder = Builder::new().name(name.to_owned()).stack_size(stack_bytes);
    scope(|scope| match builder.spawn_scoped(scope, run) {
        Ok(handle) => handle.join().unwrap_or_else(|panic| resume_unwind(panic)),
        Err(_) => run(),
    })
}

impl Thread {
    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Lets the thread go on by itself: for connection workers, which end with their connection.
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

    #[test]
    fn what_runs_aside_gives_its_value_and_its_panic_is_ours() {
        let here = std::thread::current().id();
        assert_ne!(aside("t", 64 * 1024, || std::thread::current().id()), here);
        // More stack than there is address space: no thread.
        assert_eq!(aside("t", usize::MAX / 2, || std::thread::current().id()), here);
        let panicking = || aside("t", 64 * 1024, || panic!("as it should"));
        assert!(std::panic::catch_unwind(panicking).is_err());
    }
}
