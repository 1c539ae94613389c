//! One client's connection: heads, bodies and answers in turn, each within its time.

use std::io::{self, BufRead, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Deadline;
use crate::config::Limits;
use crate::http::body::{BodyDecoder, BodyFault};
use crate::http::buffer::Buffer;
use crate::http::head::request::{self, RequestReader};
use crate::http::message::{BodyLength, RequestHead, Version};
use crate::http::refusal::{Code, Refusal};
use crate::http::websocket;
use crate::ingress::counted::{Output, Patient};
use crate::ingress::guest::Guest;
use crate::ingress::live::{ByteCounter, LiveConnection};
use crate::ingress::other_protocol;
use crate::ingress::service::{After, Request, Service};
use crate::ingress::switch::Switch;
use crate::ingress::tunnels::Tunnel;
use crate::spare::BUFFER_BYTES;

/// The most bytes of an unread body that are read and dropped to keep the connection.
pub(crate) const DRAIN_MAX_BYTES: usize = 64 * 1024;
/// How long that may take.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// How much, and how long, is read from a client that is being closed, so that its system does not
/// throw the answer away because of bytes that nobody took. Meanwhile it gives way to others.
pub(super) const LINGER_MAX_BYTES: usize = 64 * 1024 * 1024;
pub(super) const LINGER_MAX: Duration = Duration::from_secs(30);
/// The longest silence in that time.
pub(super) const LINGER_SILENCE_MAX: Duration = Duration::from_secs(2);

/// The end of a connection's service.
pub enum ConnectionEnd {
    /// It is over.
    Over,
    /// The connection gave way to another before its client got an answer. Its request may have been read.
    GaveWay(Option<Box<RequestHead>>),
    /// It goes on as a WebSocket.
    Tunnel(Box<dyn Tunnel>, LiveConnection),
}

/// Serves the connection until it ends.
pub fn serve(guest: Guest, limits: &Limits, service: &dyn Service) -> ConnectionEnd {
    let Guest { stream, entry, read } = guest;
    // If an option can't be set, the connection is still served.
    let _ = stream.set_nodelay(true);
    let _ = stream.set_write_timeout(Some(limits.idle));
    entry.bytes().add_received(read.len());
    let mut input = Input::new(stream.clone(), entry.byte_counter(), read, limits.client_idle);
    loop {
        match next_request(&mut input, limits, service, &entry) {
            Then::Next => {}
            Then::Close => break,
            Then::Linger => {
                linger(&mut input, &entry);
                break;
            }
            Then::GiveWay(head) => return ConnectionEnd::GaveWay(head),
            Then::Tunnel(tunnel) => return ConnectionEnd::Tunnel(tunnel, entry),
        }
    }
    ConnectionEnd::Over
}

/// The connection's fate after a request.
enum Then {
    Next,
    Close,
    /// Close, but take what the client still sends for a moment.
    Linger,
    /// Another connection has the slot. The client of this one is still to be told.
    GiveWay(Option<Box<RequestHead>>),
    /// Go on as a WebSocket.
    Tunnel(Box<dyn Tunnel>),
}

fn next_request(
    input: &mut Input,
    limits: &Limits,
    service: &dyn Service,
    entry: &LiveConnection,
) -> Then {
    let in_head = request::begins(input.held());
    if !entry.begin_wait(in_head) || !input.wait_for_head(limits.client_idle) {
        // A kept connection may end at any time (RFC 9112 §9.5); a client that has just come expects an answer.
        let is_to_be_told = entry.gave_way() && entry.is_new();
        return if is_to_be_told { Then::GiveWay(None) } else { Then::Close };
    }
    entry.head_begins();
    let stream = input.stream.clone();
    let mut out = Output { stream: &stream, bytes: entry.bytes() };
    let mut place = None;
    if let Err(refusal) = input.read_head(limits.client_head, &mut place) {
        return refuse_head(&refusal, input, service);
    }
    let head = match &place {
        Some(head) if entry.end_wait() => head,
        _ if entry.gave_way() => return Then::GiveWay(place.map(Box::new)),
        _ => return Then::Close,
    };
    if let Some(refusal) = refusal_before_body(head, limits, entry) {
        service.refuse(&refusal, Some(head), &mut out);
        return Then::Linger;
    }
    input.silence_max = limits.client_idle;
    // After the handshake of a WebSocket comes no other request, whatever the answer.
    let mut tunnel = None;
    let switch = websocket::is_asked(&head.headers)
        .then(|| Switch::new(&stream, entry, input.take_held(), &mut tunnel));
    let mut body = ClientBody::new(input, head, limits.max_body_bytes);
    let request = Request {
        head,
        body: &mut body,
        client: Some(&stream),
        is_by_unix: entry.is_by_unix(),
        may_keep_alive: !entry.is_draining(),
        switch,
    };
    // A client of HTTP/1.0 takes the end of the connection for the end of the answer.
    let ends_answer = head.version == Version::Http10;
    if ends_answer {
        entry.begin_answer();
    }
    let after = service.serve(request, &mut out);
    if ends_answer && after != After::Abort {
        entry.end_answer();
    }
    match tunnel {
        Some(tunnel) => Then::Tunnel(tunnel),
        None => after_response(after, body),
    }
}

/// Answers what is no head. What is not even HTTP/1 could make nothing of the answer.
#[cold]
fn refuse_head(refusal: &Refusal, input: &Input, service: &dyn Service) -> Then {
    if let Some(protocol) = other_protocol::of(input.held()) {
        protocol.say(&input.stream);
    } else {
        let bytes = input.bytes.counts();
        service.refuse(refusal, None, &mut Output { stream: &input.stream, bytes });
    }
    Then::Linger
}

fn refusal_before_body(
    head: &RequestHead,
    limits: &Limits,
    entry: &LiveConnection,
) -> Option<Refusal> {
    // A client that connected before the stop could know nothing of it.
    if !entry.is_first() && entry.is_draining() {
        return Some(Refusal::new(Code::ShuttingDown, "evertoken is shutting down"));
    }
    match head.body {
        BodyLength::Sized(bytes) if bytes > limits.max_body_bytes => {
            let max = limits.max_body_bytes;
            let message = format!("The request body is over settings.max_body_bytes ({max})");
            Some(Refusal::new(Code::BodyTooLarge, message))
        }
        _ => None,
    }
}

fn after_response(after: After, mut body: ClientBody<'_>) -> Then {
    match after {
        After::Abort => Then::Close,
        // Even after a whole request more may come, if only a line end; unread, it would have the system
        // throw away what is left of the answer.
        After::Close => Then::Linger,
        After::KeepAlive if body.decoder.is_done() || body.drain() => {
            body.input.buffer.give_back();
            Then::Next
        }
        After::KeepAlive => Then::Linger,
    }
}

/// Ends our side, and takes what still comes for a moment.
fn linger(input: &mut Input, entry: &LiveConnection) {
    if input.stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    entry.begin_linger();
    let deadline = Deadline::after(LINGER_MAX);
    let mut taken = 0;
    while taken < LINGER_MAX_BYTES {
        input.consume(input.held().len());
        match input.fill(deadline.min(Deadline::after(LINGER_SILENCE_MAX))) {
            Ok(count) if count > 0 => taken += count,
            _ => return,
        }
    }
}

/// The client's socket, with bytes that were read from it and not yet used.
struct Input {
    stream: Arc<TcpStream>,
    bytes: ByteCounter,
    buffer: Buffer,
    /// The longest silence within a body.
    silence_max: Duration,
    /// The longest silence that the socket itself limits, so that a read needs no wait before it.
    socket_silence_max: Option<Duration>,
}

impl Input {
    fn new(
        stream: Arc<TcpStream>,
        bytes: ByteCounter,
        read: Vec<u8>,
        silence_max: Duration,
    ) -> Self {
        let is_set = stream.set_read_timeout(Some(silence_max)).is_ok();
        let socket_silence_max = is_set.then_some(silence_max);
        // A large body is read into its reader's own buffer.
        let buffer = Buffer::holding(read, BUFFER_BYTES);
        Self { stream, bytes, buffer, silence_max, socket_silence_max }
    }

    fn held(&self) -> &[u8] {
        self.buffer.held()
    }

    /// Takes the bytes that are held.
    // Not inlined: few requests need it.
    #[inline(never)]
    fn take_held(&mut self) -> Vec<u8> {
        let held = self.held().to_vec();
        self.consume(held.len());
        held
    }

    /// Waits until a head begins. False where none does: the client left, or was silent for too long.
    fn wait_for_head(&mut self, silence_max: Duration) -> bool {
        while !request::begins(self.held()) {
            if !self.fill_after(silence_max).is_ok_and(|count| count > 0) {
                return false;
            }
        }
        true
    }

    /// Reads a head, which has begun, to `place`. Nothing is there where the client left in the middle.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn read_head(
        &mut self,
        allowed: Duration,
        place: &mut Option<RequestHead>,
    ) -> Result<(), Refusal> {
        // Most heads are there at once, and the clock is not asked for.
        let mut deadline = None;
        let mut reader = RequestReader::default();
        loop {
            if let Some(length) = reader.read_to(self.held(), place)? {
                self.consume(length);
                return Ok(());
            }
            match self.fill(*deadline.get_or_insert_with(|| Deadline::after(allowed))) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let message =
                        "The request head did not come within settings.timeouts.client_head";
                    return Err(Refusal::new(Code::ClientTimeout, message));
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// Reads more after what is held; 0 at the end. `TimedOut` once the deadline has passed.
    fn fill(&mut self, deadline: Deadline) -> io::Result<usize> {
        wait_readable(&self.stream, deadline)?;
        self.fill_now()
    }

    /// The same with a limit for silence.
    fn fill_after(&mut self, silence_max: Duration) -> io::Result<usize> {
        self.await_bytes(silence_max)?;
        self.fill_now()
    }

    /// Waits for bytes, unless the socket itself limits the silence.
    fn await_bytes(&self, silence_max: Duration) -> io::Result<()> {
        if self.socket_silence_max == Some(silence_max) {
            return Ok(());
        }
        wait_readable(&self.stream, Deadline::after(silence_max))
    }

    fn fill_now(&mut self) -> io::Result<usize> {
        let Self { stream, bytes, buffer, .. } = self;
        buffer.fill(&mut Patient { stream, bytes: bytes.counts() })
    }
}

fn wait_readable(stream: &TcpStream, deadline: Deadline) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::IN)];
        let left = Timespec::try_from(deadline.left()).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn body_fault(error: &io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::TimedOut => BodyFault::Timeout.into_io(),
        _ => BodyFault::Gone.into_io(),
    }
}

/// For the body: held bytes first, then the socket, with a limit for each silence.
impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.held().is_empty() {
            self.fill_after(self.silence_max).map_err(|error| body_fault(&error))?;
        }
        Ok(self.held())
    }

    fn consume(&mut self, count: usize) {
        self.buffer.consume(count);
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.held().is_empty() && buffer.len() >= BUFFER_BYTES {
            // A large piece need not pass through our own buffer.
            let outcome = self.await_bytes(self.silence_max);
            let outcome = outcome.and_then(|()| {
                Patient { stream: &self.stream, bytes: self.bytes.counts() }.read(buffer)
            });
            return outcome.map_err(|error| body_fault(&error));
        }
        let held = self.fill_buf()?;
        let count = held.len().min(buffer.len());
        buffer[..count].copy_from_slice(&held[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// A request's body; the first read answers an `Expect: 100-continue` (RFC 9110 §10.1.1).
struct ClientBody<'a> {
    input: &'a mut Input,
    decoder: BodyDecoder,
    continue_due: bool,
}

impl<'a> ClientBody<'a> {
    fn new(input: &'a mut Input, head: &RequestHead, max_bytes: u64) -> Self {
        let decoder = BodyDecoder::new(head.body, max_bytes);
        let continue_due = head.version == Version::Http11
            && head.headers.contains("expect")
            && !decoder.is_done();
        if decoder.is_done() {
            input.buffer.give_back();
        }
        Self { input, decoder, continue_due }
    }

    /// Reads and drops a small rest, so that the next request can be found; whether that worked.
    // Not inlined: in its caller, its buffer would lie on the stack for the life of a stream.
    #[inline(never)]
    fn drain(&mut self) -> bool {
        if self.continue_due {
            // The client may or may not send the body, so the start of its next request is unknown.
            return false;
        }
        self.input.silence_max = self.input.silence_max.min(DRAIN_MAX);
        let deadline = Deadline::after(DRAIN_MAX);
        let mut buffer = [0; 4096];
        let mut drained = 0;
        while !self.decoder.is_done() && drained < DRAIN_MAX_BYTES && !deadline.has_passed() {
            match self.decoder.read(self.input, &mut buffer) {
                Ok(count) => drained += count,
                Err(_) => return false,
            }
        }
        self.decoder.is_done()
    }
}

impl Read for ClientBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.continue_due {
            self.continue_due = false;
            if self.input.held().is_empty() {
                let stream = &self.input.stream;
                let mut out = Output { stream, bytes: self.input.bytes.counts() };
                out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                    .map_err(|_| BodyFault::Gone.into_io())?;
            }
        }
        let count = self.decoder.read(self.input, buffer)?;
        if self.decoder.is_done() {
            self.input.buffer.give_back();
        }
        Ok(count)
    }
}
