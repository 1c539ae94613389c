//! New connections: TCP to one of a name's addresses, through a proxy where there is one, and TLS.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::PollFlags;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::Deadline;
use crate::config::Egress;
use crate::thread;
use crate::upstream::fault::Fault;
use crate::upstream::origin::Origin;
use crate::upstream::resolver::Resolver;
use crate::upstream::roots::Roots;
use crate::upstream::socket::Socket as Plain;
use crate::upstream::tunnel::Tunnel;
use crate::upstream::watch::Watch;
use crate::upstream::wire::Wire;

/// The stack of a TLS handshake. A quarter would do; but glibc keeps up to 40 MB of the stacks of threads that
/// have ended, with what they took, and of larger ones that is fewer.
const HANDSHAKE_STACK_BYTES: usize = 512 * 1024;
/// The least time one of several addresses is given.
const ADDRESS_MIN: Duration = Duration::from_millis(250);

/// Makes connections to one provider.
#[derive(Debug)]
pub(super) struct Connector {
    allowed: Duration,
    resolver: Resolver,
    tunnel: Option<Tunnel>,
    roots: Roots,
}

impl Connector {
    /// `allowed` is the time for a connection; the error says what is wrong with `egress`.
    pub(super) fn new(egress: &Egress, allowed: Duration) -> Result<Self, String> {
        let tunnel = egress.proxy.as_ref().map(|url| Tunnel::through(url.expose())).transpose()?;
        let roots = Roots::of(egress)?;
        Ok(Self { allowed, resolver: Resolver::new(allowed), tunnel, roots })
    }

    /// A new connection to `origin`, ready for a request.
    pub(super) fn connect(&self, origin: &Origin, watch: &Watch) -> Result<Wire, Fault> {
        let deadline = Deadline::after(self.allowed);
        let wire = match &self.tunnel {
            None => self.reach(&origin.host, origin.port, watch, deadline)?,
            Some(tunnel) => self.dig(tunnel, origin, watch, deadline)?,
        };
        if origin.is_tls {
            return self.shake_hands(wire, &origin.host, watch, deadline);
        }
        Ok(wire)
    }

    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    fn dig(
        &self,
        tunnel: &Tunnel,
        origin: &Origin,
        watch: &Watch,
        deadline: Deadline,
    ) -> Result<Wire, Fault> {
        let address = if tunnel.wants_address() {
            self.resolver.addresses(&origin.host, origin.port, watch)?.first().copied()
        } else {
            None
        };
        let mut wire = self.reach(tunnel.host(), tunnel.port(), watch, deadline)?;
        if tunnel.is_tls() {
            wire = self.shake_hands(wire, tunnel.host(), watch, deadline)?;
        }
        tunnel.open(&mut wire, origin, address, watch, deadline)?;
        Ok(wire)
    }

    // Not part of its caller: what it needs of the stack would stay with the worker.
    #[inline(never)]
    fn shake_hands(
        &self,
        wire: Wire,
        host: &str,
        watch: &Watch,
        deadline: Deadline,
    ) -> Result<Wire, Fault> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Fault::Bad("the host is no name that TLS knows".to_owned()))?;
        let config = self.roots.config();
        // The worker would keep what this takes of its stack and heap, for the life of a stream.
        thread::aside("handshake", HANDSHAKE_STACK_BYTES, || {
            Wire::shake_hands(wire, name, config, watch, deadline)
        })
    }

    /// Tries the addresses of `host` in turn; each gets an even share of the time that is left.
    fn reach(
        &self,
        host: &str,
        port: u16,
        watch: &Watch,
        deadline: Deadline,
    ) -> Result<Wire, Fault> {
        let addresses = self.resolver.addresses(host, port, watch)?;
        let mut last = Fault::TimedOut;
        for (index, address) in addresses.iter().enumerate() {
            let untried = u32::try_from(addresses.len() - index).unwrap_or(1);
            let share = (deadline.left() / untried).max(ADDRESS_MIN);
            match tcp(*address, share, watch) {
                Err(Fault::ClientGone) => return Err(Fault::ClientGone),
                Err(fault) => last = fault,
                Ok(stream) => return Ok(Wire::Plain(Plain::new(stream)?)),
            }
        }
        Err(last)
    }
}

fn tcp(address: SocketAddr, allowed: Duration, watch: &Watch) -> Result<TcpStream, Fault> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let begun = socket.connect(&address.into());
    let stream = TcpStream::from(socket);
    match begun {
        Ok(()) => return Ok(stream),
        Err(error) if is_under_way(&error) => {}
        Err(error) => return Err(error.into()),
    }
    watch.wait(&stream, PollFlags::OUT, allowed)?;
    match stream.take_error()? {
        Some(error) => Err(error.into()),
        None => Ok(stream),
    }
}

fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// Whether a name needs no look-up.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}
