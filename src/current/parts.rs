//! The parts that only a reload touches (the refreshers and the keeper of leases), and how a configuration's providers
//! are made from the running ones.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, info, warn};

use crate::assemble::{Environment, StartError, random_name, upstream_to};
use crate::bookkeeper::{Registrar, Reminder};
use crate::clock::{Clock, Moment};
use crate::config::{self, Config, Credential, Settings, SharedStore, WatchedFile};
use crate::credential::claims::ClaimFields;
use crate::credential::{RefreshedSource, Source};
use crate::current::chains::{Chains, Plan};
use crate::current::changes::{ListenSettings, cooldown_of, counts_of, quota_of, unchanged};
use crate::current::quota_files::{QuotaFiles, saved_by};
use crate::proxy::allowance::{Allowance, AllowanceState};
use crate::proxy::cooldown::{Cooldown, Proof};
use crate::proxy::last_reload::LastReload;
use crate::proxy::limits::AllUsed;
use crate::proxy::metrics::Metrics;
use crate::proxy::provider::{Counts, Provider};
use crate::proxy::state::Proxy;
use crate::proxy::told::Begun;
use crate::quota::account;
use crate::quota::stored::StoredQuota;
use crate::shared::keeper::{CooldownSender, Keeper, KeptProvider, QuotaExchange, RestNews};
use crate::shared::requests::RequestThread;
use crate::token::group::{collisions, sharing};
use crate::token::store::{PostingKey, TokenStore};
use crate::token::watched::Watched;
use crate::upstream::Upstream;
use crate::usage::ledger::Ledger;

/// The longest wait for the first look at a file with a credential.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(1);

/// The parts that only a reload touches.
pub(super) struct Parts {
    pub(super) environment: Environment,
    pub(super) store: Arc<TokenStore>,
    pub(super) metrics: Arc<Metrics>,
    /// The use that clients have made of the limits of their keys.
    pub(super) used: AllUsed,
    /// Counts their requests on all hosts; None without a token store.
    requests: Option<RequestThread>,
    pub(super) chains: Chains,
    /// Ends after the refreshers, because it renews their leases.
    pub(super) keeper: Option<Keeper>,
    next_key: PostingKey,
    /// The settings that stay as they were at the start.
    pub(super) listening: ListenSettings,
    pub(super) last_reload: Arc<LastReload>,
    /// Saves what is counted, and what is left of quotas.
    pub(super) registrar: Registrar,
    /// Counts tokens; None before the first configuration that has `settings.usage`.
    usage: Option<Arc<Ledger>>,
}

/// One provider of a configuration, prepared before anything is changed.
enum Prepared {
    /// An unchanged provider.
    Same(Arc<Provider>),
    /// A new provider, with these connections.
    New(Box<Upstream>),
}

/// The parts of a new provider that an earlier one may have left.
struct Carried<'a> {
    counts: Arc<Counts>,
    quota: Arc<AllowanceState>,
    state_dir: &'a Path,
}

impl Parts {
    pub(super) fn new(environment: Environment, settings: &Settings, registrar: Registrar) -> Self {
        Self {
            environment,
            store: Arc::new(TokenStore::default()),
            metrics: Arc::new(Metrics::new()),
            used: AllUsed::default(),
            requests: None,
            chains: Chains::default(),
            keeper: None,
            next_key: 0,
            listening: ListenSettings::of(settings),
            last_reload: Arc::default(),
            registrar,
            usage: None,
        }
    }

    /// The counts of tokens for a proxy with `settings`; None if they are off. Hosts with a token store share them.
    pub(super) fn usage(&mut self, settings: &Settings) -> Option<Arc<Ledger>> {
        let ledger = self.ledger(settings);
        if let Some(keeper) = &self.keeper {
            keeper.counts.set(ledger.as_ref().map(Ledger::shared_counts));
        }
        ledger
    }

    fn ledger(&mut self, settings: &Settings) -> Option<Arc<Ledger>> {
        if !settings.usage {
            return None;
        }
        if let Some(ledger) = &self.usage {
            ledger.move_to(&settings.state_dir);
        } else {
            let (clock, run) =
                (self.environment.clock.clone(), random_name(&mut self.environment.rng));
            let ledger = Arc::new(Ledger::open(&settings.state_dir, clock, &run));
            Ledger::save_by(&ledger, &self.registrar);
            self.usage = Some(ledger);
        }
        self.usage.clone()
    }

    /// The providers of `config`: the unchanged ones of `old`, and new ones. Refreshers are started and changed once
    /// nothing else can go wrong.
    pub(super) fn providers(
        &mut self,
        config: &Config,
        old: Option<&Proxy>,
    ) -> Result<Vec<Arc<Provider>>, StartError> {
        let store = config.settings.token_store.as_ref();
        if self.keeper.as_ref().map(|keeper| &keeper.store) == store {
            return self.build_providers(config, old);
        }
        let keeper = self.keeper_for(store)?;
        let requests = self.request_thread_for(store)?;
        let before = std::mem::replace(&mut self.keeper, keeper);
        let built = self.build_providers(config, old);
        if built.is_err() {
            self.keeper = before;
        } else {
            self.used.shared = requests.as_ref().map(RequestThread::counter);
            self.requests = requests;
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
        let quota_files = QuotaFiles::read(&config.settings.state_dir, &self.environment.clock);
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
                    let new = || Arc::new(quota_files.state_of(provider, &config.providers));
                    let carried = Carried {
                        counts: counts_of(provider, config, old),
                        quota: quota_of(provider, config, posting, old).unwrap_or_else(new),
                        state_dir: &config.settings.state_dir,
                    };
                    Arc::new(self.new_provider(provider, *upstream, posting, carried, old))
                }
            });
        }
        self.chains.are_used_by(&providers);
        Ok(providers)
    }

    fn request_thread_for(
        &self,
        store: Option<&SharedStore>,
    ) -> Result<Option<RequestThread>, StartError> {
        let clock = &self.environment.clock;
        let started = store.map(|store| RequestThread::start(store, clock.clone()));
        started.transpose().map_err(StartError::Thread)
    }

    fn keeper_for(&mut self, store: Option<&SharedStore>) -> Result<Option<Keeper>, StartError> {
        let started = store.map(|store| {
            let instance = random_name(&mut self.environment.rng);
            Keeper::start(store, instance, self.environment.clock.clone())
        });
        started.transpose().map_err(StartError::Thread)
    }

    /// Shares cooldowns and quota of a provider with other hosts, in both directions.
    fn share(
        &self,
        key: PostingKey,
        config: &config::ProviderConfig,
        cooldown: &Arc<Cooldown>,
        quota: &Arc<AllowanceState>,
        reminder: Option<Reminder>,
    ) -> Option<CooldownSender> {
        let keeper = self.keeper.as_ref()?;
        let (cooldown, clock) = (cooldown.clone(), self.environment.clock.clone());
        let (name, slug) = (config.name.clone(), config.slug.clone());
        let rest = Box::new(move |model: Option<&str>, news: RestNews<'_>| match news {
            RestNews::Begun(ms, number) => {
                let begun = number.map_or(Begun::Elsewhere, Begun::Told);
                rest(&name, &cooldown, model, (Duration::from_millis(ms), begun), clock.now());
            }
            RestNews::Ended(numbers) if cooldown.ended_elsewhere(model, numbers) => {
                let of =
                    model.map_or_else(String::new, |model| format!(" for the model {model:?}"));
                info!(
                    "Provider {name} is no longer passed over{of}: another host got a good answer"
                );
                if let Some(reminder) = &reminder {
                    reminder.changed_much();
                }
            }
            RestNews::Ended(_) => {}
        });
        let quota = Some(quota_exchange(quota.clone(), self.environment.clock.clone()));
        let sender = keeper.cooldown_sender(&slug);
        keeper.add(KeptProvider { key, slug, wake: None, held: None, rest, quota });
        Some(sender)
    }

    fn new_provider(
        &mut self,
        config: &config::ProviderConfig,
        upstream: Upstream,
        chain: Option<PostingKey>,
        carried: Carried<'_>,
        old: Option<&Proxy>,
    ) -> Provider {
        let key = self.next_key;
        self.next_key += 1;
        let source = self.source(config, chain.unwrap_or(key), old);
        if let Some(watched) = source.file().filter(|_| config.enabled) {
            let now = self.environment.clock.now();
            // Its disk may hang.
            watched.look_aside(0, now);
            watched.wait_for_look(FIRST_LOOK_MAX, now);
            if let Err(why) = watched.known(now) {
                warn!(
                    provider = config.name.as_str();
                    "Provider {} has no credential: {why}", config.name
                );
            }
        }
        let (cooldown, claims) = (cooldown_of(config, old), ClaimFields::default());
        let Carried { counts, quota, state_dir } = carried;
        let clock = &self.environment.clock;
        // A disabled provider may have another's slug.
        let reminder = config.enabled.then(|| {
            let kept = (quota.clone(), cooldown.clone());
            saved_by(&self.registrar, state_dir, &config.slug, kept, clock)
        });
        let cooldown_sender = self.share(key, config, &cooldown, &quota, reminder.clone());
        let base = account::base(config);
        let allowance = Allowance::new(base, quota, cooldown.clone(), reminder);
        let metrics = self.metrics.of_provider(&config.name);
        let config = config.clone();
        Provider {
            key,
            config,
            source,
            upstream,
            claims,
            cooldown,
            allowance,
            cooldown_sender,
            counts,
            metrics,
        }
    }

    fn source(
        &self,
        config: &config::ProviderConfig,
        chain: PostingKey,
        old: Option<&Proxy>,
    ) -> Source {
        match &config.credential {
            Credential::Watched(file) => {
                let unsaved = || self.chains.unsaved(config, &self.store);
                let known = old.and_then(|old| watched_before(file, &old.providers));
                Source::File(known.unwrap_or_else(|| Arc::new(Watched::of(file, unsaved()))))
            }
            Credential::Refreshed(refresh) => Source::Refreshed(RefreshedSource {
                store: self.store.clone(),
                chain,
                inbox: self.chains.inbox(chain).filter(|_| config.enabled),
                command: refresh.call.refresh(&config.slug),
            }),
            other => Source::fixed(other),
        }
    }
}

/// Exchanges a quota with other hosts.
fn quota_exchange(quota: Arc<AllowanceState>, clock: Clock) -> QuotaExchange {
    let own = quota.clone();
    QuotaExchange {
        tell: Box::new(move || Some(own.to_tell(clock.now())?.to_json())),
        hear: Box::new(move |text| match text.map(str::as_bytes).map(StoredQuota::parse) {
            None => quota.is_unknown(),
            Some(Ok(told)) => quota.hear(told),
            // A later evertoken says more than this one understands.
            Some(Err(why)) => debug!("A message about a quota is ignored: {why}"),
        }),
    }
}

/// The earlier watcher of `file`, which remembers the file's content.
fn watched_before(file: &WatchedFile, providers: &[Arc<Provider>]) -> Option<Arc<Watched>> {
    let mut before = providers.iter().filter_map(|one| one.source.file());
    before.find(|watched| watched.is_of(file)).cloned()
}

/// The unchanged providers, and connections for the others.
fn prepare(config: &Config, plan: &Plan, old: Option<&Proxy>) -> Result<Vec<Prepared>, StartError> {
    let settings = &config.settings;
    let providers = config.providers.iter().enumerate();
    let prepare = |(index, provider): (usize, &config::ProviderConfig)| {
        let same = old.and_then(|old| unchanged(old, provider, settings));
        let chain = plan.posting(index);
        if let Some(same) = same.filter(|same| chain.is_none() || chain == same.source.chain()) {
            return Ok(Prepared::Same(same));
        }
        let upstream = upstream_to(&provider.base_url, provider, &settings.limits)?;
        Ok(Prepared::New(Box::new(upstream)))
    };
    providers.map(prepare).collect()
}

/// Logs which providers share a chain of refresh tokens, unless they did before.
fn say_what_is_shared(
    providers: &[config::ProviderConfig],
    before: Option<Vec<config::ProviderConfig>>,
) {
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

/// Another host found that the provider called `name`, or a model of it, refuses requests.
fn rest(
    name: &str,
    cooldown: &Cooldown,
    model: Option<&str>,
    (length, begun): (Duration, Begun),
    now: Moment,
) {
    let seconds = length.as_secs_f64().ceil();
    match model {
        Some(model) if cooldown.models.begin(model, now, length, begun) => {
            warn!(
                "Provider {name} is passed over for {seconds} s for the model {model:?}: another host found it refused"
            );
        }
        // The message does not say which request was refused.
        None if cooldown.begin(now, length, Proof::Quota, begun) => {
            warn!("Provider {name} is passed over for {seconds} s: another host found it failing");
        }
        _ => {}
    }
}
