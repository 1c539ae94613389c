//! The interface between a server and the exchange: requests, one at a time for each connection.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::http::message::RequestHead;
use crate::http::refusal::Refusal;
use crate::ingress::switch::Switch;

/// One request from a server.
pub struct Request<'a> {
    /// Everything up to the body, checked.
    pub head: &'a RequestHead,
    /// The body without its framing, to be read to its end (`Ok(0)`). Errors carry a `BodyFault`.
    /// An `Expect: 100-continue` is answered when it is first read.
    pub body: &'a mut dyn Read,
    /// The client's socket, to notice that the client went away; None if the server does not expose it.
    pub client: Option<&'a Arc<TcpStream>>,
    /// True if it came over a unix socket.
    pub is_by_unix: bool,
    /// True if the connection may be kept after this: false while draining.
    pub may_keep_alive: bool,
    /// Lets the connection become a tunnel, if a WebSocket is asked for and the server can do that.
    pub switch: Option<Switch<'a>>,
}

/// The further use of a connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The response is complete and announces that the connection stays.
    KeepAlive,
    /// The response is complete and announces that the connection closes.
    Close,
    /// The response was cut off: the connection must end without looking complete.
    Abort,
}

/// Serves requests: writes a whole response, head and framing included, to `out`.
pub trait Service: Send + Sync + 'static {
    /// Serves one request.
    fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After;

    /// Writes a refusal for a request that never became one, with `Connection: close`. `head` is
    /// there where it could still be read, and chooses the error shape by its path.
    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write);

    /// Hears of connections that were opened (1) and closed (-1).
    fn connections_changed(&self, _by: i64) {}
}
