//! Many streams at once, read by one thread: the delay of each event, and whether every event came, whole and in
//! order.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use evertoken::testing::Framing;
use evertoken::testing::Rules;
use rustix::event::epoll;

use crate::time::{nanos, now};
use crate::{Outcome, http};

/// The streams, and the events on each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Streams at once.
    pub(crate) streams: usize,
    /// Events on each.
    pub(crate) events: u64,
    /// Milliseconds between two events of a stream.
    pub(crate) gap_ms: u64,
}

/// The result of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delays {
    /// The median delay of an event.
    pub(crate) p50_us: f64,
    /// 99 % took less.
    pub(crate) p99_us: f64,
    /// The time until the heads of all streams came.
    pub(crate) open_ms: f64,
    /// Streams on which every event came, in order, and then the end.
    pub(crate) intact: usize,
}

/// An event that came.
#[derive(Clone, Copy, Debug)]
struct Event {
    sent: u64,
    arrived: u64,
}

/// One stream as it is read.
struct Stream {
    socket: TcpStream,
    head: Vec<u8>,
    /// The time when its head came.
    opened: u64,
    framing: Option<Framing>,
    text: Vec<u8>,
    next: u64,
    has_ended: bool,
}

/// Opens the streams, reads them to their ends, and calls `halfway` once in between.
pub(crate) fn run(to: SocketAddr, shape: Shape, mut halfway: impl FnMut()) -> Outcome<Delays> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut streams = Vec::new();
    let first = nanos();
    for index in 0..shape.streams {
        let mut socket = http::connect(to)?;
        let head = format!(
            "GET /stream/{}/{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
            shape.events, shape.gap_ms
        );
        socket.write_all(head.as_bytes())?;
        socket.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&epoll, socket.as_fd(), data, epoll::EventFlags::IN)?;
        streams.push(Stream {
            socket,
            head: Vec::new(),
            opened: 0,
            framing: None,
            text: Vec::new(),
            next: 0,
            has_ended: false,
        });
    }
    let expected = shape.streams * usize::try_from(shape.events)?;
    let mut events = Vec::with_capacity(expected);
    let mut open = shape.streams;
    let begun = now();
    let allowed = Duration::from_millis(shape.events * shape.gap_ms) + Duration::from_secs(30);
    let mut buffer = vec![0; 64 * 1024];
    let mut ready = Vec::with_capacity(256);
    let mut is_before_half = true;
    while open > 0 && begun.elapsed() < allowed {
        ready.clear();
        let wait = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut ready), Some(&wait))?;
        for event in &ready {
            let index = usize::try_from(event.data.u64())?;
            let stream = &mut streams[index];
            if !stream.read(&mut buffer, &mut events) {
                epoll::delete(&epoll, stream.socket.as_fd())?;
                open -= 1;
            }
        }
        if is_before_half && events.len() >= expected / 2 {
            is_before_half = false;
            halfway();
        }
    }
    // An event sent while streams were still being opened met that work, not as many streams at once.
    let opened = streams.iter().map(|one| one.opened).max().unwrap_or(0);
    let late = events.iter().filter(|event| event.sent > opened);
    let mut delays: Vec<u64> = late.map(|event| event.arrived.saturating_sub(event.sent)).collect();
    delays.sort_unstable();
    let at = |part: usize| {
        let index = (delays.len() * part / 100).min(delays.len().saturating_sub(1));
        #[expect(clippy::cast_precision_loss, reason = "a delay is far below 2^52 nanoseconds")]
        delays.get(index).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3)
    };
    let intact = streams.iter().filter(|one| one.has_ended && one.next == shape.events).count();
    #[expect(clippy::cast_precision_loss, reason = "as above")]
    let open_ms = opened.saturating_sub(first) as f64 / 1e6;
    Ok(Delays { p50_us: at(50), p99_us: at(99), open_ms, intact })
}

impl Stream {
    /// Reads the available bytes; false at the end.
    fn read(&mut self, buffer: &mut [u8], events: &mut Vec<Event>) -> bool {
        match self.socket.read(buffer) {
            Ok(0) => false,
            Ok(count) => self.take(&buffer[..count], events),
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn take(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> bool {
        let mut body = bytes.to_vec();
        if self.framing.is_none() {
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return true;
            };
            if !self.head.starts_with(b"HTTP/1.1 200") {
                return false;
            }
            body = self.head.split_off(end + 4);
            self.framing = Some(Framing::chunked(&Rules::LENIENT));
            self.opened = nanos();
        }
        let mut rest = body.as_slice();
        while let Some(framing) = &mut self.framing {
            let Ok(skipped) = framing.skip(rest) else { return false };
            let data = &rest[skipped..][..framing.data_in(rest.len() - skipped)];
            self.text.extend_from_slice(data);
            framing.take_data(data.len());
            rest = &rest[skipped + data.len()..];
            self.has_ended = *framing == Framing::Done;
            if rest.is_empty() || self.has_ended {
                break;
            }
        }
        let arrived = nanos();
        while let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.text.drain(..end + 2).collect();
            let words = String::from_utf8_lossy(&event);
            let mut words = words.split(' ').skip(1);
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            let sent = words.next().and_then(|word| word.parse::<u64>().ok());
            let (Some(number), Some(sent)) = (number, sent) else { return false };
            if number != self.next {
                return false;
            }
            self.next = number + 1;
            events.push(Event { sent, arrived });
        }
        !self.has_ended
    }
}
