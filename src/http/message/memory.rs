//! The memory of dropped header fields, of which each thread keeps some for its next ones.

use std::cell::RefCell;

use crate::http::message::field::Field;
use crate::http::message::target;

/// The heads whose memory a thread keeps: that of a request, the one that is sent for it, and the answer's.
const KEPT_MAX: usize = 3;
/// The largest text that is kept.
const TEXT_KEPT_MAX_BYTES: usize = 1024;
/// The most places of fields that are kept.
const FIELDS_KEPT_MAX: usize = 32;

/// The memory of one head.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Its text.
    pub(super) text: Vec<u8>,
    /// The places of its fields.
    pub(super) fields: Vec<Field>,
}

thread_local! {
    static KEPT: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
}

/// Empty memory, which may have room from an earlier use.
pub(super) fn take() -> Memory {
    KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten().unwrap_or_default()
}

/// Returns memory with any content.
#[inline(never)]
pub(super) fn give(Memory { mut text, mut fields }: Memory) {
    let is_small = text.capacity() <= TEXT_KEPT_MAX_BYTES && fields.capacity() <= FIELDS_KEPT_MAX;
    if !is_small {
        return;
    }
    text.clear();
    fields.clear();
    // A thread that ends keeps nothing.
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(Memory { text, fields });
        }
    });
}

/// Frees this thread's memory for heads.
pub(crate) fn free() {
    drop(KEPT.take());
    target::free();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: usize, fields: usize) -> Memory {
        Memory { text: Vec::with_capacity(text), fields: Vec::with_capacity(fields) }
    }

    #[test]
    fn memory_is_used_again_unless_it_is_large_or_there_is_enough() {
        free();
        give(of(TEXT_KEPT_MAX_BYTES + 1, 1));
        give(of(1, FIELDS_KEPT_MAX + 1));
        assert_eq!(take().text.capacity(), 0);
        for size in 1..=KEPT_MAX + 1 {
            give(Memory { text: vec![b'x'; size], ..of(0, FIELDS_KEPT_MAX) });
        }
        give(of(TEXT_KEPT_MAX_BYTES, 1));
        for size in (1..=KEPT_MAX).rev() {
            let memory = take();
            assert_eq!((memory.text.len(), memory.text.capacity()), (0, size));
        }
        assert_eq!(take().text.capacity(), 0);
        give(of(TEXT_KEPT_MAX_BYTES, 1));
        free();
        assert_eq!(take().text.capacity(), 0);
    }
}
