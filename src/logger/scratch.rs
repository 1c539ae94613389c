//! Memory for the lines of a thread, which is used again for each: every request has a line.

use std::cell::Cell;

use crate::logger::stamp::Stamp;

/// The most bytes that a thread keeps for its next line, and for the text of it; the line of a request has about 150.
const KEPT_MAX_BYTES: usize = 512;

/// The memory for a line, and what the thread's last line has left for it.
pub(super) struct Line {
    /// The line, empty at first.
    pub(super) text: String,
    /// The time of the last one.
    pub(super) stamp: Stamp,
}

impl Line {
    const NEW: Self = Self { text: String::new(), stamp: Stamp::NEW };
}

impl Default for Line {
    fn default() -> Self {
        Self::NEW
    }
}

thread_local! {
    static LINE: Cell<Line> = const { Cell::new(Line::NEW) };
    static TEXT: Cell<String> = const { Cell::new(String::new()) };
}

/// Calls `body` with memory for a line.
pub(super) fn with_line(body: impl FnOnce(&mut Line)) {
    // A thread that ends has none left. While it is lent, there is new memory.
    let mut line = LINE.try_with(Cell::take).unwrap_or_default();
    body(&mut line);
    empty(&mut line.text);
    let _ = LINE.try_with(|kept| kept.set(line));
}

/// Calls `body` with an empty text, whose memory is used again. It is not that of a line, so `body` may log.
pub(crate) fn with_text(body: impl FnOnce(&mut String)) {
    let mut text = TEXT.try_with(Cell::take).unwrap_or_default();
    body(&mut text);
    empty(&mut text);
    let _ = TEXT.try_with(|kept| kept.set(text));
}

fn empty(text: &mut String) {
    text.clear();
    text.shrink_to(KEPT_MAX_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_up_to_a_limit() {
        for (size, expected) in
            [(KEPT_MAX_BYTES, KEPT_MAX_BYTES), (KEPT_MAX_BYTES + 1, KEPT_MAX_BYTES)]
        {
            with_text(|text| text.reserve_exact(size));
            with_text(|text| assert_eq!((text.len(), text.capacity()), (0, expected)));
            with_line(|line| line.text.reserve_exact(size));
            with_line(|line| assert_eq!((line.text.len(), line.text.capacity()), (0, expected)));
        }
    }

    #[test]
    fn a_line_within_a_line_has_its_own_memory() {
        with_line(|outer| {
            outer.text.push_str("outer");
            with_line(|inner| inner.text.push_str("inner"));
            assert_eq!(outer.text, "outer");
        });
        with_line(|line| assert!(line.text.is_empty()));
    }
}
