//! Counters and timers as Prometheus text; no file outside of this folder uses `prometheus`.

use std::time::Duration;

use prometheus::core::Metric;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};

use crate::clock::Timestamp;
use crate::ingress::listeners::ListenerNow;
use crate::proxy::metrics::families::{
    as_float, counter, gauge, gauge_by, registered, seconds_since_1970,
};
use crate::report::{Latency, TunnelsReport};
use crate::usage::table::{Row, Table};

mod families;
mod listeners;

/// Upper bounds of the histograms, in seconds: from the time for a small answer to the longest streams.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];

/// The same for WebSockets: from seconds to a day.
const WEBSOCKET_BUCKETS: [f64; 9] =
    [1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// The status of a connection that became a WebSocket.
const SWITCHED: u16 = 101;

/// The counts of a run. They outlive a reload.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    key_requests: IntCounterVec,
    duration: HistogramVec,
    first_byte: HistogramVec,
    websocket_duration: HistogramVec,
    upstream_errors: IntCounterVec,
    handed_out: IntCounterVec,
    connections: IntGauge,
}

/// One provider's metrics, looked up once rather than with every request.
#[derive(Clone, Debug)]
pub struct OfProvider {
    /// Requests answered with 200, which most are.
    fine: IntCounter,
    handed_out: IntCounter,
    duration: Histogram,
    first_byte: Histogram,
    websocket_duration: Histogram,
}

/// The metrics of one key of clients, looked up once rather than with every request.
#[derive(Clone, Debug)]
pub struct OfKey {
    /// Requests answered with 200, which most are.
    fine: IntCounter,
}

/// One provider's state at the time of the scrape.
#[derive(Debug)]
pub(crate) struct ProviderNow<'a> {
    /// Its name.
    pub name: &'a str,
    /// True if it has a credential to send.
    pub is_ready: bool,
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

/// The configuration in use at the time of the scrape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigurationNow {
    /// The time when it was read.
    pub read_at: Timestamp,
    /// True if no later configuration was refused.
    pub is_last_reload_fine: bool,
    /// Requests in flight to providers that are no longer in it.
    pub departed_in_flight: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl OfProvider {
    /// Counts an access token that was handed out.
    pub fn handed_out(&self) {
        self.handed_out.inc();
    }
}

impl Metrics {
    /// The media type of [`Metrics::scrape`].
    pub const CONTENT_TYPE: &'static str = prometheus::TEXT_FORMAT;

    /// Metrics with nothing counted yet.
    pub fn new() -> Self {
        let registry = Registry::new();
        Self {
            requests: counter(
                &registry,
                "evertoken_requests_total",
                "Requests by provider (empty for evertoken's own answers) and status sent (0: the client left)",
                "code",
            ),
            key_requests: registered(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "evertoken_key_requests_total",
                        "Requests by the name of the client's key and status sent (0: the client left)",
                    ),
                    &["key", "code"],
                ),
            ),
            duration: histogram(
                &registry,
                "evertoken_request_duration_seconds",
                "From the request's head to the end of the answer, WebSockets left out",
                &BUCKETS,
            ),
            first_byte: histogram(
                &registry,
                "evertoken_time_to_first_byte_seconds",
                "From the request's head to the head of the provider's answer, WebSockets left out",
                &BUCKETS,
            ),
            websocket_duration: histogram(
                &registry,
                "evertoken_websocket_duration_seconds",
                "From the handshake of a WebSocket to its end",
                &WEBSOCKET_BUCKETS,
            ),
            upstream_errors: counter(
                &registry,
                "evertoken_upstream_errors_total",
                "Failures of a provider: no connection, no HTTP, no answer in time, a cut stream, a failing status",
                "kind",
            ),
            handed_out: registered(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "evertoken_tokens_handed_out_total",
                        "Access tokens that were handed out as such, by /-/token/<provider>",
                    ),
                    &["provider"],
                ),
            ),
            connections: registered(
                &registry,
                IntGauge::new("evertoken_connections", "Open client connections"),
            ),
            registry,
        }
    }

    /// The metrics of the provider called `name`.
    pub fn of_provider(&self, name: &str) -> OfProvider {
        OfProvider {
            fine: self.requests.with_label_values(&[name, "200"]),
            handed_out: self.handed_out.with_label_values(&[name]),
            duration: self.duration.with_label_values(&[name]),
            first_byte: self.first_byte.with_label_values(&[name]),
            websocket_duration: self.websocket_duration.with_label_values(&[name]),
        }
    }

    /// The metrics of the keys called `name`.
    pub fn of_key(&self, name: &str) -> OfKey {
        OfKey { fine: self.key_requests.with_label_values(&[name, "200"]) }
    }

    /// Counts a finished exchange of a client with a key; `status` as in [`Metrics::observe`].
    pub fn observe_key(&self, name: &str, own: &OfKey, status: Option<u16>) {
        if status == Some(200) {
            return own.fine.inc();
        }
        let code = status.unwrap_or(0).to_string();
        self.key_requests.with_label_values(&[name, &code]).inc();
    }

    /// Counts a finished exchange, with the metrics of its provider; None for the proxy's own answers. `status` was
    /// sent, unless the client had gone before; the times are from the request's head to the response head and to the
    /// end. A WebSocket lasts for as long as its two sides like, so its times are no answer's.
    pub fn observe(
        &self,
        provider: Option<(&str, &OfProvider)>,
        status: Option<u16>,
        first_byte: Option<Duration>,
        total: Duration,
    ) {
        match (status, provider) {
            (Some(200), Some((_, own))) => own.fine.inc(),
            (status, _) => {
                let name = provider.map_or("", |(name, _)| name);
                let code = status.unwrap_or(0).to_string();
                self.requests.with_label_values(&[name, &code]).inc();
            }
        }
        let Some((_, own)) = provider else { return };
        if status == Some(SWITCHED) {
            return own.websocket_duration.observe(total.as_secs_f64());
        }
        own.duration.observe(total.as_secs_f64());
        if let Some(first_byte) = first_byte {
            own.first_byte.observe(first_byte.as_secs_f64());
        }
    }

    /// The time until `provider` begins an answer, from the histogram; None before the first.
    pub fn first_byte(&self, provider: &str) -> Option<Latency> {
        let metric = self.first_byte.with_label_values(&[provider]).metric();
        let histogram = metric.get_histogram();
        let buckets: Vec<_> = histogram
            .get_bucket()
            .iter()
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .collect();
        let quantile = |q| quantile_ms(&buckets, histogram.get_sample_count(), q);
        Some(Latency { p50_ms: quantile(50)?, p95_ms: quantile(95)? })
    }

    /// Counts a failure of `provider`.
    pub fn upstream_error(&self, provider: &str, kind: &str) {
        self.upstream_errors.with_label_values(&[provider, kind]).inc();
    }

    /// Counts opened or closed connections; returns their present number.
    pub fn connections_changed(&self, by: i64) -> usize {
        self.connections.add(by);
        usize::try_from(self.connections.get()).unwrap_or(0)
    }

    /// All metrics in the text format, version 0.0.4, with the providers' present state, the number of log lines
    /// dropped, and the `listeners` and the `usage` since the start.
    pub(crate) fn scrape(
        &self,
        providers: &[ProviderNow<'_>],
        listeners: &[ListenerNow<'_>],
        configuration: ConfigurationNow,
        log_lines_dropped: u64,
        usage: &Table,
    ) -> String {
        let mut families = self.registry.gather();
        let now = state(providers, configuration, log_lines_dropped);
        add_usage(&now, usage);
        listeners::add(&now, listeners);
        families.extend(now.gather());
        families.sort_by(|one, other| one.name().cmp(other.name()));
        let mut bytes = Vec::new();
        // Writing to memory does not fail, and the families come from the registries themselves.
        let _ = TextEncoder::new().encode(&families, &mut bytes);
        String::from_utf8(bytes).unwrap_or_default()
    }
}

/// The state at the time of a scrape.
fn state(
    providers: &[ProviderNow<'_>],
    configuration: ConfigurationNow,
    log_lines_dropped: u64,
) -> Registry {
    let now = Registry::new();
    let build = Opts::new("evertoken_build_info", "Always 1; the version is a label");
    let build = build.const_label("version", env!("CARGO_PKG_VERSION"));
    registered(&now, Gauge::with_opts(build)).set(1.0);
    let in_flight = IntGauge::new("evertoken_requests_in_flight", "Requests under way");
    let in_flight = registered(&now, in_flight);
    in_flight.set(i64::try_from(configuration.departed_in_flight).unwrap_or(i64::MAX));
    let fine = IntGauge::new(
        "evertoken_config_last_reload_successful",
        "1, or 0 where the last reload failed and an earlier configuration stays in use",
    );
    registered(&now, fine).set(i64::from(configuration.is_last_reload_fine));
    let read_at = Gauge::new(
        "evertoken_config_last_reload_success_timestamp_seconds",
        "When the configuration in use was read",
    );
    registered(&now, read_at).set(seconds_since_1970(configuration.read_at));
    let dropped = IntCounter::new(
        "evertoken_log_lines_dropped_total",
        "Log lines that were dropped because stderr took no more",
    );
    registered(&now, dropped).inc_by(log_lines_dropped);
    let refreshes =
        counter(&now, "evertoken_refreshes_total", "Token refreshes by outcome", "outcome");
    let ready = gauge(&now, "evertoken_provider_ready", "1 where there is a credential to send");
    let expiry = gauge(
        &now,
        "evertoken_token_expiry_timestamp_seconds",
        "When the token in use expires, in seconds since 1970",
    );
    let refresh_token_expiry = gauge(
        &now,
        "evertoken_refresh_token_expiry_timestamp_seconds",
        "When the refresh token in use ends, where its issuer says so, in seconds since 1970",
    );
    let tunnels = gauge(&now, "evertoken_websockets", "Open WebSockets");
    let tunnel_bytes = counter(
        &now,
        "evertoken_websocket_bytes_total",
        "Bytes that passed in WebSockets: received from clients, and sent to them",
        "direction",
    );
    let by_window = |name, help| gauge_by(&now, name, help, &["provider", "window"]);
    let remaining = by_window(
        "evertoken_quota_remaining_ratio",
        "The share of a provider's quota that is left, by window, as its last answer said; the least of its models",
    );
    let reset = by_window(
        "evertoken_quota_reset_timestamp_seconds",
        "When the window of a provider's quota is full again, in seconds since 1970",
    );
    for provider in providers {
        let name = provider.name;
        for (index, (window, ratio, at)) in provider.quota.iter().enumerate() {
            if !is_least(&provider.quota, index) {
                continue;
            }
            let labels = [name, window.as_str()];
            if let Some(ratio) = ratio {
                remaining.with_label_values(&labels).set(*ratio);
            }
            if let Some(at) = at {
                reset.with_label_values(&labels).set(seconds_since_1970(*at));
            }
        }
        tunnels.with_label_values(&[name]).set(as_float(provider.tunnels.open));
        tunnel_bytes.with_label_values(&[name, "received"]).inc_by(provider.tunnels.received_bytes);
        tunnel_bytes.with_label_values(&[name, "sent"]).inc_by(provider.tunnels.sent_bytes);
        in_flight.add(i64::try_from(provider.in_flight).unwrap_or(i64::MAX));
        ready.with_label_values(&[name]).set(f64::from(u8::from(provider.is_ready)));
        if let Some(at) = provider.expires_at {
            expiry.with_label_values(&[name]).set(seconds_since_1970(at));
        }
        if let Some(at) = provider.refresh_token_expires_at {
            refresh_token_expiry.with_label_values(&[name]).set(seconds_since_1970(at));
        }
        refreshes.with_label_values(&[name, "success"]).inc_by(provider.successes);
        refreshes.with_label_values(&[name, "failure"]).inc_by(provider.failures);
    }
    now
}

/// True if no window of another model with the same name has less left: a label for each model would be too many.
fn is_least(quota: &[(String, Option<f64>, Option<Timestamp>)], index: usize) -> bool {
    let left = |at: usize| (quota[at].1.unwrap_or(f64::MAX), at);
    let is_kin = |at: &usize| quota[*at].0 == quota[index].0;
    (0..quota.len()).filter(is_kin).all(|at| left(at) >= left(index))
}

/// The tokens of answers.
fn add_usage(registry: &Registry, usage: &Table) {
    const BY: [&str; 4] = ["provider", "model", "key", "kind"];
    let tokens = Opts::new(
        "evertoken_usage_tokens_total",
        "Tokens that answers reported; all input is the sum of input, cache_read and cache_write",
    );
    let tokens = registered(registry, IntCounterVec::new(tokens, &BY));
    let unknown = Opts::new(
        "evertoken_usage_unknown_answers_total",
        "Answers whose tokens are unknown, because they reported none or could not be read",
    );
    let unknown = registered(registry, IntCounterVec::new(unknown, &BY[..3]));
    for Row { provider, model, key, counts } in usage.rows() {
        let kinds = [
            ("input", counts.input),
            ("output", counts.output),
            ("cache_read", counts.cache_read),
            ("cache_write", counts.cache_write),
        ];
        for (kind, count) in kinds {
            tokens.with_label_values(&[provider, model, key, kind]).inc_by(count);
        }
        unknown.with_label_values(&[provider, model, key]).inc_by(counts.unknown);
    }
}

/// The time within which `percent` of `total` came, in milliseconds, by linear interpolation within its bucket, as in
/// Prometheus; the last bound for values beyond it. None without values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and bounds are small, and an estimate is wanted"
)]
fn quantile_ms(buckets: &[(f64, u64)], total: u64, percent: u32) -> Option<u64> {
    if total == 0 {
        return None;
    }
    let rank = f64::from(percent) / 100.0 * total as f64;
    let (mut lower, mut below) = (0.0, 0);
    for (upper, count) in buckets {
        if *count as f64 >= rank {
            let share = (rank - below as f64) / (count - below) as f64;
            return Some(((lower + (upper - lower) * share) * 1000.0).round() as u64);
        }
        (lower, below) = (*upper, *count);
    }
    Some((lower * 1000.0).round() as u64)
}

/// Durations for each provider.
fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(options, &["provider"]))
}

#[cfg(test)]
mod tests;
