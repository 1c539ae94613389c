//! The differences that a reload makes, and the settings that it leaves as they were at the start. Pure.

use std::sync::{Arc, Weak};

use crate::assemble::timeouts;
use crate::config::{self, Config, ListenAddress, OwnTls, Settings};
use crate::proxy::allowance::AllowanceState;
use crate::proxy::cooldown::Cooldown;
use crate::proxy::provider::{Counts, Provider};
use crate::proxy::state::Proxy;
use crate::quota::account;
use crate::token::store::PostingKey;

/// The provider of `old` whose configuration and route to its endpoint are unchanged.
pub(super) fn unchanged(
    old: &Proxy,
    provider: &config::ProviderConfig,
    settings: &Settings,
) -> Option<Arc<Provider>> {
    let before = &old.settings;
    let same_place = before.state_dir == settings.state_dir
        && before.token_store == settings.token_store
        && timeouts(&before.limits) == timeouts(&settings.limits);
    old.providers.iter().find(|own| own.config == *provider).filter(|_| same_place).cloned()
}

/// The cooldown of a provider, which continues if only its weight or its name is new.
pub(super) fn cooldown_of(provider: &config::ProviderConfig, old: Option<&Proxy>) -> Arc<Cooldown> {
    let is_it = |own: &&Arc<Provider>| {
        let config::ProviderConfig { name, slug, weight, .. } = provider.clone();
        config::ProviderConfig { name, slug, weight, ..own.config.clone() } == *provider
    };
    let before = old.and_then(|old| old.providers.iter().find(is_it));
    before.map_or_else(Arc::default, |own| own.cooldown.clone())
}

/// The request counts of a provider, which continue after a change: the slug identifies it, whatever else is new.
pub(super) fn counts_of(
    provider: &config::ProviderConfig,
    config: &Config,
    old: Option<&Proxy>,
) -> Arc<Counts> {
    let has_slug = |one: &config::ProviderConfig| one.slug == provider.slug;
    // A disabled provider may have another's slug.
    let is_namesake =
        !provider.enabled && config.providers.iter().any(|other| other.enabled && has_slug(other));
    let Some(old) = old.filter(|_| !is_namesake) else { return Arc::default() };
    let before = old.providers.iter().filter(|own| has_slug(&own.config));
    let before = before.max_by_key(|own| own.config.enabled);
    before.map_or_else(Arc::default, |own| own.counts.clone())
}

/// The counts of providers of `old`, and of those that had left it, that are not those of `providers`.
pub(super) fn departed(old: &Proxy, providers: &[Arc<Provider>]) -> Vec<Weak<Counts>> {
    let own = old.providers.iter().map(|one| Arc::downgrade(&one.counts));
    let is_kept = |one: &Weak<Counts>| {
        providers.iter().any(|own| Weak::as_ptr(one) == Arc::as_ptr(&own.counts))
    };
    let all = own.chain(old.departed.iter().cloned());
    all.filter(|one| one.strong_count() > 0 && !is_kept(one)).collect()
}

/// The quota of the account behind `provider`, which continues if the account stays the same, also under another name;
/// `chain` is the provider's chain of refresh tokens.
pub(super) fn quota_of(
    provider: &config::ProviderConfig,
    config: &Config,
    chain: Option<PostingKey>,
    old: Option<&Proxy>,
) -> Option<Arc<AllowanceState>> {
    let base = account::base(provider);
    let is_left = |own: &&Arc<Provider>| {
        let slug = &own.config.slug;
        *slug == provider.slug || config.providers.iter().all(|one| one.slug != *slug)
    };
    let has_chain = |own: &&Arc<Provider>| chain.is_none() || own.source.chain() == chain;
    let before = old?.providers.iter().filter(is_left).filter(has_chain);
    let before = before.filter_map(|own| Some((own, own.allowance.state_of(base)?)));
    let (_, quota) = before.max_by_key(|(own, _)| own.config.slug == provider.slug)?;
    Some(quota)
}

/// The settings of the listener, which a reload leaves as they were at the start.
pub(super) struct ListenSettings([(&'static str, String); 11]);

impl ListenSettings {
    pub(super) fn of(settings: &Settings) -> Self {
        let limits = &settings.limits;
        // One address with a port may be written as `host` and `port`.
        let (host, port, list) = match &*settings.listen {
            [ListenAddress::Tcp { host, port }] => (host.clone(), port.to_string(), String::new()),
            list => (String::new(), String::new(), format!("{list:?}")),
        };
        Self([
            ("listen", list),
            ("host", host),
            ("port", port),
            ("tls", format!("{:?}", settings.tls.as_ref().map(OwnTls::paths))),
            ("server", format!("{:?}", settings.server)),
            ("log_level", settings.log_level.to_string()),
            ("max_connections", limits.max_connections.to_string()),
            ("max_connections_per_address", limits.max_connections_per_address.to_string()),
            ("max_body_bytes", limits.max_body_bytes.to_string()),
            ("timeouts.client_head", format!("{:?}", limits.client_head)),
            ("timeouts.client_idle", format!("{:?}", limits.client_idle)),
        ])
    }

    /// The notes about `new`, which was read after `old`: each value that differs from the start's, once.
    pub(super) fn needs_restart(&self, old: &Settings, new: &Settings) -> Vec<String> {
        let (old, new) = (Self::of(old), Self::of(new));
        let values = self.0.iter().zip(&old.0).zip(&new.0);
        let changed = values.filter(|((start, old), new)| new != start && new != old);
        let changed: Vec<_> = changed.collect();
        let is_list = changed.iter().any(|((start, _), _)| start.0 == "listen");
        changed
            .into_iter()
            .filter(|((start, _), _)| !(is_list && matches!(start.0, "host" | "port")))
            .map(|(_, (key, _))| format!("settings.{key} takes effect at the next start"))
            .collect()
    }
}

/// `Reloaded the configuration: 1 provider added, 0 changed, 2 kept, 0 removed`.
pub(super) fn what_changed(
    old: &[config::ProviderConfig],
    new: &[config::ProviderConfig],
) -> String {
    let count = |holds: &dyn Fn(&config::ProviderConfig) -> bool, of: &[config::ProviderConfig]| {
        of.iter().filter(|one| holds(one)).count()
    };
    let is_known = |one: &config::ProviderConfig| old.iter().any(|other| other.slug == one.slug);
    let kept = count(&|one| old.contains(one), new);
    let added = count(&|one| !is_known(one), new);
    let removed = count(&|one| !new.iter().any(|other| other.slug == one.slug), old);
    let changed = new.len() - kept - added;
    let noun = if added == 1 { "provider" } else { "providers" };
    format!(
        "Reloaded the configuration: {added} {noun} added, {changed} changed, {kept} kept, {removed} removed"
    )
}
