//! The facts about a WebSocket for the metrics and its log line, kept from its request to its end.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::clock::Stopwatch;
use crate::http::message::RequestHead;
use crate::proxy::cut::Cut;
use crate::proxy::ended::{self, Concerned};
use crate::proxy::metrics::{Metrics, OfKey};
use crate::proxy::outcome::RequestRecord;
use crate::proxy::provider::Provider;
use crate::proxy::state::Proxy;
use crate::proxy::summary::Summary;

/// The facts.
pub(super) struct TunnelRecord {
    metrics: Arc<Metrics>,
    provider: Arc<Provider>,
    /// The name and the metrics of the client's key.
    key: Option<(String, OfKey)>,
    method: String,
    path: String,
    status: Option<u16>,
    first_byte: Option<Duration>,
    attempts: u32,
    begun: Stopwatch,
}

impl TunnelRecord {
    /// Those of the request with `head`, which began with `begun` and was answered by `provider`.
    pub(super) fn of(
        proxy: &Proxy,
        head: &RequestHead,
        provider: Arc<Provider>,
        record: &RequestRecord<'_>,
        begun: Stopwatch,
    ) -> Self {
        Self {
            metrics: proxy.metrics.clone(),
            provider,
            key: record.key.map(|key| (key.rights.name.clone(), key.metrics.clone())),
            method: head.method.to_string(),
            path: proxy.access.shown_path(head).to_owned(),
            status: record.status,
            first_byte: record.first_byte,
            attempts: record.attempts,
            begun,
        }
    }

    /// Counts the failure of its provider.
    pub(super) fn provider_broke_off(&self) {
        self.metrics.upstream_error(&self.provider.config.name, Cut::BrokeOff.as_kind());
    }

    /// Reports its end, after so many bytes from the client and to it; `cut` is the reason for an early one.
    pub(super) fn report(&self, received_bytes: u64, sent_bytes: u64, cut: Option<&str>) {
        let summary = Summary {
            method: &self.method,
            path: &self.path,
            provider: Some(&self.provider.config.name),
            key: self.key.as_ref().map(|(name, _)| name.as_str()),
            status: self.status,
            received_bytes,
            sent_bytes,
            first_byte: self.first_byte,
            total: self.begun.elapsed(),
            attempts: self.attempts,
            refused: None,
            cut,
        };
        let concerned = Concerned {
            provider: Some(&self.provider.metrics),
            key: self.key.as_ref().map(|(_, metrics)| metrics),
        };
        ended::report(&self.metrics, concerned, &summary, Level::Info);
    }
}
