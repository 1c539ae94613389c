//! The metrics of providers, as they are at the time of a scrape. Pure.

use crate::clock::Timestamp;
use crate::proxy::metrics::family::{Counter, FamilyText, Gauge};
use crate::proxy::metrics::values::{as_flag, as_float, seconds_since_1970};
use crate::report::TunnelsReport;

/// One provider's state at the time of the scrape.
#[derive(Debug)]
pub(crate) struct ProviderNow<'a> {
    /// Its name.
    pub name: &'a str,
    /// True if it has a credential to send; None if it is disabled, and needs none.
    pub is_ready: Option<bool>,
    /// The expiry of its token, if it has one.
    pub expires_at: Option<Timestamp>,
    /// The end of its refresh token, if known.
    pub refresh_token_expires_at: Option<Timestamp>,
    /// Refreshes that succeeded since its thread began.
    pub successes: u64,
    /// Refreshes that failed since its thread began.
    pub failures: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// WebSockets.
    pub tunnels: TunnelsReport,
    /// The windows of its quota: name, the share that is left, and the reset, if known.
    pub quota: Vec<(String, Option<f64>, Option<Timestamp>)>,
}

/// The metrics of `providers`.
pub(super) fn families(providers: &[ProviderNow<'_>]) -> [FamilyText; 8] {
    let mut refreshes = Counter::new(
        "evertoken_refreshes_total",
        "Token refreshes by outcome",
        ["outcome", "provider"],
    );
    let mut ready = Gauge::new(
        "evertoken_provider_ready",
        "1 where there is a credential to send",
        ["provider"],
    );
    let mut expiry = Gauge::new(
        "evertoken_token_expiry_timestamp_seconds",
        "When the token in use expires, in seconds since 1970",
        ["provider"],
    );
    let mut refresh_token_expiry = Gauge::new(
        "evertoken_refresh_token_expiry_timestamp_seconds",
        "When the refresh token in use ends, where its issuer says so, in seconds since 1970",
        ["provider"],
    );
    let mut tunnels = Gauge::new("evertoken_websockets", "Open WebSockets", ["provider"]);
    let mut tunnel_bytes = Counter::new(
        "evertoken_websocket_bytes_total",
        "Bytes that passed in WebSockets: received from clients, and sent to them",
        ["direction", "provider"],
    );
    let mut remaining = Gauge::new(
        "evertoken_quota_remaining_ratio",
        "The share of a provider's quota that is left, by window, as its last answer said; the least of its models",
        ["provider", "window"],
    );
    let mut reset = Gauge::new(
        "evertoken_quota_reset_timestamp_seconds",
        "When the window of a provider's quota is full again, in seconds since 1970",
        ["provider", "window"],
    );
    for provider in providers {
        let name = provider.name;
        for (index, (window, ratio, at)) in provider.quota.iter().enumerate() {
            if !is_least(&provider.quota, index) {
                continue;
            }
            if let Some(ratio) = ratio {
                *remaining.of([name, window]) = *ratio;
            }
            if let Some(at) = at {
                *reset.of([name, window]) = seconds_since_1970(*at);
            }
        }
        *tunnels.of([name]) = as_float(provider.tunnels.open);
        *tunnel_bytes.of(["received", name]) = provider.tunnels.received_bytes;
        *tunnel_bytes.of(["sent", name]) = provider.tunnels.sent_bytes;
        if let Some(is_ready) = provider.is_ready {
            *ready.of([name]) = as_flag(is_ready);
        }
        if let Some(at) = provider.expires_at {
            *expiry.of([name]) = seconds_since_1970(at);
        }
        if let Some(at) = provider.refresh_token_expires_at {
            *refresh_token_expiry.of([name]) = seconds_since_1970(at);
        }
        // The counts of a disabled provider go on once it is enabled again: 0 meanwhile would be a reset.
        if provider.is_ready.is_some() {
            *refreshes.of(["success", name]) = provider.successes;
            *refreshes.of(["failure", name]) = provider.failures;
        }
    }
    [
        refreshes.text(),
        ready.text(),
        expiry.text(),
        refresh_token_expiry.text(),
        tunnels.text(),
        tunnel_bytes.text(),
        remaining.text(),
        reset.text(),
    ]
}

/// True if no window of another model with the same name has less left: a label for each model would be too many.
fn is_least(quota: &[(String, Option<f64>, Option<Timestamp>)], index: usize) -> bool {
    let left = |at: usize| (quota[at].1.unwrap_or(f64::MAX), at);
    let is_kin = |at: &usize| quota[*at].0 == quota[index].0;
    (0..quota.len()).filter(is_kin).all(|at| left(at) >= left(index))
}
