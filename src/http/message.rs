//! HTTP messages as values: heads and header fields, shared by both sides of the proxy.

use std::fmt;
use std::ops::Range;

use memchr::memchr;

use crate::clock::Timestamp;
use crate::http::name_filter::NameFilter;

/// Header fields in the order they came, names as written (RFC 9110 §5).
///
/// One text holds all names and values; for a parsed head it is the head's text as it came. So the fields cost two
/// allocations and one copy, whatever their number.
#[derive(Clone, Default)]
pub struct Headers {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// The names of the fields, and of removed ones.
    names: NameFilter,
}

/// The places of a field's name and value in the text.
#[derive(Clone, Debug)]
struct Field {
    name: Span,
    value: Span,
}

/// A part of the text, in half the size of a `Range`.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(range: Range<usize>) -> Self {
        let at = |index| u32::try_from(index).expect("a head is limited to kilobytes");
        Self { start: at(range.start), end: at(range.end) }
    }

    fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }
}

/// The fields found in the text of a head.
#[derive(Debug, Default)]
pub(crate) struct FoundFields {
    fields: Vec<Field>,
    names: NameFilter,
}

impl FoundFields {
    /// No fields, with room for `fields` of them.
    pub(crate) fn with_room(fields: usize) -> Self {
        Self { fields: Vec::with_capacity(fields), names: NameFilter::default() }
    }

    /// The number of fields.
    pub(crate) fn count(&self) -> usize {
        self.fields.len()
    }

    /// Adds a field by the places of its name and value in `text`.
    #[inline]
    pub(crate) fn push(&mut self, text: &[u8], name: Range<usize>, value: Range<usize>) {
        self.names = self.names.with(&text[name.clone()]);
        self.fields.push(Field { name: Span::new(name), value: Span::new(value) });
    }

    /// The fields with the `text` in which they were found.
    pub(crate) fn of(self, text: &[u8]) -> Headers {
        Headers { text: text.to_vec(), fields: self.fields, names: self.names }
    }
}

impl Headers {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// No fields, with room for `fields` of them that hold `bytes`.
    pub fn with_room(fields: usize, bytes: usize) -> Self {
        let names = NameFilter::default();
        Self { text: Vec::with_capacity(bytes), fields: Vec::with_capacity(fields), names }
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push_parts(name.as_ref(), &[value.as_ref()]);
    }

    /// Adds a field at the end, its value in parts.
    pub fn push_parts(&mut self, name: &[u8], value: &[&[u8]]) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let between = self.text.len();
        for part in value {
            self.text.extend_from_slice(part);
        }
        let end = self.text.len();
        self.names = self.names.with(name);
        self.fields.push(Field { name: Span::new(start..between), value: Span::new(between..end) });
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// True if there are no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The first field called `name`, whatever its case.
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Every field called `name`, whatever its case, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let is_called = move |field: &&Field| {
            // Names of another length, as most are, need no comparison.
            (field.name.end - field.name.start) as usize == name.len()
                && field.name.of(&self.text).eq_ignore_ascii_case(name.as_bytes())
        };
        let may_be_there = self.names.may_hold(name.as_bytes());
        let fields: &[Field] = if may_be_there { &self.fields } else { &[] };
        fields.iter().filter(is_called).map(|field| field.value.of(&self.text))
    }

    /// True if there is a field called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// Removes every field called `name`.
    pub fn remove(&mut self, name: &str) {
        if self.names.may_hold(name.as_bytes()) {
            self.retain(|own, _| !own.eq_ignore_ascii_case(name.as_bytes()));
        }
    }

    /// Keeps the fields for which `keep` holds, called with name and value.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let text = &self.text;
        self.fields.retain(|field| keep(field.name.of(text), field.value.of(text)));
    }

    /// All fields in order: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (field.name.of(&self.text), field.value.of(&self.text)))
    }

    /// The members of the comma-separated lists in every field called `name`, trimmed and without empty ones (RFC
    /// 9110 §5.6.1).
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(members)
    }

    /// The longest wait in `Retry-After`, in seconds, as a date (RFC 9110 §10.2.3) or since 1970, or in Azure's fields with
    /// milliseconds; in milliseconds from `now`. A date in the past does not count.
    pub fn retry_after_ms(&self, now: Timestamp) -> Option<u64> {
        let texts = |name| self.all(name).filter_map(|value| std::str::from_utf8(value).ok());
        let after = texts("retry-after").filter_map(|text| {
            let text = text.trim();
            let left_ms = |at: Timestamp| u64::try_from(at.millis_since(now)).ok();
            match decimal_ms(text, 1000.0) {
                Some(ms) if SINCE_1970_MS.contains(&ms) => {
                    left_ms(Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)))
                }
                Some(ms) => Some(ms),
                None => left_ms(time(text)?),
            }
        });
        let short = ["retry-after-ms", "x-ms-retry-after-ms"].into_iter().flat_map(texts);
        after.chain(short.filter_map(|text| decimal_ms(text.trim(), 1.0))).max()
    }

    /// The sender's clock, from `Date`.
    pub fn date(&self) -> Option<Timestamp> {
        time(std::str::from_utf8(self.first("date")?).ok()?)
    }

    /// True if the list in the fields called `name` contains `member`, whatever its case.
    pub fn list_contains(&self, name: &str, member: &str) -> bool {
        let is = |own: &[u8]| own.eq_ignore_ascii_case(member.as_bytes());
        // Most lists have one member.
        let holds = |value: &[u8]| match memchr(b',', value) {
            None => is(value.trim_ascii()),
            Some(_) => members(value).any(is),
        };
        self.all(name).any(holds)
    }
}

/// Such a number of seconds in `Retry-After` is a time since 1970, which some servers send; in milliseconds.
const SINCE_1970_MS: Range<u64> = 1_500_000_000_000..100_000_000_000_000;

/// A number without a sign, such as `1.5`, of units of so many milliseconds; rounded up.
fn decimal_ms(text: &str, unit_ms: f64) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = text.parse().ok().filter(|_| is_plain)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast saturates, and the number has no sign"
    )]
    Some((number * unit_ms).ceil() as u64)
}

/// A time in one of HTTP's formats (RFC 9110 §5.6.7).
fn time(text: &str) -> Option<Timestamp> {
    Some(Timestamp::from_system_time(httpdate::parse_http_date(text).ok()?))
}

/// The members of one comma-separated list.
pub(crate) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    let all = std::iter::from_fn(move || {
        let list = rest?;
        let end = memchr(b',', list);
        rest = end.map(|end| &list[end + 1..]);
        Some(list[..end.unwrap_or(list.len())].trim_ascii())
    });
    all.filter(|member| !member.is_empty())
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |bytes| String::from_utf8_lossy(bytes);
        f.debug_map().entries(self.iter().map(|(name, value)| (words(name), words(value)))).finish()
    }
}

/// The HTTP versions served (RFC 9112 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no chunks, closes unless asked to keep alive.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The framing of a request's body (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Neither Content-Length nor Transfer-Encoding: no body.
    Absent,
    /// Content-Length, in bytes; 0 is a body of no bytes.
    Sized(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The framing of a response's body for its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLength {
    /// No body (HEAD, 204, 304).
    Absent,
    /// This many bytes.
    Sized(u64),
    /// Until it ends.
    Unknown,
}

/// A request up to its body, checked by the ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// A token, with its case kept.
    pub method: String,
    /// Path and query in origin form, bytes unchanged; always starts with `/`.
    pub target: String,
    /// The client's version.
    pub version: Version,
    /// The value of `Host`, or the authority of an absolute-form target, which takes precedence (RFC 9112 §3.2.2).
    /// None for an HTTP/1.0 client that sent none.
    pub host: Option<String>,
    /// All header fields as they came.
    pub headers: Headers,
    /// The body's framing.
    pub body: BodyLength,
}

impl RequestHead {
    /// The target up to its query.
    pub fn path(&self) -> &str {
        path_of(&self.target)
    }

    /// True if the client wants the connection kept.
    pub fn wants_keep_alive(&self) -> bool {
        keeps_alive(self.version, &self.headers)
    }
}

/// True if the connection may be used again after a message of `version` (RFC 9112 §9.3).
pub(crate) fn keeps_alive(version: Version, headers: &Headers) -> bool {
    let says = |what| headers.list_contains("connection", what);
    !says("close") && (version == Version::Http11 || says("keep-alive"))
}

/// `target` up to its query.
pub(crate) fn path_of(target: &str) -> &str {
    // Byte by byte, which is faster for so few than the library's search for a character.
    let end = target.bytes().position(|byte| byte == b'?').unwrap_or(target.len());
    &target[..end]
}

/// The reason phrase of `status` (RFC 9110 §15), empty if there is none. Providers' own phrases are not kept, so this
/// one is sent instead.
pub(crate) const fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        529 => "Site is overloaded",
        _ => "",
    }
}

/// A response up to its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// Header fields in order.
    pub headers: Headers,
}

#[cfg(test)]
mod tests;
