//! HTTP/1 as bytes and values, for both sides: what clients send is held to the letter of RFC 9112, what providers send
//! is taken with the liberties that real servers take. Opens no socket.

pub mod body;
pub mod buffer;
pub mod chunked;
pub mod framing;
pub mod head;
pub mod inflate;
pub mod message;
pub mod refusal;
pub mod rules;
