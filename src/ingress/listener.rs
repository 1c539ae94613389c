//! The accept loop, which no accept error ends, and the server made of it and the worker pool.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded};
use log::{debug, warn};
use rustix::event::PollFlags;
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::clock::{Deadline, Stopwatch};
use crate::config::Limits;
use crate::ingress::door::{self, DoorHandle};
use crate::ingress::guest::{Guest, Offer};
use crate::ingress::hosting::{Hosting, Word};
use crate::ingress::live::Live;
use crate::ingress::pool::{Pool, WORKER_IDLE_MAX};
use crate::ingress::service::Service;
use crate::liveness::{Peer, has_event, watch_peer};
use crate::thread::{self, Thread};

/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 1024;
/// The wait before the next accept when the system has no resources left.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(50);
/// The time between two log lines about that.
const EXHAUSTED_SAID_EVERY: Duration = Duration::from_secs(10);
/// The stack of the accepting thread.
const STACK_BYTES: usize = 128 * 1024;

/// The time for a begun handshake to finish when the listening socket closes.
const HANDSHAKE_MAX: Duration = Duration::from_millis(50);
/// The longest time for accepting the queue then, and the time between two looks at it.
const QUEUE_MAX: Duration = Duration::from_secs(1);
const QUEUE_LOOK_EVERY: Duration = Duration::from_millis(1);

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

/// Binds `host`, a name or an address, and listens.
pub fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match bind_address(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_address(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit the options on Linux.
    socket.set_tcp_nodelay(true)?;
    watch_peer(&socket, Peer::at(address.ip()));
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Our own server: an accepting thread, and a worker for each connection.
pub struct BuiltinServer {
    listener: Arc<TcpListener>,
    live: Arc<Live>,
    stopping: Option<Sender<()>>,
    accepting: Option<Thread>,
    /// Ends after it: the accepting thread talks to it.
    door: Option<DoorHandle>,
}

impl BuiltinServer {
    /// Starts to accept.
    pub fn start(
        listener: TcpListener,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> io::Result<Self> {
        let has_remote_clients = Peer::at(listener.local_addr()?.ip()) == Peer::Remote;
        let listener = Arc::new(listener);
        let live = Arc::new(Live::default());
        let (stopping, stopped) = bounded(0);
        let pool = Pool::new(limits.max_connections, WORKER_IDLE_MAX);
        let (hosting, door) = door::start(Arc::new(limits), service, live.clone(), pool.clone())?;
        let acceptor = Acceptor {
            listener: listener.clone(),
            pool,
            live: live.clone(),
            hosting,
            stopped,
            has_remote_clients,
            last_said: None,
        };
        let accepting = thread::spawn("accept", STACK_BYTES, move || acceptor.run())?;
        Ok(Self {
            listener,
            live,
            stopping: Some(stopping),
            accepting: Some(accepting),
            door: Some(door),
        })
    }

    /// Stops: see [`crate::ingress::Server::stop`].
    pub fn stop(mut self, grace: Duration) -> usize {
        self.take_who_connects();
        self.close_listener();
        // The last accepted connection is among the live ones then.
        self.accepting = None;
        let cut_off = self.live.drain(grace);
        self.door = None;
        cut_off
    }

    /// Lets in no new connection, but takes those that are connecting: closing the socket would reset them, together
    /// with requests that they may have sent.
    fn take_who_connects(&self) {
        if let Err(error) = SockRef::from(&*self.listener).attach_filter(&NO_NEWCOMERS) {
            debug!("Connections that are made at this moment may be cut off: {error}");
        }
        // Only the timers' ends matter: the accepting thread works meanwhile.
        let _ = after(HANDSHAKE_MAX).recv();
        let deadline = Deadline::after(QUEUE_MAX);
        while has_event(&*self.listener, PollFlags::IN) && !deadline.has_passed() {
            let _ = after(QUEUE_LOOK_EVERY).recv();
        }
    }

    fn close_listener(&mut self) {
        self.stopping = None;
        // On Linux this wakes a thread that is accepting.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
    }
}

impl Drop for BuiltinServer {
    fn drop(&mut self) {
        self.close_listener();
    }
}

struct Acceptor {
    listener: Arc<TcpListener>,
    pool: Pool,
    live: Arc<Live>,
    hosting: Hosting,
    /// Disconnected once a stop was asked for.
    stopped: Receiver<()>,
    /// True if other machines reach the address.
    has_remote_clients: bool,
    last_said: Option<Stopwatch>,
}

impl Acceptor {
    fn run(mut self) {
        // It starts the workers, which are as it is then.
        if let Err(error) = thread::wait_for_turn() {
            debug!("Threads are scheduled as they come: {error}");
        }
        loop {
            match self.listener.accept() {
                Ok((stream, from)) => self.hand_over(stream, from.ip()),
                Err(_) if self.is_stopped() => return,
                Err(error) => self.survive(&error),
            }
        }
    }

    fn is_stopped(&self) -> bool {
        matches!(self.stopped.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    }

    fn hand_over(&mut self, stream: TcpStream, from: IpAddr) {
        // It inherited what clients across a network need.
        if self.has_remote_clients && Peer::at(from) == Peer::Local {
            watch_peer(&SockRef::from(&stream), Peer::Local);
        }
        let stream = Arc::new(stream);
        let entry = self.live.enter(stream.clone(), from);
        let door = &self.hosting.door;
        if !entry.has_share(self.hosting.limits.max_connections_per_address) {
            let why = "All settings.max_connections_per_address are in use";
            return door.say(Word::Refused(stream, why));
        }
        let offer = Offer::of(Guest { stream, entry, read: Vec::new() });
        let Err(error) = self.pool.run(self.hosting.job(offer.clone())) else { return };
        let Some(guest) = offer.take() else { return };
        if error.kind() == io::ErrorKind::WouldBlock {
            return door.say(Word::Guest(guest));
        }
        let why = "There is no worker thread for this connection";
        door.say(Word::Refused(guest.stream, why));
        self.say(&format!("No worker thread can be made: {error}"));
    }

    /// An accept error concerns one connection, or passes: descriptors, memory.
    fn survive(&mut self, error: &io::Error) {
        let of_the_connection = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
        );
        if !of_the_connection {
            self.say(&format!("No connection can be accepted: {error}; trying again"));
            self.live.give_way();
            self.hosting.door.say(Word::Shed);
            let _ = self.stopped.recv_timeout(EXHAUSTED_WAIT);
        }
    }

    fn say(&mut self, what: &str) {
        if self.last_said.is_none_or(|last| last.elapsed() >= EXHAUSTED_SAID_EVERY) {
            self.last_said = Some(Stopwatch::start());
            warn!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::tests::set_on;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn accepted_connections_notice_that_their_client_is_gone() {
        for (host, limit) in [("127.0.0.1", None), ("0.0.0.0", Some(LIMIT))] {
            let listener = bind(host, 0).unwrap();
            let port = listener.local_addr().unwrap().port();
            let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let accepted = listener.accept().unwrap().0;
            assert_eq!(set_on(&SockRef::from(&accepted)), (true, [30, 10, 3], limit), "{host}");
        }
    }
}
