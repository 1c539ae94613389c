//! Tells of a request that has ended: counts it in the metrics, and writes its log line.

use log::Level;

use crate::proxy::metrics::{Metrics, OfKey, OfProvider};
use crate::proxy::summary::Summary;

/// The metrics of those that a request concerns, beside those of all requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Concerned<'a> {
    /// The provider's; None for evertoken's own answers.
    pub(super) provider: Option<&'a OfProvider>,
    /// The client's key's; None without one.
    pub(super) key: Option<&'a OfKey>,
}

/// Counts the request of `summary`, and writes its line at `level`.
pub(super) fn report(
    metrics: &Metrics,
    concerned: Concerned<'_>,
    summary: &Summary<'_>,
    level: Level,
) {
    let provider = summary.provider.zip(concerned.provider);
    metrics.observe(provider, summary.status, summary.first_byte, summary.total);
    if let (Some(name), Some(key)) = (summary.key, concerned.key) {
        metrics.observe_key(name, key, summary.status);
    }
    summary.log(level);
}
