//! WebSockets: the time of a message there and back, and many that are open and silent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Outcome;
use crate::time::nanos;

/// The key of RFC 6455 §1.3, and what a server makes of it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The payload of a message.
pub(crate) const MESSAGE_BYTES: u8 = 100;
/// Messages before the measured ones.
const WARM_UP: usize = 200;
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens one through the server at `to`.
pub(crate) fn open(to: SocketAddr) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "GET /socket HTTP/1.1\r\nhost: {to}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        return Err(format!("no WebSocket: {}", String::from_utf8_lossy(&head)).into());
    }
    Ok(stream)
}

/// The times of `count` messages there and back, one after the other: the median and the 99th percentile, in µs.
pub(crate) fn round_trips(to: SocketAddr, count: usize) -> Outcome<[f64; 2]> {
    let mut stream = open(to)?;
    let mut message = vec![0x82, 0x80 | MESSAGE_BYTES, 1, 2, 3, 4];
    message.resize(message.len() + usize::from(MESSAGE_BYTES), b'x');
    let mut echo = vec![0; message.len()];
    let mut times = Vec::with_capacity(count);
    for index in 0..WARM_UP + count {
        let sent = nanos();
        stream.write_all(&message)?;
        stream.read_exact(&mut echo)?;
        if index >= WARM_UP {
            times.push(nanos() - sent);
        }
    }
    if echo != message {
        return Err("a message changed on its way".into());
    }
    times.sort_unstable();
    let at = |share: usize| -> Outcome<f64> {
        let index = (times.len() * share / 100).min(times.len().saturating_sub(1));
        Ok(f64::from(u32::try_from(times[index])?) / 1000.0)
    };
    Ok([at(50)?, at(99)?])
}
