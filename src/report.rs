//! The content of `/-/status` as values: made by the proxy, shown by its page and by `evertoken status`.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::report::listeners::ListenerReport;
use crate::report::usage::UsageReport;
use crate::report::words::time;
use crate::shared::health::StoreReport;
use crate::token::history::RefreshStatus;
use crate::token::waiting::Waiting;

pub(crate) mod advice;
pub(crate) mod html;
pub(crate) mod listeners;
pub(crate) mod listing;
pub(crate) mod usage;
pub(crate) mod words;

/// The status of everything. The JSON keys are the field names; times are RFC 3339 UTC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of evertoken.
    pub version: String,
    /// The time of its start.
    pub started_at: Timestamp,
    /// The time of this report.
    pub now: Timestamp,
    /// The uptime by the steady clock.
    pub uptime_seconds: u64,
    /// Requests in flight to any provider.
    pub in_flight: u64,
    /// True if every enabled provider has a credential that it can send.
    pub ready: bool,
    /// The token store shared with other hosts; None without one.
    #[serde(default)]
    pub token_store: Option<StoreReport>,
    /// The last reload, if it failed; None if it succeeded, and before the first.
    #[serde(default)]
    pub failed_reload: Option<FailedReload>,
    /// The tokens of the last days; None if they are not counted.
    #[serde(default)]
    pub usage: Option<UsageReport>,
    /// The addresses at which clients come. An older evertoken says nothing about them.
    #[serde(default)]
    pub listeners: Vec<ListenerReport>,
    /// The providers, in the order of the configuration.
    pub providers: Vec<ProviderReport>,
}

/// A reload that changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedReload {
    /// The time of the failure.
    pub at: Timestamp,
    /// The time when the configuration in use was read.
    pub in_use_since: Timestamp,
    /// The mistakes of the new one, one per line.
    pub problems: Vec<String>,
}

/// The status of one provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProviderReport {
    /// The name as written.
    pub name: String,
    /// The name in paths.
    pub slug: String,
    /// `anthropic`, `openai` or `generic`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The target of its requests.
    pub base_url: String,
    /// False takes the provider out.
    pub enabled: bool,
    /// The state in one word.
    pub state: State,
    /// The token in use; None for other credentials, and without a token.
    pub token: Option<TokenReport>,
    /// The status of refreshing.
    pub refresh: RefreshStatus,
    /// The obstacle that the refresher waits for, if that takes long.
    pub waiting: Option<Waiting>,
    /// The provider's requests.
    pub requests: RequestsReport,
    /// Its WebSockets. An older evertoken has none.
    #[serde(default)]
    pub tunnels: TunnelsReport,
    /// The end of its cooldown.
    pub cooldown_until: Option<Timestamp>,
    /// What is left of its quota, as its answers said. An older evertoken says nothing about it.
    #[serde(default)]
    pub quota: Vec<WindowReport>,
    /// Its models that are passed over while it serves others.
    #[serde(default)]
    pub resting_models: Vec<RestingModelReport>,
    /// The kind of its credential.
    pub credential: CredentialKind,
    /// The way to its tokens, as the configuration calls it: `refresh_token`, `token_command`, and so on; None if
    /// evertoken gets none. An older evertoken says nothing about it.
    #[serde(default)]
    pub grant: Option<String>,
    /// The present problem, in words.
    pub problem: Option<String>,
    /// The advice for it.
    pub advice: Option<String>,
    /// A loss at the next restart, or a failure of the next refresh, with the reason.
    pub warning: Option<String>,
    /// The refresh token, if its issuer states its end.
    #[serde(default)]
    pub refresh_token: Option<RefreshTokenReport>,
}

/// A window of a provider's quota.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WindowReport {
    /// Its name: `5h`, `tokens`.
    pub window: String,
    /// The model that it limits, if it limits one.
    #[serde(default)]
    pub model: Option<String>,
    /// The share that is left, from 0 to 1, if known.
    pub remaining_ratio: Option<f64>,
    /// The time at which it is full again, if known.
    pub reset_at: Option<Timestamp>,
    /// The time until which the provider is passed over for it where another one can serve; None while it has
    /// something left.
    pub used_up_until: Option<Timestamp>,
    /// The time of the last answer that stated it.
    pub stated_at: Timestamp,
}

/// A model that is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestingModelReport {
    /// Its name.
    pub model: String,
    /// The end of its rest.
    pub until: Timestamp,
}

/// See [`ProviderReport::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It has a credential to send.
    Ready,
    /// A refresh is in flight.
    Refreshing,
    /// It has a valid token, but the last refresh failed.
    Failing,
    /// It has no credential to send.
    Unavailable,
    /// It cools down.
    CoolingDown,
    /// It is disabled.
    Disabled,
}

/// See [`ProviderReport::credential`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CredentialKind {
    /// A token that evertoken keeps fresh.
    Refreshed,
    /// A file that another program keeps.
    File,
    /// The stored token, which is no longer refreshed.
    Stored,
    /// A fixed text.
    Static,
    /// A fixed text that is missing.
    Missing,
    /// The client's own.
    Passthrough,
    /// No credential is sent.
    None,
}

/// A token in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenReport {
    /// `refresh`, `state_file`, `token_store` (another host refreshed it) or `file`.
    pub source: String,
    /// The time when it was requested, if known.
    pub obtained_at: Option<Timestamp>,
    /// Its expiry, if it has one.
    pub expires_at: Option<Timestamp>,
    /// The time left until then.
    pub expires_in_seconds: Option<i64>,
    /// The time of its next refresh.
    pub refresh_due_at: Option<Timestamp>,
    /// Its number in the sequence of tokens.
    pub generation: u64,
}

/// A refresh token whose end is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RefreshTokenReport {
    /// The time of its end.
    pub expires_at: Timestamp,
    /// The advice, if it ends soon.
    pub warning: Option<String>,
}

/// The requests to a provider since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RequestsReport {
    /// All types.
    pub total: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests without an answer, or with a status of 500 and above.
    pub errors: u64,
    /// The time from the request's head to the answer's head; None before the first.
    pub first_byte: Option<Latency>,
}

/// The WebSockets to a provider since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TunnelsReport {
    /// Those that are open.
    pub open: u64,
    /// All of them.
    pub total: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
}

/// Quantiles in milliseconds, estimated from the histogram of `/-/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the answers came within this time.
    pub p50_ms: u64,
    /// 95 of 100 answers came within this time.
    pub p95_ms: u64,
}

impl State {
    /// The word in the JSON.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Refreshing => "refreshing",
            Self::Failing => "failing",
            Self::Unavailable => "unavailable",
            Self::CoolingDown => "cooling_down",
            Self::Disabled => "disabled",
        }
    }

    /// The words for people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::CoolingDown => "cooling down",
            other => other.as_str(),
        }
    }
}

impl Report {
    /// The report without values that change just because time passes, or because somebody looks at it, to tell whether
    /// something happened.
    pub(crate) fn at_rest(&self) -> Self {
        let mut report = self.clone();
        (report.now, report.uptime_seconds) = (Timestamp::default(), 0);
        let tokens = report.providers.iter_mut().filter_map(|provider| provider.token.as_mut());
        tokens.for_each(|token| token.expires_in_seconds = None);
        report.listeners.iter_mut().for_each(ListenerReport::at_rest);
        if let Some(store) = &mut report.token_store {
            store.clock_offset_ms = None;
        }
        report
    }

    /// A summary in a sentence.
    pub(crate) fn summary(&self) -> String {
        let enabled: Vec<_> = self.providers.iter().filter(|one| one.enabled).collect();
        let troubled = enabled.iter().filter(|one| !one.is_fine()).count();
        let waiting = enabled.iter().filter(|one| one.is_fine() && one.waits_for_token()).count();
        let need = if troubled == 1 { "needs" } else { "need" };
        let wait = if waiting == 1 { "waits" } else { "wait" };
        match (enabled.len(), troubled, waiting) {
            (0, ..) => "No provider is enabled".to_owned(),
            (1, 0, 0) => "The provider is ready".to_owned(),
            (1, 0, _) => "The provider waits for its token".to_owned(),
            (1, ..) => "The provider needs attention".to_owned(),
            (count, 0, 0) => format!("All {count} providers are ready"),
            (count, 0, _) => format!("{waiting} of {count} providers {wait} for a token"),
            (count, _, 0) => format!("{troubled} of {count} providers {need} attention"),
            (count, ..) => format!(
                "{troubled} of {count} providers {need} attention, and {waiting} {wait} for a token"
            ),
        }
    }
}

impl FailedReload {
    /// A summary in a sentence.
    pub fn summary(&self, now: Timestamp) -> String {
        format!(
            "The last reload failed at {} UTC: the configuration from {} UTC stays in use",
            time(self.at, now),
            time(self.in_use_since, now)
        )
    }
}

impl ProviderReport {
    /// True if nothing about it needs attention.
    pub(crate) fn is_fine(&self) -> bool {
        self.problem.is_none()
            && self.warning.is_none()
            && self.login_due().is_none()
            && self.cooldown_until.is_none()
    }

    /// True if it has no valid token, and one is on its way.
    fn waits_for_token(&self) -> bool {
        let left = self.token.as_ref().map(|token| token.expires_in_seconds.unwrap_or(i64::MAX));
        self.state == State::Refreshing && left.is_none_or(|left| left <= 0)
    }

    /// True if a window of its quota is used up that is not that of one model.
    pub(crate) fn has_nothing_left(&self) -> bool {
        self.quota.iter().any(|window| window.used_up_until.is_some() && window.model.is_none())
    }

    /// The warning of a refresh token that ends soon.
    pub(crate) fn login_due(&self) -> Option<&str> {
        self.refresh_token.as_ref()?.warning.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::words::sample;

    #[test]
    fn time_alone_is_no_change() {
        let at = |seconds: u64| {
            let mut provider = sample("One");
            let left = 600 - i64::try_from(seconds).unwrap();
            provider.token = Some(TokenReport {
                source: "refresh".into(),
                obtained_at: None,
                expires_at: Some(Timestamp::from_secs(600)),
                expires_in_seconds: Some(left),
                refresh_due_at: None,
                generation: 1,
            });
            let mut listener = listeners::sample();
            // The page's own connection, too.
            let own = listener.connections.as_mut().unwrap();
            (own.open, own.total, own.failed_handshakes) = (seconds, seconds, seconds);
            listener.certificate.as_mut().unwrap().expires_in_seconds = Some(left);
            Report {
                version: "0".into(),
                started_at: Timestamp::from_secs(0),
                now: Timestamp::from_secs(600 - left),
                uptime_seconds: seconds,
                in_flight: 0,
                ready: true,
                token_store: None,
                failed_reload: None,
                usage: None,
                listeners: vec![listener],
                providers: vec![provider],
            }
        };
        assert_eq!(at(1).at_rest(), at(2).at_rest());
        let mut other = at(1);
        other.providers[0].requests.total = 1;
        assert_ne!(at(1).at_rest(), other.at_rest());
        let mut other = at(1);
        other.listeners[0].certificate.as_mut().unwrap().problem = None;
        assert_ne!(at(1).at_rest(), other.at_rest());
    }

    #[test]
    fn a_sentence_for_any_number_of_providers() {
        let summary = |states: &[(bool, bool, State)]| {
            let providers = states.iter().map(|(is_enabled, is_fine, state)| {
                let mut provider = sample("One");
                provider.enabled = *is_enabled;
                provider.problem = (!is_fine).then(|| "x".to_owned());
                provider.state = *state;
                provider
            });
            let report = Report {
                version: String::new(),
                started_at: Timestamp::default(),
                now: Timestamp::default(),
                uptime_seconds: 0,
                in_flight: 0,
                ready: true,
                token_store: None,
                failed_reload: None,
                usage: None,
                listeners: Vec::new(),
                providers: providers.collect(),
            };
            report.summary()
        };
        let (fine, troubled) = ((true, true, State::Ready), (true, false, State::Failing));
        let off = (false, true, State::Disabled);
        // It was counted among those that are ready.
        let waiting = (true, true, State::Refreshing);
        assert_eq!(summary(&[off]), "No provider is enabled");
        assert_eq!(summary(&[fine, off]), "The provider is ready");
        assert_eq!(summary(&[troubled]), "The provider needs attention");
        assert_eq!(summary(&[fine, fine]), "All 2 providers are ready");
        assert_eq!(summary(&[fine, troubled]), "1 of 2 providers needs attention");
        assert_eq!(summary(&[troubled, troubled]), "2 of 2 providers need attention");
        assert_eq!(summary(&[waiting]), "The provider waits for its token");
        assert_eq!(summary(&[fine, waiting]), "1 of 2 providers waits for a token");
        assert_eq!(summary(&[waiting, waiting]), "2 of 2 providers wait for a token");
        let both = "1 of 3 providers needs attention, and 2 wait for a token";
        assert_eq!(summary(&[waiting, troubled, waiting]), both);
        // A refresh of a token that is still good.
        let mut refreshing = sample("One");
        refreshing.state = State::Refreshing;
        assert!(refreshing.waits_for_token());
        let token = |left| TokenReport {
            source: "refresh".into(),
            obtained_at: None,
            expires_at: None,
            expires_in_seconds: left,
            refresh_due_at: None,
            generation: 1,
        };
        for (left, expected) in [(Some(1), false), (Some(0), true), (None, false)] {
            refreshing.token = Some(token(left));
            assert_eq!(refreshing.waits_for_token(), expected, "{left:?}");
        }
    }
}
