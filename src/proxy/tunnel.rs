//! A WebSocket after its 101: bytes in both directions, without waiting for either side.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use log::debug;
use ring::rand::{SecureRandom, SystemRandom};

use crate::atomic::AtomicU64;
use crate::clock::{Deadline, Stopwatch};
use crate::http::buffer::{BULK_BYTES, Buffer};
use crate::http::end::End;
use crate::http::message::ResponseHead;
use crate::http::refusal::{Code, Refusal};
use crate::http::websocket::frames::going_away;
use crate::ingress::{self, ClientStream, FAREWELL_MAX, Request, Turn};
use crate::platform::{Interest, Readiness};
use crate::proxy::attempt::Answered;
use crate::proxy::cut::Cut;
use crate::proxy::headers;
use crate::proxy::outcome::{RequestRecord, Stop};
use crate::proxy::provider::{OpenTunnel, Provider};
use crate::proxy::reply::Reply;
use crate::proxy::state::Proxy;
use crate::proxy::tunnel::direction::{Direction, Lost};
use crate::proxy::tunnel::record::TunnelRecord;
use crate::shortage::Shortage;
use crate::upstream::{ProviderEnd, ProviderStream};

mod direction;
mod record;

/// The longest time after both sides were told that nothing more comes, in which they still may send: their last bytes
/// are read, so that no reset destroys the ones that are on their way to them.
const LINGER_MAX: Duration = FAREWELL_MAX;
/// The reasons in close frames.
const STOPPING: &str = "evertoken is stopping";
const SILENT: &str = "nothing came for longer than timeouts.idle allows";

/// Passes the 101 of `provider` on. From then on, the connection is a tunnel, which reports its own end.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(super) fn open(
    proxy: &Proxy,
    request: &mut Request<'_>,
    (provider, answered): (&Arc<Provider>, Answered<'_>),
    reply: &mut Reply<'_>,
    record: &mut RequestRecord<'_>,
    stopwatch: Stopwatch,
) -> Result<(), Stop> {
    let Answered { answer, in_flight, .. } = answered;
    let (Some(switch), Some(in_flight)) = (request.switch.take(), in_flight) else {
        return Err(Refusal::new(Code::Internal, "A request became a WebSocket unasked").into());
    };
    let client = switch.open().map_err(|error| no_tunnel(&error))?;
    begin(&answer.head, reply, record, stopwatch)?;
    let open = OpenTunnel::of(&provider.counts, in_flight);
    let Some(provider_end) = answer.into_end() else {
        return Err(Stop::UpstreamCut(Cut::BrokeOff));
    };
    let record = TunnelRecord::of(proxy, request.head, provider.clone(), record, stopwatch);
    let ends = (client.stream, client.early, provider_end);
    *client.place = Some(Box::new(Tunnel::new(ends, open, record)));
    Err(Stop::IsTunnel)
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
struct Tunnel {
    client: ClientStream,
    provider: ProviderStream,
    /// From the client to the provider.
    up: Direction,
    /// From the provider to the client.
    down: Direction,
    silence_max: Duration,
    /// The end of the time in which something has to come.
    silent: Deadline,
    /// The reason of the end, once there is one.
    ending: Option<Ending>,
    /// The end of the time for the last words.
    farewell: Option<Deadline>,
    open: OpenTunnel,
    record: TunnelRecord,
}

impl ingress::Tunnel for Tunnel {
    fn sockets(&self) -> [Arc<TcpStream>; 2] {
        [self.client.socket().clone(), self.provider.socket().clone()]
    }

    fn turn(&mut self, now: [Readiness; 2]) -> Turn {
        self.note_breaks(now);
        let at_hand = self.is_at_hand();
        if self.pass([at_hand[0] || now[0].read, at_hand[1] || now[1].read]) {
            self.silent = Deadline::after(self.silence_max);
        }
        self.note_early_end();
        if self.up.is_over() && self.down.is_over() {
            if self.up.has_source_ended() && self.down.has_source_ended() {
                return Turn::Over;
            }
            self.farewell.get_or_insert_with(|| Deadline::after(LINGER_MAX));
        }
        if self.farewell.is_some_and(Deadline::has_passed) {
            return Turn::Over;
        }
        if self.farewell.is_none() && self.silent.has_passed() {
            self.end_with_close_frames(Ending::Silent, SILENT);
            return Turn::HasMore;
        }
        if self.is_at_hand() != [false, false] {
            return Turn::HasMore;
        }
        Turn::Waits(self.interests(), self.farewell.unwrap_or(self.silent))
    }

    fn take_leave(&mut self) {
        if self.farewell.is_none() {
            self.end_with_close_frames(Ending::Stopped, STOPPING);
        }
    }

    fn end(self: Box<Self>) {
        let ending = self.ending.unwrap_or(Ending::Finished);
        if ending == Ending::Lost(Side::Provider) {
            self.open.counts().failed();
            self.record.provider_broke_off();
        }
        self.record.report(self.up.passed_bytes, self.down.passed_bytes, ending.in_words());
    }
}

impl Ending {
    /// The reason for an early end, for the log.
    fn in_words(self) -> Option<&'static str> {
        match self {
            Self::Finished => None,
            Self::Lost(Side::Client) => Some("the client went away"),
            Self::Lost(Side::Provider) => Some(Cut::BrokeOff.in_words()),
            Self::Silent => Some("neither side sent anything for longer than timeouts.idle allows"),
            Self::Stopped => Some("evertoken stops"),
        }
    }
}

impl Tunnel {
    fn new(
        (client, client_early, provider): (ClientStream, Vec<u8>, ProviderEnd),
        open: OpenTunnel,
        record: TunnelRecord,
    ) -> Self {
        let silence_max = provider.silence_max;
        Self {
            up: Direction::after(Buffer::holding(client_early, BULK_BYTES)),
            down: Direction::after(provider.early),
            client,
            provider: provider.stream,
            silence_max,
            silent: Deadline::after(silence_max),
            ending: None,
            farewell: None,
            open,
            record,
        }
    }

    /// True for each side of which bytes are at hand that its socket no longer has.
    fn is_at_hand(&self) -> [bool; 2] {
        [
            self.up.wants().source && self.client.holds_bytes(),
            self.down.wants().source && self.provider.holds_bytes(),
        ]
    }

    /// The events to wait for.
    fn interests(&self) -> [Interest; 2] {
        let (up, down) = (self.up.wants(), self.down.wants());
        [interest(up.source, down.sink), interest(down.source, up.sink)]
    }

    /// Notes that a side broke from which nothing is read at the moment, so that no read finds it out.
    fn note_breaks(&mut self, now: [Readiness; 2]) {
        let interests = self.interests();
        for (index, side) in [Side::Client, Side::Provider].into_iter().enumerate() {
            if !now[index].has_ended || interests[index] != Interest::End {
                continue;
            }
            let socket = match side {
                Side::Client => self.client.socket(),
                Side::Provider => self.provider.socket(),
            };
            if let Ok(Some(error)) = socket.take_error() {
                debug!("The {side:?} of a WebSocket broke: {error}");
                self.lose(side);
            }
        }
    }

    /// Passes on what is there, in both directions; returns true if anything moved.
    fn pass(&mut self, may_read: [bool; 2]) -> bool {
        let before = (self.up.passed_bytes, self.down.passed_bytes);
        let outcome = self.up.step(&mut self.client, &mut self.provider, may_read[0]);
        self.note(outcome, Side::Client, Side::Provider);
        let outcome = self.down.step(&mut self.provider, &mut self.client, may_read[1]);
        self.note(outcome, Side::Provider, Side::Client);
        let (up, down) = (self.up.passed_bytes - before.0, self.down.passed_bytes - before.1);
        let counts = &self.open.counts().tunnels;
        count(&counts.received_bytes, up);
        count(&counts.sent_bytes, down);
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
    fn end_with_close_frames(&mut self, ending: Ending, reason: &str) {
        self.ending.get_or_insert(ending);
        self.farewell.get_or_insert_with(|| Deadline::after(FAREWELL_MAX));
        let mut mask = [0; 4];
        // Without randomness the mask is zero, which peers take as well.
        let _ = SystemRandom::new().fill(&mut mask);
        self.up.take_leave(going_away(reason, Some(mask)));
        self.down.take_leave(going_away(reason, None));
    }
}

/// The events for a socket that is to be read, written, or both.
fn interest(reads: bool, writes: bool) -> Interest {
    match (reads, writes) {
        (true, true) => Interest::Both,
        (true, false) => Interest::Read,
        (false, true) => Interest::Write,
        (false, false) => Interest::End,
    }
}

fn count(total: &AtomicU64, bytes: u64) {
    if bytes > 0 {
        total.fetch_add(bytes, Ordering::Relaxed);
    }
}
