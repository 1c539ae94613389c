//! A client's connection that leaves HTTP: from a request that asks for a WebSocket to one end of a tunnel.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustix::net::{RecvFlags, recv, send};

use crate::http::end::End;
use crate::ingress::live::{ByteCounter, LiveConnection};
use crate::ingress::tunnels::Tunnel;
use crate::platform;

/// The connection of a request that may become a tunnel.
pub struct Switch<'a> {
    stream: &'a Arc<TcpStream>,
    entry: &'a LiveConnection,
    early: Vec<u8>,
    place: &'a mut Option<Box<dyn Tunnel>>,
}

/// The client's end of a tunnel.
pub(crate) struct ClientEnd<'a> {
    /// The connection.
    pub stream: ClientStream,
    /// The bytes that came right behind the request.
    pub early: Vec<u8>,
    /// The place of the tunnel: what is put there goes on after the request.
    pub place: &'a mut Option<Box<dyn Tunnel>>,
}

/// A client's socket, of which no read and no write waits.
#[derive(Debug)]
pub(crate) struct ClientStream {
    stream: Arc<TcpStream>,
    bytes: ByteCounter,
}

impl<'a> Switch<'a> {
    /// The connection `stream`, after whose request the `early` bytes came. A tunnel is put in `place`.
    pub(super) fn new(
        stream: &'a Arc<TcpStream>,
        entry: &'a LiveConnection,
        early: Vec<u8>,
        place: &'a mut Option<Box<dyn Tunnel>>,
    ) -> Self {
        Self { stream, entry, early, place }
    }

    /// Makes it the client's end of a tunnel. A stop then lets the tunnel take leave.
    pub(crate) fn open(self) -> io::Result<ClientEnd<'a>> {
        self.entry.become_tunnel()?;
        let stream = ClientStream { stream: self.stream.clone(), bytes: self.entry.byte_counter() };
        Ok(ClientEnd { stream, early: self.early, place: self.place })
    }
}

impl Read for ClientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = recv(&self.stream, buffer, RecvFlags::DONTWAIT)?.0;
        self.bytes.counts().add_received(count);
        Ok(count)
    }
}

impl Write for ClientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = send(&self.stream, bytes, platform::SEND)?;
        self.bytes.counts().add_sent(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl End for ClientStream {
    fn socket(&self) -> &Arc<TcpStream> {
        &self.stream
    }

    fn holds_bytes(&self) -> bool {
        false
    }

    fn send_held(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    fn end_sending(&mut self) -> io::Result<bool> {
        self.stream.shutdown(Shutdown::Write).map(|()| true)
    }
}
