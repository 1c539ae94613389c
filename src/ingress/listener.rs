//! The accept loop, which no accept error ends, and the server made of such loops, one for each address, and the worker
//! pool.

use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded};
use log::{debug, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use socket2::{SockRef, Socket};

use crate::clock::{Deadline, Stopwatch};
use crate::config::Limits;
use crate::ingress::bind::Listener;
use crate::ingress::door::{self, DoorHandle, Outside};
use crate::ingress::hosting::Word;
use crate::ingress::live::Live;
use crate::ingress::pool::{Pool, WORKER_IDLE_MAX};
use crate::ingress::reception::Reception;
use crate::ingress::service::Service;
use crate::ingress::tally::ListenerTally;
use crate::ingress::tls::TlsServer;
use crate::liveness::{Peer, has_event, watch_peer};
use crate::platform::{self, Wake};
use crate::thread::{self, Thread};

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

/// The longest time for TLS handshakes to end when a stop was asked for.
const HANDSHAKES_MAX: Duration = Duration::from_secs(1);

/// Our own server: an accepting thread for each address, and a worker for each connection.
pub struct BuiltinServer {
    listening: Vec<Listening>,
    live: Arc<Live>,
    stopping: Option<Sender<()>>,
    /// Ends after the accepting threads, which talk to it.
    door: Option<DoorHandle>,
    /// Ends last, because it carries the answers of all others; None without TLS.
    tls: Option<Arc<TlsServer>>,
}

/// An address, and the thread that accepts its connections.
struct Listening {
    listener: Listener,
    socket: Arc<Socket>,
    /// Ends the wait of the thread if the service manager has the socket too, since to shut it down would end it for all, or
    /// if a shutdown does not end it.
    wake: Option<Arc<Wake>>,
    _accepting: Thread,
}

impl BuiltinServer {
    /// Starts to accept.
    pub fn start(
        listeners: Vec<Listener>,
        live: Arc<Live>,
        limits: Limits,
        service: Arc<dyn Service>,
    ) -> io::Result<Self> {
        let (stopping, stopped) = bounded(0);
        let pool = Pool::new(limits.max_connections, WORKER_IDLE_MAX);
        let handshake_max = limits.client_head;
        let tls = listeners.iter().find_map(|one| one.tls.clone());
        let outside = Outside::now(limits.max_connections, tls.is_some());
        let (hosting, door) =
            door::start(Arc::new(limits), outside, service, live.clone(), pool.clone())?;
        let reception = Reception { pool, live: live.clone(), hosting };
        let handshakes = (outside.handshakes, handshake_max);
        let tls = tls.map(|certificate| TlsServer::start(certificate, handshakes, &reception));
        let tls = tls.transpose()?.map(Arc::new);
        // Made first, so that an error below ends the threads that were started.
        let mut server = Self {
            listening: Vec::new(),
            live,
            stopping: Some(stopping),
            door: Some(door),
            tls: tls.clone(),
        };
        for listener in listeners {
            let socket = listener.socket.clone();
            let is_polled = listener.outlives_us() || !platform::SHUTDOWN_ENDS_ACCEPT;
            let wake = is_polled.then(Wake::new).transpose()?.map(Arc::new);
            if listener.outlives_us() {
                // Another process that has it too may be quicker to accept; to wait for the next client would outlast a
                // stop.
                socket.set_nonblocking(true)?;
            } else {
                platform::prepare_to_accept(&socket)?;
            }
            let acceptor = Acceptor {
                socket: socket.clone(),
                wake: wake.clone(),
                reception: reception.clone(),
                stopped: stopped.clone(),
                has_remote_clients: listener.has_remote_clients(),
                tls: tls.clone().filter(|_| listener.tls.is_some()),
                tally: listener.tally.clone(),
                last_said: None,
            };
            let accepting = thread::spawn("accept", STACK_BYTES, move || acceptor.run())?;
            let listening = Listening { listener, socket, wake, _accepting: accepting };
            server.listening.push(listening);
        }
        Ok(server)
    }

    /// Stops: see [`crate::ingress::Server::stop`].
    pub fn stop(mut self, grace: Duration) -> usize {
        self.take_who_connects();
        self.close();
        // The last accepted connections are among the live ones then, or shake hands.
        self.listening.clear();
        let until = Deadline::after(grace);
        let deadline = Deadline::after(grace.min(HANDSHAKES_MAX));
        let shake_hands = || self.tls.as_ref().is_some_and(|tls| tls.has_handshakes());
        while shake_hands() && !deadline.has_passed() {
            let _ = after(QUEUE_LOOK_EVERY).recv();
        }
        let cut_off = self.live.drain(grace);
        self.door = None;
        if let Some(tls) = self.tls.take() {
            tls.stop(until);
        }
        cut_off
    }

    /// Lets in no new connection, but takes those that are connecting: closing the sockets would reset them, together
    /// with requests that they may have sent. Who connects to a socket that the service manager has too waits in its queue
    /// for the next evertoken.
    fn take_who_connects(&mut self) {
        let ends = |one: &&mut Listening| !one.listener.outlives_us();
        for one in self.listening.iter_mut().filter(ends) {
            if one.listener.is_unix() {
                one.listener.remove_file();
            } else if let Err(error) = platform::let_in_no_newcomers(&one.socket) {
                debug!("Connections that are made at this moment may be cut off: {error}");
            }
        }
        // Only the timers' ends matter: the accepting threads work meanwhile.
        let _ = after(HANDSHAKE_MAX).recv();
        let deadline = Deadline::after(QUEUE_MAX);
        let someone_waits = || {
            self.listening
                .iter()
                .any(|one| !one.listener.outlives_us() && has_event(&*one.socket, PollFlags::IN))
        };
        while someone_waits() && !deadline.has_passed() {
            let _ = after(QUEUE_LOOK_EVERY).recv();
        }
    }

    fn close(&mut self) {
        self.stopping = None;
        for one in &self.listening {
            match &one.wake {
                Some(wake) => wake.ring(),
                // On Linux this wakes a thread that is accepting.
                None => _ = one.socket.shutdown(Shutdown::Both),
            }
        }
    }
}

impl Drop for BuiltinServer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Waits for a connection, or for the end of `socket`.
fn wait_for_client(socket: &Socket) -> rustix::io::Result<usize> {
    retry_on_intr(|| poll(&mut [PollFd::new(socket, PollFlags::IN)], None))
}

/// Waits for a connection, or for `wake`.
fn wait_for_either(socket: &Socket, wake: &Wake) {
    let ready = PollFlags::IN;
    let mut both = [PollFd::new(socket, ready), PollFd::new(wake, ready)];
    // After an interruption, and after any error, `accept` finds out.
    let _ = poll(&mut both, None);
}

struct Acceptor {
    socket: Arc<Socket>,
    /// See [`Listening::wake`].
    wake: Option<Arc<Wake>>,
    reception: Reception,
    /// Disconnected once a stop was asked for.
    stopped: Receiver<()>,
    /// True if other machines reach the address.
    has_remote_clients: bool,
    /// Ends TLS, if clients speak it at the address.
    tls: Option<Arc<TlsServer>>,
    tally: Arc<ListenerTally>,
    last_said: Option<Stopwatch>,
}

impl Acceptor {
    fn run(mut self) {
        loop {
            if let Some(wake) = &self.wake {
                wait_for_either(&self.socket, wake);
                if self.is_stopped() {
                    return;
                }
            }
            match platform::accept(&self.socket) {
                Ok((stream, from)) => {
                    let from = from.as_socket().map(|address| address.ip());
                    self.hand_over(stream.into(), from);
                }
                Err(_) if self.is_stopped() => return,
                Err(error) => self.survive(&error),
            }
        }
    }

    fn is_stopped(&self) -> bool {
        matches!(self.stopped.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    }

    /// `from` is None for a unix socket.
    fn hand_over(&mut self, stream: TcpStream, from: Option<IpAddr>) {
        // It inherited what clients across a network need.
        if self.has_remote_clients && from.is_some_and(|from| Peer::at(from) == Peer::Local) {
            watch_peer(&SockRef::from(&stream), Peer::Local);
        }
        let stream = Arc::new(stream);
        if let (Some(tls), Some(from)) = (&self.tls, from) {
            return tls.take(stream, from, self.tally.accept());
        }
        let tally = self.tally.accept();
        if let Err(error) = self.reception.receive(stream.clone(), stream, from, tally) {
            self.say(&format!("No worker thread can be made: {error}"));
        }
    }

    /// An accept error concerns one connection, or passes: descriptors, memory.
    fn survive(&mut self, error: &io::Error) {
        let of_the_connection = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted
                // It was gone before it could be taken.
                | io::ErrorKind::WouldBlock
        );
        if of_the_connection {
            return;
        }
        // Linux takes a descriptor before it waits for a connection, so that nobody may be there for whom another should
        // give way.
        let has_come = has_event(&*self.socket, PollFlags::IN);
        if !has_come && self.wake.is_some() {
            // The loop waits for the wake too, which alone ends it then.
            return;
        }
        if has_come || wait_for_client(&self.socket).is_err() {
            self.say(&format!("No connection can be accepted: {error}; trying again"));
            self.reception.live.give_way();
            self.reception.hosting.door.say(Word::Shed);
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
