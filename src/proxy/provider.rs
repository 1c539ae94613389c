//! One provider while evertoken runs: its credential, its connections, its cooldown, and what went over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, Moment};
use crate::config::{self, Credential, FIRST_TOKEN_WAIT};
use crate::credential::claims::ClaimFields;
use crate::credential::{Source, waiting};
use crate::http::refusal::{Code, Refusal};
use crate::proxy::choice::Standing;
use crate::proxy::cooldown::Cooldown;
use crate::proxy::metrics::OfProvider;
use crate::shared::keeper::CooldownSender;
use crate::token::store::PostingKey;
use crate::upstream::Upstream;

/// One provider. It outlives a reload that leaves it as it is.
pub struct Provider {
    /// Its own number.
    pub key: PostingKey,
    /// What the configuration says of it.
    pub config: config::Provider,
    /// The kind of its credential.
    pub source: Source,
    /// The connections to it.
    pub upstream: Upstream,
    /// Its header fields with claims of its token.
    pub claims: ClaimFields,
    /// Whether it is passed over.
    pub cooldown: Arc<Cooldown>,
    /// Tells other hosts of its cooldowns; None where there are none.
    pub cooldown_sender: Option<CooldownSender>,
    /// Counts since the start; they go on where a reload changes the provider.
    pub counts: Arc<Counts>,
    /// Its metrics.
    pub metrics: OfProvider,
}

/// As routing sees it.
impl AsRef<config::Provider> for Arc<Provider> {
    fn as_ref(&self) -> &config::Provider {
        &self.config
    }
}

impl Provider {
    /// Waits for its credential; the refusal says why there is none.
    pub fn wait_for_credential(&self, clock: &Clock) -> Result<(), Refusal> {
        self.source.wait(&self.config.name, clock).map(drop)
    }

    /// Takes a request in; the refusal says that as many are under way as may be.
    pub fn enter(&self) -> Result<InFlight<'_>, Refusal> {
        let most = self.config.max_in_flight;
        self.counts.enter(most).ok_or_else(|| {
            let name = &self.config.name;
            let message = format!("{name} has its max_in_flight ({most}) requests under way");
            Refusal::new(Code::Overloaded, message)
        })
    }

    /// How it stands: what decides whether it is tried before others.
    pub fn standing(&self, now: Moment) -> Standing {
        if let Some(until) = self.cooldown.until(now) {
            return Standing::Cooling(until.left_ms(now));
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
}

/// Requests to one provider since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Those that had a credential: they were sent, or a connection was tried.
    pub total: AtomicU64,
    /// Those under way, and those that wait for a credential.
    pub in_flight: AtomicU64,
    /// Those that got no answer, or one of 500 and above.
    pub errors: AtomicU64,
}

/// Counts a request as under way while it lives.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Counts);

impl Counts {
    /// Takes a request in; None where `most` are under way already.
    pub fn enter(&self, most: u64) -> Option<InFlight<'_>> {
        let in_flight = InFlight(self);
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= most {
            return None;
        }
        Some(in_flight)
    }

    /// Notes that one of them has its credential, and is about to be sent.
    pub fn begun(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one of them got no answer, or one of 500 and above.
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
