//! Through a proxy: HTTP CONNECT (RFC 9110 §9.3.6) and SOCKS 4, 4a and 5 (RFC 1928, RFC 1929).

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::{Proxy, ProxyProtocol};

use crate::clock::Deadline;
use crate::http::head::HEAD_MAX_BYTES;
use crate::http::head::response::{Interims, ResponseReader};
use crate::secret::Secret;
use crate::upstream::error::SetupError;
use crate::upstream::fault::{Fault, TOO_LONG_TO_CONNECT};
use crate::upstream::origin::{Origin, literal};
use crate::upstream::talk::Talk;
use crate::upstream::watch::Watch;
use crate::upstream::wire::Wire;

/// A proxy, as its URL names it.
#[derive(Debug)]
pub(super) struct Tunnel {
    protocol: ProxyProtocol,
    pub(super) host: String,
    pub(super) port: u16,
    /// Its name in messages: its URL without user and password.
    shown: String,
    /// True if it takes an address rather than a name, so that evertoken looks the name up.
    pub(super) wants_address: bool,
    user: Option<(Secret, Secret)>,
}

impl Tunnel {
    /// Through the proxy at `url`, e.g. `socks5://user:password@host:1080`.
    pub(super) fn through(url: &str) -> Result<Self, SetupError> {
        let proxy = Proxy::new(url).map_err(|_| SetupError::ProxyUrl)?;
        let user = (proxy.username().is_some() || proxy.password().is_some()).then(|| {
            let text = |one: Option<&str>| Secret::new(one.unwrap_or_default());
            (text(proxy.username()), text(proxy.password()))
        });
        let scheme =
            url.split_once("://").map_or("http", |(scheme, _)| scheme).to_ascii_lowercase();
        Ok(Self {
            protocol: proxy.protocol(),
            host: proxy.host().trim_matches(['[', ']']).to_owned(),
            shown: format!("{scheme}://{}:{}", proxy.host(), proxy.port()),
            port: proxy.port(),
            wants_address: proxy.resolve_target(),
            user,
        })
    }

    /// Turns `fault`, which occurred on the way to the proxy, into one that names the proxy and not the provider.
    pub(super) fn at_fault(&self, fault: Fault) -> Fault {
        let what = match fault {
            Fault::ClientGone | Fault::Short(_) => return fault,
            Fault::TimedOut => TOO_LONG_TO_CONNECT.to_owned(),
            other => other.to_string(),
        };
        Fault::Bad(format!("the proxy {}: {what}", self.shown))
    }

    /// True if the proxy itself is reached over TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.protocol == ProxyProtocol::Https
    }

    /// Makes the proxy at the other end of `wire` connect to `origin`, or to its `address`.
    pub(super) fn open(
        &self,
        wire: &mut Wire,
        origin: &Origin,
        address: Option<SocketAddr>,
        watch: &Watch,
        deadline: Deadline,
    ) -> Result<(), Fault> {
        let address = address.or_else(|| literal(&origin.host, origin.port));
        let mut talk = Talk { wire, watch, deadline };
        match self.protocol {
            ProxyProtocol::Socks4 | ProxyProtocol::Socks4A => socks4(&mut talk, origin, address),
            ProxyProtocol::Socks5 | ProxyProtocol::Socks5h => {
                self.socks5(&mut talk, origin, address)
            }
            _ => self.connect(&mut talk, origin),
        }
    }

    fn connect(&self, talk: &mut Talk<'_>, origin: &Origin) -> Result<(), Fault> {
        let target = origin.host_and_port();
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n");
        if let Some((name, password)) = &self.user {
            let both = Secret::new(format!("{}:{}", name.expose(), password.expose()));
            let encoded = BASE64_STANDARD.encode(both.expose());
            request.extend(["proxy-authorization: Basic ", &encoded, "\r\n"]);
        }
        request.push_str("\r\n");
        talk.say(request.as_bytes())?;
        let mut head = Vec::new();
        let mut reader = ResponseReader::default();
        let mut interims = Interims::default();
        while head.len() <= HEAD_MAX_BYTES {
            // Byte by byte, because the bytes after the head belong to the provider.
            head.push(talk.read_exact::<1>()?[0]);
            if let Some(answer) = reader.read(&head)? {
                return match answer.head.status {
                    200..=299 => Ok(()),
                    100..=199 => {
                        interims.add(answer.length)?;
                        head.clear();
                        reader = ResponseReader::default();
                        continue;
                    }
                    407 => Err(refused(self.wants_user())),
                    status => Err(Fault::Bad(format!("it answered {status}"))),
                };
            }
        }
        Err(refused("its answer is too long"))
    }

    /// The remedy for a 407.
    fn wants_user(&self) -> &'static str {
        match self.user {
            Some(_) => "it answered 407: it does not take the user and the password of its URL",
            None => {
                "it answered 407: it wants a user and a password; write them into its URL, as http://user:password@host"
            }
        }
    }

    fn socks5(
        &self,
        talk: &mut Talk<'_>,
        origin: &Origin,
        address: Option<SocketAddr>,
    ) -> Result<(), Fault> {
        const NO_AUTHENTICATION: u8 = 0;
        const USER_AND_PASSWORD: u8 = 2;
        match &self.user {
            None => talk.say(&[5, 1, NO_AUTHENTICATION])?,
            Some(_) => talk.say(&[5, 2, USER_AND_PASSWORD, NO_AUTHENTICATION])?,
        }
        match (talk.read_exact::<2>()?, &self.user) {
            ([5, NO_AUTHENTICATION], _) => {}
            ([5, USER_AND_PASSWORD], Some((name, password))) => {
                let mut request = vec![1];
                for part in [name, password] {
                    request.push(short_length(part.expose())?);
                    request.extend_from_slice(part.expose().as_bytes());
                }
                talk.say(&request)?;
                if talk.read_exact::<2>()?[1] != 0 {
                    return Err(refused("it does not know this user and password"));
                }
            }
            ([5, _], _) => return Err(refused("it wants another authentication")),
            _ => return Err(refused("it does not speak SOCKS 5")),
        }
        let mut request = vec![5, 1, 0];
        match address {
            Some(SocketAddr::V4(address)) => {
                request.push(1);
                request.extend_from_slice(&address.ip().octets());
            }
            Some(SocketAddr::V6(address)) => {
                request.push(4);
                request.extend_from_slice(&address.ip().octets());
            }
            None => {
                request.push(3);
                request.push(short_length(&origin.host)?);
                request.extend_from_slice(origin.host.as_bytes());
            }
        }
        request.extend_from_slice(&origin.port.to_be_bytes());
        talk.say(&request)?;
        let [version, reply, _, bound] = talk.read_exact::<4>()?;
        if version != 5 || reply != 0 {
            return Err(refused(socks5_reply(reply)));
        }
        // The address and port that it bound, which are not needed.
        let bound_bytes = match bound {
            1 => 4,
            3 => usize::from(talk.read_exact::<1>()?[0]),
            4 => 16,
            _ => return Err(refused("its answer is no SOCKS 5")),
        };
        for _ in 0..bound_bytes + 2 {
            talk.read_exact::<1>()?;
        }
        Ok(())
    }
}

fn socks4(talk: &mut Talk<'_>, origin: &Origin, address: Option<SocketAddr>) -> Result<(), Fault> {
    let mut request = vec![4, 1];
    request.extend_from_slice(&origin.port.to_be_bytes());
    match address {
        Some(SocketAddr::V4(address)) => {
            request.extend_from_slice(&address.ip().octets());
            request.push(0);
        }
        Some(SocketAddr::V6(_)) => return Err(refused("SOCKS 4 knows no IPv6")),
        None => {
            // 4a: an invalid address announces the name after the (empty) user.
            request.extend_from_slice(&[0, 0, 0, 1, 0]);
            request.extend_from_slice(origin.host.as_bytes());
            request.push(0);
        }
    }
    talk.say(&request)?;
    match talk.read_exact::<8>()? {
        [0, 90, ..] => Ok(()),
        _ => Err(refused("it does not connect")),
    }
}

fn short_length(text: &str) -> Result<u8, Fault> {
    match u8::try_from(text.len()) {
        Ok(length) if length > 0 => Ok(length),
        _ => Err(refused("a name or password that SOCKS has no room for")),
    }
}

/// RFC 1928 §6.
fn socks5_reply(reply: u8) -> &'static str {
    match reply {
        2 => "it may not connect there",
        3 => "the network can't be reached from it",
        4 => "the host can't be reached from it",
        5 => "the connection was refused",
        _ => "it does not connect",
    }
}

fn refused(why: &str) -> Fault {
    Fault::Bad(why.to_owned())
}
