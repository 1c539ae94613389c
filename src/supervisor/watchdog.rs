//! A thread that reports life as long as each of evertoken's own addresses answers.
//!
//! It asks `/-/healthy` like any client, so the accept loop, the pool and a worker answer, or the refusal if every
//! slot is taken. A thread that only reported its own life would keep reporting while all of these hang.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use log::warn;

use crate::bound::Bound;
use crate::clock::Deadline;
use crate::shortage::Shortage;
use crate::supervisor::{Stage, Supervisor};
use crate::thread::{self, Thread};
use crate::tls::{self, OwnCertificate};

/// The thread's stack.
const STACK_BYTES: usize = 128 * 1024;
/// The wait before the next question after one without an answer.
const RETRY_WAIT: Duration = Duration::from_millis(250);
/// The question. Any HTTP answer will do.
const QUESTION: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// The beginning of an answer.
const ANSWER_START: &[u8] = b"HTTP/1.";

/// The running thread; dropping this ends it.
pub(crate) struct Watchdog {
    is_draining: Arc<AtomicBool>,
    // In this order, because the thread ends once the inbox is closed.
    _inbox: Sender<()>,
    _thread: Thread,
}

impl Watchdog {
    /// Starts telling `supervisor`, twice in each `period`, as long as all addresses of `own` answer, some of them
    /// perhaps with its certificate; `status` makes the line for it.
    pub(crate) fn start(
        supervisor: Supervisor,
        period: Duration,
        own: (Vec<Bound>, Option<Arc<OwnCertificate>>),
        status: impl Fn() -> String + Send + 'static,
    ) -> io::Result<Self> {
        let is_draining = Arc::new(AtomicBool::new(false));
        let (inbox, stopped) = bounded(0);
        let of_thread = is_draining.clone();
        let run = move || {
            // A question may take a quarter of the period, so that a sign of life comes after three quarters at the
            // latest.
            let (every, allowed) = (period / 2, period / 4);
            let alive = || {
                let deadline = Deadline::after(allowed);
                let (bound, certificate) = &own;
                let answers = |address| is_answered(address, certificate.as_deref(), deadline);
                of_thread.load(Ordering::Relaxed) || bound.iter().all(answers)
            };
            beat(&stopped, every, alive, || supervisor.tell(&Stage::Alive(status())));
        };
        let thread = thread::spawn("watchdog", STACK_BYTES, run)?;
        Ok(Self { is_draining, _inbox: inbox, _thread: thread })
    }

    /// From here on the port is closed and requests in flight are finished within a limit, which counts as being
    /// alive.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }
}

/// Calls `tell` every `every` while `alive` holds, until `stopped` is closed.
fn beat(stopped: &Receiver<()>, every: Duration, mut alive: impl FnMut() -> bool, tell: impl Fn()) {
    let mut wait = every;
    while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        wait = if alive() {
            tell();
            every
        } else {
            RETRY_WAIT.min(every)
        };
    }
}

/// True if HTTP comes back from `address` by `deadline`.
fn is_answered(address: &Bound, certificate: Option<&OwnCertificate>, deadline: Deadline) -> bool {
    match ask(address, certificate, deadline) {
        Ok(()) => true,
        // Without a descriptor nothing can be asked; the accept loop survives that, and so does this.
        Err(error) if Shortage::of(&error).is_some() => true,
        Err(error) => {
            warn!("Our own address {address} does not answer the watchdog: {error}");
            false
        }
    }
}

fn ask(
    address: &Bound,
    certificate: Option<&OwnCertificate>,
    deadline: Deadline,
) -> io::Result<()> {
    // The standard library rejects a timeout of zero.
    let left = deadline.left().max(Duration::from_millis(1));
    let mut stream = address.connect(left)?;
    stream.set_write_timeout(Some(left))?;
    stream.set_read_timeout(Some(left))?;
    match (address, certificate) {
        (Bound::Tls(_), Some(certificate)) => {
            tls::ask(&mut stream, certificate.client(), |stream| talk(stream, deadline))
        }
        _ => talk(&mut stream, deadline),
    }
}

fn talk(stream: &mut dyn tls::ReadWrite, deadline: Deadline) -> io::Result<()> {
    stream.write_all(QUESTION)?;
    let mut answer = [0; ANSWER_START.len()];
    let mut count = 0;
    while count < answer.len() {
        if deadline.has_passed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut answer[count..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => count += more,
        }
    }
    if answer == ANSWER_START { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_word_is_given_while_alive_and_again_at_once_after_a_lapse() {
        let (inbox, stopped) = bounded::<()>(0);
        let mut inbox = Some(inbox);
        let mut answers = [true, false, false, true].into_iter();
        let told = std::cell::Cell::new(0);
        let alive = || {
            let answer = answers.next();
            if answer.is_none() {
                inbox = None;
            }
            answer.unwrap_or(false)
        };
        beat(&stopped, Duration::from_millis(1), alive, || told.set(told.get() + 1));
        assert_eq!(told.get(), 2);
    }

    #[test]
    fn what_counts_as_an_answer() {
        const ALLOWED: Duration = Duration::from_secs(10);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Bound::Tcp(listener.local_addr().unwrap());
        let allowed = || Deadline::after(ALLOWED);
        for (sent, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", true),
            ("SSH-2.0-x\r\n", false),
            ("", false),
        ] {
            let of_thread = listener.try_clone().unwrap();
            let answer = move || {
                let (mut stream, _) = of_thread.accept().unwrap();
                let mut question = [0; QUESTION.len()];
                stream.read_exact(&mut question).unwrap();
                stream.write_all(sent.as_bytes()).unwrap();
            };
            let _peer = thread::spawn("peer", 64 * 1024, answer).unwrap();
            assert_eq!(is_answered(&address, None, allowed()), expected, "{sent}");
        }
        // The peer accepts the connection and sends nothing.
        assert!(!is_answered(&address, None, Deadline::after(Duration::from_millis(1))));
        drop(listener);
        assert!(!is_answered(&address, None, allowed()));
    }
}
