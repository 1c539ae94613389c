//! A fast provider: one thread per connection and ready answers, with TLS and without.
//!
//! `POST /json` returns 1 KB, `POST /v1/…` the same as a completion, `POST /upload` takes any body, `GET /bytes/N`
//! returns N bytes, `GET /stream/EVENTS/GAP_MS` returns events with the time of their sending, and `GET /socket` opens a `WebSocket` that
//! sends back all that comes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use crate::process::Running;
use crate::time::{nanos, sleep, spawn};
use crate::websockets::ACCEPT;
use crate::{Outcome, certificate, say};

/// The size of a small answer.
pub(crate) const SMALL_BYTES: usize = 1024;
/// The content of an event besides its number and time: about the size of a piece of an answer.
const EVENT_PAD: &str = "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"several words\"}}";
const BACKLOG: i32 = 4096;

/// A provider in a separate process.
pub(crate) struct Mock {
    /// The address without TLS.
    pub(crate) plain: SocketAddr,
    /// The address with TLS, as `localhost`.
    pub(crate) tls: SocketAddr,
    /// The authority of its certificate.
    pub(crate) authority: std::path::PathBuf,
    _running: Vec<Running>,
}

impl Mock {
    /// A provider at these addresses, which ends with `running`.
    pub(crate) fn of(plain: SocketAddr, tls: SocketAddr, running: Vec<Running>) -> Outcome<Self> {
        Ok(Self { plain, tls, authority: certificate::authority()?, _running: running })
    }

    /// Starts it.
    pub(crate) fn start() -> Outcome<Self> {
        let command = std::process::Command::new(std::env::current_exe()?);
        let mut running = Running::start("mock", command, &["mock"])?;
        let mut address = || -> Outcome<SocketAddr> { Ok(running.line()?.trim().parse()?) };
        let (plain, tls) = (address()?, address()?);
        Self::of(plain, tls, vec![running])
    }
}

/// Runs until the process is killed.
pub(crate) fn run() -> Outcome<()> {
    let config = certificate()?;
    let (plain, tls) = (listen()?, listen()?);
    say(&plain.local_addr()?.to_string());
    say(&tls.local_addr()?.to_string());
    let with_tls = move || {
        for stream in tls.incoming().map_while(Result::ok) {
            let config = config.clone();
            let _ = spawn(move || serve_tls(stream, config));
        }
    };
    spawn(with_tls)?;
    for stream in plain.incoming().map_while(Result::ok) {
        let _ = spawn(move || serve(stream));
    }
    Ok(())
}

fn listen() -> Outcome<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // A second call of listen() makes the queue longer; otherwise a burst would wait a second.
    SockRef::from(&listener).listen(BACKLOG)?;
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    Ok(listener)
}

fn certificate() -> Outcome<Arc<ServerConfig>> {
    let issued = certificate::issue()?;
    let chain = vec![CertificateDer::from(issued.certificate.der().to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(issued.key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

fn serve_tls(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    serve(StreamOwned::new(connection, stream))
}

fn serve(stream: impl Read + Write) -> io::Result<()> {
    let small = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_0123456789\r\n\
         content-length: {SMALL_BYTES}\r\n\r\n{}",
        "y".repeat(SMALL_BYTES)
    );
    let completion = completion();
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        read_rest(&mut reader, &mut line)?;
        let out = reader.get_mut();
        let mut parts = path.split('/').skip(1);
        match (parts.next(), number(parts.next()), number(parts.next())) {
            (Some("stream"), events, gap_ms) => {
                send_events(out, events, Duration::from_millis(gap_ms))?;
            }
            (Some("bytes"), count, _) => send_bytes(out, count)?,
            (Some("socket"), ..) => return echo(&mut reader),
            (Some("upload"), ..) => {
                out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            }
            (Some("v1"), ..) => out.write_all(completion.as_bytes())?,
            _ => out.write_all(small.as_bytes())?,
        }
        out.flush()?;
    }
}

/// Accepts a WebSocket, and sends back all that comes in it.
fn echo(reader: &mut BufReader<impl Read + Write>) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {ACCEPT}\r\n\r\n"
    );
    reader.get_mut().write_all(head.as_bytes())?;
    loop {
        reader.get_mut().flush()?;
        let came = reader.fill_buf()?.to_vec();
        if came.is_empty() {
            return Ok(());
        }
        reader.consume(came.len());
        reader.get_mut().write_all(&came)?;
    }
}

/// An answer of 1 KB that gateways which read answers understand.
fn completion() -> String {
    let body = format!(
        "{{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\
         \"finish_reason\":\"stop\",\"message\":{{\"role\":\"assistant\",\"content\":\"{}\"}}}}],\"usage\":{{\
         \"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}}}",
        "y".repeat(SMALL_BYTES - 230)
    );
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
    format!("{head}{}\r\n\r\n{body}", body.len())
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Reads the header fields and the body.
fn read_rest(reader: &mut impl BufRead, line: &mut String) -> io::Result<()> {
    let (mut length, mut is_chunked) = (0, false);
    loop {
        line.clear();
        reader.read_line(line)?;
        if line == "\r\n" || line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        is_chunked |= name.eq_ignore_ascii_case("transfer-encoding");
    }
    while is_chunked {
        line.clear();
        reader.read_line(line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        skip(reader, size + 2)?;
        is_chunked = size > 0;
    }
    skip(reader, length)
}

fn skip(reader: &mut impl BufRead, count: u64) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let held = reader.fill_buf()?.len() as u64;
        if held == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let used = held.min(left);
        reader.consume(usize::try_from(used).unwrap_or(0));
        left -= used;
    }
    Ok(())
}

fn send_bytes(out: &mut impl Write, count: u64) -> io::Result<()> {
    out.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {count}\r\n\r\n").as_bytes())?;
    let piece = vec![b'z'; 64 * 1024];
    let mut left = count;
    while left > 0 {
        let next = left.min(piece.len() as u64);
        out.write_all(&piece[..usize::try_from(next).unwrap_or(0)])?;
        left -= next;
    }
    Ok(())
}

fn send_events(out: &mut impl Write, events: u64, gap: Duration) -> io::Result<()> {
    out.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    out.flush()?;
    let gap_nanos = u64::try_from(gap.as_nanos()).unwrap_or(0).max(1);
    // Streams that begin together are spread over the gap.
    let mut next = nanos();
    next += (next / 1000).wrapping_mul(2_654_435_761) % gap_nanos;
    for index in 0..events {
        sleep(Duration::from_nanos(next.saturating_sub(nanos())));
        let event = format!("data: {index} {:020} {EVENT_PAD}\n\n", nanos());
        out.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        out.flush()?;
        next += gap_nanos;
    }
    out.write_all(b"0\r\n\r\n")
}
