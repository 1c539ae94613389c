//! HTTP/1 as bytes and values, for both sides: strict about clients' messages, to the letter of RFC 9112, and lenient
//! about providers' messages, as real servers need. Opens no socket.

pub(crate) mod body;
pub(crate) mod buffer;
pub(crate) mod chunked;
pub(crate) mod end;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod inflate;
pub(crate) mod message;
pub(crate) mod name_filter;
pub(crate) mod octets;
pub(crate) mod refusal;
pub(crate) mod rules;
pub(crate) mod selected;
pub(crate) mod websocket;
