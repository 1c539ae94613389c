//! One key of clients while evertoken runs: its rights and its counts.

use crate::config::KeyRights;
use crate::proxy::metrics::{Metrics, OfKey};

/// One key of clients.
#[derive(Clone, Debug)]
pub(crate) struct ClientKey {
    /// Its name and its rights.
    pub rights: KeyRights,
    /// Its metrics; keys of one name share them.
    pub metrics: OfKey,
}

impl ClientKey {
    pub(crate) fn new(rights: &KeyRights, metrics: &Metrics) -> Self {
        Self { rights: rights.clone(), metrics: metrics.of_key(&rights.name) }
    }
}
