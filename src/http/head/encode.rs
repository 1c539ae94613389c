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
        // `write!` to a Vec is a long way round for a number.
        Some(length) => {
            field(head, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        None => field(head, b"transfer-encoding", b"chunked"),
    }
}
