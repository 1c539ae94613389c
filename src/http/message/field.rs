//! The places of a header field in the text of its head. Pure.

use std::ops::Range;

use crate::swar::is_same_but_for_case;

/// The places of a field's name and value in the text.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// The place of its name.
    pub(super) name: Span,
    /// The place of its value.
    pub(super) value: Span,
}

impl Field {
    /// True if it is called `name`, whatever its case.
    #[inline]
    pub(super) fn is_called(&self, name: &[u8], text: &[u8]) -> bool {
        // Names of another length, as most are, need no look at the text.
        (self.name.end - self.name.start) as usize == name.len()
            && is_same_but_for_case(self.name.of(text), name)
    }
}

/// A part of the text, in half the size of a `Range`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Its first byte.
    pub(super) start: u32,
    /// The byte after it.
    pub(super) end: u32,
}

impl Span {
    /// Of `range`.
    #[inline]
    pub(super) fn new(range: Range<usize>) -> Self {
        // A head is limited to kilobytes.
        let at = |index| u32::try_from(index).unwrap_or(u32::MAX);
        Self { start: at(range.start), end: at(range.end) }
    }

    /// Its bytes.
    #[inline]
    pub(super) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }
}
