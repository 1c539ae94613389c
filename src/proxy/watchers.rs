//! The watchers of the status: few, and sent away when the configuration is replaced or the proxy stops.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::http::refusal::{Code, Refusal};

/// The most streams of events at a time.
pub const EVENT_STREAMS_MAX: usize = 16;
/// The longest silence, so that devices in between do not consider the connection dead.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The watchers of the status, counted so that they can be sent away.
#[derive(Debug)]
pub struct Watchers {
    state: Mutex<Streams>,
    dismissed: Receiver<()>,
    most: usize,
}

#[derive(Debug)]
struct Streams {
    open: usize,
    /// Dropped to send all of them away.
    hold: Option<Sender<()>>,
}

/// The place of one watcher, free again once this is dropped.
#[derive(Debug)]
pub(super) struct EventStream<'a>(&'a Watchers);

impl Watchers {
    /// No watchers yet. There will be [`EVENT_STREAMS_MAX`] at most, and half of `max_connections`.
    pub fn new(max_connections: usize) -> Self {
        let (hold, dismissed) = bounded(0);
        let state = Mutex::new(Streams { open: 0, hold: Some(hold) });
        Self { state, dismissed, most: EVENT_STREAMS_MAX.min(max_connections / 2) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Streams> {
        // A number and a flag, which a panic can't leave half-made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all of them away, including later ones.
    pub fn dismiss(&self) {
        self.state().hold = None;
    }

    /// Waits for `time`, or until they are sent away; returns true if they are.
    pub(super) fn are_dismissed_within(&self, time: Duration) -> bool {
        self.dismissed.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }

    /// A place for one more; the refusal says that there is none.
    pub(super) fn enter(&self) -> Result<EventStream<'_>, Refusal> {
        let mut state = self.state();
        if state.open >= self.most {
            let message = format!("{} watch the status already, which is the most", state.open);
            return Err(Refusal::new(Code::Overloaded, message).retry_in(SILENCE_MAX));
        }
        state.open += 1;
        Ok(EventStream(self))
    }
}

impl Drop for EventStream<'_> {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::TryRecvError;

    use super::*;

    #[test]
    fn watchers_are_few_and_leave_connections_to_others() {
        let watchers = Watchers::new(2 * EVENT_STREAMS_MAX + 2);
        let mut places: Vec<_> =
            (0..EVENT_STREAMS_MAX).map(|_| watchers.enter().unwrap()).collect();
        assert_eq!(watchers.enter().unwrap_err().code, Code::Overloaded);
        places.pop();
        assert!(watchers.enter().is_ok());
        let few = Watchers::new(5);
        let _two = (few.enter().unwrap(), few.enter().unwrap());
        assert!(few.enter().is_err());
        assert!(Watchers::new(1).enter().is_err());
        assert_eq!(watchers.dismissed.try_recv(), Err(TryRecvError::Empty));
        watchers.dismiss();
        assert_eq!(watchers.dismissed.try_recv(), Err(TryRecvError::Disconnected));
    }
}
