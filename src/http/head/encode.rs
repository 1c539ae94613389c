//! Parts of heads as bytes, for requests and responses alike.

/// Writes a field. Nothing is checked.
pub fn field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

/// Writes how a body is framed: by its length, or by chunks where that is not known (RFC 9112 §6).
pub fn framing(head: &mut Vec<u8>, length: Option<u64>) {
    match length {
        // `write!` to a Vec is a long way round for a number.
        Some(length) => {
            field(head, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        None => field(head, b"transfer-encoding", b"chunked"),
    }
}
