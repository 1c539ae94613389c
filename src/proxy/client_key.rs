//! One key of clients while evertoken runs: its rights and its counts.

use std::sync::Arc;

use crate::config::KeyRights;
use crate::proxy::limits::{AllUsed, Used};
use crate::proxy::metrics::{Metrics, OfKey};

/// One key of clients.
#[derive(Clone, Debug)]
pub(crate) struct ClientKey {
    /// Its name and its rights.
    pub rights: KeyRights,
    /// Its metrics; keys of one name share them.
    pub metrics: OfKey,
    /// What it has used of its limits; None without any.
    pub used: Option<Arc<Used>>,
}

impl ClientKey {
    pub(crate) fn new(rights: &KeyRights, metrics: &Metrics, used: &mut AllUsed) -> Self {
        let is_counted = rights.requests_per_minute.is_some() || rights.tokens_per_day.is_some();
        Self {
            rights: rights.clone(),
            metrics: metrics.of_key(&rights.name),
            used: is_counted.then(|| used.of(&rights.name)),
        }
    }
}
