//! Starts a run's parts in order, and stops them in reverse.

use std::net::SocketAddr;
use std::sync::Arc;

use log::{info, warn};
use socket2::Socket;

use crate::assemble::{Environment, Load, StartError};
use crate::bound::Bound;
use crate::clock::Deadline;
use crate::config::{Config, ListenAddress, ServerKind};
use crate::current::Current;
use crate::ingress::bind::Listener;
use crate::ingress::kept;
use crate::ingress::listeners::Listeners;
use crate::ingress::{Server, Service};
use crate::proxy::state::Proxy;
use crate::supervisor::watchdog::Watchdog;
use crate::supervisor::{Stage, Supervisor};
use crate::tls::OwnCertificate;
use crate::token::hang::in_folder;
use crate::token::state_file::{check_writable, exposures};

/// A running proxy. Dropping it stops everything at once; [`App::stop`] stops gracefully.
pub struct App {
    bound: Vec<Bound>,
    kept: Vec<Arc<Socket>>,
    server: Server,
    current: Arc<Current>,
    supervisor: Supervisor,
    watchdog: Option<Watchdog>,
}

impl App {
    /// Binds the addresses, unless a service manager `handed` sockets over, starts the refreshers, calls `prepared`, then
    /// accepts connections.
    pub fn start(
        config: Config,
        handed: Vec<Listener>,
        environment: Environment,
        load: Load,
        prepared: impl FnOnce(),
    ) -> Result<Self, StartError> {
        let settings = &config.settings;
        let state_dir = &settings.state_dir;
        let (writable, exposures) = in_folder(state_dir, &environment.clock, || {
            (check_writable(state_dir), exposures(state_dir))
        });
        if let Err(error) = writable {
            warn!(
                "The state folder {} can't be written ({error}); rotated refresh tokens would be \
                 lost at a restart",
                state_dir.display()
            );
        }
        for exposure in exposures {
            warn!("Tokens are open to others: {exposure}");
        }
        // After the state folder was made, because a socket may be in it.
        let (kept, handed): (Vec<_>, Vec<_>) = handed.into_iter().partition(Listener::is_kept);
        let addresses: &[ListenAddress] = if handed.is_empty() { &settings.listen } else { &[] };
        let ours = kept::bind_all(addresses, kept);
        let ours = ours.map_err(|(address, error)| StartError::Bind(address, error))?;
        let certificate = settings
            .tls
            .as_ref()
            .map(|tls| OwnCertificate::read(tls.paths(), &environment.clock).map(Arc::new));
        let certificate = certificate.transpose().map_err(StartError::Tls)?;
        let mut listeners: Vec<Listener> = handed.into_iter().chain(ours).collect();
        if let (ServerKind::Builtin, Some(keep)) = (settings.server, environment.supervisor.keep) {
            kept::hand_in(&mut listeners, &keep);
        }
        let kept = listeners.iter().filter(|one| one.is_kept()).map(Listener::socket).collect();
        if let Some(certificate) = &certificate {
            for one in &mut listeners {
                one.speak_tls(certificate);
            }
        }
        let bound: Vec<Bound> = listeners.iter().map(|one| one.bound().clone()).collect();
        let shown = Arc::new(Listeners::of(&listeners, settings.server));
        let live = shown.live();
        let limits = settings.limits.clone();
        let server_kind = settings.server;
        let supervisor = environment.supervisor.clone();
        let current = Current::start(config, shown, environment, load)?;
        let service: Arc<dyn Service> = current.clone();
        prepared();
        let server = Server::start(server_kind, listeners, live, limits, service);
        let server = server.map_err(StartError::Thread)?;
        for address in &bound {
            info!("Listening on {address}");
        }
        supervisor.tell(&Stage::Ready(current.status_line()));
        let watchdog = supervisor.watchdog.map(|period| {
            let of_status = current.clone();
            let asked = bound.clone();
            let status = move || of_status.status_line();
            Watchdog::start(supervisor.clone(), period, (asked, certificate), status)
        });
        let watchdog = watchdog.transpose().map_err(StartError::Thread)?;
        Ok(Self { bound, kept, server, current, supervisor, watchdog })
    }

    /// The first listening address with a port.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.bound.iter().find_map(Bound::port)
    }

    /// Our sockets of which the service manager keeps copies.
    pub(crate) fn kept(&self) -> Vec<Arc<Socket>> {
        self.kept.clone()
    }

    /// The configuration in use, which obeys orders to reload and to refresh, on any thread.
    pub fn current(&self) -> Arc<Current> {
        self.current.clone()
    }

    /// Reads the configuration again and uses it; see [`Current::reload`].
    pub fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        self.current.reload()
    }

    /// The proxy that serves requests at the moment.
    pub fn proxy(&self) -> Arc<Proxy> {
        self.current.proxy()
    }

    /// Stops: accepts no new connections, gives requests in flight the configured grace, and stores a refresh in
    /// flight. Returns the number of connections that were cut off.
    pub fn stop(self) -> usize {
        self.supervisor.tell(&Stage::Stopping);
        if let Some(watchdog) = &self.watchdog {
            watchdog.drain();
        }
        let grace = self.proxy().settings.shutdown_grace;
        let deadline = Deadline::after(grace);
        // Their streams would never end by themselves.
        self.proxy().watchers.dismiss();
        let cut_off = self.server.stop(grace);
        self.current.stop(deadline);
        cut_off
    }
}
