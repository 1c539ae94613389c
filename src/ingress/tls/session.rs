//! One client's TLS connection: its bytes on the way to and from the connection that is served in its place.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, recv, send, sendmsg};
use rustls::{ServerConfig, ServerConnection};

use crate::clock::Deadline;
use crate::ingress::other_protocol;
use crate::platform::{Readiness, SEND};

/// The rounds of one turn; the other sessions of the thread wait meanwhile.
const ROUNDS_MAX: usize = 16;
/// The time for an answer to leave whose sender is done, if the client takes nothing of it.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The stay of a client whose handshake failed, so that it can read why; the most bytes that it may send.
const LEAVE_MAX: Duration = Duration::from_secs(2);
const LEAVE_MAX_BYTES: usize = 256 * 1024;
/// The most bytes of a TLS record (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// The answer to a request without TLS.
const NOT_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 113\r\nConnection: close\r\nX-Evertoken-Error: bad_request\r\n\r\n\
    The plain HTTP request was sent to HTTPS port: write https:// instead of http:// in the base URL of this client.\n";

/// A connection.
pub(super) struct Session {
    pub(super) client: Arc<TcpStream>,
    /// Our end of the connection that is served; None until the handshake is done.
    server: Option<Arc<TcpStream>>,
    /// When it ends by itself.
    pub(super) due: Option<Deadline>,
    tls: ServerConnection,
    stage: Stage,
    client_ready: Ready,
    server_ready: Ready,
    /// Decrypted bytes that the server has not taken.
    decrypted: usize,
    /// The client sends no more.
    client_ended: bool,
    /// The server was told so.
    server_was_told: bool,
    /// The server sends no more.
    server_ended: bool,
    /// The client was told so.
    client_was_told: bool,
    /// The server has closed its end.
    server_is_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No byte has come.
    New,
    /// TLS.
    Tls,
    /// The client has an answer without TLS, or an alert; so many bytes may still come.
    Leaving(usize),
}

/// The readiness of a socket in each direction: true until a call says that it would block.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    read: bool,
    write: bool,
}

/// The calls on a socket that would wait.
pub(super) struct Waits {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// The state of a session after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionState {
    /// It waits for one of its sockets.
    Waits,
    /// Its handshake is done, and a server is to be found for it.
    HasShakenHands,
    /// It used up its turn.
    HasMore,
    /// It is over.
    Over,
}

/// The end of a session, which needs no words.
struct Over;

impl Session {
    /// A connection whose handshake ends by `due`; None if the system has no random bytes.
    pub(super) fn new(
        client: Arc<TcpStream>,
        config: Arc<ServerConfig>,
        due: Deadline,
    ) -> Option<Self> {
        Some(Self {
            client,
            server: None,
            due: Some(due),
            tls: ServerConnection::new(config).ok()?,
            stage: Stage::New,
            client_ready: Ready::default(),
            server_ready: Ready::default(),
            decrypted: 0,
            client_ended: false,
            server_was_told: false,
            server_ended: false,
            client_was_told: false,
            server_is_gone: false,
        })
    }

    /// True if no byte has come from the client.
    pub(super) fn is_new(&self) -> bool {
        self.stage == Stage::New
    }

    /// Notes what the client's socket can do.
    pub(super) fn client_is_ready(&mut self, now: Readiness) {
        self.client_ready.note(now);
    }

    /// Notes what the socket to the server can do.
    pub(super) fn server_is_ready(&mut self, now: Readiness) {
        self.server_ready.note(now);
        if now.has_ended && !self.server_is_gone {
            self.server_is_gone = true;
            self.due = Some(Deadline::after(SILENCE_MAX));
        }
    }

    /// Takes our end of the connection that is served from now on.
    pub(super) fn serve(&mut self, server: Arc<TcpStream>) {
        self.server = Some(server);
        self.server_ready.write = true;
        self.due = None;
    }

    /// True from the end of the handshake on, unless TLS broke later.
    pub(super) fn is_served(&self) -> bool {
        self.server.is_some()
    }

    /// The calls that would wait, on the client's socket and on that to the server.
    pub(super) fn waits(&self) -> [Waits; 2] {
        [self.client_ready, self.server_ready]
            .map(|ready| Waits { read: !ready.read, write: !ready.write })
    }

    /// Moves all bytes that can be moved.
    pub(super) fn step(&mut self) -> SessionState {
        for _ in 0..ROUNDS_MAX {
            match self.round() {
                Ok(has_moved) => {
                    if self.server.is_none()
                        && self.stage == Stage::Tls
                        && !self.tls.is_handshaking()
                    {
                        return SessionState::HasShakenHands;
                    }
                    if !has_moved {
                        return SessionState::Waits;
                    }
                }
                Err(Over) => return SessionState::Over,
            }
        }
        SessionState::HasMore
    }

    /// Moves some bytes in each direction; false if none could be moved.
    fn round(&mut self) -> Result<bool, Over> {
        if self.stage == Stage::New && self.client_ready.read {
            self.look()?;
        }
        if let Stage::Leaving(left) = self.stage {
            return self.drop_rest(left);
        }
        let mut has_moved = self.send()?;
        has_moved |= self.receive()?;
        has_moved |= self.deliver();
        has_moved |= self.collect()?;
        let is_out = self.server_ended && !self.tls.wants_write();
        if is_out && (self.server_is_gone || self.client_ended) {
            return Err(Over);
        }
        if has_moved && self.server_is_gone {
            self.due = Some(Deadline::after(SILENCE_MAX));
        }
        Ok(has_moved)
    }

    /// Looks at the first byte: a request without TLS gets an answer without TLS.
    fn look(&mut self) -> Result<(), Over> {
        let mut first = [0];
        match recv(&self.client, &mut first, RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((_, 0)) => Err(Over),
            Ok(_) if first[0].is_ascii_alphabetic() => {
                other_protocol::say_plain(&self.client);
                let _ = send(&self.client, NOT_PLAIN, SEND);
                self.begin_to_leave();
                Ok(())
            }
            Ok(_) => {
                self.stage = Stage::Tls;
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(_) => Err(Over),
        }
    }

    /// Sends encrypted bytes to the client.
    fn send(&mut self) -> Result<bool, Over> {
        let mut has_moved = false;
        while self.tls.wants_write() && self.client_ready.write {
            match self.tls.write_tls(&mut Socket(&self.client, &mut self.client_ready)) {
                Ok(_) => has_moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Over),
            }
        }
        if self.server_ended && !self.client_was_told && !self.tls.wants_write() {
            self.client_was_told = true;
            let _ = self.client.shutdown(Shutdown::Write);
        }
        Ok(has_moved)
    }

    /// Receives encrypted bytes from the client, unless the server has not taken the last ones.
    fn receive(&mut self) -> Result<bool, Over> {
        if self.client_ended
            || self.decrypted > 0
            || !self.client_ready.read
            || self.stage == Stage::New
        {
            return Ok(false);
        }
        match self.tls.read_tls(&mut Socket(&self.client, &mut self.client_ready)) {
            // Without a close_notify, which nothing depends on: a request has its own end.
            Ok(0) if self.tls.is_handshaking() => return Err(Over),
            Ok(0) => self.client_ended = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => return Err(Over),
        }
        match self.tls.process_new_packets() {
            Ok(state) => {
                self.decrypted = state.plaintext_bytes_to_read();
                self.client_ended |= state.peer_has_closed();
            }
            Err(why) => self.fail(&why)?,
        }
        Ok(true)
    }

    /// Sends the alert that rustls has made of `why`.
    fn fail(&mut self, why: &rustls::Error) -> Result<(), Over> {
        if self.tls.is_handshaking() {
            other_protocol::say_failed(&self.client, why);
        } else {
            debug!("A connection over TLS broke: {why}");
        }
        // As far as its socket takes it.
        while self.tls.wants_write() {
            let mut socket = Socket(&self.client, &mut self.client_ready);
            if self.tls.write_tls(&mut socket).is_err() {
                break;
            }
        }
        if matches!(why, rustls::Error::AlertReceived(_)) {
            return Err(Over);
        }
        self.begin_to_leave();
        Ok(())
    }

    fn begin_to_leave(&mut self) {
        let _ = self.client.shutdown(Shutdown::Write);
        // Its slot is free at once.
        self.server = None;
        self.stage = Stage::Leaving(LEAVE_MAX_BYTES);
        self.due = Some(Deadline::after(LEAVE_MAX));
    }

    /// Reads and drops what still comes, so that a reset does not destroy the answer.
    fn drop_rest(&mut self, left: usize) -> Result<bool, Over> {
        let mut buffer = [0; 4096];
        match recv(&self.client, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Err(Over),
            Ok((_, count)) => {
                self.stage = Stage::Leaving(left.checked_sub(count).ok_or(Over)?);
                Ok(true)
            }
            Err(Errno::INTR) => Ok(true),
            Err(Errno::AGAIN) => {
                self.client_ready.read = false;
                Ok(false)
            }
            Err(_) => Err(Over),
        }
    }

    /// Gives decrypted bytes to the server. If the server takes none any more, they are dropped.
    fn deliver(&mut self) -> bool {
        let Some(server) = &self.server else { return false };
        let mut has_moved = false;
        while self.decrypted > 0 && (self.server_ready.write || self.server_is_gone) {
            let mut reader = self.tls.reader();
            let Ok(bytes) = reader.fill_buf() else { break };
            let count = match Socket(server, &mut self.server_ready).write(bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It reads no more.
                Err(_) => bytes.len(),
            };
            reader.consume(count);
            self.decrypted -= count;
            has_moved = true;
        }
        if self.client_ended && self.decrypted == 0 && !self.server_was_told {
            self.server_was_told = true;
            let _ = server.shutdown(Shutdown::Write);
        }
        has_moved
    }

    /// Encrypts bytes of the server, once the client has taken the last ones.
    // Not inlined: its buffer would lie on the stack during handshakes.
    #[inline(never)]
    fn collect(&mut self) -> Result<bool, Over> {
        if self.server_ended
            || !self.server_ready.read
            || self.tls.wants_write()
            || self.tls.is_handshaking()
        {
            return Ok(false);
        }
        let Some(server) = &self.server else { return Ok(false) };
        let mut buffer = [0; RECORD_BYTES];
        match Socket(server, &mut self.server_ready).read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // An error says that the server has closed without having read all.
            Ok(0) | Err(_) => {
                self.server_ended = true;
                self.tls.send_close_notify();
            }
            Ok(count) => self.tls.writer().write_all(&buffer[..count]).map_err(|_| Over)?,
        }
        Ok(true)
    }
}

impl Ready {
    fn note(&mut self, now: Readiness) {
        self.read |= now.read;
        self.write |= now.write;
    }
}

/// A socket whose reads and writes never wait, and which notes that it would block.
struct Socket<'a>(&'a TcpStream, &'a mut Ready);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.1.read = false;
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                outcome => return Ok(outcome?.0),
            }
        }
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match sendmsg(self.0, parts, &mut SendAncillaryBuffer::default(), SEND) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.1.write = false;
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                outcome => return Ok(outcome?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
