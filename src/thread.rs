//! Named threads with an explicit stack, joined when their handle goes.

use std::io;
use std::thread::{Builder, JoinHandle};

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
