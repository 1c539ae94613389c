//! Log lines that are not written yet: whole lines, in order, up to a limit. Pure.

use std::mem;

/// The most bytes of waiting lines; a line beyond that is dropped and counted.
pub(super) const BACKLOG_MAX_BYTES: usize = 256 * 1024;
/// From this size on, lines are written without waiting for more.
const BURST_BYTES: usize = 16 * 1024;
/// The most memory that is kept for the next lines. A usual burst fits, with the line that makes it due; otherwise each
/// burst would take memory and give it back, while all who log wait.
const KEPT_MAX_BYTES: usize = 2 * BURST_BYTES;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    /// Lines that were dropped and not yet reported.
    dropped_lines: u64,
    is_urgent: bool,
}

/// The outcome of adding a line, and whether the writer must be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The line waits with others.
    Taken,
    /// The line waits, and the writer does not know of it.
    News,
    /// There was no room for the line.
    Dropped,
}

impl Backlog {
    /// Adds a line; an urgent one (a warning or an error) is written at once.
    pub(super) fn push(&mut self, line: &str, is_urgent: bool) -> Pushed {
        if self.bytes.len() + line.len() + 1 > BACKLOG_MAX_BYTES {
            self.dropped_lines += 1;
            return Pushed::Dropped;
        }
        let was_due = self.is_due();
        let is_first = self.bytes.is_empty();
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.push(b'\n');
        self.is_urgent |= is_urgent;
        if is_first || (self.is_due() && !was_due) { Pushed::News } else { Pushed::Taken }
    }

    /// Makes everything be written at once.
    pub(super) fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// True if the lines should be written without waiting for more.
    pub(super) fn is_due(&self) -> bool {
        self.is_urgent || self.bytes.len() >= BURST_BYTES
    }

    /// True if no line waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All lines, in exchange for `written`, whose memory is reused.
    pub(super) fn take(&mut self, mut written: Vec<u8>) -> Vec<u8> {
        written.clear();
        written.shrink_to(KEPT_MAX_BYTES);
        self.is_urgent = false;
        mem::replace(&mut self.bytes, written)
    }

    /// The number of lines dropped since the last call.
    pub(super) fn take_dropped(&mut self) -> u64 {
        mem::take(&mut self.dropped_lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_in_order_and_the_writer_is_woken_once() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.push("one", false), Pushed::News);
        assert_eq!(backlog.push("two", false), Pushed::Taken);
        assert!(!backlog.is_due());
        assert_eq!(backlog.push("three", true), Pushed::News);
        assert_eq!(backlog.push("four", true), Pushed::Taken);
        assert!(backlog.is_due());
        assert_eq!(backlog.take(Vec::new()), b"one\ntwo\nthree\nfour\n");
        assert!(backlog.is_empty() && !backlog.is_due());
        assert_eq!(backlog.push("five", false), Pushed::News);
        backlog.hurry();
        assert!(backlog.is_due());
    }

    #[test]
    fn a_burst_is_due_by_itself() {
        let mut backlog = Backlog::default();
        backlog.push(&"x".repeat(BURST_BYTES - 2), false);
        assert!(!backlog.is_due());
        assert_eq!(backlog.push("", false), Pushed::News);
        assert!(backlog.is_due());
    }

    /// Each burst took memory anew, and gave it back: in the static program from and to the kernel, with the queue locked.
    #[test]
    fn bursts_one_after_another_need_no_new_memory() {
        let mut backlog = Backlog::default();
        let mut written = Vec::new();
        for number in 0..10 {
            while !backlog.is_due() {
                backlog.push(&"x".repeat(137), false);
            }
            let kept = written.capacity();
            written = backlog.take(written);
            assert_eq!(backlog.bytes.capacity(), kept, "burst {number}");
        }
    }

    #[test]
    fn the_memory_of_a_larger_burst_is_not_kept() {
        let mut backlog = Backlog::default();
        backlog.push(&"x".repeat(KEPT_MAX_BYTES), false);
        let written = backlog.take(Vec::new());
        assert!(written.capacity() > KEPT_MAX_BYTES);
        backlog.take(written);
        assert!(backlog.bytes.capacity() <= KEPT_MAX_BYTES);
    }

    #[test]
    fn lines_beyond_the_limit_are_dropped_and_counted() {
        let mut backlog = Backlog::default();
        let half = "x".repeat(BACKLOG_MAX_BYTES / 2 - 1);
        assert_eq!(backlog.push(&half, false), Pushed::News);
        assert_eq!(backlog.push(&half, false), Pushed::Taken);
        for _ in 0..2 {
            assert_eq!(backlog.push("", true), Pushed::Dropped);
        }
        assert_eq!((backlog.take_dropped(), backlog.take_dropped()), (2, 0));
        let taken = backlog.take(Vec::new());
        assert_eq!(taken.len(), BACKLOG_MAX_BYTES);
        assert_eq!(backlog.push("again", false), Pushed::News);
        assert_eq!(backlog.take(taken), b"again\n");
    }
}
