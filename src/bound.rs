//! The address of a socket that listens, and connections to it.
//!
//! A connection over a unix socket is held as a `TcpStream` too: what is done with a connection here (read, write,
//! shut down, wait, set time limits) is the same system call for both.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// The shortest wait that the standard library accepts.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// The address of a socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// TCP.
    Tcp(SocketAddr),
    /// TLS over TCP.
    Tls(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// `http://127.0.0.1:8080`, `https://127.0.0.1:8080`, `unix:/run/evertoken.sock`
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Tls(address) => write!(f, "https://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Bound {
    /// Its address with a port, if it has one.
    pub(crate) fn port(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Connects to it from this machine, within `allowed`; TLS is still to begin.
    pub(crate) fn connect(&self, allowed: Duration) -> io::Result<TcpStream> {
        match self {
            Self::Tcp(address) | Self::Tls(address) => {
                TcpStream::connect_timeout(&reachable(*address), allowed.max(WAIT_MIN))
            }
            Self::Unix(path) => connect_unix(path, allowed),
        }
    }
}

/// Connects to the unix socket at `path`, within `allowed`: if its queue stays full for so long, the error is
/// `WouldBlock`.
pub(crate) fn connect_unix(path: &Path, allowed: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It limits the wait of `connect` as well (unix(7)).
    socket.set_write_timeout(Some(allowed.max(WAIT_MIN)))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// The address at which this machine reaches a server that is bound to `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn addresses_at_which_a_server_is_reached() {
        for (bound, reached) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.7:80", "192.0.2.7:80"),
        ] {
            assert_eq!(reachable(bound.parse().unwrap()), reached.parse().unwrap());
        }
    }

    #[test]
    fn a_connection_over_a_unix_socket_carries_bytes_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut near = Bound::Unix(path).connect(Duration::from_secs(10)).unwrap();
        let mut far = listener.accept().unwrap().0;
        near.write_all(b"ab").unwrap();
        let mut read = [0; 2];
        far.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"ab");
        near.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(far.read(&mut read).unwrap(), 0);
    }

    #[test]
    fn a_full_queue_is_no_endless_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let first = connect_unix(&path, Duration::from_secs(10)).unwrap();
        let full = connect_unix(&path, Duration::ZERO).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(first);
    }
}
