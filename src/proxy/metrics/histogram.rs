//! Durations, counted by upper bounds, and their quantiles.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::atomic::AtomicU64;
use crate::proxy::metrics::family::{Lines, Value};

/// Counts durations.
#[derive(Debug)]
pub(super) struct Histogram {
    /// Upper bounds in seconds, in ascending order.
    bounds: &'static [f64],
    /// The number of durations up to each bound and above the one before; the last has those above all.
    counts: Box<[AtomicU64]>,
    /// The sum in seconds, as the bits of a floating-point number.
    sum: AtomicU64,
}

impl Histogram {
    /// Counts by `bounds`, upper ones in seconds, in ascending order.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0.0_f64.to_bits()) }
    }

    /// Counts a duration.
    pub(super) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + seconds).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The number of durations up to each bound; the last is that of all.
    fn cumulative(&self) -> Vec<u64> {
        let mut total = 0;
        let up_to = self.counts.iter().map(|count| {
            total += count.load(Ordering::Relaxed);
            total
        });
        up_to.collect()
    }

    /// The time within which `percent` of the durations lie, in milliseconds; None without any.
    pub(super) fn quantile_ms(&self, percent: u32) -> Option<u64> {
        quantile_ms(self.bounds, &self.cumulative(), percent)
    }
}

impl Value for Histogram {
    const KIND: &'static str = "histogram";

    fn write(&self, lines: &mut Lines<'_>) {
        let counts = self.cumulative();
        for (bound, count) in self.bounds.iter().zip(&counts) {
            lines.push("_bucket", &format!("le=\"{bound}\""), count);
        }
        let total = counts.last().copied().unwrap_or_default();
        lines.push("_bucket", "le=\"+Inf\"", total);
        lines.push("_sum", "", f64::from_bits(self.sum.load(Ordering::Relaxed)));
        lines.push("_count", "", total);
    }
}

/// The time within which `percent` of all came, in milliseconds, by linear interpolation within its bucket, as in
/// Prometheus; the last bound for values beyond it. `counts` are of those up to each bound, and of all. None without
/// values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts and bounds are small, and an estimate is wanted"
)]
fn quantile_ms(bounds: &[f64], counts: &[u64], percent: u32) -> Option<u64> {
    let total = counts.last().filter(|total| **total != 0)?;
    let rank = f64::from(percent) / 100.0 * *total as f64;
    let (mut lower, mut below) = (0.0, 0);
    for (upper, count) in bounds.iter().zip(counts) {
        if *count as f64 >= rank {
            let share = (rank - below as f64) / (count - below) as f64;
            return Some(((lower + (upper - lower) * share) * 1000.0).round() as u64);
        }
        (lower, below) = (*upper, *count);
    }
    Some((lower * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::metrics::family::Family;

    #[test]
    fn quantiles_lie_where_prometheus_puts_them() {
        let bounds = [0.1, 0.5, 1.0];
        for (percent, expected) in [(50, 100), (75, 750), (95, 950)] {
            assert_eq!(quantile_ms(&bounds, &[10, 10, 20, 20], percent), Some(expected));
        }
        assert_eq!(quantile_ms(&bounds, &[10, 10, 20, 100], 95), Some(1000), "beyond the bounds");
        assert_eq!(quantile_ms(&bounds, &[0; 4], 50), None);
    }

    #[test]
    fn a_bucket_holds_what_is_up_to_its_bound() {
        let mut family =
            Family::<_, 1>::starting_with(|| Histogram::new(&[0.25, 1.0]), "n", "Help", ["a"]);
        let histogram = family.of(["b"]);
        for ms in [0, 250, 375, 1000, 1125, 86_400_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let expected = "# HELP n Help\n\
                        # TYPE n histogram\n\
                        n_bucket{a=\"b\",le=\"0.25\"} 2\n\
                        n_bucket{a=\"b\",le=\"1\"} 4\n\
                        n_bucket{a=\"b\",le=\"+Inf\"} 6\n\
                        n_sum{a=\"b\"} 86402.75\n\
                        n_count{a=\"b\"} 6\n";
        assert_eq!(family.text().1, expected);
    }
}
