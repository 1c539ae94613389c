//! Token requests: each on a new connection, its answer read whole; the only place that runs `ureq`.
//! Every option that matters is set here.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::{Request, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver as UreqResolver};
use ureq::unversioned::transport::{
    ConnectProxyConnector, ConnectionDetails, Connector, NextTimeout, SocksConnector, TcpConnector,
    Transport,
};
use ureq::{Agent, Error, Proxy, Timeout};

use crate::config::Egress;
use crate::message::Headers;
use crate::secret::Secret;
use crate::shortage::Shortage;
use crate::upstream::fault::Fault;
use crate::upstream::head::RESPONSE_HEAD_MAX_BYTES;
use crate::upstream::resolver::Resolver;
use crate::upstream::roots::Roots;
use crate::upstream::watch::Watch;
use crate::upstream::{Timeouts, UpstreamError};

mod secured;

use secured::Secure;

/// The write buffer of a connection; a request with a longer header line gets a larger one.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// What a request line or header field needs beside its own text.
const LINE_SLACK_BYTES: usize = 128;

/// A request whose answer is read whole.
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
    /// Whether a body that broke off is whole all the same.
    pub is_whole: &'a dyn Fn(&Headers, &[u8]) -> bool,
}

/// A whole answer: status, header fields, body.
pub type WholeAnswer = (u16, Headers, Vec<u8>);

/// Sends token requests of one provider.
pub struct Poster {
    proxy: Option<Proxy>,
    roots: Roots,
    timeouts: Timeouts,
    resolver: Arc<Resolver>,
}

impl Poster {
    /// Prepares the way; the error says what is wrong with the proxy or the certificates.
    pub fn new(egress: &Egress, timeouts: Timeouts) -> Result<Self, String> {
        let proxy = match &egress.proxy {
            Some(url) => Some(
                Proxy::new(url.expose()).map_err(|_| "the proxy URL can't be used".to_owned())?,
            ),
            None => None,
        };
        let roots = Roots::of(egress)?;
        Ok(Self { proxy, roots, timeouts, resolver: Arc::new(Resolver::new(timeouts.connect)) })
    }

    /// Posts on a new connection and reads the whole answer. Redirects are not followed.
    pub fn post(&self, post: &Post<'_>) -> Result<WholeAnswer, UpstreamError> {
        let connected = Arc::new(AtomicBool::new(false));
        let outcome = self.run(post, &connected);
        outcome.map_err(|error| describe(&error, connected.load(Ordering::SeqCst)))
    }

    fn run(&self, post: &Post<'_>, connected: &Arc<AtomicBool>) -> Result<WholeAnswer, Error> {
        let mut builder = Request::builder().method("POST").uri(post.url);
        let mut longest_line = post.url.len();
        for (name, value) in post.headers {
            longest_line = longest_line.max(name.len() + value.expose().len());
            builder = builder.header(name, value.expose());
        }
        let request = builder.body(post.body.expose())?;
        let agent = self.agent(post.allowed, longest_line + LINE_SLACK_BYTES, connected);
        let (parts, answer) = agent.run(request)?.into_parts();
        let mut bytes = Vec::new();
        let most = post.answer_max_bytes as u64 + 1;
        let end = answer.into_reader().take(most).read_to_end(&mut bytes);
        if bytes.len() > post.answer_max_bytes {
            let why = format!("the answer is over {} bytes", post.answer_max_bytes);
            return Err(Error::Io(io::Error::other(why)));
        }
        let mut headers = Headers::new();
        for (name, value) in &parts.headers {
            headers.push(name.as_str(), value.as_bytes());
        }
        match end {
            Err(error) if !(post.is_whole)(&headers, &bytes) => Err(Error::from(error)),
            // A server that cuts the connection too early may have used up the refresh token.
            Ok(_) | Err(_) => Ok((parts.status.as_u16(), headers, bytes)),
        }
    }

    /// An agent for one request, so that nothing is kept: a kept connection may be closed at the
    /// moment of the next request, and that one can't be repeated.
    fn agent(&self, allowed: Duration, line_bytes: usize, connected: &Arc<AtomicBool>) -> Agent {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("")
            .accept("")
            .accept_encoding("")
            .proxy(self.proxy.clone())
            .no_delay(true)
            .max_response_header_size(RESPONSE_HEAD_MAX_BYTES)
            .input_buffer_size(RESPONSE_HEAD_MAX_BYTES)
            .output_buffer_size(line_bytes.max(WRITE_BUFFER_BYTES))
            .max_idle_connections(0)
            .timeout_global(Some(allowed))
            .timeout_connect(Some(self.timeouts.connect))
            .timeout_recv_response(Some(self.timeouts.response))
            .timeout_per_write(Some(self.timeouts.idle))
            .build();
        let connector =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(Secure(self.roots.clone()))
                .chain(Connected(connected.clone()));
        Agent::with_parts(config, connector, Remembering(self.resolver.clone()))
    }
}

/// Last of the chain: notes that a connection stands.
#[derive(Debug)]
struct Connected(Arc<AtomicBool>);

impl<In: Transport> Connector<In> for Connected {
    type Out = In;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<In>, Error> {
        self.0.store(chained.is_some(), Ordering::SeqCst);
        Ok(chained)
    }
}

/// Our own resolver in the place of the one that asks each time.
#[derive(Debug)]
struct Remembering(Arc<Resolver>);

impl UreqResolver for Remembering {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let scheme = uri.scheme().ok_or(Error::HostNotFound)?;
        let authority = uri.authority().ok_or(Error::HostNotFound)?;
        let both = DefaultResolver::host_and_port(scheme, authority).ok_or(Error::HostNotFound)?;
        let (host, port) = both.rsplit_once(':').ok_or(Error::HostNotFound)?;
        let port = port.parse().map_err(|_| Error::HostNotFound)?;
        let host = host.trim_matches(['[', ']']);
        let mut resolved = self.empty();
        for address in self.0.addresses(host, port, &Watch::default()).map_err(unresolved)? {
            resolved.push(address);
        }
        Ok(resolved)
    }
}

fn unresolved(fault: Fault) -> Error {
    match fault {
        Fault::TimedOut => Error::Timeout(Timeout::Resolve),
        Fault::Io(error) => Error::Io(error),
        Fault::Short(shortage) => Error::Io(shortage.into()),
        _ => Error::HostNotFound,
    }
}

fn describe(error: &Error, is_connected: bool) -> UpstreamError {
    if let Error::Io(error) = error
        && let Some(shortage) = Shortage::of(error).filter(|_| !is_connected)
    {
        return UpstreamError::Short(shortage);
    }
    match error {
        Error::Http(error) => UpstreamError::Unsendable(error.to_string()),
        Error::BadUri(why) => UpstreamError::Unsendable(why.clone()),
        Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            UpstreamError::Unreachable("no connection in time".to_owned())
        }
        Error::ConnectProxyFailed(_) => UpstreamError::Unreachable(plain(error)),
        Error::Timeout(_) if is_connected => {
            UpstreamError::TimedOut("no response in time".to_owned())
        }
        error if is_connected => UpstreamError::Broken(plain(error)),
        error => UpstreamError::Unreachable(plain(error)),
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
