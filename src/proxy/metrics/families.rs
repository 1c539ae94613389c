//! Families of metrics, and values in their units.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use crate::clock::Timestamp;

/// A counter for each provider and each value of `label`.
pub(super) fn counter(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    counter_by(registry, name, help, &["provider", label])
}

/// A counter for each combination of these `labels`.
pub(super) fn counter_by(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
}

/// A value for each provider.
pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> GaugeVec {
    gauge_by(registry, name, help, &["provider"])
}

/// A value for each combination of these `labels`.
pub(super) fn gauge_by(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    registered(registry, GaugeVec::new(Opts::new(name, help), labels))
}

/// Adds a metric to the registry. Names and labels are literals in this folder, and each is used once.
pub(super) fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: Result<C, prometheus::Error>,
) -> C {
    let metric = metric.expect("its name and labels are valid");
    registry.register(Box::new(metric.clone())).expect("there is no other of its name");
    metric
}

pub(super) fn as_float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

pub(super) fn seconds_since_1970(at: Timestamp) -> f64 {
    Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0)).as_secs_f64()
}
