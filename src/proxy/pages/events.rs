//! `/-/events`: the status as server-sent events, to whoever watches it.
//!
//! A watcher takes the thread of its connection. It looks at the status twice a second, and tells what
//! changed; with nobody watching nothing runs. Watchers are few, and never more than half of all
//! connections. They are sent away when the configuration is replaced or the proxy stops.

use std::fmt::Write;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::Stopwatch;
use crate::ingress::Request;
use crate::message::{Headers, ResponseHead};
use crate::proxy::exchange::{Proxy, Stop};
use crate::proxy::pages::{needs, status};
use crate::proxy::reply::Reply;
use crate::refusal::{Code, Refusal};
use crate::report::Report;
use crate::upstream::AnswerLength;

/// Streams of events at a time.
pub const EVENT_STREAMS_MAX: usize = 16;
/// How often the status is looked at for a watcher.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest silence, so that what lies between does not take the connection for dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long a watcher may leave an event untaken.
const UNTAKEN_MAX: Duration = Duration::from_secs(5);
/// When a watcher that was sent away may come again, in milliseconds.
const COME_AGAIN_MS: u32 = 1000;

/// Who watches the status, as far as they must be counted and sent away.
#[derive(Debug)]
pub struct Watchers {
    state: Mutex<State>,
    dismissed: Receiver<()>,
    most: usize,
}

#[derive(Debug)]
struct State {
    open: usize,
    /// Dropped to send all of them away.
    hold: Option<Sender<()>>,
}

/// The place of one watcher, free again once this is dropped.
#[derive(Debug)]
struct Place<'a>(&'a Watchers);

impl Watchers {
    /// Nobody yet. There will be [`EVENT_STREAMS_MAX`] at most, and half of `max_connections`.
    pub fn new(max_connections: usize) -> Self {
        let (hold, dismissed) = bounded(0);
        let state = Mutex::new(State { open: 0, hold: Some(hold) });
        Self { state, dismissed, most: EVENT_STREAMS_MAX.min(max_connections / 2) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A number and a flag: there is nothing half done to fear.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all of them away, and those that come later.
    pub fn dismiss(&self) {
        self.state().hold = None;
    }

    fn enter(&self) -> Result<Place<'_>, Refusal> {
        let mut state = self.state();
        if state.open >= self.most {
            let message = format!("{} watch the status already, which is the most", state.open);
            return Err(Refusal::new(Code::Overloaded, message).retry_in(SILENCE_MAX));
        }
        state.open += 1;
        Ok(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

/// Sends events until the client leaves or is sent away.
pub(in crate::proxy) fn stream(
    proxy: &Proxy,
    request: &Request<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Stop> {
    needs(&request.head.method, &["GET", "HEAD"])?;
    let mut headers = Headers::new();
    headers.push("content-type", "text/event-stream");
    headers.push("cache-control", "no-store");
    headers.push("x-content-type-options", "nosniff");
    headers.push("date", proxy.date());
    reply.close_after();
    let head = ResponseHead { status: 200, headers };
    if request.head.method == "HEAD" {
        reply.begin(&head, AnswerLength::Absent);
        return Ok(());
    }
    let _place = proxy.watchers.enter()?;
    if let Some(client) = request.client {
        // Where it can't be set, the longer one of the connection holds.
        let _ = client.set_write_timeout(Some(UNTAKEN_MAX));
    }
    reply.begin(&head, AnswerLength::Unknown);
    let mut told: Option<Report> = None;
    let mut silence = Stopwatch::start();
    loop {
        let report = status::report(proxy);
        let piece = match &told {
            None => Some(format!("retry: {COME_AGAIN_MS}\n{}", event(&report))),
            Some(last) if *last != report.at_rest() => Some(event(&report)),
            Some(_) if silence.elapsed() >= SILENCE_MAX => Some(":\n\n".to_owned()),
            Some(_) => None,
        };
        if let Some(piece) = piece {
            reply.piece(piece.as_bytes()).map_err(|_| Stop::ClientGone)?;
            told = Some(report.at_rest());
            silence = Stopwatch::start();
        }
        if proxy.watchers.dismissed.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected)
        {
            return Ok(());
        }
        if request.client.is_some_and(|client| has_left(client)) {
            return Err(Stop::ClientGone);
        }
    }
}

/// JSON has no line ends of its own, so that one `data` field holds it.
fn event(report: &Report) -> String {
    let mut text = String::from("event: status\ndata: ");
    // Texts, numbers and lists of them: there is nothing that JSON can't hold.
    let json = serde_json::to_string(report).unwrap_or_default();
    let _ = write!(text, "{json}\n\n");
    text
}

/// Whether the client has ended its side.
fn has_left(client: &TcpStream) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::TryRecvError;

    use super::*;

    #[test]
    fn watchers_are_few_and_leave_connections_to_others() {
        let watchers = Watchers::new(2 * EVENT_STREAMS_MAX + 2);
        let mut places: Vec<_> =
            (0..EVENT_STREAMS_MAX).map(|_| watchers.enter().unwrap()).collect();
        assert_eq!(watchers.enter().unwrap_err().code, Code::Overloaded);
        places.pop();
        assert!(watchers.enter().is_ok());
        let few = Watchers::new(5);
        let _two = (few.enter().unwrap(), few.enter().unwrap());
        assert!(few.enter().is_err());
        assert!(Watchers::new(1).enter().is_err());
        assert_eq!(watchers.dismissed.try_recv(), Err(TryRecvError::Empty));
        watchers.dismiss();
        assert_eq!(watchers.dismissed.try_recv(), Err(TryRecvError::Disconnected));
    }
}
