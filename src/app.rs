//! Builds all parts from the configuration, in order, and stops them in reverse.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crossbeam_channel::Receiver;
use fastrand::Rng;
use log::{error, info, warn};

use crate::clock::{Clock, Stopwatch};
use crate::config::{Config, Credential, Limits, Provider, Server as ServerKind, Settings};
use crate::proxy::access::Access;
use crate::proxy::cooldown::Cooldown;
use crate::proxy::exchange::Proxy;
use crate::proxy::way::{Counts, Way};
use crate::token::grant::{Reached, TokenRequest};
use crate::token::refresher::{NoAnswer, Refresher, Send, Setup, Timer, TokenAnswer};
use crate::token::saved::{StateFile, check_writable, exposures};
use crate::token::store::TokenStore;
use crate::token::watched::Watched;
use crate::upstream::{Post, Timeouts, Upstream, UpstreamError};

/// The largest token response that is read.
pub const TOKEN_RESPONSE_MAX_BYTES: usize = 1024 * 1024;

/// What a run is made with beside its configuration.
pub struct Environment {
    /// The time.
    pub clock: Clock,
    /// Seeds the jitter.
    pub rng: Rng,
    /// Makes the channels that refreshers wait on.
    pub timer: fn(Duration) -> Receiver<std::time::Instant>,
}

/// A running proxy. Dropping it stops everything; [`App::stop`] does so with grace.
pub struct App {
    server: crate::ingress::Server,
    refreshers: Vec<Refresher>,
    proxy: Arc<Proxy>,
}

/// Why a run could not start.
#[derive(Debug)]
pub enum StartError {
    /// The address is in use or can't be bound.
    Bind(String, io::Error),
    /// A provider's proxy or certificates can't be used.
    Provider(String, String),
    /// The system refused a thread.
    Thread(io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(address, error) => write!(f, "can't listen on {address}: {error}"),
            Self::Provider(name, why) => write!(f, "provider {name}: {why}"),
            Self::Thread(error) => write!(f, "can't start a thread: {error}"),
        }
    }
}

impl App {
    /// Binds the address, starts the refreshers, then takes connections.
    pub fn start(config: Config, mut environment: Environment) -> Result<Self, StartError> {
        let settings = &config.settings;
        let address = format!("{}:{}", settings.host, settings.port);
        let bind_error = |error| StartError::Bind(address.clone(), error);
        let listener =
            crate::ingress::listener::bind(&settings.host, settings.port).map_err(bind_error)?;
        let bound = listener.local_addr().map_err(bind_error)?;
        if let Err(error) = check_writable(&settings.state_dir) {
            warn!(
                "The state folder {} can't be written ({error}); rotated refresh tokens would be \
                 lost at a restart",
                settings.state_dir.display()
            );
        }
        for exposure in exposures(&settings.state_dir) {
            warn!("Tokens are open to others: {exposure}");
        }
        let store = Arc::new(TokenStore::new());
        let mut refreshers = Vec::new();
        let mut ways = Vec::new();
        for (index, provider) in config.providers.iter().enumerate() {
            let refresher = start_refresher(index, provider, settings, &store, &mut environment)?;
            let inbox = refresher.as_ref().map(Refresher::inbox);
            refreshers.extend(refresher);
            let upstream = way_to(provider, &settings.limits)?;
            let watched = match &provider.credential {
                Credential::Watched(file) => Some(Watched::new(&file.path, file.form.clone())),
                _ => None,
            };
            let (cooldown, counts) = (Cooldown::default(), Counts::default());
            ways.push(Way { upstream, inbox, watched, cooldown, counts });
        }
        let access =
            Access { keys: settings.inbound_keys.clone(), hosts: own_names(settings, bound) };
        let limits = settings.limits.clone();
        let server_kind = settings.server;
        let started_at = environment.clock.wall();
        let clock = environment.clock;
        let uptime = Stopwatch::start();
        let turns = AtomicU64::new(environment.rng.u64(..));
        let proxy =
            Arc::new(Proxy { config, access, ways, store, clock, started_at, uptime, turns });
        let service: Arc<dyn crate::ingress::Service> = proxy.clone();
        let server = match server_kind {
            ServerKind::Builtin => crate::ingress::Server::start(listener, limits, service),
            ServerKind::TinyHttp => crate::ingress::Server::start_tiny(listener, limits, service),
        };
        let server = server.map_err(StartError::Thread)?;
        info!("Listening on http://{bound}");
        Ok(Self { server, refreshers, proxy })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// Refreshes every provider now, without waiting.
    pub fn refresh_all(&self) {
        for refresher in &self.refreshers {
            drop(refresher.inbox().force());
        }
    }

    /// What serves the requests.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Stops: no new connections, requests in flight get the configured grace, a refresh under way
    /// is stored. Returns how many connections were cut off.
    pub fn stop(self) -> usize {
        let grace = self.proxy.config.settings.shutdown_grace;
        let cut_off = self.server.stop(grace);
        // All are told before the first is waited for, so that slow answers are waited for at once.
        self.refreshers.iter().for_each(Refresher::stop);
        // Dropping joins them, once what they have is on disk.
        drop(self.refreshers);
        cut_off
    }
}

/// The names that a client may call us by, beside the loopback ones.
fn own_names(settings: &Settings, bound: SocketAddr) -> Vec<String> {
    let mut names = settings.allowed_hosts.clone();
    names.push(settings.host.to_ascii_lowercase());
    names.push(bound.ip().to_string());
    names
}

/// The way to `provider`.
pub fn way_to(provider: &Provider, limits: &Limits) -> Result<Upstream, StartError> {
    let timeouts =
        Timeouts { connect: limits.connect, response: limits.response, idle: limits.idle };
    Upstream::new(&provider.egress, timeouts)
        .map_err(|why| StartError::Provider(provider.name.clone(), why))
}

fn start_refresher(
    index: usize,
    provider: &Provider,
    settings: &Settings,
    store: &Arc<TokenStore>,
    environment: &mut Environment,
) -> Result<Option<Refresher>, StartError> {
    if let Credential::Missing(missing) = &provider.credential {
        error!("{missing} (provider: {})", provider.name);
    }
    let setup = refresher_setup(index, provider, settings, store, environment)?;
    let Some(setup) = setup.filter(|_| provider.enabled) else { return Ok(None) };
    Refresher::start(setup).map(Some).map_err(StartError::Thread)
}

/// What a refresher of `provider` works with; None where it has no token to refresh.
pub fn refresher_setup(
    index: usize,
    provider: &Provider,
    settings: &Settings,
    store: &Arc<TokenStore>,
    environment: &mut Environment,
) -> Result<Option<Setup>, StartError> {
    let Credential::Refreshed(config) = &provider.credential else { return Ok(None) };
    let timer: Timer = Box::new(environment.timer);
    Ok(Some(Setup {
        provider: index,
        name: provider.name.clone(),
        config: (**config).clone(),
        state: StateFile::new(&settings.state_dir, &provider.slug),
        store: store.clone(),
        clock: environment.clock.clone(),
        timer,
        send: token_sender(way_to(provider, &settings.limits)?),
        rng: environment.rng.fork(),
    }))
}

/// Sends token requests over `upstream`.
fn token_sender(upstream: Upstream) -> Send {
    Box::new(move |request: &TokenRequest, allowed: Duration| {
        let post = Post {
            url: &request.url,
            headers: &request.headers,
            body: &request.body,
            allowed,
            answer_max_bytes: TOKEN_RESPONSE_MAX_BYTES,
        };
        match upstream.post(&post) {
            Ok((status, headers, body)) => Ok(TokenAnswer { status, headers, body }),
            Err(error) => Err(no_answer(error)),
        }
    })
}

fn no_answer(error: UpstreamError) -> NoAnswer {
    match error {
        UpstreamError::Unreachable(why) | UpstreamError::Unsendable(why) => {
            NoAnswer { reached: Reached::No, why: format!("no connection: {why}") }
        }
        UpstreamError::Broken(why) | UpstreamError::TimedOut(why) => {
            NoAnswer { reached: Reached::Perhaps, why: format!("no answer: {why}") }
        }
        UpstreamError::ClientGone | UpstreamError::RequestBody(_) => {
            NoAnswer { reached: Reached::Perhaps, why: "no answer".to_owned() }
        }
    }
}
