//! A provider's connection that left HTTP: one end of a tunnel.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::http::buffer::Buffer;
use crate::http::end::End;
use crate::upstream::wire::Wire;

/// The provider's end of a tunnel.
pub(crate) struct ProviderEnd {
    /// The connection.
    pub stream: ProviderStream,
    /// The bytes that came right behind the head of the answer.
    pub early: Buffer,
    /// The longest silence, `timeouts.idle`.
    pub silence_max: Duration,
}

/// A connection to a provider, through TLS where that is spoken, of which no read and no write waits.
#[derive(Debug)]
pub(crate) struct ProviderStream(Wire);

impl ProviderStream {
    pub(super) fn new(mut wire: Wire) -> Self {
        // From now on a client may end its sending side without leaving.
        wire.base().unwatch();
        Self(wire)
    }
}

impl Read for ProviderStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for ProviderStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl End for ProviderStream {
    fn socket(&self) -> &Arc<TcpStream> {
        self.0.socket()
    }

    fn holds_bytes(&self) -> bool {
        self.0.holds_bytes()
    }

    fn send_held(&mut self) -> io::Result<bool> {
        self.0.send_held()
    }

    fn end_sending(&mut self) -> io::Result<bool> {
        self.0.end_sending()
    }
}
