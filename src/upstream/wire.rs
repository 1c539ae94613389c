//! A connection to a provider: bytes in and out without blocking, through TLS where that is spoken.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, IoState, ProtocolVersion};

use crate::clock::Deadline;
pub(super) use crate::http::end::is_not_now;
use crate::thread;
use crate::upstream::fault::Fault;
use crate::upstream::records::Records;
use crate::upstream::socket::Socket;
use crate::upstream::watch::Watch;

/// A connection. Reads and writes that would block say `WouldBlock`; a read that brought a part of a TLS
/// record alone says `Interrupted`. What such a read lacks is still to come to the socket, and can be waited for there.
#[derive(Debug)]
pub(super) enum Wire {
    /// TCP.
    Plain(Socket),
    /// TLS over another.
    Tls(Box<Tls>),
}

/// TLS, and what it runs over.
#[derive(Debug)]
pub(super) struct Tls {
    lower: Wire,
    session: ClientConnection,
    /// Decrypted bytes that nobody has read yet.
    decrypted: usize,
    /// Whether the peer said that it sends no more.
    has_ended: bool,
    /// The error of a broken record, to be told once the data before it have been read.
    broken: Option<rustls::Error>,
    /// True while session tickets may come before the first data (RFC 8446 §4.6.1).
    expects_tickets: bool,
    /// Whether rustls holds a part of a record.
    records: Records,
    /// The encrypted bytes that what it runs over has taken so far.
    handed_on_bytes: u64,
}

impl Wire {
    /// The socket under it all, to wait for.
    pub(super) fn socket(&self) -> &Arc<TcpStream> {
        match self {
            Self::Plain(socket) => socket.stream(),
            Self::Tls(tls) => tls.lower.socket(),
        }
    }

    /// The lowest layer.
    pub(super) fn base(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.lower.base(),
        }
    }

    /// Whether a read yields something that is no longer in the socket: bytes, or the end that the peer announced.
    pub(super) fn holds_bytes(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => {
                let ends = tls.has_ended || tls.broken.is_some();
                tls.decrypted > 0 || ends || tls.lower.holds_bytes()
            }
        }
    }

    /// Whether another request may follow on it, as far as was read: TLS may have read further than
    /// who reads from it. No byte and no part of a record is left, and the peer did not say that it ends:
    /// one that did so may still take a request, and never answer it.
    pub(super) fn may_go_on(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls(tls) => {
                let is_read = tls.decrypted == 0 && tls.records.are_whole();
                let ends = tls.has_ended || tls.broken.is_some();
                is_read && !ends && tls.lower.may_go_on()
            }
        }
    }

    /// Whether nothing came and nothing ended: what an idle connection must be like.
    pub(super) fn is_quiet(&self) -> bool {
        // Over TLS, session tickets may lie in the socket; they are no reason to give it up, but what
        // they are is only known to who reads them. Such a connection is given up all the same.
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let seen = recv(self.socket(), &mut [0; 1], flags);
        self.may_go_on() && seen.is_err_and(|error| error == Errno::WOULDBLOCK)
    }

    /// Shakes hands with `name` over `lower`.
    pub(super) fn shake_hands(
        lower: Self,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
        watch: &Watch,
        deadline: Deadline,
    ) -> Result<Self, Fault> {
        let session = ClientConnection::new(config, name)?;
        let mut tls = Tls {
            lower,
            session,
            decrypted: 0,
            has_ended: false,
            broken: None,
            expects_tickets: false,
            records: Records::default(),
            handed_on_bytes: 0,
        };
        while tls.session.is_handshaking() {
            while !tls.send_held()? {
                watch.wait(tls.lower.socket(), PollFlags::OUT, deadline.left())?;
            }
            if !tls.session.is_handshaking() {
                break;
            }
            match tls.receive() {
                Ok(0) => return Err(Fault::Closed),
                Ok(_) => {}
                Err(error) if is_not_now(&error) => {
                    watch.wait(tls.lower.socket(), PollFlags::IN, deadline.left())?;
                }
                Err(error) => {
                    // What is wrong is said to the server too, as far as it takes it.
                    let _ = tls.session.write_tls(&mut tls.lower);
                    return Err(error.into());
                }
            }
        }
        tls.expects_tickets = tls.session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        Ok(Self::Tls(Box::new(tls)))
    }

    /// Says that nothing more will be sent; false where that has to be tried again.
    pub(super) fn end_sending(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(socket) => socket.stream().shutdown(Shutdown::Write).map(|()| true),
            Self::Tls(tls) => {
                tls.session.send_close_notify();
                Ok(tls.send_held()? && tls.lower.end_sending()?)
            }
        }
    }

    /// The bytes that the socket has taken from TLS so far. Without TLS, each write says it itself.
    pub(super) fn handed_on_bytes(&self) -> u64 {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => match &tls.lower {
                Self::Plain(_) => tls.handed_on_bytes,
                lower @ Self::Tls(_) => lower.handed_on_bytes(),
            },
        }
    }

    /// Sends what TLS holds back; false where the socket takes no more at the moment.
    pub(super) fn send_held(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.send_held(),
        }
    }
}

impl Tls {
    fn send_held(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.lower) {
                Ok(count) => self.handed_on_bytes += count as u64,
                Err(error) if is_not_now(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.lower.send_held()
    }

    /// Takes what the socket has; 0 at its end. rustls' errors are inside of the `io::Error`.
    fn receive(&mut self) -> io::Result<usize> {
        let mut lower =
            Followed { wire: &mut self.lower, records: &mut self.records, ends_one: false };
        let count = self.session.read_tls(&mut lower)?;
        let ends_one = lower.ends_one;
        match self.decrypt(ends_one) {
            Ok(state) => {
                self.decrypted = state.plaintext_bytes_to_read();
                self.has_ended = state.peer_has_closed();
            }
            Err(error) => {
                // The records before it are as good as any.
                self.decrypted = self.session.reader().fill_buf().map_or(0, <[u8]>::len);
                if self.decrypted == 0 {
                    return Err(io::Error::other(error));
                }
                self.broken = Some(error);
            }
        }
        Ok(count)
    }

    /// Decrypts the received bytes, in which a record ends if `ends_one`. A session ticket takes more stack than all else that
    /// a worker does, and the worker would keep it for the life of a stream.
    fn decrypt(&mut self, ends_one: bool) -> Result<IoState, rustls::Error> {
        if !self.expects_tickets || !ends_one {
            return self.session.process_new_packets();
        }
        let session = &mut self.session;
        let decrypt = || session.process_new_packets();
        let state = thread::on_own_thread("tickets", thread::HANDSHAKE_STACK_BYTES, decrypt)?;
        self.expects_tickets = state.plaintext_bytes_to_read() == 0;
        Ok(state)
    }
}

/// Reads of what TLS runs over, whose records are followed.
struct Followed<'a> {
    wire: &'a mut Wire,
    records: &'a mut Records,
    /// True if a record ends in the bytes that were read.
    ends_one: bool,
}

impl Read for Followed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.wire.read(buffer)?;
        self.ends_one |= self.records.follow(&buffer[..count]);
        Ok(count)
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decrypted > 0 {
                let count = self.session.reader().read(buffer)?;
                self.decrypted -= count;
                return Ok(count);
            }
            match self.session.reader().read(buffer) {
                // The peer said that it ends, or it ended without saying so, which is an error.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if let Some(error) = self.broken.clone() {
                return Err(io::Error::other(error));
            }
            let count = self.receive()?;
            if self.session.wants_write() {
                // Key updates are answered; where the socket takes nothing, the next write does it.
                let _ = self.session.write_tls(&mut self.lower);
            }
            // What TLS underneath holds is no longer in the socket, and nobody could wait for it there.
            let is_at_hand = self.lower.holds_bytes();
            if count > 0 && self.decrypted == 0 && !self.has_ended && !is_at_hand {
                // A part of a record. Who reads knows how long the rest may take.
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(parts),
            Self::Tls(tls) => {
                // No more is encrypted than the socket takes.
                if !tls.send_held()? {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let count = tls.session.writer().write_vectored(parts)?;
                tls.send_held()?;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.send_held()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}
