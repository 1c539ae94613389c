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

/// The events of a socket that a `Poller` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// It can be read; told again until it has been.
    Read,
    /// It can be written; told again until it has been.
    Write,
    /// It can be read or written; told again until it has been.
    Both,
    /// Each change; told once.
    Changes,
    /// Its other end sends no more; told once.
    Departure,
    /// The connection breaks, or has ended in both directions; told once.
    End,
}

/// The state of a socket, as a `Poller` tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read would not wait.
    pub read: bool,
    /// A write would not wait.
    pub write: bool,
    /// The connection has ended in both directions.
    pub has_ended: bool,
}
