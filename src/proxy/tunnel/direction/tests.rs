//! Directions between ends that are not real.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use super::*;
use crate::http::websocket::frames::going_away;

/// An end that yields its `input` piece by piece, None for its end, and takes `room` bytes.
struct Fake {
    input: VecDeque<Option<Vec<u8>>>,
    room: usize,
    taken: Vec<u8>,
    /// It took more than its socket does, as TLS may.
    holds_back: bool,
    has_ended: bool,
    is_broken: bool,
    socket: Arc<TcpStream>,
}

impl Fake {
    fn new(input: &[&[u8]], room: usize) -> Self {
        Self {
            input: input.iter().map(|piece| Some(piece.to_vec())).collect(),
            room,
            taken: Vec::new(),
            holds_back: false,
            has_ended: false,
            is_broken: false,
            socket: unused_socket(),
        }
    }
}

fn unused_socket() -> Arc<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
}

impl Read for Fake {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.pop_front() {
            None if self.is_broken => Err(io::ErrorKind::ConnectionReset.into()),
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(None) => Ok(0),
            Some(Some(mut piece)) => {
                let rest = piece.split_off(piece.len().min(buffer.len()));
                buffer[..piece.len()].copy_from_slice(&piece);
                if !rest.is_empty() {
                    self.input.push_front(Some(rest));
                }
                Ok(piece.len())
            }
        }
    }
}

impl Write for Fake {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.taken.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl End for Fake {
    fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    fn holds_bytes(&self) -> bool {
        !self.input.is_empty()
    }

    fn send_held(&mut self) -> io::Result<bool> {
        Ok(!self.holds_back)
    }

    fn end_sending(&mut self) -> io::Result<bool> {
        self.has_ended = true;
        Ok(true)
    }
}

fn direction() -> Direction {
    Direction::after(Buffer::holding(Vec::new(), BULK_BYTES))
}

const HELLO: &[u8] = b"\x81\x05hello";

#[test]
fn bytes_pass_as_they_come_and_the_end_after_them() {
    let (mut source, mut sink) = (Fake::new(&[HELLO, &[0x81, 1], b"x"], 99), Fake::new(&[], 99));
    let mut direction = Direction::after(Buffer::holding(HELLO.to_vec(), BULK_BYTES));
    direction.step(&mut source, &mut sink, false).unwrap();
    assert_eq!(sink.taken, HELLO, "early bytes need no event");
    direction.step(&mut source, &mut sink, true).unwrap();
    assert_eq!(sink.taken, [HELLO, HELLO, b"\x81\x01x"].concat());
    assert_eq!(direction.wants(), Wants { source: true, sink: false });
    assert!(direction.frames.are_at_boundary() && !sink.has_ended);
    source.input.push_back(None);
    direction.step(&mut source, &mut sink, true).unwrap();
    assert!(sink.has_ended && direction.is_over() && direction.has_source_ended());
    assert_eq!(direction.passed_bytes, 17);
}

#[test]
fn a_source_is_not_read_while_its_sink_takes_nothing() {
    let (mut source, mut sink) = (Fake::new(&[HELLO, HELLO], 9), Fake::new(&[], 3));
    let mut direction = direction();
    direction.step(&mut source, &mut sink, true).unwrap();
    assert_eq!((sink.taken.len(), source.input.len()), (3, 1));
    assert_eq!(direction.wants(), Wants { source: false, sink: true });
    sink.room = 99;
    direction.step(&mut source, &mut sink, false).unwrap();
    assert_eq!((sink.taken.as_slice(), source.input.len()), (HELLO, 1));
    assert_eq!(direction.wants(), Wants { source: true, sink: false });
}

#[test]
fn a_source_is_not_waited_for_while_its_sink_holds_back_what_it_took() {
    // It would be ready all the time, and not be read.
    let (mut source, mut sink) = (Fake::new(&[HELLO, HELLO], 9), Fake::new(&[], 99));
    sink.holds_back = true;
    let mut direction = direction();
    direction.step(&mut source, &mut sink, true).unwrap();
    assert_eq!(direction.wants(), Wants { source: false, sink: true });
    sink.holds_back = false;
    direction.step(&mut source, &mut sink, false).unwrap();
    assert_eq!(direction.wants(), Wants { source: true, sink: false });
}

#[test]
fn a_fast_source_is_read_a_few_times_in_a_turn() {
    let pieces = [HELLO; READS_MAX + 2];
    let (mut source, mut sink) = (Fake::new(&pieces, 9), Fake::new(&[], 9999));
    let mut direction = direction();
    direction.step(&mut source, &mut sink, true).unwrap();
    assert_eq!(source.input.len(), 2);
    assert_eq!(sink.taken.len(), READS_MAX * HELLO.len(), "what was read is not left lying");
}

#[test]
fn a_close_frame_goes_between_two_frames() {
    let close = going_away("", None);
    // Between two frames already, and in the middle of one.
    for (before, after, expected) in [
        (HELLO, b"".as_slice(), [HELLO, &close].concat()),
        (&HELLO[..4], &HELLO[4..], [HELLO, &close].concat()),
        (&HELLO[..1], &HELLO[1..], [HELLO, &close].concat()),
        (&HELLO[..4], b"llo\x81\x02no", [HELLO, &close].concat()),
        (&[0x88, 0], b"", vec![0x88, 0]),
    ] {
        let (mut source, mut sink) = (Fake::new(&[before], 99), Fake::new(&[], 99));
        let mut direction = direction();
        direction.step(&mut source, &mut sink, true).unwrap();
        direction.take_leave(close.clone());
        direction.step(&mut source, &mut sink, false).unwrap();
        if !after.is_empty() {
            assert!(!direction.is_over() && direction.wants().source);
            source.input.push_back(Some(after.to_vec()));
            direction.step(&mut source, &mut sink, true).unwrap();
        }
        assert_eq!(sink.taken, expected, "{before:?} {after:?}");
        assert!(sink.has_ended && direction.is_over());
        let own = if expected.ends_with(&close) { close.len() } else { 0 };
        assert_eq!(direction.passed_bytes, (expected.len() - own) as u64, "what came passed");
        source.input.push_back(Some(HELLO.to_vec()));
        source.input.push_back(None);
        direction.step(&mut source, &mut sink, true).unwrap();
        assert_eq!(sink.taken, expected, "the rest is dropped");
        assert!(direction.has_source_ended());
    }
}

#[test]
fn a_frame_that_its_source_does_not_complete_gets_no_close_frame() {
    let (mut source, mut sink) = (Fake::new(&[&HELLO[..4]], 99), Fake::new(&[], 99));
    let mut direction = direction();
    direction.step(&mut source, &mut sink, true).unwrap();
    direction.take_leave(going_away("", None));
    source.input.push_back(None);
    direction.step(&mut source, &mut sink, true).unwrap();
    assert_eq!(sink.taken, &HELLO[..4]);
    assert!(sink.has_ended && direction.is_over());
}

#[test]
fn a_source_that_breaks_off_ends_its_sink_in_the_same_turn() {
    // Nothing more happens on either connection, so there may be no later turn before the silence is too long.
    let (mut source, mut sink) = (Fake::new(&[], 99), Fake::new(&[], 99));
    source.is_broken = true;
    let mut direction = direction();
    let lost = direction.step(&mut source, &mut sink, true);
    assert!(matches!(lost, Err(Lost::Source(_))));
    assert!(sink.has_ended && direction.is_over());
}

#[test]
fn a_broken_end_is_told_apart() {
    let (mut source, mut sink) = (Fake::new(&[HELLO], 99), Fake::new(&[], 99));
    source.is_broken = true;
    let mut one = direction();
    let lost = one.step(&mut source, &mut sink, true);
    assert!(lost.is_ok(), "its last bytes came first");
    let lost = one.step(&mut source, &mut sink, true);
    assert!(matches!(lost, Err(Lost::Source(_))) && sink.taken == HELLO);

    let (mut source, mut sink) = (Fake::new(&[HELLO, HELLO], 99), Fake::new(&[], 99));
    sink.is_broken = true;
    let mut other = direction();
    let lost = other.step(&mut source, &mut sink, true);
    assert!(matches!(lost, Err(Lost::Sink(_))) && other.is_over());
    assert_eq!(other.wants(), Wants { source: true, sink: false }, "the rest is read and dropped");
    other.step(&mut source, &mut sink, true).unwrap();
    assert!(source.input.is_empty());
}
