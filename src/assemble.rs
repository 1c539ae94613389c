//! Makes the parts of a run from its configuration: access rules, connections to providers, and the setup of
//! refreshers.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use fastrand::Rng;
use log::debug;

use crate::bound::Bound;
use crate::clock::Clock;
use crate::config::{
    Config, Egress, Limits, ListenAddress, ProviderConfig, ProviderTimeouts, Settings, TokenCommand,
};
use crate::proxy::access::{Access, host_name};
use crate::proxy::known_keys::Keys;
use crate::proxy::limits::AllUsed;
use crate::proxy::metrics::Metrics;
use crate::shared::chain::SharedChain;
use crate::supervisor::Supervisor;
use crate::token::command::{self, COMMAND_MAX};
use crate::token::grant::{self, Failure, Reached, TOKEN_ANSWER_MAX_BYTES, TokenRequest};
use crate::token::group::{Group, groups};
use crate::token::places::{Contents, Seeker};
use crate::token::refresher::{Setup, Timer};
use crate::token::sender::{Allowed, IssuerLink, Send, TokenAnswer};
use crate::token::state_file::StateFile;
use crate::token::store::{PostingKey, TokenStore};
use crate::upstream::post::{Post, Poster};
use crate::upstream::{SetupError, Timeouts, Upstream, UpstreamError};

pub(crate) mod bearer;

/// The surroundings of a run: time, chance, timers and the service manager.
pub struct Environment {
    /// The time.
    pub clock: Clock,
    /// Seeds the jitter.
    pub rng: Rng,
    /// Makes the channels on which refreshers wait.
    pub timer: fn(Duration) -> Receiver<std::time::Instant>,
    /// The service manager that is told about ready, reload and stop.
    pub supervisor: Supervisor,
}

/// Reads the configuration again: the configuration and its warnings, or every problem, one per line.
pub(crate) type Load =
    Box<dyn Fn() -> Result<(Config, Vec<String>), Vec<String>> + std::marker::Send + Sync>;

/// The reason why a run could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use or can't be bound.
    #[error("can't listen on {0}: {1}")]
    Bind(ListenAddress, io::Error),
    /// A provider's proxy or certificates can't be used.
    #[error("provider {0}: {1}")]
    Provider(String, SetupError),
    /// The certificate for clients can't be used.
    #[error("{0}")]
    Tls(String),
    /// The system refused a thread.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
}

/// The access rules for a proxy that listens on `bound`.
pub(crate) fn access_rules(
    settings: &Settings,
    bound: &[Bound],
    metrics: &Metrics,
    used: &mut AllUsed,
) -> Access {
    Access {
        keys: settings.inbound_keys.as_deref().map(|keys| Keys::of(keys, metrics, used)),
        hosts: own_names(settings, bound),
        origins: settings.allowed_origins.clone(),
    }
}

/// The names of this proxy for clients, besides the loopback ones.
fn own_names(settings: &Settings, bound: &[Bound]) -> Vec<String> {
    // A name may be written as in a `Host`, with brackets or a port.
    let name = |host: &String| match host.parse::<IpAddr>() {
        Ok(_) => host.clone(),
        Err(_) => host_name(host).to_owned(),
    };
    let mut names: Vec<String> = settings.allowed_hosts.iter().map(name).collect();
    names.extend(settings.listen.iter().filter_map(|address| match address {
        ListenAddress::Tcp { host, .. } => Some(host.to_ascii_lowercase()),
        ListenAddress::Unix { .. } => None,
    }));
    names.extend(bound.iter().filter_map(Bound::port).map(|address| address.ip().to_string()));
    names
}

/// The connections to `provider`, for requests to `base_url`.
pub(crate) fn upstream_to(
    base_url: &str,
    provider: &ProviderConfig,
    limits: &Limits,
) -> Result<Upstream, StartError> {
    let ProviderTimeouts { connect, response, idle } = provider.timeouts;
    let timeouts = Timeouts { connect, response, idle };
    // No more requests can be in flight, so no more connections need to be kept.
    let idle_max = limits.max_connections;
    Upstream::new(base_url, &provider.egress, timeouts, idle_max)
        .map_err(|why| StartError::Provider(provider.name.clone(), why))
}

pub(crate) fn timeouts(limits: &Limits) -> Timeouts {
    Timeouts { connect: limits.connect, response: limits.response, idle: limits.idle }
}

/// The name of `group`'s state file, for a command without a refresher: it does not move the file.
pub fn place_of(group: &Group, config: &Config) -> String {
    places(group, config).1.slug().to_owned()
}

/// The default state file of `group`, if it holds tokens of another issuer or client, so that another file is used.
pub(crate) fn foreign_place(group: &Group, config: &Config) -> Option<PathBuf> {
    let (own, used) = places(group, config);
    (own.slug() != used.slug()).then(|| own.path())
}

/// The default state file of `group`, and the one in use.
fn places(group: &Group, config: &Config) -> (StateFile, StateFile) {
    let contents = Contents::read(&config.settings.state_dir);
    let found = contents.find(group, &groups(&config.providers), &[]);
    let slug = found.slug.unwrap_or_else(|| group.slug.clone());
    let own = StateFile::new(&config.settings.state_dir, slug);
    let used = Seeker::new(group, groups(&config.providers), config).place(&own);
    (own, used)
}

/// The setup for the refresher of `group`, whether or not one of its providers is enabled; its state file is called
/// `place`, and `keys` tells under which key the token of another provider is posted.
pub fn refresher_setup(
    posting: PostingKey,
    group: &Group,
    place: &str,
    config: &Config,
    store: &Arc<TokenStore>,
    environment: &mut Environment,
    keys: &dyn Fn(usize) -> PostingKey,
) -> Result<Setup, StartError> {
    let (lead, settings) = (&config.providers[group.lead], &config.settings);
    let timer: Timer = Box::new(environment.timer);
    let is_kept = !group.config.grant_type.keeps_nothing();
    let link = match group.config.command() {
        Some(command) => {
            IssuerLink { send: command_runner(command.clone(), group.name.clone()), reach: None }
        }
        None => link_by(
            Poster::new(&lead.token_egress(), timeouts(&settings.limits))
                .map_err(|why| StartError::Provider(lead.name.clone(), why))?,
        ),
    };
    let clock = &environment.clock;
    let link = match bearer::of(&group.config, config, (store, keys), clock) {
        Some(bearer) => IssuerLink { send: bearer.adding_to(link.send), ..link },
        None => link,
    };
    Ok(Setup {
        provider: posting,
        name: group.name.clone(),
        config: group.config.clone(),
        state: StateFile::new(&settings.state_dir, place),
        seeker: Seeker::new(group, groups(&config.providers), config),
        chain: settings.token_store.as_ref().filter(|_| is_kept).map(|shared| {
            let holder = random_name(&mut environment.rng);
            SharedChain::new(shared, &group.slug, holder, environment.clock.clone())
        }),
        store: store.clone(),
        clock: environment.clock.clone(),
        timer,
        link,
        rng: environment.rng.fork(),
        watches_disk: true,
    })
}

/// A name that nobody else has.
pub(crate) fn random_name(rng: &mut Rng) -> String {
    format!("{:032x}", rng.u128(..))
}

/// Sends requests to an issuer through `egress`, for a command without a refresher.
pub(crate) fn issuer_sender(egress: &Egress, limits: &Limits) -> Result<Send, SetupError> {
    Ok(link_by(Poster::new(egress, timeouts(limits))?).send)
}

/// The way to an issuer by `poster`.
fn link_by(poster: Poster) -> IssuerLink {
    let poster = Arc::new(poster);
    let send = token_sender(poster.clone());
    let reach = Box::new(move |url: &str, allowed| poster.reach(url, allowed).map_err(no_answer));
    IssuerLink { send, reach: Some(reach) }
}

/// Sends token requests by `poster`.
fn token_sender(poster: Arc<Poster>) -> Send {
    Box::new(move |request: &TokenRequest, allowed: Allowed, _: &dyn Fn() -> bool| {
        let post = Post {
            method: request.method,
            url: &request.url,
            headers: &request.headers,
            body: &request.body,
            connecting: allowed.connecting,
            allowed: allowed.whole,
            answer_max_bytes: TOKEN_ANSWER_MAX_BYTES,
            is_of_use: &|headers, body| grant::is_of_use(headers, body),
        };
        match poster.post(&post) {
            Ok((status, headers, body)) => Ok(TokenAnswer { status, headers, body, said: None }),
            Err(error) => Err(no_answer(error)),
        }
    })
}

/// Runs `command` for the provider called `name`.
fn command_runner(command: TokenCommand, name: String) -> Send {
    Box::new(move |_: &TokenRequest, _: Allowed, is_called_off: &dyn Fn() -> bool| {
        let printed = command::run(&command, COMMAND_MAX, is_called_off)?;
        if let Some(said) = &printed.said {
            debug!(provider = name.as_str(); "The token_command of provider {name} says: {said}");
        }
        Ok(TokenAnswer::printed(printed.stdout, printed.said))
    })
}

fn no_answer(error: UpstreamError) -> Failure {
    match error {
        UpstreamError::NoTls { why, remedy } => {
            Failure::no_answer(Reached::No, format!("no connection: {why}{remedy}"))
        }
        UpstreamError::Unreachable(why) | UpstreamError::Unsendable(why) => {
            Failure::no_answer(Reached::No, format!("no connection: {why}"))
        }
        UpstreamError::Short(shortage) => Failure::short(shortage),
        UpstreamError::Broken(why) | UpstreamError::TimedOut(why) => {
            Failure::no_answer(Reached::Perhaps, format!("no answer: {why}"))
        }
        UpstreamError::ClientGone | UpstreamError::RequestBody(_) => {
            Failure::no_answer(Reached::Perhaps, "no answer")
        }
    }
}
