//! A WebSocket after its 101: bytes in both directions, on the one thread that has the client's connection.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::debug;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock::{Deadline, Stopwatch};
use crate::http::buffer::{BULK_BYTES, Buffer};
use crate::http::end::End;
use crate::http::message::ResponseHead;
use crate::http::message::memory;
use crate::http::refusal::{Code, Refusal};
use crate::http::websocket::frames::going_away;
use crate::ingress::{ClientEnd, FAREWELL_MAX, Request};
use crate::platform::Wake;
use crate::proxy::attempt::Answered;
use crate::proxy::cut::Cut;
use crate::proxy::headers;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::provider::TunnelCounts;
use crate::proxy::reply::Reply;
use crate::proxy::state::Proxy;
use crate::proxy::tunnel::direction::{Direction, Lost};
use crate::shortage::Shortage;
use crate::spare;
use crate::upstream::ProviderEnd;

mod direction;

/// The longest time after both sides were told that nothing more comes, in which they still may send: their last bytes
/// are read, so that no reset destroys the ones that are on their way to them.
const LINGER_MAX: Duration = FAREWELL_MAX;
/// The silence after which a tunnel gives up its thread's buffers, since many are silent for long.
const REST_AFTER: Duration = Duration::from_secs(1);
/// The reasons in close frames.
const STOPPING: &str = "evertoken is stopping";
const SILENT: &str = "nothing came for longer than timeouts.idle allows";

/// Passes the 101 of `answered` on, and then every byte of both sides until the tunnel ends.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn carry(
    proxy: &Proxy,
    request: &mut Request<'_>,
    answered: Answered<'_>,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
    stopwatch: Stopwatch,
) -> Result<(), Stop> {
    let Answered { provider, answer, in_flight: _in_flight, .. } = answered;
    let Some(switch) = request.switch.take() else {
        return Err(Refusal::new(Code::Internal, "A request became a WebSocket unasked").into());
    };
    let client = switch.open().map_err(|error| no_tunnel(&error))?;
    begin(&answer.head, reply, record, stopwatch)?;
    let _open = provider.counts.tunnels.open();
    let Some(provider_end) = answer.into_end() else {
        return Err(Stop::UpstreamCut(Cut::BrokeOff));
    };
    let mut tunnel = Tunnel::new(client, provider_end, &provider.counts.tunnels);
    let ending = tunnel.run();
    record.received_bytes += tunnel.up.passed_bytes;
    reply.add_sent(tunnel.down.passed_bytes);
    match ending {
        Ending::Finished => Ok(()),
        Ending::Lost(Side::Client) => Err(Stop::ClientGone),
        Ending::Lost(Side::Provider) => {
            provider.counts.failed();
            proxy.metrics.upstream_error(&provider.config.name, Cut::BrokeOff.as_kind());
            Err(Stop::UpstreamCut(Cut::BrokeOff))
        }
        Ending::Silent => Err(Stop::TunnelEnded(
            "neither side sent anything for longer than timeouts.idle allows",
        )),
        Ending::Stopped => Err(Stop::TunnelEnded("evertoken stops")),
    }
}

fn no_tunnel(error: &std::io::Error) -> Stop {
    if let Some(shortage) = Shortage::of(error) {
        shortage.say("WebSockets get 503");
    }
    Refusal::new(Code::OutOfResources, format!("No WebSocket: {error}")).into()
}

fn begin(
    head: &ResponseHead,
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
    stopwatch: Stopwatch,
) -> Result<(), Stop> {
    record.first_byte = Some(stopwatch.elapsed());
    record.status = Some(head.status);
    let mut headers = head.headers.clone();
    headers::to_client(&mut headers);
    // It has no body, whatever it says.
    headers.remove("content-length");
    let head = ResponseHead { status: head.status, headers };
    reply.switch(&head).map_err(|_| Stop::ClientGone)
}

/// Both ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Provider,
}

/// The reason why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Both sides ended it.
    Finished,
    /// This side's connection broke.
    Lost(Side),
    /// Neither side sent anything for too long.
    Silent,
    /// evertoken stops.
    Stopped,
}

/// A tunnel, and what has happened to it.
struct Tunnel<'a> {
    client: Box<dyn End>,
    provider: Box<dyn End>,
    /// From the client to the provider.
    up: Direction,
    /// From the provider to the client.
    down: Direction,
    stop: Arc<Wake>,
    silence_max: Duration,
    counts: &'a TunnelCounts,
    /// The reason of the end, once there is one.
    ending: Option<Ending>,
    /// The end of the time for the last words.
    farewell: Option<Deadline>,
    /// The client's and the provider's socket have reported their end.
    has_hung_up: [bool; 2],
    /// It has given up its thread's buffers.
    is_at_rest: bool,
}

impl<'a> Tunnel<'a> {
    fn new(client: ClientEnd, provider: ProviderEnd, counts: &'a TunnelCounts) -> Self {
        Self {
            up: Direction::after(Buffer::holding(client.early, BULK_BYTES)),
            down: Direction::after(provider.early),
            client: Box::new(client.stream),
            provider: Box::new(provider.stream),
            stop: client.stop,
            silence_max: provider.silence_max,
            counts,
            ending: None,
            farewell: None,
            has_hung_up: [false; 2],
            is_at_rest: false,
        }
    }

    fn run(&mut self) -> Ending {
        let mut silent = Deadline::after(self.silence_max);
        self.pass([true, true]);
        // Those of the handshake: the next one to be opened uses their memory.
        free_memory();
        let mut may_read = [false, false];
        loop {
            if self.pass(may_read) {
                silent = Deadline::after(self.silence_max);
            }
            self.note_early_end();
            if self.up.is_over() && self.down.is_over() {
                if self.up.has_source_ended() && self.down.has_source_ended() {
                    break;
                }
                self.farewell.get_or_insert_with(|| Deadline::after(LINGER_MAX));
            }
            let deadline = self.farewell.unwrap_or(silent);
            if deadline.has_passed() {
                if self.farewell.is_some() {
                    break;
                }
                self.take_leave(Ending::Silent, SILENT);
                continue;
            }
            may_read = self.wait(deadline);
        }
        self.ending.unwrap_or(Ending::Finished)
    }

    /// Passes on what is there, in both directions; returns true if anything moved.
    fn pass(&mut self, may_read: [bool; 2]) -> bool {
        let before = (self.up.passed_bytes, self.down.passed_bytes);
        let outcome = self.up.step(&mut *self.client, &mut *self.provider, may_read[0]);
        self.note(outcome, Side::Client, Side::Provider);
        let outcome = self.down.step(&mut *self.provider, &mut *self.client, may_read[1]);
        self.note(outcome, Side::Provider, Side::Client);
        let (up, down) = (self.up.passed_bytes - before.0, self.down.passed_bytes - before.1);
        count(&self.counts.received_bytes, up);
        count(&self.counts.sent_bytes, down);
        self.is_at_rest &= up + down == 0;
        up + down > 0
    }

    /// Notes that an end of a direction broke: nothing comes from there, and nothing goes there.
    fn note(&mut self, outcome: Result<(), Lost>, source: Side, sink: Side) {
        let lost = match outcome {
            Ok(()) => return,
            Err(Lost::Source(error)) => {
                debug!("The {source:?} of a WebSocket broke off: {error}");
                source
            }
            // Its last bytes may still be there to read.
            Err(Lost::Sink(error)) => {
                debug!("The {sink:?} of a WebSocket takes nothing more: {error}");
                return;
            }
        };
        self.lose(lost);
    }

    /// The connection of `side` is gone.
    fn lose(&mut self, side: Side) {
        let (from, to) = match side {
            Side::Client => (&mut self.up, &mut self.down),
            Side::Provider => (&mut self.down, &mut self.up),
        };
        from.lose_source();
        to.lose_sink();
        // After both close frames, the connection may end in any way.
        let is_in_order = self.up.frames.have_closed() && self.down.frames.have_closed();
        if !is_in_order {
            self.ending.get_or_insert(Ending::Lost(side));
        }
    }

    /// Notes that a side ended first, and in the middle: before any close frame. The other one may still send.
    fn note_early_end(&mut self) {
        let is_closing = self.up.frames.have_closed() || self.down.frames.have_closed();
        let has_ended = |one: &Direction| one.has_source_ended() && one.is_over();
        let side = match (has_ended(&self.up), has_ended(&self.down)) {
            (true, false) if !self.down.has_source_ended() => Side::Client,
            (false, true) if !self.up.has_source_ended() => Side::Provider,
            _ => return,
        };
        if !is_closing {
            self.ending.get_or_insert(Ending::Lost(side));
        }
    }

    /// Has both directions end with a close frame.
    fn take_leave(&mut self, ending: Ending, reason: &str) {
        self.ending.get_or_insert(ending);
        self.farewell.get_or_insert_with(|| Deadline::after(FAREWELL_MAX));
        let mut mask = [0; 4];
        // Without randomness the mask is zero, which peers take as well.
        let _ = SystemRandom::new().fill(&mut mask);
        self.up.take_leave(going_away(reason, Some(mask)));
        self.down.take_leave(going_away(reason, None));
    }

    /// Waits until something can be passed on; returns whether the client and the provider can be read.
    fn wait(&mut self, deadline: Deadline) -> [bool; 2] {
        let (up, down) = (self.up.wants(), self.down.wants());
        let at_hand =
            [up.source && self.client.holds_bytes(), down.source && self.provider.holds_bytes()];
        let left = if at_hand == [false, false] { deadline.left() } else { Duration::ZERO };
        let stop_interest =
            if self.farewell.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let interests = [flags(up.source, down.sink), flags(down.source, up.sink)];
        // An end that has hung up would say so again and again while nobody listens; the stop's descriptor, which says
        // nothing, stands in for it.
        let (client, provider, stop) =
            (self.client.socket(), self.provider.socket(), self.stop.as_fd());
        let is_silent = |index: usize| self.has_hung_up[index] && interests[index].is_empty();
        let mut fds = [
            PollFd::from_borrowed_fd(if is_silent(0) { stop } else { client }, interests[0]),
            PollFd::from_borrowed_fd(if is_silent(1) { stop } else { provider }, interests[1]),
            PollFd::from_borrowed_fd(stop, stop_interest),
        ];
        let limit = if self.is_at_rest { left } else { left.min(REST_AFTER) };
        if !poll_all(&mut fds, limit) && !limit.is_zero() && !self.is_at_rest {
            self.is_at_rest = true;
            free_memory();
        }
        let [client, provider, stop] = fds.map(|fd| fd.revents());
        if stop.contains(PollFlags::IN) && self.farewell.is_none() {
            self.take_leave(Ending::Stopped, STOPPING);
        }
        let ended = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        for (index, (side, events)) in
            [(Side::Client, client), (Side::Provider, provider)].into_iter().enumerate()
        {
            if interests[index].is_empty() && events.intersects(ended) {
                self.has_hung_up[index] = true;
                if events.contains(PollFlags::ERR) {
                    self.lose(side);
                }
            }
        }
        let can_read = |events: PollFlags| events.intersects(PollFlags::IN | ended);
        [at_hand[0] || can_read(client), at_hand[1] || can_read(provider)]
    }
}

fn flags(reads: bool, writes: bool) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, reads);
    flags.set(PollFlags::OUT, writes);
    flags
}

/// Waits for one of `fds`, at most for `limit`; returns false if nothing happened. A failure, such as a signal, counts
/// as an event of none.
fn poll_all(fds: &mut [PollFd<'_>], limit: Duration) -> bool {
    // A limit too long for the system is none.
    let limit = Timespec::try_from(limit).ok();
    match poll(fds, limit.as_ref()) {
        Ok(count) => count > 0,
        Err(error) => {
            if error != rustix::io::Errno::INTR {
                debug!("poll: {error}");
            }
            true
        }
    }
}

fn count(total: &AtomicU64, bytes: u64) {
    if bytes > 0 {
        total.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Frees what this thread keeps for its next request, which may come in hours.
fn free_memory() {
    spare::free();
    memory::free();
}
