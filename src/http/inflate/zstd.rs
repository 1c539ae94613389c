//! zstd (RFC 8878). The only file that knows `ruzstd`.

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;

use super::End;

/// The beginning of a frame (RFC 8878 §3.1.1).
const FRAME_START: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The beginning of a frame without data, except the low half of the first byte (RFC 8878 §3.1.2); its length
/// follows.
const SKIPPED_START: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The largest window that is decoded: the one that every decoder should support (RFC 8878 §3.1.1.1.2), and that
/// every level up to 19 uses. It is held in memory while a frame is decoded.
const WINDOW_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// True if `bytes` begin with a frame.
pub(super) fn is_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&FRAME_START) || skipped(bytes).is_some()
}

/// The rest after a frame without data at the start of `bytes`.
fn skipped(bytes: &[u8]) -> Option<&[u8]> {
    let ([first, start @ ..], rest) = bytes.split_first_chunk::<4>()?;
    let is_one = first & 0xf0 == SKIPPED_START[0] && *start == SKIPPED_START[1..];
    let (length, rest) = rest.split_first_chunk::<4>().filter(|_| is_one)?;
    rest.get(usize::try_from(u32::from_le_bytes(*length)).ok()?..)
}

/// Inflates all frames of `input` to `output`, up to `most_bytes`. Checksums are not compared.
pub(super) fn inflate(mut input: &[u8], output: &mut Vec<u8>, most_bytes: usize) -> End {
    while !input.is_empty() {
        if let Some(rest) = skipped(input) {
            input = rest;
            continue;
        }
        let Ok(mut frame) =
            StreamingDecoder::new_with_max_window_size(&mut input, WINDOW_MAX_BYTES)
        else {
            return End::Broken;
        };
        // One more than the bound, to distinguish reaching it from passing it.
        let room = most_bytes.saturating_add(1) - output.len();
        let outcome = frame.by_ref().take(room as u64).read_to_end(output);
        if output.len() > most_bytes {
            output.truncate(most_bytes);
            return End::Over;
        }
        if outcome.is_err() {
            return End::Broken;
        }
    }
    End::Whole
}

/// `input` up to its last whole block, as if its last frame ended there: the decoder keeps a whole window back of a frame that
/// has not ended.
pub(super) fn closed(input: &[u8]) -> Vec<u8> {
    /// The header of an empty block that ends its frame (RFC 8878 §3.1.1.2), and the place of a checksum.
    const END: [u8; 7] = [1, 0, 0, 0, 0, 0, 0];
    let mut at = 0;
    loop {
        if let Some(rest) = skipped(&input[at..]) {
            at = input.len() - rest.len();
            continue;
        }
        let Some((header, checksum)) = header_bytes(&input[at..]) else { break };
        let (mut end, mut is_last) = (at + header, false);
        while !is_last && let Some((length, last)) = block_bytes(&input[end..]) {
            (end, is_last) = (end + length, last);
        }
        if is_last && input.len() >= end + checksum {
            at = end + checksum;
            continue;
        }
        if end == at + header {
            break;
        }
        let missing = if is_last { &END[3..] } else { &END[..] };
        return [&input[..end], &missing[..missing.len() - 4 + checksum]].concat();
    }
    input[..at].to_vec()
}

/// The length of a frame's header (RFC 8878 §3.1.1.1) and of the checksum after its blocks; None if the header is not whole.
fn header_bytes(frame: &[u8]) -> Option<(usize, usize)> {
    let flags = *frame.get(FRAME_START.len()).filter(|_| frame.starts_with(&FRAME_START))?;
    let is_single = flags & 0x20 != 0;
    let size = match flags >> 6 {
        0 => usize::from(is_single),
        power => 1 << power,
    };
    let dictionary = [0, 1, 2, 4][usize::from(flags & 3)];
    let length = FRAME_START.len() + 1 + usize::from(!is_single) + dictionary + size;
    (frame.len() >= length).then_some((length, usize::from(flags & 4)))
}

/// The length of the block at the start of `bytes` with its header (RFC 8878 §3.1.1.2), and whether it is the frame's last;
/// None if it is not whole.
fn block_bytes(bytes: &[u8]) -> Option<(usize, bool)> {
    let header = bytes.get(..3)?;
    let header = u32::from_le_bytes([header[0], header[1], header[2], 0]);
    let is_repeated_byte = header >> 1 & 3 == 1;
    let content = if is_repeated_byte { 1 } else { usize::try_from(header >> 3).ok()? };
    (bytes.len() >= 3 + content).then_some((3 + content, header & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"model":"claude-x","n":[0,1,…]}`, written by Python's `zstandard` at level 3, at 19, without the size, and
    /// by the program `zstd`.
    const FILES: [(&str, &[u8]); 4] = [
        ("level-3", include_bytes!("../../../tests/data/zstd/level-3.zst")),
        ("level-19", include_bytes!("../../../tests/data/zstd/level-19.zst")),
        ("stream", include_bytes!("../../../tests/data/zstd/stream.zst")),
        ("program", include_bytes!("../../../tests/data/zstd/program.zst")),
    ];
    const PLAIN: &[u8] = include_bytes!("../../../tests/data/zstd/plain.json");
    /// A window of 16 MiB.
    const LONG: &[u8] = include_bytes!("../../../tests/data/zstd/long.zst");

    fn all(input: &[u8], most_bytes: usize) -> (Vec<u8>, End) {
        let mut output = Vec::new();
        let end = inflate(input, &mut output, most_bytes);
        (output, end)
    }

    #[test]
    fn what_other_programs_write_is_read_within_a_worker_s_stack() {
        let read = || {
            for (name, file) in FILES {
                assert!(is_frame(file), "{name}");
                assert_eq!(all(file, PLAIN.len()), (PLAIN.to_vec(), End::Whole), "{name}");
                let short = (PLAIN[..PLAIN.len() - 1].to_vec(), End::Over);
                assert_eq!(all(file, PLAIN.len() - 1), short, "{name}");
            }
        };
        crate::thread::on_own_thread("zstd", crate::thread::WORKER_STACK_MIN_BYTES, read);
    }

    #[test]
    fn several_frames_and_frames_without_data() {
        let skipped = b"\x5a\x2a\x4d\x18\x03\0\0\0abc".as_slice();
        let frames = [skipped, FILES[0].1, skipped, FILES[1].1].concat();
        assert!(is_frame(&frames));
        assert_eq!(all(&frames, 1 << 20), ([PLAIN, PLAIN].concat(), End::Whole));
        assert_eq!(all(&frames, 2 * PLAIN.len() - 1).1, End::Over);
        assert_eq!(all(&[FILES[0].1, b"rest"].concat(), 1 << 20), (PLAIN.to_vec(), End::Broken));
        for cut in ["", "\x5a\x2a", "\x5a\x2a\x4d\x18\x09\0\0\0abc", "\x28\u{35}", "{}"] {
            assert!(!is_frame(cut.as_bytes()), "{cut:?}");
        }
    }

    #[test]
    fn a_cut_or_damaged_frame_is_broken_and_nothing_worse() {
        for (name, file) in FILES {
            for end in 0..file.len() {
                let (output, outcome) = all(&file[..end], 1 << 20);
                assert!(PLAIN.starts_with(&output), "{name} {end}");
                assert!(outcome == End::Broken || end == 0 || output == PLAIN, "{name} {end}");
            }
            for at in 0..file.len() {
                let mut damaged = file.to_vec();
                damaged[at] ^= 0x5a;
                assert!(all(&damaged, 1 << 16).0.len() <= 1 << 16);
            }
        }
    }

    /// Three events with a checksum behind them, written by the library `zstandard` of Python, which ended a block
    /// after each: the ends of those.
    const EVENTS: (&[u8], [usize; 3]) =
        (include_bytes!("../../../tests/data/zstd/events.zst"), [46, 58, 71]);

    #[test]
    fn a_frame_that_goes_on_is_closed_after_its_last_whole_block() {
        let event = |number: usize| {
            format!("data: {{\"number\":{number},\"text\":\"{}\"}}\n\n", "x".repeat(16))
        };
        let (frame, ends) = EVENTS;
        for cut in 0..=frame.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let plain: String = (1..=whole).map(event).collect();
            assert_eq!(
                all(&closed(&frame[..cut]), 1 << 20),
                (plain.into_bytes(), End::Whole),
                "{cut}"
            );
        }
        for (name, file) in FILES {
            assert_eq!(closed(file), file, "{name}");
            let (twice, once) = ([file, file].concat(), closed(&[file, &file[..5]].concat()));
            assert_eq!((closed(&twice), once), (twice.clone(), file.to_vec()), "{name}");
            for at in 0..file.len() {
                let mut damaged = file[..file.len() - 1].to_vec();
                damaged[at.min(file.len() - 2)] ^= 0x5a;
                assert!(all(&closed(&damaged), 1 << 16).0.len() <= 1 << 16);
            }
        }
    }

    #[test]
    fn a_window_over_the_bound_is_not_decoded() {
        assert_eq!(all(LONG, 1 << 20), (Vec::new(), End::Broken));
    }
}
