//! The configuration in use, and how another takes its place without a request being dropped.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError, Weak};
use std::time::Duration;

use crossbeam_channel::after;
use log::{error, info, warn};

use crate::assemble::{Environment, Load, StartError, access_rules, random_name, way_to};
use crate::clock::{Deadline, Stopwatch, Timestamp};
use crate::config::{self, Config, Credential, SharedStore, WatchedFile};
use crate::credential::claims::ClaimFields;
use crate::credential::{Refreshed, Source};
use crate::current::chains::{Chains, Plan};
use crate::current::changes::{Listening, counts_of, unchanged, what_changed};
use crate::http::message::RequestHead;
use crate::http::refusal::Refusal;
use crate::ingress::{After, Request, Service};
use crate::proxy::cooldown::Cooldown;
use crate::proxy::last_reload::LastReload;
use crate::proxy::metrics::Metrics;
use crate::proxy::provider::{Counts, Provider};
use crate::proxy::state::Proxy;
use crate::proxy::watchers::Watchers;
use crate::shared::keeper::{CooldownSender, Keeper, Member};
use crate::supervisor::Stage;
use crate::token::group::{collisions, sharing};
use crate::token::store::{PostingKey, TokenStore};
use crate::token::watched::Watched;
use crate::upstream::Upstream;

mod chains;
mod changes;

/// How long a stop waits for a reload to end, and how often it looks.
const RELOAD_END_MAX: Duration = Duration::from_secs(3);
const RELOAD_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Why a reload changes nothing any more.
const STOPPING: &str = "evertoken is stopping";

/// What serves requests at the moment, and what it takes to replace it. A request keeps the proxy that
/// it began with to its end.
pub struct Current {
    proxy: RwLock<Arc<Proxy>>,
    /// Held for the whole of a reload, so that none overtakes another.
    reloading: Mutex<()>,
    parts: Mutex<Parts>,
    /// What a reload brings now comes too late.
    is_stopping: AtomicBool,
    metrics: Arc<Metrics>,
    bound: SocketAddr,
    load: Load,
    started_at: Timestamp,
    uptime: Stopwatch,
    itself: Weak<Self>,
}

/// What only a reload touches.
struct Parts {
    environment: Environment,
    store: Arc<TokenStore>,
    metrics: Arc<Metrics>,
    chains: Chains,
    /// Ends after the refreshers, whose leases it renews.
    keeper: Option<Keeper>,
    next_key: PostingKey,
    /// The settings that stay as they were at the start.
    listening: Listening,
    last_reload: Arc<LastReload>,
}

/// What is made for one provider of a configuration before anything is changed.
enum Prepared {
    /// It goes on as it is.
    Same(Arc<Provider>),
    /// It is made anew, with these connections.
    New(Box<Upstream>),
}

impl Current {
    /// Starts what `config` asks for.
    pub fn start(
        config: Config,
        bound: SocketAddr,
        environment: Environment,
        load: Load,
    ) -> Result<Arc<Self>, StartError> {
        let started_at = environment.clock.wall();
        let mut parts = Parts {
            environment,
            store: Arc::new(TokenStore::new()),
            metrics: Arc::new(Metrics::new()),
            chains: Chains::default(),
            keeper: None,
            next_key: 0,
            listening: Listening::of(&config.settings),
            last_reload: Arc::default(),
        };
        let providers = parts.providers(&config, None)?;
        let uptime = Stopwatch::start();
        Ok(Arc::new_cyclic(|itself: &Weak<Self>| {
            let proxy =
                new_proxy(config, providers, &mut parts, bound, (started_at, uptime), itself);
            Self {
                proxy: RwLock::new(Arc::new(proxy)),
                metrics: parts.metrics.clone(),
                reloading: Mutex::new(()),
                parts: Mutex::new(parts),
                is_stopping: AtomicBool::new(false),
                bound,
                load,
                started_at,
                uptime,
                itself: itself.clone(),
            }
        }))
    }

    /// What serves requests now.
    pub fn proxy(&self) -> Arc<Proxy> {
        self.proxy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Each change of it is complete in itself.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the configuration again and uses it. Providers that are as they were keep their token, their
    /// thread and their connections; requests in flight go on with what they began with. Returns what is
    /// to be known about it, or every problem, with nothing changed.
    pub fn reload(&self) -> Result<Vec<String>, Vec<String>> {
        let outcome = self.replace();
        match &outcome {
            Ok(notes) => {
                for note in notes {
                    warn!("{note}");
                }
            }
            Err(problems) => {
                for problem in problems {
                    error!("{problem}");
                }
                let since = self.proxy().configured_at;
                error!("The configuration was not reloaded; the one from {since} stays in use");
            }
        }
        outcome
    }

    fn replace(&self) -> Result<Vec<String>, Vec<String>> {
        let _reloading = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let supervisor = self.parts().environment.supervisor.clone();
        supervisor.tell(&Stage::Reloading);
        // A file may be on a disk that hangs: nothing that a stop needs is held meanwhile.
        let outcome = (self.load)().and_then(|(config, notes)| self.replace_with(config, notes));
        let proxy = self.proxy();
        proxy.last_reload.note(outcome.as_ref().err(), proxy.clock.wall(), proxy.configured_at);
        if !self.is_stopping.load(Ordering::SeqCst) {
            supervisor.tell(&Stage::Ready(self.status_line()));
        }
        outcome
    }

    fn replace_with(
        &self,
        config: Config,
        mut notes: Vec<String>,
    ) -> Result<Vec<String>, Vec<String>> {
        let parts = &mut *self.parts();
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(vec![STOPPING.to_owned()]);
        }
        let old = self.proxy();
        let providers =
            parts.providers(&config, Some(&old)).map_err(|error| vec![error.to_string()])?;
        notes.extend(parts.listening.needs_restart(&old.settings, &config.settings));
        info!("{}", what_changed(&old.configured(), &config.providers));
        let times = (self.started_at, self.uptime);
        let proxy = new_proxy(config, providers, parts, self.bound, times, &self.itself);
        let mut in_use: Vec<PostingKey> = proxy.providers.iter().map(|one| one.key).collect();
        in_use.extend(parts.chains.in_use());
        *self.proxy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(proxy);
        // They come again, and see the new one.
        old.watchers.dismiss();
        if let Some(keeper) = &parts.keeper {
            keeper.retain(|key| in_use.contains(&key));
        }
        parts.chains.end_unused(&parts.store);
        Ok(notes)
    }

    /// `Listening on http://127.0.0.1:8080; 2 of 3 providers have a credential to send`
    pub fn status_line(&self) -> String {
        let proxy = self.proxy();
        let now = proxy.clock.now();
        let enabled = || proxy.providers.iter().filter(|one| one.config.enabled);
        let ready = enabled().filter(|one| one.source.has_one(&one.source.posting(), now)).count();
        format!(
            "Listening on http://{}; {ready} of {} providers have a credential to send",
            self.bound,
            enabled().count()
        )
    }

    /// Refreshes every provider now, without waiting.
    pub fn refresh_all(&self) {
        match self.parts_before(Deadline::after(RELOAD_END_MAX)) {
            Some(parts) => parts.chains.refresh_all(),
            None => error!("A reload does not come to its end; nothing is refreshed before that"),
        }
    }

    /// Ends all refreshers, once what they have is on disk; one that is still refreshing at the `deadline` is left behind.
    ///
    /// A reload that hangs, as a disk may, is left behind, with what it holds.
    pub fn stop(&self, deadline: Deadline) {
        self.is_stopping.store(true, Ordering::SeqCst);
        let Some(mut parts) = self.parts_before(Deadline::after(RELOAD_END_MAX)) else {
            return error!("A reload does not come to its end; stopping without it");
        };
        let chains = std::mem::take(&mut parts.chains);
        drop(parts);
        chains.stop(deadline);
    }

    fn parts_before(&self, deadline: Deadline) -> Option<MutexGuard<'_, Parts>> {
        loop {
            match self.parts.try_lock() {
                Ok(parts) => return Some(parts),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if deadline.has_passed() => return None,
                // The timer's end is all that is waited for.
                Err(TryLockError::WouldBlock) => drop(after(RELOAD_LOOK_EVERY).recv()),
            }
        }
    }
}

impl Service for Current {
    fn serve(&self, request: Request<'_>, out: &mut dyn Write) -> After {
        self.proxy().serve(request, out)
    }

    fn refuse(&self, refusal: &Refusal, head: Option<&RequestHead>, out: &mut dyn Write) {
        self.proxy().refuse(refusal, head, out);
    }

    fn connections_changed(&self, by: i64) {
        let open = self.metrics.connections_changed(by);
        if by < 0 {
            self.proxy().clients_left(open);
        }
    }
}

impl Parts {
    /// The providers of `config`: of `old` those that are as they were, and new ones. Refreshers are
    /// started and changed once nothing else can go wrong.
    fn providers(
        &mut self,
        config: &Config,
        old: Option<&Proxy>,
    ) -> Result<Vec<Arc<Provider>>, StartError> {
        let store = config.settings.token_store.as_ref();
        if self.keeper.as_ref().map(Keeper::store) == store {
            return self.build_providers(config, old);
        }
        let keeper = self.keeper_for(store)?;
        let before = std::mem::replace(&mut self.keeper, keeper);
        let built = self.build_providers(config, old);
        if built.is_err() {
            self.keeper = before;
        }
        built
    }

    fn build_providers(
        &mut self,
        config: &Config,
        old: Option<&Proxy>,
    ) -> Result<Vec<Arc<Provider>>, StartError> {
        let Self { chains, next_key, store, environment, .. } = self;
        let plan = chains.plan(config, next_key, store, environment)?;
        let postings: Vec<Option<PostingKey>> =
            (0..config.providers.len()).map(|index| plan.posting(index)).collect();
        let prepared = prepare(config, &plan, old)?;
        say_what_is_shared(&config.providers, old.map(Proxy::configured));
        self.chains.carry_out(plan, self.keeper.as_ref(), &self.environment)?;
        let mut providers = Vec::new();
        for ((provider, prepared), posting) in config.providers.iter().zip(prepared).zip(postings) {
            if let Credential::Missing(missing) = &provider.credential {
                error!(
                    provider = provider.name.as_str();
                    "{missing} (provider: {})", provider.name
                );
            }
            providers.push(match prepared {
                Prepared::Same(provider) => provider,
                Prepared::New(upstream) => {
                    let counts = counts_of(provider, config, old);
                    Arc::new(self.new_provider(provider, *upstream, posting, counts, old))
                }
            });
        }
        self.chains.are_used_by(&providers);
        Ok(providers)
    }

    fn keeper_for(&mut self, store: Option<&SharedStore>) -> Result<Option<Keeper>, StartError> {
        let started = store.map(|store| {
            let instance = random_name(&mut self.environment.rng);
            Keeper::start(store, instance, self.environment.clock.clone())
        });
        started.transpose().map_err(StartError::Thread)
    }

    /// How the cooldowns of the provider called `slug` are told to other hosts; it hears of theirs too.
    fn share_cooldown(
        &self,
        key: PostingKey,
        slug: &str,
        cooldown: &Arc<Cooldown>,
    ) -> Option<CooldownSender> {
        let keeper = self.keeper.as_ref()?;
        let (cooldown, clock) = (cooldown.clone(), self.environment.clock.clone());
        let told = slug.to_owned();
        let rest = move |ms| {
            let length = Duration::from_millis(ms);
            if cooldown.begin(clock.now(), length) {
                let seconds = length.as_secs_f64().ceil();
                warn!(
                    "Provider {told} is passed over for {seconds} s: another host found it failing"
                );
            }
        };
        let rest = Box::new(rest);
        keeper.add(Member { key, slug: slug.to_owned(), wake: None, held: None, rest });
        Some(keeper.cooldown_sender(slug))
    }

    fn new_provider(
        &mut self,
        config: &config::Provider,
        upstream: Upstream,
        chain: Option<PostingKey>,
        counts: Arc<Counts>,
        old: Option<&Proxy>,
    ) -> Provider {
        let key = self.next_key;
        self.next_key += 1;
        let source = self.source(config, chain.unwrap_or(key), old);
        if let Some(watched) = source.file().filter(|_| config.enabled)
            && let Err(why) = watched.read(self.environment.clock.now())
        {
            warn!(
                provider = config.name.as_str();
                "Provider {} has no credential: {why}", config.name
            );
        }
        let (cooldown, claims) = <(Arc<Cooldown>, ClaimFields)>::default();
        let cooldown_sender = self.share_cooldown(key, &config.slug, &cooldown);
        let metrics = self.metrics.of_provider(&config.name);
        let config = config.clone();
        Provider {
            key,
            config,
            source,
            upstream,
            claims,
            cooldown,
            cooldown_sender,
            counts,
            metrics,
        }
    }

    fn source(&self, config: &config::Provider, chain: PostingKey, old: Option<&Proxy>) -> Source {
        match &config.credential {
            Credential::Watched(file) => {
                let unsaved = || self.chains.unsaved(config, &self.store);
                let known = old.and_then(|old| watched_before(file, &old.providers));
                Source::File(known.unwrap_or_else(|| Arc::new(Watched::of(file, unsaved()))))
            }
            Credential::Refreshed(refresh) => Source::Refreshed(Refreshed {
                store: self.store.clone(),
                chain,
                inbox: self.chains.inbox(chain).filter(|_| config.enabled),
                command: refresh.call.refresh(&config.slug),
            }),
            other => Source::fixed(other),
        }
    }
}

/// The watcher that `file` had before: it knows what the file held.
fn watched_before(file: &WatchedFile, providers: &[Arc<Provider>]) -> Option<Arc<Watched>> {
    let mut before = providers.iter().filter_map(|one| one.source.file());
    before.find(|watched| watched.is_of(file)).cloned()
}

/// The providers that go on, and the connections of the others.
fn prepare(config: &Config, plan: &Plan, old: Option<&Proxy>) -> Result<Vec<Prepared>, StartError> {
    let settings = &config.settings;
    let providers = config.providers.iter().enumerate();
    let prepare = |(index, provider): (usize, &config::Provider)| {
        let same = old.and_then(|old| unchanged(old, provider, settings));
        let chain = plan.posting(index);
        if let Some(same) = same.filter(|same| chain.is_none() || chain == same.source.chain()) {
            return Ok(Prepared::Same(same));
        }
        let upstream = way_to(&provider.base_url, provider, &settings.limits)?;
        Ok(Prepared::New(Box::new(upstream)))
    };
    providers.map(prepare).collect()
}

/// Says which providers share a chain of refresh tokens, unless that was so before too.
fn say_what_is_shared(providers: &[config::Provider], before: Option<Vec<config::Provider>>) {
    let (shared, alone) = (sharing(providers), collisions(providers));
    let known =
        before.map_or_else(Vec::new, |before| [sharing(&before), collisions(&before)].concat());
    for line in shared.iter().filter(|line| !known.contains(line)) {
        info!("{line}");
    }
    for line in alone.iter().filter(|line| !known.contains(line)) {
        warn!("{line}");
    }
}

fn new_proxy(
    config: Config,
    providers: Vec<Arc<Provider>>,
    parts: &mut Parts,
    bound: SocketAddr,
    (started_at, uptime): (Timestamp, Stopwatch),
    current: &Weak<Current>,
) -> Proxy {
    let Config { settings, model_routes, .. } = config;
    let access = access_rules(&settings, bound);
    let current = current.clone();
    let watchers = Watchers::new(settings.limits.max_connections);
    Proxy {
        access,
        watchers,
        store_health: parts.keeper.as_ref().map(|keeper| keeper.health().clone()),
        settings,
        model_routes,
        providers,
        metrics: parts.metrics.clone(),
        clock: parts.environment.clock.clone(),
        started_at,
        configured_at: parts.environment.clock.wall(),
        last_reload: parts.last_reload.clone(),
        uptime,
        turns: AtomicU64::new(parts.environment.rng.u64(..)),
        reload: Box::new(move || match current.upgrade() {
            Some(current) => current.reload(),
            None => Err(vec![STOPPING.to_owned()]),
        }),
    }
}
