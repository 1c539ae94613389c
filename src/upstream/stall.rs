//! The time for which a provider has taken nothing of a request. What it sends meanwhile is no progress: one that sends but never
//! reads must not hold a request for ever.

use std::time::Duration;

use crate::clock::Deadline;

/// A provider that takes nothing at the moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    until: Deadline,
    taken_bytes: u64,
}

impl Stall {
    /// The stall that goes on, or a new one if `taken_bytes`, all that TLS has handed on so far, have become more since
    /// `before`: TLS takes a piece whole, and its records then leave one by one. A new one may last for `idle_max`.
    pub(super) fn after(before: Option<Self>, taken_bytes: u64, idle_max: Duration) -> Self {
        before
            .filter(|stall| stall.taken_bytes == taken_bytes)
            .unwrap_or_else(|| Self { until: Deadline::after(idle_max), taken_bytes })
    }

    /// The time at which the request is given up.
    pub(super) fn until(self) -> Deadline {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upload over TLS whose socket took some kilobytes at a time was given up, because only each 64 KB counted.
    #[test]
    fn bytes_that_leave_tls_one_record_at_a_time_are_progress() {
        let idle_max = Duration::from_mins(1);
        let over = Some(Stall { until: Deadline::after(Duration::ZERO), taken_bytes: 16_384 });
        assert!(Stall::after(over, 16_384, idle_max).until().has_passed(), "nothing was taken");
        assert!(!Stall::after(over, 16_385, idle_max).until().has_passed(), "a byte was");
        assert!(!Stall::after(None, 16_384, idle_max).until().has_passed(), "it has just begun");
    }
}
