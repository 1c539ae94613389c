//! HTTP messages as values: heads and header fields, shared by both sides of the proxy.

use std::borrow::Cow;

mod field;
mod headers;
pub(crate) mod memory;
mod target;

pub use headers::Headers;
pub(crate) use headers::{FieldLine, FoundFields, members};
pub(crate) use target::Target;
pub(crate) use target::path_of;

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
    pub method: Cow<'static, str>,
    /// Path and query in origin form, bytes unchanged; always starts with `/`.
    pub target: Target,
    /// The client's version.
    pub version: Version,
    /// The authority of an absolute-form target.
    pub authority: Option<String>,
    /// All header fields as they came.
    pub headers: Headers,
    /// The body's framing.
    pub body: BodyLength,
}

impl RequestHead {
    /// The authority of an absolute-form target, or else the value of `Host` (RFC 9112 §3.2.2). None for an HTTP/1.0 client
    /// that sent none.
    pub fn host(&self) -> Option<&str> {
        let field = || std::str::from_utf8(self.headers.first("host")?).ok();
        self.authority.as_deref().or_else(field)
    }

    /// The target up to its query.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// True if the client wants the connection kept.
    pub fn wants_keep_alive(&self) -> bool {
        keeps_alive(self.version, &self.headers)
    }
}

/// The name of a method, which is a token. The usual ones take no memory.
pub(crate) fn method(name: &[u8]) -> Cow<'static, str> {
    let usual = ["POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"];
    let known = usual.into_iter().find(|usual| usual.as_bytes() == name);
    known.map_or_else(|| String::from_utf8_lossy(name).into_owned().into(), Cow::Borrowed)
}

/// True if the connection may be used again after a message of `version` (RFC 9112 §9.3).
pub(crate) fn keeps_alive(version: Version, headers: &Headers) -> bool {
    let says = |what| headers.list_contains("connection", what);
    !says("close") && (version == Version::Http11 || says("keep-alive"))
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
