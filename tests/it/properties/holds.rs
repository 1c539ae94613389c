//! The properties of any bytes: used by the tests here and by the targets in `fuzz/`.

use std::io::{self, BufRead, Read};
use std::path::Path;

use evertoken::testing::BadFraming;
use evertoken::testing::Code;
use evertoken::testing::Frames;
use evertoken::testing::Framing;
use evertoken::testing::RequestReader;
use evertoken::testing::Rules;
use evertoken::testing::Secret;
use evertoken::testing::TokenFields;
use evertoken::testing::check_websocket;
use evertoken::testing::parse_record;
use evertoken::testing::{AnswerLength, BodyLength, Headers, RequestHead, Version};
use evertoken::testing::{BadHead, HEAD_MAX_BYTES};
use evertoken::testing::{BodyDecoder, BodyFault};
use evertoken::testing::{LIFETIME_MAX_MS, read_grant};
use evertoken::testing::{Lifecycle, Policy};
use evertoken::testing::{Moment, Timestamp};
use evertoken::testing::{Parsed, ResponseReader, response_framing};
use evertoken::testing::{Sources, resolve};
use evertoken::testing::{find_model, rename_model, reported_tokens};
use serde_json::Value;

/// Some time after this program was made.
const NOW: Moment = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 1 };
/// The largest chunked body that the properties take.
const BODY_MAX_BYTES: u64 = 64;

/// The outcome for a head's bytes.
type Outcome = Result<Option<(RequestHead, usize)>, Code>;

fn read_head(bytes: &[u8], ends: impl Iterator<Item = usize>) -> Outcome {
    let mut reader = RequestReader::default();
    for end in ends {
        let read = reader.read(&bytes[..end]).map_err(|refusal| refusal.code)?;
        if read.is_some() {
            return Ok(read);
        }
    }
    Ok(None)
}

/// Any cut of a head gives the same outcome; what is accepted is within the limits, holds nothing
/// that could be read in two ways, is the same to `httparse`, and means the same when it is written out again.
pub(crate) fn head(bytes: &[u8]) {
    let whole = read_head(bytes, std::iter::once(bytes.len()));
    assert_eq!(whole, read_head(bytes, 1..=bytes.len()), "byte by byte");
    assert_eq!(
        whole,
        read_head(bytes, (1..=bytes.len()).rev().step_by(7).collect::<Vec<_>>().into_iter().rev())
    );
    let Ok(Some((head, length))) = whole else { return };
    assert!(length <= HEAD_MAX_BYTES && bytes[..length].ends_with(b"\r\n\r\n"));
    assert!(head.headers.iter().count() <= Rules::STRICT.head_fields_max);
    assert!(
        head.target.starts_with('/') && head.target.bytes().all(|byte| byte.is_ascii_graphic())
    );
    assert!(head.method.bytes().all(|byte| byte.is_ascii_graphic()));
    for (name, value) in head.headers.iter() {
        assert!(
            !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic() && *byte != b':')
        );
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    let mut fields = [httparse::EMPTY_HEADER; Rules::STRICT.head_fields_max];
    let mut other = httparse::Request::new(&mut fields);
    assert_eq!(other.parse(bytes), Ok(httparse::Status::Complete(length)));
    assert_eq!(other.method, Some(&*head.method));
    assert!(head.headers.iter().eq(theirs(other.headers)), "{:?}", head.headers);
    let hosts = head.headers.all("host").count();
    assert!(hosts == 1 || (hosts == 0 && head.version == Version::Http10));
    let lengths = head.headers.all("content-length").count();
    let codings = head.headers.all("transfer-encoding").count();
    let expected = match head.body {
        BodyLength::Absent => (0, 0),
        BodyLength::Sized(_) => (1, 0),
        BodyLength::Chunked => (0, 1),
    };
    assert_eq!((lengths, codings), expected);
    let again = written(&head);
    let (reread, _) = read_head(&again, std::iter::once(again.len())).unwrap().unwrap();
    assert_eq!(
        (reread.method, reread.target, reread.headers),
        (head.method, head.target, head.headers)
    );
    assert_eq!((reread.body, reread.version), (head.body, head.version));
}

fn theirs<'a>(fields: &'a [httparse::Header<'a>]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields.iter().map(|field| (field.name.as_bytes(), field.value.trim_ascii()))
}

fn written(head: &RequestHead) -> Vec<u8> {
    let version = if head.version == Version::Http10 { "1.0" } else { "1.1" };
    let mut bytes =
        format!("{} {} HTTP/{version}\r\n", head.method, head.target.as_str()).into_bytes();
    for (name, value) in head.headers.iter() {
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(b":");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Yields its bytes in pieces.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.bytes[..self.size.min(self.bytes.len())])
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
    }
}

fn decode(length: BodyLength, bytes: &[u8], size: usize) -> Result<(Vec<u8>, usize), BodyFault> {
    let mut from = Pieces { bytes, size };
    let mut decoder = BodyDecoder::new(length, BODY_MAX_BYTES);
    let mut body = Vec::new();
    let mut buffer = [0; 5];
    loop {
        match decoder.read(&mut from, &mut buffer) {
            Ok(0) => return Ok((body, from.bytes.len())),
            Ok(count) => body.extend_from_slice(&buffer[..count]),
            Err(error) => return Err(BodyFault::of(&error).expect("it carries one")),
        }
    }
}

/// A body comes to the same however it is cut, stays within its limit, and ends where its framing says.
/// The first byte chooses the framing.
pub(crate) fn body(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let length = match choice {
        0..=127 => BodyLength::Chunked,
        128..=191 => BodyLength::Sized(u64::from(choice - 128)),
        _ => BodyLength::Absent,
    };
    let whole = decode(length, bytes, usize::MAX);
    for size in [1, 2, 3, 7] {
        assert_eq!(whole, decode(length, bytes, size), "pieces of {size}");
    }
    let Ok((body, rest)) = whole else { return };
    match length {
        BodyLength::Absent => assert_eq!((body.len(), rest), (0, bytes.len())),
        BodyLength::Sized(size) => {
            assert_eq!(body.len() as u64, size);
            assert_eq!(body, bytes[..bytes.len() - rest]);
        }
        BodyLength::Chunked => {
            assert!(body.len() as u64 <= BODY_MAX_BYTES);
            assert!(bytes[..bytes.len() - rest].ends_with(b"\r\n\r\n"));
        }
    }
}

fn read_response(
    bytes: &[u8],
    ends: impl Iterator<Item = usize>,
) -> Result<Option<Parsed>, BadHead> {
    let mut reader = ResponseReader::default();
    for end in ends {
        let read = reader.read(&bytes[..end])?;
        if read.is_some() {
            return Ok(read);
        }
    }
    Ok(None)
}

/// Any cut of a response's head gives the same outcome; what is accepted is within the limits, is
/// accepted by `httparse` too and as the same, and its body is delimited in one way only.
pub(crate) fn response_head(bytes: &[u8]) {
    let whole = read_response(bytes, std::iter::once(bytes.len()));
    assert_eq!(whole, read_response(bytes, 1..=bytes.len()), "byte by byte");
    let sevens = (1..=bytes.len()).rev().step_by(7).collect::<Vec<_>>();
    assert_eq!(whole, read_response(bytes, sevens.into_iter().rev()), "by sevens");
    let Ok(Some(parsed)) = whole else { return };
    assert!(parsed.length <= HEAD_MAX_BYTES && (100..=999).contains(&parsed.head.status));
    assert!(parsed.head.headers.len() <= Rules::LENIENT.head_fields_max);
    let mut fields = [httparse::EMPTY_HEADER; Rules::LENIENT.head_fields_max];
    let mut other = httparse::Response::new(&mut fields);
    let mut rules = httparse::ParserConfig::default();
    // As Rules::LENIENT has it.
    rules.allow_spaces_after_header_name_in_responses(true);
    let complete = Ok(httparse::Status::Complete(parsed.length));
    assert_eq!(rules.parse_response(&mut other, bytes), complete);
    assert_eq!(other.code, Some(parsed.head.status));
    assert_eq!(other.version, Some(u8::from(parsed.version == Version::Http11)));
    assert!(parsed.head.headers.iter().eq(theirs(other.headers)), "{:?}", parsed.head.headers);
    for method in ["GET", "HEAD"] {
        let Ok((wire, length)) = response_framing(method, &parsed) else { continue };
        let coded = parsed.head.headers.contains("transfer-encoding");
        let sized = parsed.head.headers.contains("content-length");
        match length {
            // Another protocol follows, up to the end of the connection.
            AnswerLength::Absent if parsed.head.status == 101 && method != "HEAD" => {
                assert_eq!(wire, Framing::UntilClose);
            }
            AnswerLength::Absent => assert_eq!(wire, Framing::Done),
            AnswerLength::Sized(bytes) => {
                assert!(sized && !coded && wire == Framing::sized(bytes));
            }
            AnswerLength::Unknown if coded => {
                assert!(!sized && wire == Framing::chunked(&Rules::LENIENT));
            }
            AnswerLength::Unknown => assert!(!sized && wire == Framing::UntilClose),
        }
    }
}

/// The body, and how many bytes it took; None where it does not end.
fn unframe(
    mut framing: Framing,
    bytes: &[u8],
    size: usize,
) -> Result<Option<(Vec<u8>, usize)>, BadFraming> {
    let (mut body, mut start, mut end) = (Vec::new(), 0, size.min(bytes.len()));
    loop {
        start += framing.skip(&bytes[start..end])?;
        let count = framing.data_in(end - start);
        framing.take_data(count);
        body.extend_from_slice(&bytes[start..start + count]);
        start += count;
        if framing == Framing::Done {
            return Ok(Some((body, start)));
        }
        if start == end && end == bytes.len() {
            return Ok(None);
        }
        if start == end {
            end = end.saturating_add(size).min(bytes.len());
        }
    }
}

/// A body comes to the same however it is cut, by either rules, and by strict ones to the same as a request's body. Lenient
/// ones take whatever strict ones take, and as the same. The first byte chooses the framing.
pub(crate) fn response_body(bytes: &[u8]) {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (strict, lenient, length) = match choice {
        0..=127 => {
            let of = Framing::chunked;
            (of(&Rules::STRICT), of(&Rules::LENIENT), BodyLength::Chunked)
        }
        128..=191 => {
            let size = u64::from(choice - 128);
            (Framing::sized(size), Framing::sized(size), BodyLength::Sized(size))
        }
        _ => {
            assert_eq!(unframe(Framing::UntilClose, bytes, 3), Ok(None));
            return;
        }
    };
    let [strictly, leniently] = [strict, lenient].map(|framing| {
        let whole = unframe(framing, bytes, bytes.len().max(1));
        for size in [1, 2, 3, 7] {
            assert_eq!(whole, unframe(framing, bytes, size), "pieces of {size}");
        }
        whole
    });
    if strictly != Err(BadFraming::Size) {
        assert_eq!(strictly, leniently);
    }
    let request = decode(length, bytes, usize::MAX);
    match strictly {
        Ok(Some((body, used))) if body.len() as u64 <= BODY_MAX_BYTES => {
            assert_eq!(request, Ok((body, bytes.len() - used)));
        }
        Ok(Some(_)) => assert_eq!(request, Err(BodyFault::TooLarge)),
        Ok(None) => assert!(matches!(request, Err(BodyFault::Gone | BodyFault::TooLarge))),
        Err(_) => assert!(request.is_err()),
    }
}

/// A token response of any shape is a grant with a sane lifetime or a failure whose words hold nothing
/// of the body but what looks like a code. The first two bytes are the status.
pub(crate) fn token_response(bytes: &[u8]) {
    let Some((status, body)) = bytes.split_first_chunk::<2>() else { return };
    let status = 100 + u16::from_be_bytes(*status) % 500;
    match read_grant(status, &Headers::new(), body, &TokenFields::default(), NOW.wall) {
        Ok(grant) => {
            assert!((200..300).contains(&status));
            assert!(!grant.access_token.expose().is_empty());
            assert!(grant.access_token.expose().bytes().all(|byte| byte.is_ascii_graphic()));
            assert!((1..=LIFETIME_MAX_MS).contains(&grant.lifetime_ms), "{}", grant.lifetime_ms);
            assert!(grant.refresh_in_ms.is_none_or(|wish| (0..=grant.lifetime_ms).contains(&wish)));
            assert!(grant.refresh_token.is_none_or(|token| !token.expose().is_empty()));
        }
        Err(failure) => {
            let told = failure.what.to_string();
            assert!(
                told.len() <= 160 && told.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "{told}"
            );
        }
    }
}

/// A state file of any content is refused, or means the same when it is written again; and whatever it
/// holds, a life begun with it offers no expired token.
pub(crate) fn state_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(saved) = parse_record(text) else { return };
    assert_eq!(parse_record(saved.to_json().expose()).as_ref(), Ok(&saved));
    let policy = Policy {
        refresh_before_ms: 300_000,
        retry_interval_ms: 3_600_000,
        seed: Some(Secret::new("seed")),
        without_refresh_token: false,
        scope: None,
        client_hash: "c".to_owned(),
    };
    let mut life = Lifecycle::new(policy, Some(saved), NOW);
    let _ = life.next(NOW);
    if let Some(token) = life.token() {
        assert!(!token.expires.reached(NOW) && !token.secret.expose().is_empty());
    }
    let presented = life.presented();
    assert!(life.begin(&presented, NOW).is_none_or(|marked| marked.pending.is_some()));
}

/// A configuration of any content is accepted or refused with problems, and no accepted one has two
/// providers of one slug.
pub(crate) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let sources = Sources {
        environment: &|name| (name == "HOME").then(|| "/home/u".to_owned()),
        files: &|_: &Path| Err(io::ErrorKind::NotFound.into()),
        now: evertoken::testing::Timestamp::from_secs(1_800_000_000),
        file_modes: &|_| None,
        file_mode: Some(0o600),
        is_root: false,
        working_folder: None,
    };
    match resolve(text, "f", &sources) {
        Ok((config, warnings)) => {
            assert!(warnings.iter().all(|problem| problem.is_warning));
            let mut slugs: Vec<_> = config.providers.iter().map(|one| &one.slug).collect();
            slugs.sort();
            slugs.dedup();
            assert_eq!(slugs.len(), config.providers.len());
        }
        Err(problems) => assert!(problems.iter().any(|problem| !problem.is_warning)),
    }
}

/// The model that is found is the one that a JSON parser sees, and a rename changes it alone.
pub(crate) fn model(bytes: &[u8]) {
    let found = find_model(bytes);
    if let Ok(Value::Object(object)) = serde_json::from_slice(bytes) {
        let seen = object.get("model").and_then(Value::as_str);
        let name = found.as_ref().map(|field| field.name.as_str());
        // Of several members the scanner takes the last one that is a text.
        assert!(seen.is_none() || name == seen, "{name:?} {seen:?}");
    }
    let Some(field) = found else { return };
    let renamed = rename_model(bytes, &field, "new \"name\"");
    let again = find_model(&renamed).expect("it stands there still");
    assert_eq!((again.name.as_str(), again.place.start), ("new \"name\"", field.place.start));
    assert_eq!(renamed[..field.place.start], bytes[..field.place.start]);
    assert_eq!(renamed[again.place.end..], bytes[field.place.end..]);
}

/// The tokens of an answer do not depend on the place of a cut, and of a JSON answer they are those that a JSON parser
/// sees.
pub(crate) fn usage(bytes: &[u8]) {
    let found = reported_tokens(false, std::iter::once(bytes));
    for is_stream in [false, true] {
        let whole = reported_tokens(is_stream, std::iter::once(bytes));
        for size in [1, 2, 5, 17] {
            assert_eq!(reported_tokens(is_stream, bytes.chunks(size)), whole, "{size}");
        }
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(bytes) else { return };
    let text = String::from_utf8_lossy(bytes);
    // A parser decodes escaped keys, and takes the last of several.
    if text.contains("\\u") || text.matches("usage").count() > 1 {
        return;
    }
    let Some(Value::Object(usage)) = object.get("usage") else {
        assert!(found.is_none() || object.contains_key("usageMetadata"), "{text}");
        return;
    };
    if let ([(name, Value::Number(number))], Some(found)) =
        (usage.iter().collect::<Vec<_>>().as_slice(), found)
        && *name == "output_tokens"
    {
        let expected = number.as_u64();
        assert!(expected.is_none_or(|expected| found[1] == expected), "{text}");
    }
}

/// A handshake of a WebSocket that is accepted has all that RFC 6455 §4.2.1 asks for; and the boundaries of the frames
/// after it, or of any bytes, are the same however they are cut.
pub(crate) fn websocket(bytes: &[u8]) {
    let head = read_head(bytes, std::iter::once(bytes.len()));
    let (head, start) = match &head {
        Ok(Some((head, length))) => (Some(head), *length),
        _ => (None, 0),
    };
    if let Some(head) = head.filter(|head| check_websocket(head).is_ok()) {
        assert_eq!((&*head.method, head.version), ("GET", Version::Http11));
        assert!(matches!(head.body, BodyLength::Absent | BodyLength::Sized(0)));
        let one = |name| {
            let mut all = head.headers.all(name);
            all.next().filter(|_| all.next().is_none()).expect("there is one")
        };
        assert_eq!(one("sec-websocket-version"), b"13");
        let key = one("sec-websocket-key");
        assert!(key.len() == 24 && key.ends_with(b"=="), "16 bytes");
        assert!(head.headers.list_contains("connection", "upgrade"));
    }
    let bytes = &bytes[start..];
    let ends = frame_ends(bytes);
    let mut by_byte = Frames::default();
    for (index, byte) in bytes.iter().enumerate() {
        let mut at_once = Frames::default();
        at_once.pass(&bytes[..index]);
        let is_end = index == 0 || ends.contains(&index);
        assert_eq!((at_once.are_at_boundary(), by_byte.are_at_boundary()), (is_end, is_end));
        assert_eq!(at_once.have_closed(), by_byte.have_closed());
        let end = ends.iter().copied().find(|end| *end > index).unwrap_or(bytes.len());
        let left = if is_end { 0 } else { end - index };
        assert_eq!(at_once.left_of_frame(&bytes[index..]), left, "at {index}");
        by_byte.pass(&[*byte]);
    }
}

/// The ends of the frames in `bytes`, found by reading them whole (RFC 6455 §5.2).
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut rest = bytes;
    while let [_, second, after @ ..] = rest {
        let number = |count: usize| {
            let digits = after.get(..count)?;
            Some(digits.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte)))
        };
        let (extended, payload) = match second & 0x7f {
            126 => (2, number(2)),
            127 => (8, number(8)),
            short => (0, Some(u128::from(short))),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let Some(length) = payload.map(|payload| 2 + extended + mask + payload) else { break };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > rest.len() {
            break;
        }
        rest = &rest[length..];
        ends.push(bytes.len() - rest.len());
    }
    ends
}
