//! HTTP/1 as bytes and values, for both sides: strict about clients' messages, to the letter of RFC 9112, and lenient
//! about providers' messages, as real servers need. Opens no socket.

pub mod body;
pub mod buffer;
pub mod chunked;
pub mod framing;
pub mod head;
pub mod inflate;
pub mod message;
pub mod refusal;
pub mod rules;
