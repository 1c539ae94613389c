//! The boundaries between the frames of a WebSocket (RFC 6455 §5.2), found by the frames' headers alone; pure.

/// The code of a close frame that tells of an end for the peer's or the network's sake (§7.4.1): `going away`.
pub(crate) const GOING_AWAY: u16 = 1001;

/// The first byte of a close frame: the last fragment, opcode 8.
const CLOSE_START: u8 = 0x88;
const OPCODE: u8 = 0x0f;
const CLOSE_OPCODE: u8 = 0x8;
/// The bit of the second byte that says that a mask follows.
const MASKED: u8 = 0x80;
const MASK_BYTES: u64 = 4;
/// The longest header without its mask.
const HEADER_MAX_BYTES: usize = 10;
/// The longest reason in a close frame: a control frame carries 125 bytes (§5.5), two of which are the code.
const REASON_MAX_BYTES: usize = 123;

/// The frames of one direction, followed as they pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// The start of a header whose rest has not come.
    header: [u8; HEADER_MAX_BYTES],
    header_bytes: usize,
    /// The bytes of the frame that are still to come after its header.
    left: u64,
    has_closed: bool,
}

impl Frames {
    /// Follows `bytes`, which pass.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.step(rest)..];
        }
    }

    /// True if the next byte begins a frame.
    pub fn are_at_boundary(&self) -> bool {
        self.left == 0 && self.header_bytes == 0
    }

    /// True if a close frame has begun, after which its sender sends no other.
    pub fn have_closed(&self) -> bool {
        self.has_closed
    }

    /// How many of the `next` bytes belong to the frame that has begun.
    pub fn left_of_frame(&self, next: &[u8]) -> usize {
        let mut ahead = *self;
        let mut count = 0;
        while !ahead.are_at_boundary() && count < next.len() {
            count += ahead.step(&next[count..]);
        }
        count
    }

    /// Follows some of `bytes`, at most to the end of the frame, and at least one; returns their number.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let count =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= count as u64;
            return count;
        }
        let mut count = 0;
        for byte in bytes {
            self.header[self.header_bytes] = *byte;
            self.header_bytes += 1;
            count += 1;
            if let Some(left) = left_after(&self.header[..self.header_bytes]) {
                self.has_closed |= self.header[0] & OPCODE == CLOSE_OPCODE;
                self.header_bytes = 0;
                self.left = left;
                break;
            }
        }
        count
    }
}

/// The bytes of a frame after its `header`, its mask included; None if the header is not complete.
fn left_after(header: &[u8]) -> Option<u64> {
    let [_, second, extended @ ..] = header else { return None };
    let payload = match second & !MASKED {
        126 => u64::from(u16::from_be_bytes(extended.try_into().ok()?)),
        127 => u64::from_be_bytes(extended.try_into().ok()?),
        short => u64::from(short),
    };
    let mask = if second & MASKED == 0 { 0 } else { MASK_BYTES };
    Some(payload.saturating_add(mask))
}

/// A close frame with the code [`GOING_AWAY`] and a `reason`; a client's is masked.
pub(crate) fn going_away(reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    debug_assert!(reason.len() <= REASON_MAX_BYTES);
    let payload = [&GOING_AWAY.to_be_bytes(), reason.as_bytes()].concat();
    let length = u8::try_from(payload.len()).expect("a reason is short");
    let mut frame = vec![CLOSE_START, length];
    match mask {
        None => frame.extend(payload),
        Some(mask) => {
            frame[1] |= MASKED;
            frame.extend(mask);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with `length` bytes of payload, written by hand.
    fn frame(start: u8, length: usize, masked: bool) -> Vec<u8> {
        let mut frame = vec![start];
        match length {
            0..126 => frame.push(u8::try_from(length).unwrap()),
            126..65536 => {
                frame.push(126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame[1] |= if masked { MASKED } else { 0 };
        frame.extend(if masked { vec![1, 2, 3, 4] } else { Vec::new() });
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    #[test]
    fn boundaries_are_found_however_the_frames_are_cut() {
        let kinds = [
            frame(0x81, 0, false),
            frame(0x81, 0, true),
            frame(0x01, 125, true),
            frame(0x00, 126, false),
            frame(0x89, 3, true),
            frame(0x80, 65_535, true),
            frame(0x82, 65_536, false),
        ];
        let all = kinds.concat();
        let ends: Vec<_> = kinds
            .iter()
            .scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            })
            .collect();
        for piece in [1, 2, 3, 7, 4096, all.len()] {
            let mut frames = Frames::default();
            assert!(frames.are_at_boundary());
            let mut passed = 0;
            for bytes in all.chunks(piece) {
                frames.pass(bytes);
                passed += bytes.len();
                assert_eq!(frames.are_at_boundary(), ends.contains(&passed), "{piece}: {passed}");
                let end = ends.iter().find(|end| **end >= passed).unwrap();
                assert_eq!(frames.left_of_frame(&all[passed..]), end - passed, "{piece}: {passed}");
            }
            assert!(!frames.have_closed(), "a payload is no header");
        }
    }

    #[test]
    fn a_length_beyond_all_bounds_is_only_long() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert!(!frames.are_at_boundary());
        frames.pass(&[0; 100]);
        assert_eq!(frames.left_of_frame(&[0; 50]), 50);
    }

    #[test]
    fn a_close_frame_is_noticed_with_its_header() {
        let mut frames = Frames::default();
        frames.pass(&[0x88]);
        assert!(!frames.have_closed());
        frames.pass(&[0x82]);
        assert!(frames.have_closed() && !frames.are_at_boundary());
    }

    #[test]
    fn close_frames_of_both_sides() {
        assert_eq!(going_away("bye", None), [0x88, 5, 0x03, 0xe9, b'b', b'y', b'e']);
        let masked = going_away("", Some([1, 2, 3, 4]));
        assert_eq!(masked, [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xe9 ^ 2]);
        for bytes in [going_away("evertoken", None), masked] {
            let mut frames = Frames::default();
            assert_eq!(frames.left_of_frame(&bytes), 0, "no frame has begun");
            frames.pass(&bytes);
            assert!(frames.are_at_boundary() && frames.have_closed());
        }
    }
}
