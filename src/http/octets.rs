//! The bytes that may stand in the lines and the names of a head (RFC 9110 §5.5, §5.6.2). Pure.
//!
//! Every byte of every head is looked at here. Eight of them in one number cost little more than one: a subtraction from
//! all of them sets the highest bit of those that are too small.

use crate::swar::{HIGH, ONES, STEP};

/// The number of bytes at the start of `bytes` that may stand anywhere within a line of a head: none that ends one,
/// and no control byte but the tab (RFC 9110 §5.5).
// Inlined, and so are the others that see every byte or field: the compiler may put their callers into another unit.
#[inline]
pub(crate) fn plain_prefix(bytes: &[u8]) -> usize {
    let mut from = 0;
    loop {
        let at = from + controls_start(&bytes[from..]);
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        from = at + 1;
    }
}

/// The place of the first control byte in `bytes`; their length without one.
#[inline]
fn controls_start(bytes: &[u8]) -> usize {
    let (steps, rest) = bytes.as_chunks();
    for (index, step) in steps.iter().enumerate() {
        if let Some(at) = first_marked(controls(*step)) {
            return index * STEP + at;
        }
    }
    // The last step again covers the bytes that are too few for one of their own.
    match bytes.last_chunk() {
        Some(_) if rest.is_empty() => bytes.len(),
        Some(last) => {
            first_marked(controls(*last)).map_or(bytes.len(), |at| bytes.len() - STEP + at)
        }
        None => rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len()),
    }
}

/// Marks control bytes. A byte after a marked one may be marked wrongly, because a subtraction borrows from it; the
/// first mark is right.
#[inline]
fn controls(bytes: [u8; STEP]) -> u64 {
    let word = u64::from_le_bytes(bytes);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let from_delete = word ^ (ONES * 0x7f);
    let is_delete = from_delete.wrapping_sub(ONES) & !from_delete;
    (below_space | is_delete) & HIGH
}

/// The place of the first byte whose highest bit is set.
#[inline]
fn first_marked(marks: u64) -> Option<usize> {
    (marks != 0).then(|| marks.trailing_zeros() as usize / 8)
}

/// True if a field's name may contain the byte (RFC 9110 §5.6.2).
#[inline]
pub(crate) fn is_in_name(byte: u8) -> bool {
    IN_NAME[usize::from(byte)]
}

/// A table is the fastest way for one byte.
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut index = 0;
    let others = b"!#$%&'*+-.^_`|~";
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] |= byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// True if this may be a field's name.
#[inline]
pub(crate) fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_in_name)
}

/// True if this may be a field's value (RFC 9110 §5.5).
#[inline]
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    plain_prefix(bytes) == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_first_control_byte() {
        let is_plain = |byte: u8| byte == b'\t' || !byte.is_ascii_control();
        let others = [b'x', b'\t', b'\n', 0x80, 0xff, 0];
        for length in [0, 1, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 100] {
            for (byte, other) in
                (0..=u8::MAX).flat_map(|byte| others.iter().map(move |o| (byte, o)))
            {
                let mut bytes = vec![*other; length];
                for at in 0..length {
                    bytes[at] = byte;
                    let expected = bytes.iter().take_while(|byte| is_plain(**byte)).count();
                    assert_eq!(plain_prefix(&bytes), expected, "{byte:#x} at {at} of {length}");
                    bytes[at] = *other;
                }
            }
        }
        assert!(is_value(b"a b\tc\xff") && is_value(b"") && !is_value(b"a\r"));
    }

    #[test]
    fn names_hold_none_but_their_own_bytes() {
        for byte in 0..=u8::MAX {
            let is_in_name = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_name(&[b'x', byte]), is_in_name, "{byte:#x}");
        }
        assert!(!is_name(b""));
    }
}
