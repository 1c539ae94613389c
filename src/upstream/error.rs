//! Why there is no response.

use std::io;

use crate::shortage::Shortage;

/// Why there is no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    Unreachable(String),
    /// We ran out of what it takes; the provider has no part in it.
    Short(Shortage),
    /// A connection, but no HTTP response on it.
    Broken(String),
    /// No response head in time.
    TimedOut(String),
    /// The client went away.
    ClientGone,
    /// The client's request body could not be read.
    RequestBody(io::Error),
    /// The request holds something that can't be sent.
    Unsendable(String),
}
