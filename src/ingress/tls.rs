//! Ends TLS before the server: a few threads carry the bytes of all clients' TLS connections to and from socket pairs,
//! whose other ends are served as connections without TLS are, from the end of the handshake on.
//!
//! So the rest of the server knows nothing of TLS, a connection takes no thread more, and a handshake that does not come
//! takes no slot.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::clock::{Clock, Deadline};
use crate::ingress::reception::Reception;
use crate::ingress::tally::ConnectionTally;
use crate::platform::{Interest, Poller, Wake};
use crate::thread::{self, Thread};
use crate::tls::OwnCertificate;

mod carrier;
mod session;

use carrier::{Carrier, Client, HandshakeCount, TlsSetup, WAKE_ID, Word};

/// The most threads: encryption of one connection after the other takes less than one processor mostly.
const THREADS_MAX: usize = 4;
const STACK_BYTES: usize = 256 * 1024;
/// Connections that were accepted and that a thread has not seen yet.
const UNSEEN_MAX: usize = 256;
/// The time between two looks at the files of the certificate.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The least time for answers to leave once the server has stopped.
const STOP_MIN: Duration = Duration::from_millis(500);

/// The running threads. Dropping this ends them once the last bytes are out, which may take [`STOP_MIN`].
pub(super) struct TlsServer {
    next: AtomicUsize,
    /// The number of connections that shake hands.
    handshakes: Arc<AtomicUsize>,
    threads: Vec<TlsThread>,
    /// Ends the thread that looks at the files of the certificate, which is not waited for: a disk may not answer.
    _looking: Sender<()>,
}

/// One thread, and the way to it.
struct TlsThread {
    words: Sender<Word>,
    wake: Arc<Wake>,
    _thread: Thread,
}

impl TlsServer {
    /// Starts the threads, for so many handshakes at once, each of which may take so long; beyond their number, the oldest
    /// ends. After its handshake, a connection comes to `reception`.
    pub(super) fn start(
        certificate: Arc<OwnCertificate>,
        (count_max, time_max): (usize, Duration),
        reception: &Reception,
    ) -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let reception = reception.clone();
        let thread_max = count_max.div_ceil(count);
        let setup = TlsSetup {
            certificate: certificate.clone(),
            handshake_max: time_max,
            thread_max,
            reception,
        };
        let threads = (0..count).map(|_| TlsThread::start(setup.clone()));
        let threads = threads.collect::<io::Result<_>>()?;
        let (looking, stopped) = bounded(0);
        let look = move || {
            let clock = Clock::system();
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                certificate.look(&clock);
            }
        };
        thread::spawn("certificate", STACK_BYTES, look)?.detach();
        Ok(Self {
            next: AtomicUsize::new(0),
            handshakes: Arc::default(),
            threads,
            _looking: looking,
        })
    }

    /// Takes over the connection of a client at `address`.
    pub(super) fn take(&self, stream: Arc<TcpStream>, address: IpAddr, tally: ConnectionTally) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let counted = HandshakeCount::new(&self.handshakes);
        self.threads[next].say(Word::Client(Client { stream, address, pending: (counted, tally) }));
    }

    /// Ends the threads once all that was written to clients is out, at the latest at `until`, but not before
    /// [`STOP_MIN`].
    pub(super) fn stop(&self, until: Deadline) {
        let until = Deadline::after(until.left().max(STOP_MIN));
        for thread in &self.threads {
            thread.say(Word::Stop(until));
        }
    }

    /// True if connections shake hands, or are about to.
    pub(super) fn has_handshakes(&self) -> bool {
        self.handshakes.load(Ordering::SeqCst) > 0
    }
}

impl TlsThread {
    fn start(setup: TlsSetup) -> io::Result<Self> {
        let (words, inbox) = bounded(UNSEEN_MAX);
        let wake = Arc::new(Wake::new()?);
        let poller = Poller::new()?;
        poller.add(&wake, WAKE_ID, Interest::Read)?;
        let carrier = Carrier::new(inbox, wake.clone(), poller, setup);
        let thread = thread::spawn("tls", STACK_BYTES, move || carrier.run())?;
        Ok(Self { words, wake, _thread: thread })
    }

    fn say(&self, word: Word) {
        // The thread never blocks, so there is room soon. Once it has ended, the connection just closes.
        if self.words.send(word).is_ok() {
            self.wake.ring();
        }
    }
}

impl Drop for TlsThread {
    fn drop(&mut self) {
        // After another stop, this one says nothing new.
        self.say(Word::Stop(Deadline::after(STOP_MIN)));
    }
}
