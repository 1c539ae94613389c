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
    let mut at = 0;
    while let Some(step) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        match first_marked(controls(*step)) {
            None => at += STEP,
            Some(control) if step[control] == b'\t' => at += control + 1,
            Some(control) => return at + control,
        }
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| is_control(*byte)).unwrap_or(rest.len())
}

/// True for control bytes but the tab.
#[inline]
fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
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
fn is_in_name(byte: u8) -> bool {
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

/// The number of bytes at the start of `bytes` that a field's name may contain.
#[inline]
pub(crate) fn name_prefix(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Most names consist of letters and dashes.
    while let Some(step) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        match first_marked(!letters_and_dashes(*step) & HIGH) {
            None => at += STEP,
            Some(other) if is_in_name(step[other]) => at += other + 1,
            Some(other) => return at + other,
        }
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| !is_in_name(*byte)).unwrap_or(rest.len())
}

/// Marks letters and dashes.
#[inline]
fn letters_and_dashes(bytes: [u8; STEP]) -> u64 {
    let word = u64::from_le_bytes(bytes);
    // Seven bits and the number to be added to them carry into the highest bit, and no further.
    let seven = word & !HIGH;
    let lower = seven | (ONES * 0x20);
    let from_a = lower + ONES * (0x80 - u64::from(b'a'));
    let after_z = lower + ONES * (0x80 - u64::from(b'z') - 1);
    let is_other = (seven ^ (ONES * u64::from(b'-'))) + ONES * 0x7f;
    (from_a & !after_z | !is_other) & !word & HIGH
}

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

    #[test]
    fn names_end_at_the_first_other_byte() {
        for other in [b'x', b'-', b'Z', b'1', b'_', b':'] {
            for length in [0, 1, 7, 8, 9, 15, 16, 17, 24, 31] {
                for (byte, at) in
                    (0..=u8::MAX).flat_map(|byte| (0..length).map(move |at| (byte, at)))
                {
                    let mut bytes = vec![other; length];
                    bytes[at] = byte;
                    let expected = bytes.iter().take_while(|byte| is_in_name(**byte)).count();
                    assert_eq!(name_prefix(&bytes), expected, "{byte:#x} at {at} of {length}");
                }
            }
        }
    }
}
