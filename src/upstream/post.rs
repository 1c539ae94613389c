//! Requests to issuers: each on a new connection, its answer read whole; the only file that runs `ureq`. It sets every
//! option that matters.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::Request;
use ureq::{Agent, Error};

use crate::clock::Deadline;
use crate::config::Egress;
use crate::http::head::HEAD_MAX_BYTES;
use crate::http::message::Headers;
use crate::secret::Secret;
use crate::upstream::connect::Connector;
use crate::upstream::error::{SetupError, UpstreamError};
use crate::upstream::fault::Fault;
use crate::upstream::origin::Origin;
use crate::upstream::timeouts::Timeouts;
use crate::upstream::watch::Watch;

mod route;

use route::{HopOutcome, ProxyHop, Unresolved};

/// The write buffer of a connection; a request with a longer header line gets a larger one.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// The bytes of a request line or header field besides its own text.
const LINE_SLACK_BYTES: usize = 128;

/// A request whose answer is read whole.
pub(crate) struct Post<'a> {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// The URL.
    pub url: &'a str,
    /// All header fields, except those that frame the body.
    pub headers: &'a [(String, Secret)],
    /// The body, which a GET does not send.
    pub body: &'a Secret,
    /// The time for the connection.
    pub connecting: Duration,
    /// The time for the whole request.
    pub allowed: Duration,
    /// The largest answer body.
    pub answer_max_bytes: usize,
    /// Decides whether a body that broke off is still of use.
    pub is_of_use: &'a dyn Fn(&Headers, &[u8]) -> bool,
}

/// A whole answer: status, header fields, body.
pub(crate) type WholeAnswer = (u16, Headers, Vec<u8>);

/// Sends token requests of one provider.
pub(crate) struct Poster {
    connector: Arc<Connector>,
    timeouts: Timeouts,
}

impl Poster {
    /// Prepares the connections; the error names the problem of the proxy or the certificates.
    pub(crate) fn new(egress: &Egress, timeouts: Timeouts) -> Result<Self, SetupError> {
        let connector = Connector::new(egress, timeouts.connect)?;
        Ok(Self { connector: Arc::new(connector), timeouts })
    }

    /// Sends on a new connection and reads the whole answer. Redirects are not followed.
    pub(crate) fn post(&self, post: &Post<'_>) -> Result<WholeAnswer, UpstreamError> {
        let route = ProxyHop::over(self.connector.clone(), post.connecting);
        self.run(post, &route).map_err(|error| match route.take_outcome() {
            HopOutcome::Failed(fault) => fault.connecting(),
            HopOutcome::Connected => describe(&error, true),
            HopOutcome::None => describe(&error, false),
        })
    }

    /// Connects as for a request to `url`, and sends nothing.
    pub(crate) fn reach(&self, url: &str, allowed: Duration) -> Result<(), UpstreamError> {
        let end = Deadline::after(allowed);
        let Some(origin) = url.split(['?', '#']).next().and_then(Origin::of) else { return Ok(()) };
        let connected = self.connector.connect(&origin, &Watch::default(), Some(end));
        connected.map(drop).map_err(Fault::connecting)
    }

    fn run(&self, post: &Post<'_>, route: &ProxyHop) -> Result<WholeAnswer, Error> {
        let mut builder = Request::builder().method(post.method).uri(post.url);
        let mut longest_line = post.url.len();
        for (name, value) in post.headers {
            longest_line = longest_line.max(name.len() + value.expose().len());
            builder = builder.header(name, value.expose());
        }
        let agent = self.agent(post.allowed, longest_line + LINE_SLACK_BYTES, route);
        let answer = match post.method {
            "GET" => agent.run(builder.body(())?)?,
            _ => agent.run(builder.body(post.body.expose())?)?,
        };
        let (parts, answer) = answer.into_parts();
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
        let ends_with_connection =
            !headers.contains("content-length") && !headers.contains("transfer-encoding");
        let is_broken = || !(post.is_of_use)(&headers, &bytes);
        match end {
            Err(error) if is_broken() => Err(Error::from(error)),
            // RFC 9112 §9.8.
            Ok(_) if ends_with_connection && route.was_cut() && is_broken() => {
                Err(Error::Io(io::ErrorKind::UnexpectedEof.into()))
            }
            // A server that cuts the connection too early may have used up the refresh token.
            Ok(_) | Err(_) => Ok((parts.status.as_u16(), headers, bytes)),
        }
    }

    /// An agent for one request, so that nothing is kept: a kept connection may be closed at the moment of the next
    /// request, which can't be repeated.
    fn agent(&self, allowed: Duration, line_bytes: usize, route: &ProxyHop) -> Agent {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent("")
            .accept("")
            .accept_encoding("")
            .proxy(None)
            .max_response_header_size(HEAD_MAX_BYTES)
            .input_buffer_size(HEAD_MAX_BYTES)
            .output_buffer_size(line_bytes.max(WRITE_BUFFER_BYTES))
            .max_idle_connections(0)
            .timeout_global(Some(allowed))
            .timeout_recv_response(Some(self.timeouts.response))
            .timeout_per_write(Some(self.timeouts.idle))
            .build();
        Agent::with_parts(config, route.clone(), Unresolved)
    }
}

fn describe(error: &Error, is_connected: bool) -> UpstreamError {
    match error {
        Error::Http(error) => UpstreamError::Unsendable(error.to_string()),
        Error::BadUri(why) => UpstreamError::Unsendable(why.clone()),
        Error::Timeout(_) if is_connected => {
            UpstreamError::TimedOut("no response in time".to_owned())
        }
        error if is_connected => UpstreamError::Broken(plain(error)),
        error => UpstreamError::Unreachable(plain(error)),
    }
}

/// The error in words, without any content of the exchange.
fn plain(error: &Error) -> String {
    match error {
        Error::Io(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            _ => error.to_string(),
        },
        Error::Rustls(error) => Fault::from(error.clone()).to_string(),
        Error::Protocol(_) => "the answer is not HTTP/1.1".to_owned(),
        Error::LargeResponseHeader(..) => {
            format!("the response head is over {HEAD_MAX_BYTES} bytes")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::thread::spawn;

    const PATIENCE: Duration = Duration::from_secs(20);
    const STACK_BYTES: usize = 512 * 1024;

    #[test]
    fn a_connection_may_have_less_time_than_its_request() {
        // It takes connections, and says nothing of TLS.
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", server.local_addr().unwrap());
        let hour = Duration::from_hours(1);
        let timeouts = Timeouts { connect: hour, response: hour, idle: hour };
        let poster = Poster::new(&Egress::default(), timeouts).unwrap();
        let (tell, told) = bounded(1);
        let post = move || {
            let answer = poster.post(&Post {
                method: "POST",
                url: &url,
                headers: &[],
                body: &Secret::new(""),
                connecting: Duration::from_millis(50),
                allowed: hour,
                answer_max_bytes: 1,
                is_of_use: &|_, _| false,
            });
            tell.send(answer.map(drop)).unwrap();
        };
        spawn("post", STACK_BYTES, post).unwrap().detach();
        let failed = told.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(failed, Err(UpstreamError::Unreachable(_))), "{failed:?}");
    }
}
