//! The way in: the life of a client connection.
//!
//! What serves the requests is behind [`Service`], so that both servers (our own and `tiny_http`)
//! feed the same exchange.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Limits;
use crate::message::RequestHead;
use crate::refusal::Refusal;

pub mod body;
pub mod conn;
pub mod door;
pub mod head;
pub mod listener;
pub mod live;
pub mod other_protocol;
pub mod pool;
pub mod tiny;

/// One request as a server hands it over.
pub struct Request<'a> {
    /// Everything up to the body, checked.
    pub head: &'a RequestHead,
    /// The body without its framing, to be read to its end (`Ok(0)`). Errors carry a `BodyFault`.
    /// An `Expect: 100-continue` is answered when it is first read.
    pub body: &'a mut dyn Read,
    /// The client's socket, to notice that it went away; None where the server can't say.
    pub client: Option<&'a Arc<TcpStream>>,
    /// Whether the connection may be kept after this: false while draining.
    pub may_keep_alive: bool,
}

/// What is left of a connection once a request was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The response is complete and says that the connection stays.
    KeepAlive,
    /// The response is complete and says that the connection closes.
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

/// A running server of either kind. Dropping it stops accepting.
pub enum Server {
    /// Our own.
    Builtin(listener::BuiltinServer),
    /// `tiny_http`.
    Tiny(tiny::TinyServer),
}

impl Server {
    /// Starts our own server.
    pub fn start(
        listener: TcpListener,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> std::io::Result<Self> {
        listener::BuiltinServer::start(listener, limits, service).map(Self::Builtin)
    }

    /// Starts `tiny_http`.
    pub fn start_tiny(
        listener: TcpListener,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> std::io::Result<Self> {
        tiny::TinyServer::start(listener, limits, service).map(Self::Tiny)
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Builtin(server) => server.local_addr(),
            Self::Tiny(server) => server.local_addr(),
        }
    }

    /// Stops accepting and closes idle connections at once; requests in flight may go on for
    /// `grace` and are cut off then. Returns how many that were.
    pub fn stop(self, grace: Duration) -> usize {
        match self {
            Self::Builtin(server) => server.stop(grace),
            Self::Tiny(server) => server.stop(grace),
        }
    }
}
