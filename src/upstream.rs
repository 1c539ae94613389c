//! The way out: the only place that knows `ureq`. Every option that matters to a proxy is set here.
//!
//! `ureq` runs the HTTP exchange; the sockets under it are our own (`socket`), so that a client
//! that goes away ends the exchange, an answer that comes before the whole request was sent is not
//! lost, and names are not looked up for every request (`resolver`).

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{
    ConnectProxyConnector, Connector, RustlsConnector, SocksConnector,
};
use ureq::{Agent, Body, Error, Proxy, SendBody, Timeout};

use crate::config::Egress;
use crate::message::{Headers, ResponseHead};
use crate::secret::Secret;

mod resolver;
mod socket;
mod watch;

use watch::{Exchange, Watch};

/// The largest response head that is taken, and the read buffer of a connection.
pub const RESPONSE_HEAD_MAX_BYTES: usize = 16 * 1024;
/// The write buffer of a connection; a request with a longer header line gets a larger one.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// What a request line or header field needs beside its own text.
const LINE_SLACK_BYTES: usize = 128;
/// Idle connections that are kept to a provider.
const IDLE_MAX_CONNECTIONS: usize = 64;
/// How long an idle connection is kept; servers commonly close theirs after a minute.
const IDLE_MAX_AGE: Duration = Duration::from_secs(50);

/// How long the phases of an exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Name, TCP and TLS.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub response: Duration,
    /// Longest silence within a response, or while the request is not taken.
    pub idle: Duration,
}

/// A request to send.
#[derive(Debug)]
pub struct OutRequest {
    /// The method, case kept.
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// All header fields, without those that frame the body.
    pub headers: Headers,
}

/// A request's body.
pub enum OutBody<'a> {
    /// None at all.
    Absent,
    /// Held in memory.
    Held(&'a [u8]),
    /// Read while it is sent: its length, or None for chunks.
    Streamed(Option<u64>, &'a mut dyn Read),
}

/// How the body of a response is delimited for who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerLength {
    /// There is none (HEAD, 204, 304).
    Absent,
    /// So many bytes.
    Sized(u64),
    /// Until it ends.
    Unknown,
}

/// A response whose head has arrived. Reading yields bytes as they arrive; dropping it before the
/// end closes the upstream connection. It stays on the thread that sent the request, and is dropped
/// before that thread sends another.
pub struct Answer {
    /// Status and header fields.
    pub head: ResponseHead,
    /// How the body is delimited.
    pub length: AnswerLength,
    /// What was read of the body already.
    ahead: io::Cursor<Vec<u8>>,
    body: ureq::BodyReader<'static>,
    exchange: Exchange,
}

/// Why there is no response.
#[derive(Debug)]
pub enum UpstreamError {
    /// No connection: nothing was sent.
    Unreachable(String),
    /// A connection, but no HTTP response on it.
    Broken(String),
    /// No response head in time.
    TimedOut(String),
    /// The client went away.
    ClientGone,
    /// The client's request body could not be read.
    RequestBody(io::Error),
    /// The request holds something that can't be sent.
    Unsendable(String),
}

/// The way to one provider's endpoints.
#[derive(Debug)]
pub struct Upstream {
    agent: Agent,
    timeouts: Timeouts,
}

impl Upstream {
    /// Prepares the way; the error says what is wrong with the proxy or the certificates.
    pub fn new(egress: &Egress, timeouts: Timeouts) -> Result<Self, String> {
        let proxy = match &egress.proxy {
            Some(url) => Some(
                Proxy::new(url.expose()).map_err(|_| "the proxy URL can't be used".to_owned())?,
            ),
            None => None,
        };
        let roots = match &egress.extra_roots_pem {
            Some(pem) => roots_with(pem)?,
            None => RootCerts::WebPki,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("")
            .accept("")
            .accept_encoding("")
            .proxy(proxy)
            .allow_non_standard_methods(true)
            .no_delay(true)
            .max_response_header_size(RESPONSE_HEAD_MAX_BYTES)
            .input_buffer_size(RESPONSE_HEAD_MAX_BYTES)
            .output_buffer_size(WRITE_BUFFER_BYTES)
            .max_idle_connections(IDLE_MAX_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_MAX_CONNECTIONS)
            .max_idle_age(IDLE_MAX_AGE)
            .timeout_connect(Some(timeouts.connect))
            .timeout_recv_response(Some(timeouts.response))
            .timeout_per_write(Some(timeouts.idle))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let connector =
            ().chain(watch::Connecting)
                .chain(SocksConnector::default())
                .chain(watch::Sliced)
                .chain(ConnectProxyConnector::default())
                .chain(socket::SocketConnector)
                .chain(RustlsConnector::default())
                .chain(watch::Connected);
        let agent = Agent::with_parts(config, connector, resolver::Resolver::new(timeouts.connect));
        Ok(Self { agent, timeouts })
    }

    /// Sends `request` and returns once the head of the response is there.
    ///
    /// `client` is watched: when it goes away, the exchange ends. A request that fails on a kept
    /// connection before any byte of a response is sent once more on a new one, since the server
    /// may have closed it at that moment (RFC 9110 §9.2.2 allows what was never processed).
    pub fn send(
        &self,
        request: &OutRequest,
        body: &mut OutBody<'_>,
        client: Option<&Arc<TcpStream>>,
    ) -> Result<Answer, UpstreamError> {
        match self.attempt(request, body, client, true) {
            Err(Failed { stale: true, .. }) => {}
            other => return other.map_err(|failed| failed.error),
        }
        self.attempt(request, body, client, false).map_err(|failed| failed.error)
    }

    fn attempt(
        &self,
        request: &OutRequest,
        body: &mut OutBody<'_>,
        client: Option<&Arc<TcpStream>>,
        may_reuse: bool,
    ) -> Result<Answer, Failed> {
        let exchange = Exchange::begin(client.cloned(), self.timeouts.idle);
        let sent = self.run(request, body, may_reuse);
        let watch = exchange.watch();
        let response = sent.map_err(|error| Failed::new(error, body, &watch))?;
        exchange.head_arrived();
        Ok(answer(&request.method, response, exchange))
    }

    fn run(
        &self,
        request: &OutRequest,
        body: &mut OutBody<'_>,
        may_reuse: bool,
    ) -> Result<Response<Body>, Error> {
        let mut builder = Request::builder().method(request.method.as_bytes()).uri(&request.url);
        let mut longest_line = request.url.len();
        for (name, value) in request.headers.iter() {
            longest_line = longest_line.max(name.len() + value.len());
            builder = builder.header(name, value);
        }
        let length = match body {
            OutBody::Absent => None,
            OutBody::Held(bytes) => Some(bytes.len() as u64),
            OutBody::Streamed(length, _) => *length,
        };
        match (&body, length) {
            // Without a length ureq would announce chunks for these (RFC 9110 §8.6 asks for it).
            (OutBody::Absent, _) if matches!(&*request.method, "POST" | "PUT" | "PATCH") => {
                builder = builder.header("content-length", 0);
            }
            (OutBody::Absent, _) => {}
            (_, Some(length)) => builder = builder.header("content-length", length),
            (_, None) => builder = builder.header("transfer-encoding", "chunked"),
        }
        let needed = longest_line + LINE_SLACK_BYTES;
        match body {
            OutBody::Absent | OutBody::Held([]) => self.call(builder.body(())?, needed, may_reuse),
            OutBody::Held(bytes) => self.call(builder.body(&**bytes)?, needed, may_reuse),
            OutBody::Streamed(length, reader) => {
                let mut reader = socket::Abandonable::new(&mut **reader, *length);
                let body = SendBody::from_reader(&mut reader);
                self.call(builder.body(body)?, needed, may_reuse)
            }
        }
    }

    fn call(
        &self,
        request: Request<impl ureq::AsSendBody>,
        needed_bytes: usize,
        may_reuse: bool,
    ) -> Result<Response<Body>, Error> {
        if may_reuse && needed_bytes <= WRITE_BUFFER_BYTES {
            return self.agent.run(request);
        }
        let mut config = self.agent.configure_request(request);
        if !may_reuse {
            config = config.max_idle_age(Duration::ZERO);
        }
        if needed_bytes > WRITE_BUFFER_BYTES {
            config = config.output_buffer_size(needed_bytes);
        }
        self.agent.run(config.build())
    }
}

/// A request whose answer is read whole: a token request.
#[derive(Debug)]
pub struct Post<'a> {
    /// Where to.
    pub url: &'a str,
    /// All header fields, without those that frame the body.
    pub headers: &'a [(String, Secret)],
    /// The body.
    pub body: &'a Secret,
    /// The time for all of it.
    pub allowed: Duration,
    /// The largest body that is taken as an answer.
    pub answer_max_bytes: usize,
}

/// A whole answer: status, header fields, body.
pub type WholeAnswer = (u16, Headers, Vec<u8>);

impl Upstream {
    /// Posts on a new connection and reads the whole answer. Redirects are not followed.
    pub fn post(&self, post: &Post<'_>) -> Result<WholeAnswer, UpstreamError> {
        let exchange = Exchange::begin(None, self.timeouts.idle);
        self.post_on_new(post).map_err(|error| describe(error, &exchange.watch()))
    }

    fn post_on_new(&self, post: &Post<'_>) -> Result<WholeAnswer, Error> {
        let mut builder = Request::builder().method("POST").uri(post.url);
        let mut longest_line = post.url.len();
        for (name, value) in post.headers {
            longest_line = longest_line.max(name.len() + value.expose().len());
            builder = builder.header(name, value.expose());
        }
        let request = builder.body(post.body.expose())?;
        let config = self.agent.configure_request(request);
        // A kept connection may be closed at this moment, and this request can't be repeated.
        let config = config.max_idle_age(Duration::ZERO).timeout_global(Some(post.allowed));
        let needed_bytes = (longest_line + LINE_SLACK_BYTES).max(WRITE_BUFFER_BYTES);
        let request = config.output_buffer_size(needed_bytes).build();
        let (parts, answer) = self.agent.run(request)?.into_parts();
        let mut bytes = Vec::new();
        let most = post.answer_max_bytes as u64 + 1;
        answer.into_reader().take(most).read_to_end(&mut bytes).map_err(Error::from)?;
        if bytes.len() > post.answer_max_bytes {
            let why = format!("the answer is over {} bytes", post.answer_max_bytes);
            return Err(Error::Io(io::Error::other(why)));
        }
        Ok((parts.status.as_u16(), to_headers(&parts.headers), bytes))
    }
}

fn to_headers(map: &ureq::http::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        headers.push(name.as_str(), value.as_bytes());
    }
    headers
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.ahead.read(buffer)? {
            0 => self.body.read(buffer),
            count => Ok(count),
        }
    }
}

impl Answer {
    /// Reads up to `most_bytes` of the body ahead, as far as that takes no silence longer than
    /// `silence_max`; reading the answer yields them all the same. Returns them, and whether they
    /// are the whole body.
    pub fn read_ahead(&mut self, most_bytes: usize, silence_max: Duration) -> (&[u8], bool) {
        watch::note(|watch| watch.idle = Some(silence_max));
        let wanted = most_bytes as u64 + 1;
        let read = (&mut self.body).take(wanted).read_to_end(self.ahead.get_mut());
        self.exchange.head_arrived();
        let is_whole = read.is_ok() && self.ahead.get_ref().len() <= most_bytes;
        (self.ahead.get_ref(), is_whole)
    }

    /// Whether the client was seen to have gone away.
    pub fn client_is_gone(&self) -> bool {
        self.exchange.watch().client_gone
    }
}

fn answer(method: &str, response: Response<Body>, exchange: Exchange) -> Answer {
    let (parts, body) = response.into_parts();
    let headers = to_headers(&parts.headers);
    let status = parts.status.as_u16();
    let length = answer_length(method, status, &headers);
    Answer {
        head: ResponseHead { status, headers },
        length,
        ahead: io::Cursor::default(),
        body: body.into_reader(),
        exchange,
    }
}

/// RFC 9112 §6.3.
fn answer_length(method: &str, status: u16, headers: &Headers) -> AnswerLength {
    if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
        return AnswerLength::Absent;
    }
    if headers.contains("transfer-encoding") {
        return AnswerLength::Unknown;
    }
    let declared =
        headers.first("content-length").and_then(|value| std::str::from_utf8(value).ok());
    declared
        .and_then(|value| value.trim().parse().ok())
        .map_or(AnswerLength::Unknown, AnswerLength::Sized)
}

/// The public roots and those in `pem`.
fn roots_with(pem: &str) -> Result<RootCerts, String> {
    let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let mut roots: Vec<_> =
        public.map(|root| Certificate::from_der(root.as_ref()).to_owned()).collect();
    let before = roots.len();
    for item in parse_pem(pem.as_bytes()) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| error.to_string())? {
            roots.push(certificate);
        }
    }
    if roots.len() == before {
        return Err("there is no certificate in the ca_file".to_owned());
    }
    Ok(RootCerts::new_with_certs(&roots))
}

/// A failed attempt, and whether a kept connection that had just been closed is to blame.
struct Failed {
    error: UpstreamError,
    stale: bool,
}

impl Failed {
    fn new(error: Error, body: &OutBody<'_>, watch: &Watch) -> Self {
        let repeatable = match body {
            OutBody::Absent | OutBody::Held(_) => true,
            OutBody::Streamed(..) => !watch.body_touched,
        };
        let stale = repeatable
            && watch.reused()
            && !watch.received
            && !watch.client_gone
            && matches!(error, Error::Io(_));
        Self { error: describe(error, watch), stale }
    }
}

fn describe(error: Error, watch: &Watch) -> UpstreamError {
    if watch.client_gone {
        return UpstreamError::ClientGone;
    }
    match error {
        Error::Io(error) if watch.body_failed => UpstreamError::RequestBody(error),
        Error::Http(error) => UpstreamError::Unsendable(error.to_string()),
        Error::BadUri(why) => UpstreamError::Unsendable(why),
        Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            UpstreamError::Unreachable("no connection in time".to_owned())
        }
        error @ Error::ConnectProxyFailed(_) => UpstreamError::Unreachable(plain(&error)),
        Error::Timeout(_) if watch.established() => {
            UpstreamError::TimedOut("no response in time".to_owned())
        }
        error if watch.established() => UpstreamError::Broken(plain(&error)),
        error => UpstreamError::Unreachable(plain(&error)),
    }
}

/// The error in words, without anything from the exchange itself.
fn plain(error: &Error) -> String {
    match error {
        Error::Io(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            _ => error.to_string(),
        },
        Error::HostNotFound => "the host name is not known".to_owned(),
        Error::Rustls(error) => format!("TLS: {error}"),
        Error::Protocol(_) => "the answer is not HTTP/1.1".to_owned(),
        Error::LargeResponseHeader(..) => {
            format!("the response head is over {RESPONSE_HEAD_MAX_BYTES} bytes")
        }
        other => other.to_string(),
    }
}
