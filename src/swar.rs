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
    // The last step again covers the bytes that are too few for one of their own.
    if let (Some(one_last), Some(other_last)) = (one.last_chunk(), other.last_chunk()) {
        let (steps, other_steps) = (one.as_chunks().0, other.as_chunks().0);
        return is_step_same(*one_last, *other_last)
            && steps.iter().zip(other_steps).all(|(one, other)| is_step_same(*one, *other));
    }
    // Half a step, twice.
    if let (Some(one_first), Some(one_last), Some(other_first), Some(other_last)) =
        (one.first_chunk(), one.last_chunk(), other.first_chunk(), other.last_chunk())
    {
        return is_step_same(
            both_halves(*one_first, *one_last),
            both_halves(*other_first, *other_last),
        );
    }
    one.eq_ignore_ascii_case(other)
}

#[inline]
fn both_halves(first: [u8; STEP / 2], last: [u8; STEP / 2]) -> [u8; STEP] {
    let word = u64::from(u32::from_le_bytes(first)) | u64::from(u32::from_le_bytes(last)) << 32;
    word.to_le_bytes()
}

#[inline]
fn is_step_same(one: [u8; STEP], other: [u8; STEP]) -> bool {
    lower(u64::from_le_bytes(one)) == lower(u64::from_le_bytes(other))
}

/// ASCII letters in lower case, and all else as it is.
#[inline]
fn lower(word: u64) -> u64 {
    // Seven bits and the number to be added to them carry into the highest bit, and no further.
    let seven = word & !HIGH;
    let from_a = seven + ONES * (0x80 - u64::from(b'A'));
    let after_z = seven + ONES * (0x80 - u64::from(b'Z') - 1);
    let is_upper = (from_a ^ after_z) & !word & HIGH;
    // The highest bit of a byte, where the one between the cases is.
    word | is_upper >> 2
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
