//! Heads of requests, by strict rules: what could be read in two ways is refused; pure.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;
use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::http::head::{BadHead, HEAD_MAX_BYTES, Lines, Whole, number};
use crate::http::message::{BodyLength, Headers, RequestHead, Target, Version, method};
use crate::http::octets::is_name;
use crate::http::refusal::{Code, Refusal};
use crate::http::rules::Rules;

/// A parsed request line: the places of method and target, and the version.
#[derive(Debug)]
struct RequestLine {
    method: Range<usize>,
    target: Range<usize>,
    version: Version,
}

/// The empty lines that may stand before a head.
const EMPTY_LINES: [[u8; 2]; Rules::STRICT.empty_lines_before_max] =
    [*b"\r\n"; Rules::STRICT.empty_lines_before_max];

/// True if a head begins in `bytes`, or what can't be one. Empty lines alone, such as a client may send after a body (RFC
/// 9112 §2.2), are the beginning of none.
#[inline]
pub(crate) fn begins(bytes: &[u8]) -> bool {
    match bytes.first() {
        None => false,
        Some(first) if *first > b'\r' => true,
        Some(_) => !EMPTY_LINES.as_flattened().starts_with(bytes),
    }
}

/// Looks at the bytes of a head as they come, each once.
#[derive(Debug, Default)]
pub struct RequestReader(Lines<RequestLine>);

impl RequestReader {
    /// Scans `bytes`, which start with those of the last call. Returns the head and its length in bytes once it is
    /// whole; None asks for more.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
        let mut head = None;
        let length = self.read_to(bytes, &mut head)?;
        Ok(head.zip(length))
    }

    /// The same; puts the head in `place`, and returns its length alone.
    pub(crate) fn read_to(
        &mut self,
        bytes: &[u8],
        place: &mut Option<RequestHead>,
    ) -> Result<Option<usize>, Refusal> {
        let whole = self.0.read(bytes, &Rules::STRICT, request_line)?;
        let Some(Whole { start_line: line, headers, length }) = whole else { return Ok(None) };
        let method = method(&bytes[line.method]);
        let target = std::str::from_utf8(&bytes[line.target]).map_err(|_| BadHead::RequestLine)?;
        *place = Some(check(method, target, line.version, headers)?);
        Ok(Some(length))
    }
}

/// `GET /a HTTP/1.1` (RFC 9112 §3). What else the target may not hold is looked at with the whole head.
fn request_line(bytes: &[u8], line: Range<usize>) -> Result<RequestLine, BadHead> {
    let text = &bytes[line.clone()];
    let space = |text: &[u8]| text.iter().position(|byte| *byte == b' ').filter(|at| *at > 0);
    let method = space(text).ok_or(BadHead::RequestLine)?;
    let rest = &text[method + 1..];
    let target = space(rest).ok_or(BadHead::RequestLine)?;
    if !is_name(&text[..method]) || rest[..target].contains(&b'\t') {
        return Err(BadHead::RequestLine);
    }
    let version = match &rest[target + 1..] {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', ..] => {
            return Err(BadHead::RequestLine);
        }
        _ => return Err(BadHead::Version),
    };
    let start = line.start + method + 1;
    let method = line.start..line.start + method;
    Ok(RequestLine { method, target: start..start + target, version })
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Self {
        match bad {
            BadHead::TooLong => {
                let message = format!("The request head is over {HEAD_MAX_BYTES} bytes");
                Self::new(Code::HeadTooLarge, message)
            }
            BadHead::TooManyFields(most) => {
                let message = format!("The request head has more than {most} fields");
                Self::new(Code::HeadTooLarge, message)
            }
            bad => Self::new(Code::BadRequest, format!("The request is malformed: {bad}")),
        }
    }
}

fn bad(what: &str) -> Refusal {
    Refusal::new(Code::BadRequest, format!("The request is malformed: {what}"))
}

/// Checks a head that either server parsed: target, host and framing.
pub(crate) fn check(
    method: Cow<'static, str>,
    target: &str,
    version: Version,
    headers: Headers,
) -> Result<RequestHead, Refusal> {
    let (authority, target) = split_target(&method, target)?;
    check_host(&headers, version)?;
    let body = body_length(version, &headers)?;
    if let Some(expectation) = headers.first("expect")
        && !expectation.eq_ignore_ascii_case(b"100-continue")
    {
        return Err(bad("an Expect other than 100-continue"));
    }
    Ok(RequestHead { method, target, version, authority, headers, body })
}

/// Origin form unchanged; absolute form as its authority and its origin form (RFC 9112 §3.2).
fn split_target(method: &str, target: &str) -> Result<(Option<String>, Target), Refusal> {
    let is_plain = |byte: u8| byte != b'#' && (0x21..=0x7e).contains(&byte);
    if !target.bytes().all(is_plain) {
        // A provider's slug may contain letters of any script, and people type them unencoded.
        let encoded = encode_slug(target).filter(|target| target.bytes().all(is_plain));
        let must = || bad("the target holds a byte that must be percent-encoded");
        return split_plain_target(method, &encoded.ok_or_else(must)?);
    }
    split_plain_target(method, target)
}

/// Refuses methods that must not reach a provider, whatever their target.
fn check_method(method: &str) -> Result<(), Refusal> {
    match method {
        "CONNECT" => Err(bad("CONNECT is not served; set the base URL to this proxy instead")),
        // A server that supports it sends the request back, including the added credential (RFC 9110 §9.3.8).
        "TRACE" => Err(bad("TRACE is not served: its answer would hold the provider's credential")),
        _ => Ok(()),
    }
}

/// `target` with its slug percent-encoded; None if it has no slug.
#[cold]
fn encode_slug(target: &str) -> Option<String> {
    let mut before = ["/to/", "/-/refresh/", "/-/token/"].into_iter();
    let (start, rest) = before.find_map(|start| Some((start, target.strip_prefix(start)?)))?;
    let (slug, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    Some(format!("{start}{}{rest}", utf8_percent_encode(slug, CONTROLS)))
}

fn split_plain_target(method: &str, target: &str) -> Result<(Option<String>, Target), Refusal> {
    check_method(method)?;
    if target.starts_with('/') {
        return Ok((None, target.into()));
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
    let path = if path.starts_with('/') { path.into() } else { Target::from(&*format!("/{path}")) };
    Ok((Some(authority.to_owned()), path))
}

fn is_web_scheme(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Exactly one valid `Host` in HTTP/1.1 (RFC 9112 §3.2).
fn check_host(headers: &Headers, version: Version) -> Result<(), Refusal> {
    let mut hosts = headers.all("host");
    let (first, second) = (hosts.next(), hosts.next());
    match (first, second, version) {
        (_, Some(_), _) => Err(bad("more than one Host")),
        (None, None, Version::Http11) => Err(bad("no Host")),
        (None, None, Version::Http10) => Ok(()),
        (Some(host), None, _) => {
            let host = std::str::from_utf8(host).ok().filter(|host| is_authority(host));
            host.map(|_| ()).ok_or_else(|| bad("the Host is not one"))
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
        None => text.split_at(memchr(b':', text.as_bytes()).unwrap_or(text.len())),
    };
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.' | b'_' | b'~' | b'%' | b'!' | b'$' | b'&'..=b',' | b';' | b'='
            )
    };
    let port_fine = match port.strip_prefix(':') {
        Some(digits) => digits.is_empty() || digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    !host.is_empty() && host.bytes().all(plain) && port_fine
}

/// RFC 9112 §6, without the leniencies: an ambiguous framing is refused.
fn body_length(version: Version, headers: &Headers) -> Result<BodyLength, Refusal> {
    let mut codings = headers.all("transfer-encoding");
    let mut lengths = headers.all("content-length");
    let (coding, length) = (codings.next(), lengths.next());
    if codings.next().is_some() || lengths.next().is_some() {
        return Err(bad("more than one Transfer-Encoding or Content-Length"));
    }
    match (coding, length) {
        (None, None) => Ok(BodyLength::Absent),
        (Some(_), Some(_)) => Err(BadHead::CodingAndLength.into()),
        (Some(_), None) if version == Version::Http10 => {
            Err(bad("Transfer-Encoding in an HTTP/1.0 request"))
        }
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyLength::Chunked),
        (Some(_), None) => Err(BadHead::Coding.into()),
        (None, Some(length)) => Ok(BodyLength::Sized(number(length).ok_or(BadHead::Length)?)),
    }
}

#[cfg(test)]
mod tests;
