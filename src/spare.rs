//! Per-thread scratch buffers, borrowed by either side: one for reading, by the client's side during a request and by
//! the provider's side during the answer, and one for writing heads.

use std::cell::Cell;

/// The size of a buffer: room for most heads and for an event of a stream.
pub(crate) const BUFFER_BYTES: usize = 4 * 1024;

/// The largest buffer for heads that is kept.
const HEAD_KEPT_MAX_BYTES: usize = 4 * 1024;

thread_local! {
    static SPARE: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
    static HEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// This thread's buffer, of [`BUFFER_BYTES`]; a new one while it is lent. Its content has no meaning.
pub(crate) fn take() -> Vec<u8> {
    SPARE.take().unwrap_or_else(|| vec![0; BUFFER_BYTES])
}

/// Returns a buffer, which may have grown.
pub(crate) fn give(mut buffer: Vec<u8>) {
    if buffer.len() < BUFFER_BYTES {
        return;
    }
    if buffer.len() > BUFFER_BYTES {
        buffer.truncate(BUFFER_BYTES);
        buffer.shrink_to_fit();
    }
    SPARE.set(Some(buffer));
}

/// This thread's buffer for heads, empty; a new one while it is lent.
pub(crate) fn take_head() -> Vec<u8> {
    HEAD.take()
}

/// Returns a buffer for heads, with any content, which may have made it grow.
pub(crate) fn give_head(mut buffer: Vec<u8>) {
    if (1..=HEAD_KEPT_MAX_BYTES).contains(&buffer.capacity()) {
        buffer.clear();
        HEAD.set(buffer);
    }
}

/// Frees this thread's buffers. Its next use of one makes a new one.
pub(crate) fn free() {
    drop((SPARE.take(), HEAD.take()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_for_heads_is_lent_again_unless_it_has_grown_large() {
        let mut one = take_head();
        assert_eq!(one.capacity(), 0);
        one.reserve_exact(HEAD_KEPT_MAX_BYTES);
        one.push(b'x');
        give_head(one);
        give_head(Vec::new());
        let mut again = take_head();
        assert_eq!((again.len(), again.capacity()), (0, HEAD_KEPT_MAX_BYTES));
        again.reserve_exact(HEAD_KEPT_MAX_BYTES + 1);
        give_head(again);
        assert_eq!(take_head().capacity(), 0);
    }

    #[test]
    fn a_buffer_is_lent_again_in_its_first_size() {
        let mut one = take();
        let another = take();
        assert_eq!((one.len(), another.len()), (BUFFER_BYTES, BUFFER_BYTES));
        one[0] = 7;
        one.resize(16 * BUFFER_BYTES, 0);
        give(one);
        let again = take();
        assert_eq!((again.len(), again.capacity(), again[0]), (BUFFER_BYTES, BUFFER_BYTES, 7));
        give(Vec::new());
        assert_eq!(take()[0], 0, "nothing that can't be used is kept");
        let mut third = take();
        third[0] = 8;
        give(third);
        free();
        assert_eq!(take()[0], 0, "a freed one is gone");
        drop(another);
    }
}
