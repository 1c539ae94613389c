//! Clients that speak another protocol than their port takes: told from the first bytes, and said.

use std::fmt;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::info;

use crate::clock::Stopwatch;
use crate::peer;

/// The time between two log lines about one protocol.
const SAID_EVERY: Duration = Duration::from_mins(1);
/// A TLS record with a handshake message begins so (RFC 8446 §5.1): its type, and the first byte of its version.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];
/// A connection of HTTP/2 begins with this (RFC 9113 §3.4), and ours ends with its first line.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// The client's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherProtocol {
    /// TLS.
    Tls,
    /// HTTP/2 without asking first ("prior knowledge").
    Http2,
}

/// The protocol that the first bytes of a connection show, if they are not a head of HTTP/1.
pub(crate) fn of(bytes: &[u8]) -> Option<OtherProtocol> {
    let is_tls = bytes.iter().zip(TLS_HANDSHAKE).all(|(one, other)| *one == other);
    if is_tls && !bytes.is_empty() {
        return Some(OtherProtocol::Tls);
    }
    bytes.starts_with(HTTP2_PREFACE).then_some(OtherProtocol::Http2)
}

/// Logs that a client sends plain HTTP to a port that takes TLS; at most once a minute.
pub(super) fn say_plain(client: &TcpStream) {
    static SAID: Said = Said::new(None);
    let what = "it speaks plain HTTP, and this port takes TLS (settings.tls). Write https:// instead of http:// in the \
                client's base URL";
    say_once(&SAID, client, what);
}

/// Logs that a client's TLS handshake failed, and `why`; at most once a minute.
pub(super) fn say_failed(client: &TcpStream, why: &dyn fmt::Display) {
    static SAID: Said = Said::new(None);
    say_once(&SAID, client, &format!("its TLS handshake failed: {why}"));
}

/// The time of the last log line.
type Said = Mutex<Option<Stopwatch>>;

fn say_once(said: &Said, client: &TcpStream, what: &str) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
        *said = Some(Stopwatch::start());
        let from =
            client.peer_addr().map_or_else(|_| of_unix(client), |from| from.ip().to_string());
        info!("Closed a connection from {from}: {what}");
    }
}

/// A client without an address: a process, if it came by a unix socket and the system shows it.
fn of_unix(client: &TcpStream) -> String {
    let process = peer::of(client).filter(|_| peer::came_by_path(client));
    process.map_or_else(|| "a client".to_owned(), |process| format!("process {}", process.id))
}

impl OtherProtocol {
    /// Logs that `stream` is closed because of it; at most once a minute for each protocol.
    pub(crate) fn say(self, stream: &TcpStream) {
        static SAID: [Said; 2] = [const { Said::new(None) }; 2];
        say_once(&SAID[self as usize], stream, self.what_to_do(peer::came_by_path(stream)));
    }

    const fn what_to_do(self, is_unix: bool) -> &'static str {
        match self {
            Self::Tls if is_unix => {
                "it speaks TLS, and unix sockets take plain HTTP, whatever settings.tls says. Write http:// instead of \
                 https:// in the client's base URL"
            }
            Self::Tls => {
                "it speaks TLS, and this port takes plain HTTP. Write http:// instead of https:// in the \
                 client's base URL, or give evertoken a certificate (settings.tls)"
            }
            Self::Http2 => {
                "it speaks HTTP/2, and evertoken takes HTTP/1.1. Turn \"prior knowledge\" (h2c) off in the \
                 client, or put a proxy that translates before evertoken"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        let cases: [(&[u8], Option<OtherProtocol>); 10] = [
            (b"\x16\x03\x01\x02\x00\x01\x00", Some(OtherProtocol::Tls)),
            (b"\x16\x03", Some(OtherProtocol::Tls)),
            // The first byte may come alone, and no head begins with it.
            (b"\x16", Some(OtherProtocol::Tls)),
            (b"\x16\x04", None),
            (b"\x15\x03", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(OtherProtocol::Http2)),
            (b"PRI * HTTP/2.0\r\n", Some(OtherProtocol::Http2)),
            (b"PRI * HTTP/1.1\r\n", None),
            (b"GET / HTTP/2.0\r\n", None),
            (b"", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(of(bytes), expected, "{bytes:?}");
        }
    }
}
