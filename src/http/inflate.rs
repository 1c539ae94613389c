//! Compressed bodies, recognised by their first bytes and inflated within a bound. Pure; the only file that uses
//! `miniz_oxide`, as `zstd` is for `ruzstd`.

use std::borrow::Cow;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::http::message::Headers;

pub(crate) mod passing;
mod zstd;

/// The most layers of compression: by the server, and by a proxy on the way.
const LAYERS_MAX: u32 = 2;
/// The first room for inflated bytes, as a multiple of the compressed ones.
const FIRST_ROOM_FACTOR: usize = 4;
/// The first two bytes of a gzip member, and the only method there is (RFC 1952 §2.3.1).
const GZIP_START: [u8; 3] = [0x1f, 0x8b, 8];
/// The size of a gzip member's head before its optional fields, and of its checksum and length after the data.
const GZIP_HEAD_BYTES: usize = 10;
const GZIP_TAIL_BYTES: usize = 8;
/// The bytes that show whether a body is compressed by gzip or zstd.
pub(crate) const MARK_BYTES: usize = 4;
/// The first byte of a zlib stream with the window of every common encoder (RFC 1950 §2.2).
const ZLIB_START: u8 = 0x78;

/// A body for its reader.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plain<'a> {
    /// Its bytes, inflated if they were compressed; of a broken stream, those before the break.
    pub bytes: Cow<'a, [u8]>,
    /// True if more bytes than the bound follow.
    pub is_over: bool,
    /// True if its encoding is unknown here.
    pub is_foreign: bool,
}

/// The `body` of a message with `headers`, inflated up to `most_bytes`.
///
/// gzip and zlib are recognised by their first bytes, because some proxies compress an answer without saying so, and
/// others inflate it and leave the header. Only a bare deflate stream, which has no mark, is believed by its header.
/// Checksums are not compared: the reader of the bytes sees whether they make sense.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(crate) fn plain<'a>(headers: &Headers, body: &'a [u8], most_bytes: usize) -> Plain<'a> {
    let says = |name: &str| headers.list_contains("content-encoding", name);
    let mut bytes = Cow::Borrowed(body);
    for layer in 0..LAYERS_MAX {
        let form = match bytes.as_ref() {
            [..] if bytes.starts_with(&GZIP_START) => Coding::Gzip,
            [..] if zstd::is_frame(&bytes) => Coding::Zstd,
            [ZLIB_START, second, ..]
                if (u16::from(ZLIB_START) << 8 | u16::from(*second)) % 31 == 0 =>
            {
                Coding::Zlib
            }
            _ if layer == 0 && says("deflate") => Coding::Bare,
            _ => break,
        };
        let (inflated, end) = inflate(form, &bytes, most_bytes);
        let is_over = end == End::Over;
        if inflated.is_empty() {
            // Not compressed after all, or broken from the start.
            break;
        }
        bytes = Cow::Owned(inflated);
        if is_over {
            return Plain { bytes, is_over: true, is_foreign: false };
        }
    }
    let is_foreign = !is_text(&bytes) && (says("br") || says("zstd"));
    let is_over = bytes.len() > most_bytes;
    Plain { bytes, is_over, is_foreign }
}

/// True if `bytes` begin like a text, and not like compressed data.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().take(64).all(|byte| *byte >= b' ' || byte.is_ascii_whitespace())
}

/// The container of the compressed data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zlib,
    Bare,
    Zstd,
}

/// The first `most_bytes` of `body`, compressed by gzip or zstd, inflated; None if it begins like neither. Of a cut
/// zstd frame, up to one window before the cut is missing.
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(crate) fn beginning(body: &[u8], most_bytes: usize) -> Option<(Vec<u8>, End)> {
    Some(inflate(marked(body)?, body, most_bytes))
}

/// The form of a body that begins with its mark.
fn marked(body: &[u8]) -> Option<Coding> {
    match body {
        [..] if body.starts_with(&GZIP_START) => Some(Coding::Gzip),
        [..] if zstd::is_frame(body) => Some(Coding::Zstd),
        _ => None,
    }
}

/// As [`beginning`], with all that a stream has sent so far: a server ends a block with each event. None too if it is zstd
/// that can't be decoded here (a window that is too large).
// Not inlined: keeps worker stacks small.
#[inline(never)]
pub(crate) fn so_far(body: &[u8], most_bytes: usize) -> Option<Vec<u8>> {
    let form = marked(body)?;
    if form != Coding::Zstd {
        return Some(inflate(form, body, most_bytes).0);
    }
    let (plain, end) = inflate(form, &zstd::closed(body), most_bytes);
    (end != End::Broken || !plain.is_empty()).then_some(plain)
}

/// Inflates up to `most_bytes`. A gzip file may have several members.
fn inflate(form: Coding, mut input: &[u8], most_bytes: usize) -> (Vec<u8>, End) {
    let mut output = Vec::new();
    if form == Coding::Zstd {
        let end = zstd::inflate(input, &mut output, most_bytes);
        return (output, end);
    }
    loop {
        if form == Coding::Gzip {
            let Some(data) = gzip_data(input) else { return (output, End::Broken) };
            input = data;
        }
        let (used, end) = inflate_stream(input, form == Coding::Zlib, &mut output, most_bytes);
        let next = input.get(used + GZIP_TAIL_BYTES..).unwrap_or_default();
        match end {
            // Without a mark, only a whole stream proves its form.
            End::Broken if form == Coding::Bare => return (Vec::new(), End::Broken),
            End::Whole if form == Coding::Bare && used < input.len() => {
                return (Vec::new(), End::Broken);
            }
            End::Whole if form == Coding::Gzip && next.starts_with(&GZIP_START) => input = next,
            end => return (output, end),
        }
    }
}

/// The data after the head of a gzip member (RFC 1952 §2.3).
fn gzip_data(member: &[u8]) -> Option<&[u8]> {
    const HEAD_CHECKSUM: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    let flags = *member.get(3)?;
    let mut rest = member.get(GZIP_HEAD_BYTES..)?;
    if flags & EXTRA != 0 {
        let length = rest.first_chunk().map(|length| u16::from_le_bytes(*length))?;
        rest = rest.get(2 + usize::from(length)..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HEAD_CHECKSUM != 0 {
        rest = rest.get(2..)?;
    }
    Some(rest)
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The stream is complete.
    Whole,
    /// It is cut, or not the form that it seems to be.
    Broken,
    /// It has more bytes than the bound.
    Over,
}

/// Inflates one stream to the end of `output`; returns the bytes taken from `input`.
fn inflate_stream(
    input: &[u8],
    has_zlib_head: bool,
    output: &mut Vec<u8>,
    most_bytes: usize,
) -> (usize, End) {
    let head = if has_zlib_head { TINFL_FLAG_PARSE_ZLIB_HEADER } else { 0 };
    let flags = head | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    // On the heap, because it takes 11 KB.
    let mut state = Box::<DecompressorOxide>::default();
    let (mut used, mut length) = (0, output.len());
    // One more than the bound, to distinguish reaching it from passing it.
    let most = most_bytes.saturating_add(1);
    let first = length.saturating_add(input.len().saturating_mul(FIRST_ROOM_FACTOR));
    output.resize(first.min(most), 0);
    let end = loop {
        let (status, read, written) = decompress(&mut state, &input[used..], output, length, flags);
        used += read;
        length += written;
        match status {
            _ if length > most_bytes => break End::Over,
            TINFLStatus::Done => break End::Whole,
            TINFLStatus::HasMoreOutput => {
                let room = output.len().saturating_mul(2).clamp(1, most);
                output.resize(room, 0);
            }
            _ => break End::Broken,
        }
    };
    output.truncate(length.min(most_bytes));
    (used, end)
}

#[cfg(test)]
pub(crate) mod tests {
    use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};

    use super::*;

    /// A gzip member with a name and a comment in its head.
    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let head = b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03\x03\0abcname\0comment\0hc";
        [head.as_slice(), &compress_to_vec(bytes, 6), &[0; GZIP_TAIL_BYTES]].concat()
    }

    fn encoded(encoding: &str) -> Headers {
        let mut headers = Headers::new();
        if !encoding.is_empty() {
            headers.push("Content-Encoding", encoding);
        }
        headers
    }

    #[test]
    fn each_encoding_with_and_without_its_header_or_a_wrong_one() {
        let text = br#"{"access_token":"at-1","refresh_token":"rt-1"}"#.as_slice();
        let bare = compress_to_vec(text, 6);
        let zlib = compress_to_vec_zlib(text, 6);
        let (once, twice) = (gzip(text), gzip(&gzip(text)));
        let members = [gzip(&text[..7]), gzip(&text[7..])].concat();
        let cases: [(&str, &[u8], &[&str]); 6] = [
            ("plain", text, &["", "gzip", "deflate", "br", "identity"]),
            ("gzip", &once, &["", "gzip", "deflate", "x-gzip", "br", "GZIP, gzip"]),
            ("zlib", &zlib, &["", "gzip", "Deflate"]),
            ("bare", &bare, &["deflate", "DEFLATE"]),
            ("gzip twice", &twice, &["", "gzip", "gzip, gzip"]),
            ("two members", &members, &["", "gzip"]),
        ];
        for (name, body, encodings) in cases {
            for encoding in encodings {
                let plain = plain(&encoded(encoding), body, 1000);
                assert_eq!(plain.bytes, text, "{name}, {encoding}");
                assert!(!plain.is_over && !plain.is_foreign, "{name}, {encoding}");
            }
        }
        let thrice = gzip(&gzip(&gzip(text)));
        assert_ne!(plain(&encoded(""), &thrice, 1000).bytes, text, "too many layers");
    }

    #[test]
    fn the_bound_on_both_sides() {
        let zeros = vec![0; 1 << 20];
        for packed in [gzip(&zeros), compress_to_vec_zlib(&zeros, 6)] {
            let fits = plain(&encoded(""), &packed, zeros.len());
            assert!(fits.bytes.len() == zeros.len() && !fits.is_over);
            let over = plain(&encoded(""), &packed, zeros.len() - 1);
            assert!(over.bytes.len() == zeros.len() - 1 && over.is_over);
        }
        let members = [gzip(&zeros[..8]), gzip(&zeros[..8])].concat();
        assert!(!plain(&encoded(""), &members, 16).is_over);
        assert!(plain(&encoded(""), &members, 15).is_over);
        assert!(!plain(&encoded(""), b"abc", 3).is_over && plain(&encoded(""), b"abc", 2).is_over);
    }

    #[test]
    fn a_cut_stream_gives_what_came_before_the_cut() {
        let text: Vec<u8> =
            (0..5000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
        let packed = gzip(&text);
        for end in 0..packed.len() {
            let plain = plain(&encoded("gzip"), &packed[..end], text.len());
            assert!(text.starts_with(&plain.bytes) || *plain.bytes == packed[..end], "{end}");
        }
        let without_tail = &packed[..packed.len() - GZIP_TAIL_BYTES];
        assert_eq!(plain(&encoded(""), without_tail, text.len()).bytes, text);
    }

    #[test]
    fn an_encoding_that_is_not_known_is_said() {
        for (encoding, body, is_foreign) in [
            ("br", b"\x0b\x02\x80abc\x03".as_slice(), true),
            ("zstd", b"\x28\xb5\x2f\xfd\x04\x00", true),
            ("zstd, br", b"\x0b\x02\x80abc\x03", true),
            ("", b"\x0b\x02\x80abc\x03", false),
            ("br", b"{}", false),
        ] {
            let plain = plain(&encoded(encoding), body, 100);
            assert_eq!((plain.bytes.as_ref(), plain.is_foreign), (body, is_foreign), "{encoding}");
        }
    }
}
