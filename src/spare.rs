//! One read buffer for each thread, lent to whoever reads: to the client's side while a request comes,
//! to the provider's while it is answered.

use std::cell::Cell;

/// What a buffer has: room for most heads and for an event of a stream.
pub const BUFFER_BYTES: usize = 4 * 1024;

thread_local! {
    static SPARE: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// This thread's buffer, of [`BUFFER_BYTES`]; another where that one is lent. What it holds is of no
/// meaning.
pub fn take() -> Vec<u8> {
    SPARE.take().unwrap_or_else(|| vec![0; BUFFER_BYTES])
}

/// Gives a buffer back, which may have grown.
pub fn give(mut buffer: Vec<u8>) {
    if buffer.len() < BUFFER_BYTES {
        return;
    }
    if buffer.len() > BUFFER_BYTES {
        buffer.truncate(BUFFER_BYTES);
        buffer.shrink_to_fit();
    }
    SPARE.set(Some(buffer));
}

#[cfg(test)]
mod tests {
    use super::*;

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
        drop(another);
    }
}
