//! Counters and timers as Prometheus text. `family` has its form, `histogram` the timers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::atomic::{AtomicI64, AtomicU64};
use crate::clock::Timestamp;
use crate::ingress::listeners::ListenerNow;
use crate::proxy::metrics::family::{Counter, Family, FamilyText, Gauge, Value};
use crate::proxy::metrics::histogram::Histogram;
use crate::proxy::metrics::values::{as_flag, as_float, seconds_since_1970};
use crate::report::Latency;
use crate::usage::table::{Row, Table};

mod family;
mod histogram;
mod listeners;
mod providers;
mod values;

pub(crate) use providers::ProviderNow;

/// Upper bounds of the histograms, in seconds: from the time for a small answer to the longest streams.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0, 600.0];

/// The same for WebSockets: from seconds to a day.
const WEBSOCKET_BUCKETS: [f64; 9] =
    [1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
/// The status of a connection that became a WebSocket.
const SWITCHED: u16 = 101;

/// A family in which threads count, until evertoken ends.
#[derive(Debug)]
struct Counted<V, const LABELS: usize>(Mutex<Family<Arc<V>, LABELS>>);

/// The counts of a run. They outlive a reload.
#[derive(Debug)]
pub struct Metrics {
    requests: Counted<AtomicU64, 2>,
    key_requests: Counted<AtomicU64, 2>,
    duration: Counted<Histogram, 1>,
    first_byte: Counted<Histogram, 1>,
    websocket_duration: Counted<Histogram, 1>,
    upstream_errors: Counted<AtomicU64, 2>,
    handed_out: Counted<AtomicU64, 1>,
    connections: AtomicI64,
}

/// One provider's metrics, looked up once rather than with every request.
#[derive(Clone, Debug)]
pub struct OfProvider {
    /// Requests answered with 200, which most are.
    fine: Arc<AtomicU64>,
    handed_out: Arc<AtomicU64>,
    duration: Arc<Histogram>,
    first_byte: Arc<Histogram>,
    websocket_duration: Arc<Histogram>,
}

/// The metrics of one key of clients, looked up once rather than with every request.
#[derive(Clone, Debug)]
pub struct OfKey {
    /// Requests answered with 200, which most are.
    fine: Arc<AtomicU64>,
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

impl<V: Value, const LABELS: usize> Counted<V, LABELS> {
    /// The value for these values of the labels.
    fn of(&self, labels: [&str; LABELS]) -> Arc<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).of(labels).clone()
    }

    fn text(&self) -> FamilyText {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}

impl OfProvider {
    /// Counts an access token that was handed out.
    pub fn handed_out(&self) {
        count(&self.handed_out);
    }
}

impl Metrics {
    /// The media type of [`Metrics::scrape`].
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4";

    /// Metrics with nothing counted yet.
    pub fn new() -> Self {
        Self {
            requests: counted(Family::new(
                "evertoken_requests_total",
                "Requests by provider (empty for evertoken's own answers) and status sent (0: the client left)",
                ["code", "provider"],
            )),
            key_requests: counted(Family::new(
                "evertoken_key_requests_total",
                "Requests by the name of the client's key and status sent (0: the client left)",
                ["code", "key"],
            )),
            duration: counted(Family::starting_with(
                || Arc::new(Histogram::new(&BUCKETS)),
                "evertoken_request_duration_seconds",
                "From the request's head to the end of the answer, WebSockets left out",
                ["provider"],
            )),
            first_byte: counted(Family::starting_with(
                || Arc::new(Histogram::new(&BUCKETS)),
                "evertoken_time_to_first_byte_seconds",
                "From the request's head to the head of the provider's answer, WebSockets left out",
                ["provider"],
            )),
            websocket_duration: counted(Family::starting_with(
                || Arc::new(Histogram::new(&WEBSOCKET_BUCKETS)),
                "evertoken_websocket_duration_seconds",
                "From the handshake of a WebSocket to its end",
                ["provider"],
            )),
            upstream_errors: counted(Family::new(
                "evertoken_upstream_errors_total",
                "Failures of a provider: no connection, no HTTP, no answer in time, a cut stream, a failing status",
                ["kind", "provider"],
            )),
            handed_out: counted(Family::new(
                "evertoken_tokens_handed_out_total",
                "Access tokens that were handed out as such, by /-/token/<provider>",
                ["provider"],
            )),
            connections: AtomicI64::new(0),
        }
    }

    /// The metrics of the provider called `name`.
    pub fn of_provider(&self, name: &str) -> OfProvider {
        OfProvider {
            fine: self.requests.of(["200", name]),
            handed_out: self.handed_out.of([name]),
            duration: self.duration.of([name]),
            first_byte: self.first_byte.of([name]),
            websocket_duration: self.websocket_duration.of([name]),
        }
    }

    /// The metrics of the keys called `name`.
    pub fn of_key(&self, name: &str) -> OfKey {
        OfKey { fine: self.key_requests.of(["200", name]) }
    }

    /// Counts a finished exchange of a client with a key; `status` as in [`Metrics::observe`].
    pub fn observe_key(&self, name: &str, own: &OfKey, status: Option<u16>) {
        if status == Some(200) {
            return count(&own.fine);
        }
        let code = status.unwrap_or(0).to_string();
        count(&self.key_requests.of([&code, name]));
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
            (Some(200), Some((_, own))) => count(&own.fine),
            (status, _) => {
                let name = provider.map_or("", |(name, _)| name);
                let code = status.unwrap_or(0).to_string();
                count(&self.requests.of([&code, name]));
            }
        }
        let Some((_, own)) = provider else { return };
        if status == Some(SWITCHED) {
            return own.websocket_duration.observe(total);
        }
        own.duration.observe(total);
        if let Some(first_byte) = first_byte {
            own.first_byte.observe(first_byte);
        }
    }

    /// The time until `provider` begins an answer, from the histogram; None before the first.
    pub fn first_byte(&self, provider: &str) -> Option<Latency> {
        let histogram = self.first_byte.of([provider]);
        Some(Latency { p50_ms: histogram.quantile_ms(50)?, p95_ms: histogram.quantile_ms(95)? })
    }

    /// Counts a failure of `provider`.
    pub fn upstream_error(&self, provider: &str, kind: &str) {
        count(&self.upstream_errors.of([kind, provider]));
    }

    /// Counts opened or closed connections; returns their present number.
    pub fn connections_changed(&self, by: i64) -> usize {
        let open = self.connections.fetch_add(by, Ordering::Relaxed) + by;
        usize::try_from(open).unwrap_or(0)
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
        let mut families = vec![
            self.requests.text(),
            self.key_requests.text(),
            self.duration.text(),
            self.first_byte.text(),
            self.websocket_duration.text(),
            self.upstream_errors.text(),
            self.handed_out.text(),
        ];
        families.extend(self.process(configuration, log_lines_dropped, providers));
        families.extend(providers::families(providers));
        families.extend(tokens(usage));
        families.extend(listeners::families(listeners));
        families.sort();
        families.into_iter().map(|(_, text)| text).collect()
    }

    /// What concerns no provider alone.
    fn process(
        &self,
        configuration: ConfigurationNow,
        log_lines_dropped: u64,
        providers: &[ProviderNow<'_>],
    ) -> [FamilyText; 6] {
        let mut build =
            Gauge::new("evertoken_build_info", "Always 1; the version is a label", ["version"]);
        *build.of([env!("CARGO_PKG_VERSION")]) = 1.0;
        let connections = self.connections.load(Ordering::Relaxed);
        let in_flight = providers.iter().map(|provider| provider.in_flight).sum::<u64>();
        [
            build.text(),
            single(
                "evertoken_connections",
                "Open client connections",
                as_float(u64::try_from(connections).unwrap_or(0)),
            ),
            single(
                "evertoken_requests_in_flight",
                "Requests under way",
                as_float(in_flight + configuration.departed_in_flight),
            ),
            single(
                "evertoken_config_last_reload_successful",
                "1, or 0 where the last reload failed and an earlier configuration stays in use",
                as_flag(configuration.is_last_reload_fine),
            ),
            single(
                "evertoken_config_last_reload_success_timestamp_seconds",
                "When the configuration in use was read",
                seconds_since_1970(configuration.read_at),
            ),
            single(
                "evertoken_log_lines_dropped_total",
                "Log lines that were dropped because stderr took no more",
                log_lines_dropped,
            ),
        ]
    }
}

fn counted<V, const LABELS: usize>(family: Family<Arc<V>, LABELS>) -> Counted<V, LABELS> {
    Counted(Mutex::new(family))
}

fn count(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

/// A metric without labels.
fn single<V: Value + Default>(name: &'static str, help: &'static str, value: V) -> FamilyText {
    let mut family = Family::new(name, help, []);
    *family.of([]) = value;
    family.text()
}

/// The tokens of answers.
fn tokens(usage: &Table) -> [FamilyText; 2] {
    let mut tokens = Counter::new(
        "evertoken_usage_tokens_total",
        "Tokens that answers reported; all input is the sum of input, cache_read and cache_write",
        ["key", "kind", "model", "provider"],
    );
    let mut unknown = Counter::new(
        "evertoken_usage_unknown_answers_total",
        "Answers whose tokens are unknown, because they reported none or could not be read",
        ["key", "model", "provider"],
    );
    for Row { provider, model, key, counts } in usage.rows() {
        let kinds = [
            ("input", counts.input),
            ("output", counts.output),
            ("cache_read", counts.cache_read),
            ("cache_write", counts.cache_write),
        ];
        for (kind, count) in kinds {
            *tokens.of([key, kind, model, provider]) = count;
        }
        *unknown.of([key, model, provider]) = counts.unknown;
    }
    [tokens.text(), unknown.text()]
}

#[cfg(test)]
mod tests;
