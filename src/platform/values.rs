//! Processes and sockets, as every system tells of them.

/// The process at the other end of a unix socket: the one that made the connection; of a server, the one that called
/// `listen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerProcess {
    /// Its id.
    pub id: u32,
    /// Its effective user at that time.
    pub user: u32,
}

/// What a `Poller` tells about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// That it can be read, again and again until it has been.
    Read,
    /// That it can be written, again and again until it has been.
    Write,
    /// Each change, once.
    Changes,
    /// That its other end sends no more, once.
    Departure,
}

/// The state of a socket, as a `Poller` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// A read would not wait.
    pub read: bool,
    /// A write would not wait.
    pub write: bool,
    /// The connection has ended in both directions.
    pub has_ended: bool,
}
