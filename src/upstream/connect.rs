//! New connections: TCP to one of a name's addresses, through a proxy where there is one, and TLS.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::PollFlags;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock::Deadline;
use crate::config::Egress;
use crate::thread;
use crate::upstream::fault::Fault;
use crate::upstream::origin::Origin;
use crate::upstream::resolver::Resolver;
use crate::upstream::socket::Socket as Plain;
use crate::upstream::tunnel::Tunnel;
use crate::upstream::watch::Watch;
use crate::upstream::wire::Wire;

/// The stack of a TLS handshake.
const HANDSHAKE_STACK_BYTES: usize = 128 * 1024;
/// The least time one of several addresses is given.
const ADDRESS_MIN: Duration = Duration::from_millis(250);

/// Makes connections to one provider.
#[derive(Debug)]
pub(super) struct Connector {
    allowed: Duration,
    resolver: Resolver,
    tunnel: Option<Tunnel>,
    tls: Roots,
}

/// Who is trusted.
#[derive(Debug)]
enum Roots {
    /// The public roots.
    Public,
    /// They and others.
    Own(Arc<ClientConfig>),
}

impl Connector {
    /// `allowed` is the time for a connection; the error says what is wrong with `egress`.
    pub(super) fn new(egress: &Egress, allowed: Duration) -> Result<Self, String> {
        let tunnel = egress.proxy.as_ref().map(|url| Tunnel::through(url.expose())).transpose()?;
        let tls = match &egress.extra_roots_pem {
            None => Roots::Public,
            Some(pem) => Roots::Own(Arc::new(trusting(with_own(pem)?))),
        };
        Ok(Self { allowed, resolver: Resolver::new(allowed), tunnel, tls })
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
        let config = match &self.tls {
            Roots::Public => public(),
            Roots::Own(config) => config.clone(),
        };
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

/// Trusts the public roots. One for all providers, since it holds nothing of any of them; made when
/// it is first needed.
fn public() -> Arc<ClientConfig> {
    static PUBLIC: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    PUBLIC.get_or_init(|| Arc::new(trusting(public_roots()))).clone()
}

fn public_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// The public roots and those in `pem`.
fn with_own(pem: &str) -> Result<RootCertStore, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let mut roots = public_roots();
    // A bundle may hold certificates of a kind that webpki does not know; the others count.
    let (added, _) = roots.add_parsable_certificates(certificates.map_err(|e| e.to_string())?);
    if added == 0 {
        return Err("there is no certificate in the ca_file".to_owned());
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Whether a name needs no look-up.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}
