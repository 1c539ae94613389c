//! One provider while evertoken runs: its credential, connections, cooldown and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, Due, Moment};
use crate::config::{self, Credential, FIRST_TOKEN_WAIT};
use crate::credential::claims::ClaimFields;
use crate::credential::{Source, waiting};
use crate::http::refusal::{Code, Refusal};
use crate::proxy::allowance::Allowance;
use crate::proxy::choice::Standing;
use crate::proxy::cooldown::Cooldown;
use crate::proxy::metrics::OfProvider;
use crate::report::TunnelsReport;
use crate::shared::keeper::CooldownSender;
use crate::token::store::PostingKey;
use crate::upstream::Upstream;

/// One provider. It outlives a reload that does not change it.
pub struct Provider {
    /// Its number in the token store.
    pub key: PostingKey,
    /// Its configuration.
    pub config: config::ProviderConfig,
    /// The kind of its credential.
    pub source: Source,
    /// The connections to it.
    pub upstream: Upstream,
    /// Its header fields with claims of its token.
    pub claims: ClaimFields,
    /// Its cooldown.
    pub cooldown: Arc<Cooldown>,
    /// What is left of its quota.
    pub(crate) allowance: Allowance,
    /// Sends its cooldowns to other hosts; None without other hosts.
    pub cooldown_sender: Option<CooldownSender>,
    /// Counts since the start; they continue when a reload changes the provider.
    pub counts: Arc<Counts>,
    /// Its metrics.
    pub metrics: OfProvider,
}

/// The configuration, for routing.
impl AsRef<config::ProviderConfig> for Arc<Provider> {
    fn as_ref(&self) -> &config::ProviderConfig {
        &self.config
    }
}

impl Provider {
    /// Waits for its credential; the refusal gives the reason why there is none.
    pub fn wait_for_credential(&self, clock: &Clock) -> Result<(), Refusal> {
        self.source.wait(&self.config.name, clock).map(drop)
    }

    /// Counts a request in; the refusal says that `max_in_flight` is reached.
    pub fn enter(&self) -> Result<InFlight<'_>, Refusal> {
        let most = self.config.max_in_flight;
        self.counts.enter(most).ok_or_else(|| {
            let name = &self.config.name;
            let message = format!("{name} has its max_in_flight ({most}) requests under way");
            Refusal::new(Code::Overloaded, message)
        })
    }

    /// Its standing, which decides whether it is tried before others, for a request for the model that `model` returns.
    pub(crate) fn standing(&self, now: Moment, model: &dyn Fn() -> Option<String>) -> Standing {
        // The quota comes first, because an earlier run's cooldown is taken up with it.
        let used_up = self.used_up_until(now, model);
        let cooling = self.cooldown.until(now).or_else(|| self.cooldown.models.until(now, model));
        if let Some(left_ms) = cooling.into_iter().chain(used_up).map(|it| it.left_ms(now)).max() {
            return Standing::Cooling(left_ms);
        }
        if matches!(self.config.credential, Credential::Static(_)) {
            return Standing::Ready;
        }
        let posting = self.source.posting();
        if self.source.has_one(&posting, now) {
            return Standing::Ready;
        }
        let Some(refresher) = self.source.refresher() else { return Standing::Without };
        if waiting::is_worth_it(&posting, now, FIRST_TOKEN_WAIT) {
            return Standing::Waiting;
        }
        refresher.passed_over();
        Standing::Without
    }

    /// The time until which its account has nothing left for requests for the model that `model` returns.
    pub(crate) fn used_up_until(
        &self,
        now: Moment,
        model: &dyn Fn() -> Option<String>,
    ) -> Option<Due> {
        if !self.allowance.is_to_be_asked() {
            return None;
        }
        self.allowance.used_up_until(self.source.origin(now)?, model, now)
    }

    /// The time until which its account has nothing left for any request.
    pub(crate) fn nothing_left_until(&self, now: Moment) -> Option<Due> {
        if !self.allowance.is_to_be_asked() {
            return None;
        }
        self.allowance.nothing_left_until(self.source.origin(now)?, now)
    }
}

/// Requests to one provider since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Requests that had a credential: they were sent, or a connection was tried.
    pub total: AtomicU64,
    /// Requests in flight, and those that wait for a credential.
    pub in_flight: AtomicU64,
    /// Requests that got no answer, or one of 500 and above.
    pub errors: AtomicU64,
    /// Its tunnels.
    pub tunnels: TunnelCounts,
}

/// The WebSockets to one provider since the start.
#[derive(Debug, Default)]
pub struct TunnelCounts {
    /// Those that are open.
    pub open: AtomicU64,
    /// All of them.
    pub total: AtomicU64,
    /// Bytes from clients.
    pub received_bytes: AtomicU64,
    /// Bytes to clients.
    pub sent_bytes: AtomicU64,
}

/// Counts a WebSocket as open while it lives.
#[derive(Debug)]
pub(crate) struct OpenTunnel<'a>(pub &'a TunnelCounts);

impl TunnelCounts {
    /// Counts one in.
    pub(crate) fn open(&self) -> OpenTunnel<'_> {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenTunnel(self)
    }

    /// The counts now.
    pub(crate) fn report(&self) -> TunnelsReport {
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TunnelsReport {
            open: now(&self.open),
            total: now(&self.total),
            received_bytes: now(&self.received_bytes),
            sent_bytes: now(&self.sent_bytes),
        }
    }
}

impl Drop for OpenTunnel<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request as in flight while it lives.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Counts);

impl Counts {
    /// Counts a request in; None if `most` are already in flight.
    pub fn enter(&self, most: u64) -> Option<InFlight<'_>> {
        let in_flight = InFlight(self);
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= most {
            return None;
        }
        Some(in_flight)
    }

    /// Records that a request has its credential, and is about to be sent.
    pub fn begun(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that a request got no answer, or one of 500 and above.
    pub fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_under_way_than_are_allowed() {
        let counts = Counts::default();
        let first = counts.enter(2);
        let second = counts.enter(2);
        assert!(first.is_some() && second.is_some());
        assert!(counts.enter(2).is_none());
        drop(first);
        assert!(counts.enter(2).is_some());
        assert_eq!(counts.total.load(Ordering::Relaxed), 0, "none was sent yet");
        drop(second);
        assert_eq!(counts.in_flight.load(Ordering::Relaxed), 0);
    }
}
