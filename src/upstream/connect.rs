//! New connections: TCP to one of a name's addresses, through a proxy where there is one, and TLS. Requests and token
//! requests take the same way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::bound::connect_unix;
use crate::clock::Deadline;
use crate::config::{Egress, ProxyRule};
use crate::thread;
use crate::upstream::error::SetupError;
use crate::upstream::fault::Fault;
use crate::upstream::identity::TlsIdentity;
use crate::upstream::origin::Origin;
use crate::upstream::resolver::Resolver;
use crate::upstream::roots::{self, Roots};
use crate::upstream::socket::Socket;
use crate::upstream::tunnel::Tunnel;
use crate::upstream::watch::Watch;
use crate::upstream::wire::Wire;

mod race;
mod reach;

use reach::reach;

/// Makes connections to one provider.
#[derive(Debug)]
pub(super) struct Connector {
    allowed: Duration,
    resolver: Resolver,
    proxy: ProxyRule,
    /// The proxy for https URLs.
    tls_tunnel: Option<Tunnel>,
    /// The proxy for http URLs.
    plain_tunnel: Option<Tunnel>,
    roots: Roots,
    /// The client's certificate, for the origins and not for their proxies.
    identity: Option<TlsIdentity>,
}

/// The purpose of a connection: the client to watch, and the deadline.
#[derive(Clone, Copy)]
struct Aim<'a> {
    watch: &'a Watch,
    end: Option<Deadline>,
}

impl Connector {
    /// `allowed` is the time for the name lookup, and again for the connection; the error names the problem of
    /// `egress`.
    pub(super) fn new(egress: &Egress, allowed: Duration) -> Result<Self, SetupError> {
        let tunnel = |is_tls| {
            let url = egress.proxy.url(is_tls);
            url.map(|url| Tunnel::through(url.expose())).transpose()
        };
        Ok(Self {
            allowed,
            resolver: Resolver::of_process(),
            tls_tunnel: tunnel(true)?,
            plain_tunnel: tunnel(false)?,
            proxy: egress.proxy.clone(),
            roots: Roots::of(egress)?,
            identity: match &egress.client_certificate {
                Some(files) => Some(TlsIdentity::new(files.clone(), roots::store(egress)?)),
                None => None,
            },
        })
    }

    /// A new connection to `origin`, ready for a request, by `end` if it is set.
    pub(super) fn connect(
        &self,
        origin: &Origin,
        watch: &Watch,
        end: Option<Deadline>,
    ) -> Result<Wire, Fault> {
        if let Some(path) = &origin.unix {
            return Ok(Wire::Plain(Socket::new(connect_unix(path, self.allowed)?)?));
        }
        let aim = Aim { watch, end };
        let (wire, deadline) = match self.tunnel(origin) {
            None => self.reach(&origin.host, origin.port, aim)?,
            Some(tunnel) => self.connect_through(tunnel, origin, aim)?,
        };
        if origin.is_tls {
            let config = match &self.identity {
                Some(identity) => identity.config()?,
                None => self.roots.config(),
            };
            return shake_hands(wire, &origin.host, config, watch, deadline);
        }
        Ok(wire)
    }

    /// The proxy for `origin`.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn tunnel(&self, origin: &Origin) -> Option<&Tunnel> {
        let tunnel = if origin.is_tls { &self.tls_tunnel } else { &self.plain_tunnel };
        tunnel.as_ref().filter(|_| self.proxy.is_for(&origin.host, origin.port))
    }

    /// Connects to a proxy, and makes it connect to `origin`.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn connect_through(
        &self,
        tunnel: &Tunnel,
        origin: &Origin,
        aim: Aim<'_>,
    ) -> Result<(Wire, Deadline), Fault> {
        let address = if tunnel.wants_address {
            let until = self.deadline(aim);
            let target = self.resolver.find(&origin.host, origin.port, aim.watch, until)?;
            target.addresses.first().copied()
        } else {
            None
        };
        self.open(tunnel, origin, address, aim).map_err(|fault| tunnel.at_fault(fault))
    }

    fn open(
        &self,
        tunnel: &Tunnel,
        origin: &Origin,
        address: Option<SocketAddr>,
        aim: Aim<'_>,
    ) -> Result<(Wire, Deadline), Fault> {
        let (mut wire, deadline) = self.reach(&tunnel.host, tunnel.port, aim)?;
        if tunnel.is_tls() {
            let config = self.roots.config();
            wire = shake_hands(wire, &tunnel.host, config, aim.watch, deadline)?;
        }
        tunnel.open(&mut wire, origin, address, aim.watch, deadline)?;
        Ok((wire, deadline))
    }

    /// Looks `host` up and connects to it; the rest of the time is for the next steps. A slow lookup does not shorten
    /// the connection's time.
    fn reach(&self, host: &str, port: u16, aim: Aim<'_>) -> Result<(Wire, Deadline), Fault> {
        let target = self.resolver.find(host, port, aim.watch, self.deadline(aim))?;
        let deadline = self.deadline(aim);
        let stream = reach(&target, aim.watch, deadline)?;
        Ok((Wire::Plain(Socket::new(stream)?), deadline))
    }

    fn deadline(&self, aim: Aim<'_>) -> Deadline {
        let own = Deadline::after(self.allowed);
        aim.end.map_or(own, |end| own.min(end))
    }
}

// Not inlined: keeps worker stacks small.
#[inline(never)]
fn shake_hands(
    wire: Wire,
    host: &str,
    config: Arc<ClientConfig>,
    watch: &Watch,
    deadline: Deadline,
) -> Result<Wire, Fault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Fault::Bad("the host is not a valid TLS server name".to_owned()))?;
    // The worker would keep the stack and heap that this takes, for the life of a stream.
    thread::on_own_thread("handshake", thread::HANDSHAKE_STACK_BYTES, || {
        Wire::shake_hands(wire, name, config, watch, deadline)
    })
}
