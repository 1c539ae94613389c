//! From bytes to a checked request head, under RFC 9112's rules; the only file that knows `httparse`.

use std::mem::MaybeUninit;
use std::ops::Range;

use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::config::{HEAD_MAX_BYTES, HEAD_MAX_FIELDS};
use crate::http::message::{BodyLength, FoundFields, Headers, RequestHead, Version, plain_prefix};
use crate::http::refusal::{Code, Refusal};

/// Empty lines that may stand before a request line (RFC 9112 §2.2 asks for one).
const LEADING_EMPTY_LINES_MAX: usize = 4;

/// More fields than most heads have; the rest of the heads take more of the stack.
const FIELDS_COMMON: usize = 32;

/// Looks at the bytes of a head as they come, each once, and parses it when it is whole.
#[derive(Debug, Default)]
pub struct HeadReader {
    /// How many bytes were looked at.
    seen: usize,
    /// Where the request line starts, after empty lines.
    start: usize,
    /// The end of the request line, once it came.
    line_end: Option<usize>,
}

impl HeadReader {
    /// Ready for a head that starts at the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at `bytes`, which start with those of the last call. Once the head is whole: the head
    /// and its length in bytes. None asks for more.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
        let end = bytes.len().min(HEAD_MAX_BYTES);
        // Most heads come at once and are fine. Whatever is not is looked at byte by byte.
        if self.seen == 0
            && let Some(found) = at_once(&bytes[..end])
        {
            return Ok(Some(found));
        }
        while self.seen < end {
            // All that may stand within a line is passed over at once.
            self.seen += plain_prefix(&bytes[self.seen..end]);
            let at = self.seen;
            if at == end {
                break;
            }
            let Some(end_of_line) = check_byte(bytes, at)? else { return Ok(None) };
            self.seen = at + 1;
            if !end_of_line {
                continue;
            }
            if at + 1 == self.start + 2 {
                self.start = at + 1;
                if self.start > 2 * LEADING_EMPTY_LINES_MAX {
                    return Err(bad("too many empty lines before the request line"));
                }
            } else if self.line_end.is_none() {
                self.line_end = Some(at + 1);
                check_request_line(&bytes[self.start..=at])?;
            } else if bytes[..=at].ends_with(b"\r\n\r\n") {
                return match parse::<HEAD_MAX_FIELDS>(&bytes[self.start..=at])? {
                    Some((head, length)) if self.start + length == at + 1 => {
                        Ok(Some((head, at + 1)))
                    }
                    _ => Err(bad("the head ends early")),
                };
            }
        }
        if self.seen >= HEAD_MAX_BYTES {
            let message = format!("The request head is over {HEAD_MAX_BYTES} bytes");
            return Err(Refusal::new(Code::HeadTooLarge, message));
        }
        Ok(None)
    }
}

/// The head at the start of `bytes` and its length, where it is whole and nothing is wrong with it.
fn at_once(bytes: &[u8]) -> Option<(RequestHead, usize)> {
    let starts_with_line = bytes.first().is_some_and(|byte| !matches!(byte, b'\r' | b'\n'));
    let found = if starts_with_line { parse::<FIELDS_COMMON>(bytes).ok()? } else { None };
    found.filter(|(_, length)| has_strict_lines(&bytes[..*length]))
}

/// Whether each line ends with CR LF and holds no control byte but the tab, in a head that starts
/// with a line.
fn has_strict_lines(head: &[u8]) -> bool {
    let Some(next) = head.get(1..) else { return false };
    let mut others = 0;
    // Without an early exit, so that the compiler looks at many bytes at once.
    for (byte, next) in head[..next.len()].iter().zip(next) {
        others |= u8::from(*byte == b'\r') ^ u8::from(*next == b'\n');
        others |= u8::from(*byte < b' ')
            & u8::from(*byte != b'\t')
            & u8::from(*byte != b'\r')
            & u8::from(*byte != b'\n');
        others |= u8::from(*byte == 0x7f);
    }
    others == 0 && head.ends_with(b"\r\n\r\n")
}

/// Whether the byte at `at`, which is not plain, ends a line. None where that needs the next byte; an error for a byte
/// that no head may hold.
fn check_byte(bytes: &[u8], at: usize) -> Result<Option<bool>, Refusal> {
    match bytes[at] {
        b'\r' => match bytes.get(at + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(false)),
            Some(_) => Err(bad("a carriage return that ends no line")),
        },
        b'\n' if at > 0 && bytes[at - 1] == b'\r' => Ok(Some(true)),
        b'\n' => Err(bad("a line that does not end with CR LF")),
        _ => Err(bad("a control byte in the head")),
    }
}

fn bad(what: &str) -> Refusal {
    Refusal::new(Code::BadRequest, format!("The request is malformed: {what}"))
}

/// The request line is judged as soon as it is whole, so that what is not HTTP/1 is answered at once.
fn check_request_line(line: &[u8]) -> Result<(), Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; 0];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(line) {
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Ok(()),
        Err(error) => Err(describe(error)),
    }
}

fn describe(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::new(
            Code::HeadTooLarge,
            format!("The request head has more than {HEAD_MAX_FIELDS} fields"),
        ),
        httparse::Error::Version => bad(
            "the version is not HTTP/1.0 or HTTP/1.1, which is all that evertoken speaks; turn HTTP/2 off in \
                 the client",
        ),
        httparse::Error::HeaderName => bad("a field name with a byte that no name may hold"),
        httparse::Error::HeaderValue => bad("a field value with a byte that no value may hold"),
        _ => bad("the request line is not: method, target, version"),
    }
}

/// Parses the head at the start of `bytes`, of at most `FIELDS` fields; None where it is not whole.
// Not part of its callers, where its fields would lie on the stack for the life of a stream.
#[inline(never)]
fn parse<const FIELDS: usize>(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(describe(error)),
    };
    let version = match request.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let mut fields = FoundFields::with_room(request.headers.len());
    for field in request.headers.iter() {
        fields.push(place(bytes, field.name.as_bytes()), place(bytes, field.value));
    }
    let headers = fields.of(&bytes[..length]);
    let method = request.method.unwrap_or_default().to_owned();
    let head = check(method, request.path.unwrap_or_default(), version, headers)?;
    Ok(Some((head, length)))
}

/// Where `part` stands in `text`, of which it is a part.
fn place(text: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

/// Checks a head that was parsed by whichever server: target, host and framing.
pub fn check(
    method: String,
    target: &str,
    version: Version,
    headers: Headers,
) -> Result<RequestHead, Refusal> {
    let (authority, target) = split_target(&method, target)?;
    let host = host(&headers, version)?;
    let host = authority.or(host);
    let body = body_length(version, &headers)?;
    if let Some(expectation) = headers.first("expect")
        && !expectation.eq_ignore_ascii_case(b"100-continue")
    {
        return Err(bad("an Expect other than 100-continue"));
    }
    Ok(RequestHead { method, target, version, host, headers, body })
}

/// Origin form as it is, absolute form as its authority and origin form (RFC 9112 §3.2).
fn split_target(method: &str, target: &str) -> Result<(Option<String>, String), Refusal> {
    let is_plain = |byte: u8| byte != b'#' && (0x21..=0x7e).contains(&byte);
    if !target.bytes().all(is_plain) {
        // A provider's slug may hold letters of any script, and people type them as they are.
        let encoded = encode_slug(target).filter(|target| target.bytes().all(is_plain));
        let must = || bad("the target holds a byte that must be percent-encoded");
        return split_plain_target(method, &encoded.ok_or_else(must)?);
    }
    split_plain_target(method, target)
}

/// Refuses the methods that must not reach a provider, whatever their target.
fn check_method(method: &str) -> Result<(), Refusal> {
    match method {
        "CONNECT" => Err(bad("CONNECT is not served; set the base URL to this proxy instead")),
        // A server that knows it sends the request back, and with it the credential that was put in (RFC 9110 §9.3.8).
        "TRACE" => Err(bad("TRACE is not served: its answer would hold the provider's credential")),
        _ => Ok(()),
    }
}

/// `target` with the slug in it percent-encoded; None where there is no slug in it.
#[cold]
fn encode_slug(target: &str) -> Option<String> {
    let mut before = ["/to/", "/-/refresh/", "/-/token/"].into_iter();
    let (start, rest) = before.find_map(|start| Some((start, target.strip_prefix(start)?)))?;
    let (slug, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    Some(format!("{start}{}{rest}", utf8_percent_encode(slug, CONTROLS)))
}

fn split_plain_target(method: &str, target: &str) -> Result<(Option<String>, String), Refusal> {
    check_method(method)?;
    if target.starts_with('/') {
        return Ok((None, target.to_owned()));
    }
    let scheme_end = target.find("://").unwrap_or(0);
    let (scheme, rest) = target.split_at(scheme_end);
    let Some(rest) = rest.strip_prefix("://").filter(|_| is_web_scheme(scheme)) else {
        return Err(bad(
            "the target is neither a path nor an http URL; the base URL of the client has to be that of evertoken",
        ));
    };
    let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    if !is_authority(authority) {
        return Err(bad("the target's host is not one"));
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((Some(authority.to_owned()), path))
}

fn is_web_scheme(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Exactly one valid `Host` in HTTP/1.1 (RFC 9112 §3.2).
fn host(headers: &Headers, version: Version) -> Result<Option<String>, Refusal> {
    let mut hosts = headers.all("host");
    let (first, second) = (hosts.next(), hosts.next());
    match (first, second, version) {
        (_, Some(_), _) => Err(bad("more than one Host")),
        (None, None, Version::Http11) => Err(bad("no Host")),
        (None, None, Version::Http10) => Ok(None),
        (Some(host), None, _) => {
            let host = std::str::from_utf8(host).ok().filter(|host| is_authority(host));
            host.map(|host| Some(host.to_owned())).ok_or_else(|| bad("the Host is not one"))
        }
    }
}

/// A name or an address, with or without a port; no user (RFC 3986 §3.2).
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
    let port_fine = match port.strip_prefix(':') {
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    !host.is_empty() && host.bytes().all(plain) && port_fine
}

/// RFC 9112 §6, without the leniencies: what could be read in two ways is refused.
fn body_length(version: Version, headers: &Headers) -> Result<BodyLength, Refusal> {
    let mut codings = headers.all("transfer-encoding");
    let mut lengths = headers.all("content-length");
    let (coding, length) = (codings.next(), lengths.next());
    if codings.next().is_some() || lengths.next().is_some() {
        return Err(bad("more than one Transfer-Encoding or Content-Length"));
    }
    match (coding, length) {
        (None, None) => Ok(BodyLength::Absent),
        (Some(_), Some(_)) => Err(bad("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if version == Version::Http10 => {
            Err(bad("Transfer-Encoding in an HTTP/1.0 request"))
        }
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyLength::Chunked),
        (Some(_), None) => Err(bad("a Transfer-Encoding other than chunked")),
        (None, Some(length)) => {
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            let parsed = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            match parsed.filter(|_| digits) {
                Some(bytes) => Ok(BodyLength::Sized(bytes)),
                None => Err(bad("a Content-Length that is no number")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
