//! Reads DER (X.690), as far as keys and certificates need it. Pure.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The constructed, context-specific tag with this number.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The values that follow each other in `0`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value with its tag; None at the end, and for a value that is cut off.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let mut length = usize::from(*first);
        if length >= 0x80 {
            // Longer lengths than four bytes have no place in a file of a megabyte.
            let count = length & 0x7f;
            let (bytes, after) =
                (1..=4).contains(&count).then(|| rest.split_at_checked(count))??;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, value))
    }

    /// The next value, if it has this `tag`; otherwise nothing is taken.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let (_, value) = ahead.next().filter(|(own, _)| *own == tag)?;
        *self = ahead;
        Some(value)
    }

    /// The values in the next value, which has this `tag`.
    pub(super) fn enter(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_those_that_are_cut_off_are_not() {
        let bytes = [0x30, 5, 2, 1, 7, 4, 0, 0x81, 0x82];
        let mut reader = Reader(&bytes);
        assert_eq!(reader.take(INTEGER), None);
        let mut inner = reader.enter(SEQUENCE).unwrap();
        assert_eq!(
            (inner.take(INTEGER), inner.take(OCTET_STRING)),
            (Some(&[7][..]), Some(&[][..]))
        );
        assert_eq!((inner.next(), reader.next()), (None, None));
        let long = [&[4, 0x82, 1, 0][..], &[9; 256]].concat();
        assert_eq!(Reader(&long).take(OCTET_STRING).map(<[u8]>::len), Some(256));
        for cut in 0..long.len() {
            assert_eq!(Reader(&long[..cut]).next(), None, "{cut}");
        }
        for odd in [&[4, 0x80][..], &[4, 0x85, 0, 0, 0, 0, 0], &[4, 0xff]] {
            assert_eq!(Reader(odd).next(), None, "{odd:?}");
        }
    }
}
