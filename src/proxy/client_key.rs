//! One key of clients while evertoken runs: its rights and its counts.

use std::sync::Arc;

use crate::clock::Moment;
use crate::config::KeyRights;
use crate::http::refusal::Refusal;
use crate::proxy::limits::{AllUsed, Used, too_many};
use crate::proxy::metrics::{Metrics, OfKey};
use crate::shared::requests::{RequestCounter, Shared};

/// One key of clients.
#[derive(Clone, Debug)]
pub(crate) struct ClientKey {
    /// Its name and its rights.
    pub rights: KeyRights,
    /// Its metrics; keys of one name share them.
    pub metrics: OfKey,
    /// What it has used of its limits on this host; None without any.
    used: Option<Arc<Used>>,
    /// Counts its requests on all hosts; None for a host that stands alone.
    shared: Option<RequestCounter>,
}

/// A request that was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CountedRequest {
    at: Moment,
    /// The second in which it was counted for all hosts.
    shared_second: Option<u64>,
}

impl ClientKey {
    pub(crate) fn new(rights: &KeyRights, metrics: &Metrics, used: &mut AllUsed) -> Self {
        let is_counted = rights.requests_per_minute.is_some() || rights.tokens_per_day.is_some();
        Self {
            rights: rights.clone(),
            metrics: metrics.of_key(&rights.name),
            used: is_counted.then(|| used.of(&rights.name)),
            shared: rights.requests_per_minute.and_then(|_| used.shared.clone()),
        }
    }

    /// Counts a request against the limits of the key, whose name has used so many `tokens` today; None without limits.
    /// This host alone decides if the others can't be asked.
    pub(crate) fn count(
        &self,
        tokens: impl FnOnce() -> u64,
        now: Moment,
    ) -> Result<Option<CountedRequest>, Refusal> {
        let Some(used) = &self.used else { return Ok(None) };
        used.take(&self.rights, tokens, now)?;
        let mut counted = CountedRequest { at: now, shared_second: None };
        if let (Some(shared), Some(most)) = (&self.shared, self.rights.requests_per_minute) {
            match shared.take(&self.rights.name, most) {
                Shared::Counted(second) => counted.shared_second = Some(second),
                Shared::Unknown => {}
                Shared::TooMany(wait_ms) => {
                    used.give_back(now);
                    return Err(too_many(&self.rights, most, wait_ms));
                }
            }
        }
        Ok(Some(counted))
    }

    /// Takes a request back that no provider got.
    pub(crate) fn give_back(&self, counted: CountedRequest) {
        if let Some(used) = &self.used {
            used.give_back(counted.at);
        }
        if let (Some(shared), Some(second)) = (&self.shared, counted.shared_second) {
            shared.give_back(&self.rights.name, second);
        }
    }
}
