//! The minimum cost of a thread for each connection: a relay that reads, writes, reads and writes.
//!
//! It checks nothing, adds no header, has no limits and notices no client that leaves: no proxy could be like this.
//! It is measured beside the others as the bound of the design.
//! With `work`, it also keeps the processor busy for each request: the bound of a proxy that works for so long.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::SockRef;

use crate::time::{now, spawn};
use crate::{Outcome, folder};

/// The size of evertoken's reads.
const BUFFER_BYTES: usize = 16 * 1024;
const BACKLOG: i32 = 4096;
/// The end of a chunked answer.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Runs until the process is killed, at the address `at`; `with_tls` selects TLS to the provider, and `work` is the time that
/// each request takes beside the copying, in nanoseconds.
pub(crate) fn run(at: &str, provider: &str, with_tls: bool, work: &str) -> Outcome<()> {
    let work = Duration::from_nanos(work.parse()?);
    let provider: SocketAddr = provider.parse()?;
    let config = if with_tls { Some(config()?) } else { None };
    let listener = TcpListener::bind(at)?;
    SockRef::from(&listener).listen(BACKLOG)?;
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    for client in listener.incoming().map_while(Result::ok) {
        let config = config.clone();
        let _ = spawn(move || serve(client, provider, config, work));
    }
    Ok(())
}

fn config() -> Outcome<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder::scratch()?.join("ca.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn serve(
    client: TcpStream,
    provider: SocketAddr,
    config: Option<Arc<ClientConfig>>,
    work: Duration,
) -> io::Result<()> {
    let upstream = TcpStream::connect(provider)?;
    upstream.set_nodelay(true)?;
    let Some(config) = config else { return relay(client, upstream, work) };
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    relay(client, StreamOwned::new(session, upstream), work)
}

/// Keeps the processor busy for `time`.
fn work_for(time: Duration) {
    let begun = now();
    while !time.is_zero() && begun.elapsed() < time {}
}

/// Works for a half of `work` on each way.
fn relay(mut client: TcpStream, mut upstream: impl Read + Write, work: Duration) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        // A request from the benchmark comes in one piece.
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        work_for(work / 2);
        upstream.write_all(&buffer[..count])?;
        upstream.flush()?;
        let (mut left, mut work_left) = (None, work / 2);
        while left != Some(0) {
            let count = upstream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let bytes = &buffer[..count];
            work_for(std::mem::take(&mut work_left));
            client.write_all(bytes)?;
            left = match left {
                Some(left) => Some(usize::saturating_sub(left, count)),
                None => sized(bytes),
            };
            if left.is_none() && bytes.ends_with(LAST_CHUNK) {
                left = Some(0);
            }
        }
    }
}

/// The bytes of an answer that are still to come, by its declared length.
fn sized(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    Some((end + length.parse::<usize>().ok()?).saturating_sub(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// nginx's own spelling was not known, so the relay waited for more, and answered one request in a second.
    #[test]
    fn the_length_of_an_answer_is_found_however_it_is_spelled() {
        for name in ["content-length", "Content-Length"] {
            let answer = format!("HTTP/1.1 200 OK\r\nServer: x\r\n{name}: 5\r\n\r\nab");
            assert_eq!(sized(answer.as_bytes()), Some(3), "{name}");
        }
        assert_eq!(sized(b"HTTP/1.1 200 OK\r\n\r\nab"), None);
    }
}
