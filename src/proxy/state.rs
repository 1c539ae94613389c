//! What all requests are served with.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::clock::{Clock, Stopwatch, Timestamp};
use crate::config::{self, ModelRoute, Settings};
use crate::proxy::access::Access;
use crate::proxy::last_reload::LastReload;
use crate::proxy::metrics::Metrics;
use crate::proxy::provider::Provider;
use crate::proxy::route::Table;
use crate::proxy::watchers::Watchers;
use crate::shared::health::Health;

/// Connections that are kept to a provider however few clients there are.
const IDLE_CONNECTIONS_MIN: usize = 64;

/// Everything that serving a request needs; shared by all workers.
pub struct Proxy {
    /// `settings`.
    pub settings: Settings,
    /// `model_routes`.
    pub model_routes: Vec<ModelRoute>,
    /// Who may use the proxy.
    pub access: Access,
    /// The providers of the configuration, in its order.
    pub providers: Vec<Arc<Provider>>,
    /// The time.
    pub clock: Clock,
    /// When the proxy started.
    pub started_at: Timestamp,
    /// When its configuration was read.
    pub configured_at: Timestamp,
    /// How the last reload failed, where it did.
    pub last_reload: Arc<LastReload>,
    /// Measures the time since the start.
    pub uptime: Stopwatch,
    /// What is counted and timed.
    pub metrics: Arc<Metrics>,
    /// Differs from request to request, for the selection strategy.
    pub turns: AtomicU64,
    /// Reads the configuration again: what is to be known about it, or why it can't be used.
    pub reload: Reload,
    /// Who watches the status.
    pub watchers: Watchers,
    /// Whether the token store can be used; None where there is none.
    pub store_health: Option<Arc<Health>>,
}

/// See [`Proxy::reload`].
pub type Reload = Box<dyn Fn() -> Result<Vec<String>, Vec<String>> + Send + Sync>;

impl Proxy {
    /// What the configuration says of the providers.
    pub fn configured(&self) -> Vec<config::Provider> {
        self.providers.iter().map(|one| one.config.clone()).collect()
    }

    /// What requests are routed by.
    pub fn table(&self) -> Table<'_, Arc<Provider>> {
        Table { providers: &self.providers, model_routes: &self.model_routes }
    }

    /// Some clients went away and `open` are left: no more requests than that can be under way, so
    /// that many connections to a provider are kept.
    pub fn clients_left(&self, open: usize) {
        for provider in &self.providers {
            provider.upstream.trim(open.max(IDLE_CONNECTIONS_MIN));
        }
    }

    /// For the field `date`.
    pub fn date(&self) -> String {
        httpdate::fmt_http_date(self.clock.wall().to_system_time())
    }
}
