//! Parts of heads as bytes, for requests and responses alike.

/// Writes a field. Nothing is checked.
// Part by part rather than in a loop: a copy of a known length is no call.
#[inline]
pub(crate) fn field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// Writes how a body is framed: by its length, or by chunks where that is not known (RFC 9112 §6).
pub(crate) fn framing(head: &mut Vec<u8>, length: Option<u64>) {
    match length {
        Some(length) => {
            let (line, start) = length_line(length);
            head.extend_from_slice(&line[start..]);
        }
        None => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// The most digits of a length.
const DIGITS_MAX: usize = 20;
const LENGTH_NAME: &[u8; 16] = b"content-length: ";
const LINE_BYTES: usize = LENGTH_NAME.len() + DIGITS_MAX + 2;

/// The field with this `length`, at the end of the bytes, and its start. One piece instead of four, and `write!` to a Vec is a
/// long way round for a number.
fn length_line(length: u64) -> ([u8; LINE_BYTES], usize) {
    let mut line = [b'\n'; LINE_BYTES];
    let mut start = LINE_BYTES - 2;
    line[start] = b'\r';
    let mut left = length;
    loop {
        start -= 1;
        let tens = left / 10;
        line[start] = b'0' + u8::try_from(left - tens * 10).unwrap_or(0);
        left = tens;
        if left == 0 {
            break;
        }
    }
    start -= LENGTH_NAME.len();
    line[start..start + LENGTH_NAME.len()].copy_from_slice(LENGTH_NAME);
    (line, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_any_number_of_digits() {
        for length in [0, 9, 10, 1024, u64::MAX] {
            let mut head = b"x".to_vec();
            framing(&mut head, Some(length));
            assert_eq!(head, format!("xcontent-length: {length}\r\n").into_bytes());
        }
        let mut head = Vec::new();
        framing(&mut head, None);
        assert_eq!(head, b"transfer-encoding: chunked\r\n");
    }
}
