//! The state that all requests share.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::clock::{Clock, Deadline, Stopwatch, Timestamp};
use crate::config::{self, ModelRoute, Settings};
use crate::ingress::listeners::Listeners;
use crate::proxy::access::Access;
use crate::proxy::last_reload::LastReload;
use crate::proxy::metrics::Metrics;
use crate::proxy::provider::{Counts, Provider};
use crate::proxy::rights::Rights;
use crate::proxy::route::Table;
use crate::proxy::watchers::Watchers;
use crate::shared::health::Health;
use crate::usage::ledger::Ledger;

/// Connections that are kept to a provider even with few clients.
const IDLE_CONNECTIONS_MIN: usize = 64;
/// The longest age of what a page tells of a file with a credential.
const FILE_AGE_MAX_MS: u64 = 100;
/// The longest wait of a page for looks at such files.
const FILE_LOOKS_MAX: Duration = Duration::from_millis(50);

/// The state that serving a request needs, shared by all workers.
pub struct Proxy {
    /// `settings`.
    pub settings: Settings,
    /// `model_routes`.
    pub model_routes: Vec<ModelRoute>,
    /// The rules of access.
    pub access: Access,
    /// The providers of the configuration, in its order.
    pub providers: Vec<Arc<Provider>>,
    /// The counts of providers that a reload took out, for as long as a request goes on with them.
    pub departed: Vec<Weak<Counts>>,
    /// The time.
    pub clock: Clock,
    /// The time when the proxy started.
    pub started_at: Timestamp,
    /// The time when its configuration was read.
    pub configured_at: Timestamp,
    /// The last reload, if it failed.
    pub last_reload: Arc<LastReload>,
    /// The addresses at which clients come.
    pub listeners: Arc<Listeners>,
    /// Measures the time since the start.
    pub uptime: Stopwatch,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Counts the tokens of answers; None if `settings.usage` is off.
    pub usage: Option<Arc<Ledger>>,
    /// Differs between requests, for the selection strategy.
    pub turns: AtomicU64,
    /// Reads the configuration again: its warnings, or the reasons why it can't be used.
    pub reload: Reload,
    /// The watchers of the status.
    pub watchers: Watchers,
    /// The state of the token store; None without one.
    pub store_health: Option<Arc<Health>>,
}

/// See [`Proxy::reload`].
pub(crate) type Reload = Box<dyn Fn() -> Result<Vec<String>, Vec<String>> + Send + Sync>;

impl Proxy {
    /// The providers' configurations.
    pub fn configured(&self) -> Vec<config::ProviderConfig> {
        self.providers.iter().map(|one| one.config.clone()).collect()
    }

    /// The routing table for a request that may use every provider.
    pub fn table(&self) -> Table<'_, Arc<Provider>> {
        self.table_for(Rights::default())
    }

    /// The routing table for a request with these rights.
    pub fn table_for<'a>(&'a self, rights: Rights<'a>) -> Table<'a, Arc<Provider>> {
        Table { providers: &self.providers, model_routes: &self.model_routes, rights }
    }

    /// Has other threads look at the files with credentials, and waits for those looks only as long as no disk hangs, so
    /// that a page is up to date and always made at once.
    pub(crate) fn look_at_files(&self) {
        let (deadline, now) = (Deadline::after(FILE_LOOKS_MAX), self.clock.now());
        let files = || self.providers.iter().filter_map(|one| one.source.file());
        for file in files() {
            file.look_aside(FILE_AGE_MAX_MS, now);
        }
        files().for_each(|file| file.wait_for_look(deadline.left(), now));
    }

    /// Some clients went away and `open` are left. No more requests than that can be in flight, so at most that many
    /// connections to a provider are kept.
    pub fn clients_left(&self, open: usize) {
        for provider in &self.providers {
            provider.upstream.trim(open.max(IDLE_CONNECTIONS_MIN));
        }
    }

    /// Requests in flight to providers that a reload took out.
    pub(crate) fn departed_in_flight(&self) -> u64 {
        let counts = self.departed.iter().filter_map(Weak::upgrade);
        counts.map(|counts| counts.in_flight.load(Ordering::Relaxed)).sum()
    }

    /// The tokens that the keys called `name` have used today.
    pub(crate) fn tokens_today(&self, name: &str) -> u64 {
        self.usage.as_ref().map_or(0, |usage| usage.tokens_today(name))
    }

    /// The value of the field `date`.
    pub fn date(&self) -> String {
        httpdate::fmt_http_date(self.clock.wall().to_system_time())
    }
}
