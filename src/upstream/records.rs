//! Finds the limits of TLS records in the bytes that come (RFC 8446 §5.1); pure.

/// Type, version and length; the length is the last two bytes.
const HEADER_BYTES: usize = 5;
/// The start of the length.
const LENGTH_AT: usize = 3;

/// Follows the bytes of a connection, because rustls does not tell whether it holds a part of a record.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The bytes of the present record's header so far.
    header_bytes: usize,
    /// The bytes of the present record that are still to come after the header, as far as its length is known.
    left_bytes: usize,
}

impl Records {
    /// Takes the next bytes; true if a record ends in them.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut ends = false;
        while let [first, rest @ ..] = bytes {
            if self.header_bytes < HEADER_BYTES {
                if self.header_bytes >= LENGTH_AT {
                    self.left_bytes = self.left_bytes << 8 | usize::from(*first);
                }
                self.header_bytes += 1;
                bytes = rest;
            } else {
                let count = self.left_bytes.min(bytes.len());
                self.left_bytes -= count;
                bytes = &bytes[count..];
            }
            if self.header_bytes == HEADER_BYTES && self.left_bytes == 0 {
                *self = Self::default();
                ends = true;
            }
        }
        ends
    }

    /// True if the last record came whole.
    pub(super) fn are_whole(&self) -> bool {
        self.header_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_whole_only_where_one_ends_however_the_bytes_are_cut() {
        // One of 258 bytes, an empty one, one of a single byte.
        let mut bytes = vec![23, 3, 3, 1, 2];
        bytes.extend([0xff; 258]);
        bytes.extend([23, 3, 3, 0, 0, 21, 3, 3, 0, 1, 9]);
        let ends = [0, 263, 268, 274];
        assert_eq!(bytes.len(), 274);
        for cut in 0..=bytes.len() {
            let mut records = Records::default();
            assert_eq!(records.follow(&bytes[..cut]), cut >= 263, "cut at {cut}");
            assert_eq!(records.are_whole(), ends.contains(&cut), "cut at {cut}");
            assert_eq!(records.follow(&bytes[cut..]), cut < 274, "cut at {cut}");
            assert!(records.are_whole(), "cut at {cut}");
        }
        let mut records = Records::default();
        for (index, byte) in bytes.iter().enumerate() {
            assert_eq!(records.follow(&[*byte]), ends.contains(&(index + 1)), "byte {index}");
            assert_eq!(records.are_whole(), ends.contains(&(index + 1)), "byte {index}");
        }
    }
}
