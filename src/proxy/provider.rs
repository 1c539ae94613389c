//! One provider while evertoken runs: its credential, connections, cooldown and counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::atomic::AtomicU64;
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
use crate::token::watched::Watched;
use crate::upstream::Upstream;

/// The longest wait for the answer to a handshake of a WebSocket while others are asked first.
const RESTING_HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// The longest age of what is known of a file with a credential while requests are given to others.
const FILE_AGE_MAX_MS: u64 = 1_000;
/// The longest wait of a request for the look at such a file that it begins, before it is known which provider gets the
/// request. While a disk hangs, no other look begins, so that one request alone waits.
const FILE_LOOK_MAX: Duration = Duration::from_secs(1);

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

    /// Counts a request for a WebSocket in; WebSockets leave room for other requests, because they stay for long.
    pub(crate) fn enter_websocket(&self) -> Result<InFlight<'_>, Refusal> {
        let in_flight = self.enter()?;
        let most = share_of_websockets(self.config.max_in_flight);
        in_flight.for_websocket(most).ok_or_else(|| {
            let name = &self.config.name;
            let message = format!(
                "{name} has {most} WebSockets, which leave a quarter of its max_in_flight to other requests"
            );
            Refusal::new(Code::Overloaded, message)
        })
    }

    /// The same for a request for a WebSocket: it may rest for those alone.
    pub(crate) fn standing_for_websocket(
        &self,
        now: Moment,
        model: &dyn Fn() -> Option<String>,
    ) -> Standing {
        match self.standing(now, model) {
            Standing::Ready => match self.counts.tunnels.rest_left_ms(now) {
                0 => Standing::Ready,
                left_ms => Standing::Cooling(left_ms),
            },
            other => other,
        }
    }

    /// Its standing, which decides whether it is tried before others, for a request for the model that `model` returns.
    pub(crate) fn standing(&self, now: Moment, model: &dyn Fn() -> Option<String>) -> Standing {
        // First, because the file may have another account's credential by now.
        if let Some(watched) = self.source.file() {
            look_at(watched, now);
        }
        // The quota comes before the cooldown, because an earlier run's is taken up with it.
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

/// Has another thread look at the file if the last look is old, or if the known credential is of no use any more. The
/// request, which may go to another provider, does not wait long for a disk that hangs.
fn look_at(watched: &Arc<Watched>, now: Moment) {
    let looks = watched.look_aside(FILE_AGE_MAX_MS, now)
        || watched.known(now).is_err() && watched.look_aside(0, now);
    if looks {
        watched.wait_for_look(FILE_LOOK_MAX, now);
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
    /// Those that are open, and the requests for one.
    entered: AtomicU64,
    /// The time, on the clock that only goes forward, until which other providers are asked first.
    rests_until_ms: AtomicU64,
}

/// Counts a WebSocket as open, and as in flight, while it lives.
#[derive(Debug)]
pub(crate) struct OpenTunnel(Arc<Counts>);

impl OpenTunnel {
    /// Counts one in, whose request counted so far.
    pub(crate) fn of(counts: &Arc<Counts>, request: InFlight<'_>) -> Self {
        counts.tunnels.total.fetch_add(1, Ordering::Relaxed);
        counts.tunnels.open.fetch_add(1, Ordering::Relaxed);
        // The tunnel counts in its place.
        std::mem::forget(request);
        Self(counts.clone())
    }

    /// All counts of the provider.
    pub(crate) fn counts(&self) -> &Counts {
        &self.0
    }
}

impl TunnelCounts {
    /// Those that are open, and the requests for one.
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// A handshake got no answer at `now`: other providers are asked first for so long. True if they were not before.
    pub(crate) fn rest(&self, now: Moment, length: Duration) -> bool {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now.steady_ms.saturating_add(length_ms);
        let before = self.rests_until_ms.fetch_max(until_ms, Ordering::Relaxed);
        before <= now.steady_ms && until_ms > now.steady_ms
    }

    /// The longest wait for the answer to a handshake, if it is short: nobody should wait long for a provider that let the
    /// last one pass.
    pub(crate) fn handshake_max(&self, now: Moment) -> Option<Duration> {
        (self.rest_left_ms(now) > 0).then_some(RESTING_HANDSHAKE_MAX)
    }

    /// A handshake was answered.
    pub(crate) fn rest_ends(&self) {
        self.rests_until_ms.store(0, Ordering::Relaxed);
    }

    fn rest_left_ms(&self, now: Moment) -> u64 {
        self.rests_until_ms.load(Ordering::Relaxed).saturating_sub(now.steady_ms)
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

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.tunnels.open.fetch_sub(1, Ordering::Relaxed);
        self.0.leave(true);
    }
}

/// The WebSockets among `most` requests or connections: three quarters, and at least one.
pub(crate) fn share_of_websockets(most: u64) -> u64 {
    most - most / 4
}

/// Counts a request as in flight while it lives.
#[derive(Debug)]
pub struct InFlight<'a> {
    counts: &'a Counts,
    is_for_websocket: bool,
}

impl InFlight<'_> {
    /// Counts it among the requests for WebSockets too; None if `most` are already there.
    fn for_websocket(mut self, most: u64) -> Option<Self> {
        self.is_for_websocket = true;
        let before = self.counts.tunnels.entered.fetch_add(1, Ordering::Relaxed);
        (before < most).then_some(self)
    }
}

impl Counts {
    /// Counts a request in; None if `most` are already in flight.
    pub fn enter(&self, most: u64) -> Option<InFlight<'_>> {
        let in_flight = InFlight { counts: self, is_for_websocket: false };
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= most {
            return None;
        }
        Some(in_flight)
    }

    fn leave(&self, is_for_websocket: bool) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        if is_for_websocket {
            self.tunnels.entered.fetch_sub(1, Ordering::Relaxed);
        }
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
        self.counts.leave(self.is_for_websocket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn websockets_leave_a_quarter_to_other_requests() {
        for (most, share) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (384, 288)] {
            assert_eq!(share_of_websockets(most), share, "{most}");
        }
        let counts = Counts::default();
        let enter = || counts.enter(4)?.for_websocket(3);
        let mut all = [enter(), enter(), enter()];
        assert!(all.iter().all(Option::is_some) && counts.tunnels.entered() == 3);
        assert!(enter().is_none());
        let plain = counts.enter(4);
        assert!(plain.is_some() && counts.enter(4).is_none());
        all[0] = None;
        assert!(enter().is_some());
        drop((all, plain));
        assert_eq!((counts.in_flight.into_inner(), counts.tunnels.entered.into_inner()), (0, 0));
    }

    #[test]
    fn a_rest_ends_by_itself_or_with_an_answer() {
        let at = |steady_ms| Moment { wall: Timestamp::from_secs(0), steady_ms };
        let tunnels = TunnelCounts::default();
        assert_eq!(tunnels.rest_left_ms(at(0)), 0);
        assert!(!tunnels.rest(at(5), Duration::ZERO));
        assert!(tunnels.rest(at(5), Duration::from_millis(10)));
        assert!(!tunnels.rest(at(10), Duration::from_millis(1)), "it rests already");
        assert_eq!((tunnels.rest_left_ms(at(14)), tunnels.rest_left_ms(at(15))), (1, 0));
        assert_eq!(tunnels.handshake_max(at(14)), Some(RESTING_HANDSHAKE_MAX));
        assert_eq!(tunnels.handshake_max(at(15)), None);
        assert!(tunnels.rest(at(15), Duration::from_millis(10)));
        tunnels.rest_ends();
        assert_eq!(tunnels.rest_left_ms(at(16)), 0);
    }

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
