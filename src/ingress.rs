//! The way in: the life of a client connection.
//!
//! Requests are served behind [`Service`], so that both servers (the built-in one and `tiny_http`) feed the same
//! exchange.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Limits, ServerKind};

pub(crate) mod bind;
pub(crate) mod conn;
mod counted;
pub(crate) mod door;
pub(crate) mod guest;
pub(crate) mod handed;
pub(crate) mod hosting;
pub(crate) mod kept;
pub(crate) mod listener;
pub(crate) mod listeners;
pub(crate) mod live;
pub(crate) mod other_protocol;
pub(crate) mod pool;
mod reception;
pub(crate) mod service;
pub(crate) mod switch;
pub(crate) mod tally;
pub(crate) mod tiny;
mod tls;
pub(crate) mod tunnels;

pub(crate) use live::FAREWELL_MAX;
pub use service::{After, Request, Service};
pub(crate) use switch::ClientStream;
pub(crate) use tunnels::{Tunnel, Turn};

/// A running server of either kind. Dropping it stops accepting.
pub enum Server {
    /// Our own.
    Builtin(listener::BuiltinServer),
    /// `tiny_http`.
    Tiny(tiny::TinyServer),
}

impl Server {
    /// Starts a server of `kind`, whose open connections are in `live`. `tiny_http` takes the first of the `listeners`, and the configuration's check sees to
    /// it that it is the only one.
    pub fn start(
        kind: ServerKind,
        listeners: Vec<bind::Listener>,
        live: Arc<live::Live>,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> std::io::Result<Self> {
        match kind {
            ServerKind::Builtin => {
                listener::BuiltinServer::start(listeners, live, limits, service).map(Self::Builtin)
            }
            ServerKind::TinyHttp => {
                tiny::TinyServer::start(&listeners, limits, service).map(Self::Tiny)
            }
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
