//! Eight bytes looked at as one number, which costs little more than one of them ("SIMD within a register"). Pure.
//!
//! A program built for its size, as small machines run it, looks at each byte by itself otherwise.

/// The bytes that are looked at together.
pub(crate) const STEP: usize = size_of::<u64>();
/// A byte for each of them, to be multiplied.
pub(crate) const ONES: u64 = u64::from_le_bytes([1; STEP]);
/// The highest bit of each.
pub(crate) const HIGH: u64 = ONES * 0x80;

/// True if both are the same but for the case of ASCII letters.
#[inline]
pub(crate) fn is_same_but_for_case(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && differs_nowhere(one, other)
}

/// The same for two of one length.
// Not inlined: its callers are many.
#[inline(never)]
fn differs_nowhere(one: &[u8], other: &[u8]) -> bool {
    let Some(last) = one.len().checked_sub(STEP) else {
        let mut pairs = one.iter().zip(other);
        return pairs.all(|(one, other)| one == other || one.eq_ignore_ascii_case(other));
    };
    let mut at = 0;
    loop {
        // The last step covers some bytes again if they are too few for one of their own.
        let from = at.min(last);
        match (one[from..].first_chunk(), other[from..].first_chunk()) {
            (Some(step), Some(other_step)) if is_step_same(*step, *other_step) => at += STEP,
            _ => return false,
        }
        if at >= one.len() {
            return true;
        }
    }
}

#[inline]
fn is_step_same(one: [u8; STEP], other: [u8; STEP]) -> bool {
    /// The bit between the cases.
    const CASE: u64 = ONES * 0x20;
    let (one, other) = (u64::from_le_bytes(one), u64::from_le_bytes(other));
    let difference = one ^ other;
    if difference & !CASE != 0 {
        return false;
    }
    // Seven bits and the number to be added to them carry into the highest bit, and no further.
    let lower = (one & !HIGH) | CASE;
    let from_a = lower + ONES * (0x80 - u64::from(b'a'));
    let after_z = lower + ONES * (0x80 - u64::from(b'z') - 1);
    let is_letter = from_a & !after_z & !one;
    // The highest bit of a byte, where the one between the cases is.
    (difference << 2) & !is_letter == 0
}

/// True if there is nothing but printable ASCII: from the space to the tilde.
#[inline]
pub(crate) fn is_printable_ascii(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks();
    steps.iter().all(|step| is_step_printable(*step))
        && rest.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

#[inline]
fn is_step_printable(bytes: [u8; STEP]) -> bool {
    let word = u64::from_le_bytes(bytes);
    let seven = word & !HIGH;
    let from_space = seven + ONES * (0x80 - u64::from(b' '));
    let after_tilde = seven + ONES * (0x80 - u64::from(b'~') - 1);
    (from_space & !after_tilde & !word & HIGH) == HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 16] = [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 100];

    #[test]
    fn the_case_of_letters_alone_is_ignored() {
        for length in LENGTHS {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    for other_byte in [byte, byte ^ 0x20, byte ^ 0x80, byte.wrapping_add(1)] {
                        let (mut one, mut other) = (vec![b'q'; length], vec![b'Q'; length]);
                        (one[at], other[at]) = (byte, other_byte);
                        let expected = one.eq_ignore_ascii_case(&other);
                        assert_eq!(
                            is_same_but_for_case(&one, &other),
                            expected,
                            "{one:?} {other:?}"
                        );
                    }
                }
            }
        }
        assert!(!is_same_but_for_case(b"content-type", b"content-type2"));
    }

    #[test]
    fn printable_is_what_people_see() {
        for length in LENGTHS {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'~'; length];
                    bytes[at] = byte;
                    let expected = matches!(byte, b' '..=b'~');
                    assert_eq!(
                        is_printable_ascii(&bytes),
                        expected,
                        "{byte:#x} at {at} of {length}"
                    );
                }
            }
        }
        assert!(is_printable_ascii(b""));
    }
}
