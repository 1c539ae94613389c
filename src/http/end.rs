//! One end of a tunnel: a connection that is read and written without ever waiting.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// A connection of which every read and write returns at once: `WouldBlock` says that it is to be tried again once the
/// socket is ready, and so does `Interrupted` of a read.
pub(crate) trait End: Read + Write {
    /// The socket to wait for.
    fn socket(&self) -> &Arc<TcpStream>;

    /// True if a read yields something that is no longer in the socket: bytes, or the end.
    fn holds_bytes(&self) -> bool;

    /// Sends what an earlier write left behind; false if the socket takes no more at the moment.
    fn send_held(&mut self) -> io::Result<bool>;

    /// Says that nothing more will be sent; false if that has to be tried again.
    fn end_sending(&mut self) -> io::Result<bool>;
}

/// True if a read or write is to be tried again once the socket is ready.
pub(crate) fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
