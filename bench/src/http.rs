//! A client of a few lines: one request on a new connection, its answer read to the end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Outcome;

/// The longest silence.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connection that gives up after a long silence.
pub(crate) fn connect(to: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `head` and `body_bytes` of body; returns the status, and the number of body bytes that came. The answer must
/// have a length, or be chunked.
pub(crate) fn ask(to: SocketAddr, head: &str, body_bytes: u64) -> Outcome<(u16, u64)> {
    let mut stream = connect(to)?;
    stream.write_all(format!("{head}\r\nhost: localhost\r\n").as_bytes())?;
    if body_bytes > 0 {
        stream.write_all(format!("content-length: {body_bytes}\r\n").as_bytes())?;
    }
    stream.write_all(b"\r\n")?;
    let piece = vec![b'x'; 64 * 1024];
    let mut left = body_bytes;
    while left > 0 {
        let count = left.min(piece.len() as u64);
        stream.write_all(&piece[..usize::try_from(count)?])?;
        left -= count;
    }
    read_answer(stream)
}

fn read_answer(stream: TcpStream) -> Outcome<(u16, u64)> {
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).ok_or("no status")?.parse()?;
    let (mut length, mut is_chunked) = (0, false);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        is_chunked |= lower.starts_with("transfer-encoding:");
    }
    if !is_chunked {
        return Ok((status, std::io::copy(&mut reader.take(length), &mut std::io::sink())?));
    }
    let mut taken = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16)?;
        std::io::copy(&mut (&mut reader).take(size + 2), &mut std::io::sink())?;
        if size == 0 {
            return Ok((status, taken));
        }
        taken += size;
    }
}
