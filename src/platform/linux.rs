//! Linux's own calls.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFlags, Timespec, eventfd};
use rustix::fs::{Mode, fchmod, major, minor};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_incoming_cpu, socket_peercred};
use rustix::net::{AddressFamily, SendFlags};
use rustix::thread::sched_getcpu;
use socket2::{SockAddr, SockFilter, Socket};

use crate::platform::values::{Interest, PeerProcess, Readiness};

/// The flags of a write that never waits, and of which no signal comes.
pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// The event to poll for in order to see a socket's other end leave, whatever it has sent; see [`has_left`].
pub(crate) const DEPARTURE: PollFlags = PollFlags::RDHUP;

/// The same for a socket of which bytes wait to be read.
pub(crate) const DEPARTURE_BEHIND_BYTES: PollFlags = PollFlags::RDHUP;

/// True if a shutdown of a listening socket ends a wait for connections.
pub(crate) const SHUTDOWN_ENDS_ACCEPT: bool = true;

/// True if `events`, which were polled for with [`DEPARTURE`], say that the socket's other end has left.
pub(crate) fn has_left(_socket: impl AsFd, events: PollFlags) -> bool {
    events.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

/// Waits for many sockets at once (epoll(7)).
#[derive(Debug)]
pub(crate) struct Poller(OwnedFd);

/// The events of a wait.
pub(crate) struct Events(Vec<Event>);

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Tells about `socket` as `id` from now on. Fails for one that is there already.
    pub(crate) fn add(
        &self,
        socket: &Arc<impl AsFd>,
        id: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(id), flags(interest))?)
    }

    /// Tells something else about `socket`. Fails for one that is not there.
    pub(crate) fn change(
        &self,
        socket: &Arc<impl AsFd>,
        id: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.0, socket, EventData::new_u64(id), flags(interest))?)
    }

    /// Tells no more about `socket`, whose descriptor may live on elsewhere.
    pub(crate) fn remove(&self, socket: &Arc<impl AsFd>) {
        let _ = epoll::delete(&self.0, socket);
    }

    /// Says that a call on the socket of `id`, which was added for [`Interest::Changes`], would have waited. Linux
    /// knows.
    #[inline]
    #[expect(clippy::unused_self, reason = "other systems have to be told")]
    pub(crate) fn would_wait(&self, _id: u64, _to_read: bool, _to_write: bool) {}

    /// Waits for events, at most for `limit`. A signal is an end without any.
    pub(crate) fn wait(&self, events: &mut Events, limit: Option<Duration>) -> io::Result<()> {
        events.0.clear();
        // A limit too long for the system is none.
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        match epoll::wait(&self.0, spare_capacity(&mut events.0), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Read => EventFlags::IN,
        Interest::Write => EventFlags::OUT,
        Interest::Both => EventFlags::IN | EventFlags::OUT,
        Interest::Changes => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET,
        // One that has already left is told at once.
        Interest::Departure => EventFlags::RDHUP | EventFlags::ONESHOT,
        // It is told unasked.
        Interest::End => EventFlags::ONESHOT,
    }
}

impl Events {
    /// Room for the events that are handled in one turn.
    pub(crate) fn with_capacity(max: usize) -> Self {
        Self(Vec::with_capacity(max))
    }

    /// The ids of sockets, with what can be done.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Readiness)> {
        self.0.iter().map(|event| (event.data.u64(), readiness(event.flags)))
    }
}

fn readiness(flags: EventFlags) -> Readiness {
    let ends = EventFlags::HUP | EventFlags::ERR;
    Readiness {
        read: flags.intersects(EventFlags::IN | EventFlags::RDHUP | ends),
        write: flags.intersects(EventFlags::OUT | EventFlags::RDHUP | ends),
        has_ended: flags.intersects(ends),
    }
}

/// A descriptor that becomes readable when it is rung (eventfd(2)).
#[derive(Debug)]
pub(crate) struct Wake(OwnedFd);

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Makes it readable.
    pub(crate) fn ring(&self) {
        // If the counter is full, it is readable anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable until it is rung again.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The processor that received the last packet (`SO_INCOMING_CPU`, socket(7)).
pub(crate) fn incoming_processor(socket: &TcpStream) -> usize {
    // Any processor will do if the system does not tell.
    let processor = socket_incoming_cpu(socket).unwrap_or_default();
    usize::try_from(processor).unwrap_or_default()
}

/// The processor of this thread.
pub(crate) fn current_processor() -> usize {
    sched_getcpu()
}

/// A filter (classic BPF) for the listening socket: a segment that begins a connection (SYN without ACK,
/// RFC 9293 §3.1) is dropped, all else passes. Its sender tries again after a second, and is refused then.
const NO_NEWCOMERS: [SockFilter; 5] = [
    // A = the byte with the flags.
    SockFilter::new(0x30, 0, 0, 13),
    // A &= SYN | ACK.
    SockFilter::new(0x54, 0, 0, 0x12),
    // SYN alone: to the last line.
    SockFilter::new(0x15, 1, 0, 0x02),
    SockFilter::new(0x06, 0, 0, u32::MAX),
    SockFilter::new(0x06, 0, 0, 0),
];

/// Lets no connection begin at a listening socket any more; those that have begun go on.
pub(crate) fn let_in_no_newcomers(socket: &Socket) -> io::Result<()> {
    socket.attach_filter(&NO_NEWCOMERS)
}

/// Prepares a socket of our own, which listens, for [`accept`].
#[expect(clippy::unnecessary_wraps, reason = "other systems have something to do that may fail")]
pub(crate) fn prepare_to_accept(_socket: &Socket) -> io::Result<()> {
    Ok(())
}

/// Waits for a connection.
pub(crate) fn accept(socket: &Socket) -> io::Result<(Socket, SockAddr)> {
    socket.accept()
}

/// True for a socket that listens.
pub(crate) fn is_listener(socket: &Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// Gives the file of a unix socket this mode, less the umask, from its first moment on.
pub(crate) fn set_mode_before_bind(socket: &Socket, mode: u32) -> io::Result<()> {
    Ok(fchmod(socket, Mode::from_raw_mode(mode))?)
}

/// Sets the longest time that sent data may stay unacknowledged (`TCP_USER_TIMEOUT`, tcp(7)); None for the system's.
pub(crate) fn limit_unacknowledged(socket: &Socket, limit: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_user_timeout(limit)
}

/// The files about processes (proc(5)); None where there are none.
pub(crate) const PROCESSES: Option<&str> = Some("/proc");

/// The process's name for itself; None if there is no such process, or it is not visible.
pub(crate) fn process_name(process: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{process}/comm")).ok()
}

/// The process at the other end of `socket` (`SO_PEERCRED`, unix(7)); None if it is no unix socket, or the system does
/// not show the process, such as that of another container.
pub(crate) fn peer_process(socket: impl AsFd) -> Option<PeerProcess> {
    let socket = socket.as_fd();
    if socket_domain(socket) != Ok(AddressFamily::UNIX) {
        return None;
    }
    // A process that is not visible has the id 0, which rustix takes for an error.
    let found = socket_peercred(socket).ok()?;
    let id = u32::try_from(found.pid.as_raw_pid()).ok()?;
    Some(PeerProcess { id, user: found.uid.as_raw() })
}

/// The numbers of a file's device, as Linux's list of locks has them.
pub(crate) fn device_numbers(device: u64) -> (u32, u32) {
    (major(device), minor(device))
}
