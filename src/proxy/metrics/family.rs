//! Metrics of one name as Prometheus text, version 0.0.4. Pure.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{Display, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::atomic::AtomicU64;

/// All metrics of one name: a value for each combination of values of its labels, in the order of the text.
#[derive(Debug)]
pub(super) struct Family<V, const LABELS: usize> {
    name: &'static str,
    help: &'static str,
    /// In alphabetical order.
    labels: [&'static str; LABELS],
    new: fn() -> V,
    members: Vec<([String; LABELS], V)>,
}

/// A family of numbers that only grow.
pub(super) type Counter<const LABELS: usize> = Family<u64, LABELS>;
/// A family of numbers of any kind.
pub(super) type Gauge<const LABELS: usize> = Family<f64, LABELS>;

/// The value of a metric.
pub(super) trait Value {
    /// Its kind, as Prometheus calls it.
    const KIND: &'static str;

    /// Writes the lines that show it.
    fn write(&self, lines: &mut Lines<'_>);
}

/// The lines of one value.
pub(super) struct Lines<'t> {
    text: &'t mut String,
    name: &'static str,
    /// `code="200",provider="A"`
    labels: String,
}

/// The text of a family, after its name, by which families are sorted.
pub(super) type FamilyText = (&'static str, String);

impl<V: Value, const LABELS: usize> Family<V, LABELS> {
    /// A family without members, whose values start at zero.
    pub(super) fn new(
        name: &'static str,
        help: &'static str,
        labels: [&'static str; LABELS],
    ) -> Self
    where
        V: Default,
    {
        Self::starting_with(V::default, name, help, labels)
    }

    /// The same with values that start as `new` makes them.
    pub(super) fn starting_with(
        new: fn() -> V,
        name: &'static str,
        help: &'static str,
        labels: [&'static str; LABELS],
    ) -> Self {
        debug_assert!(labels.is_sorted(), "{labels:?}");
        Self { name, help, labels, new, members: Vec::new() }
    }

    /// The value for these `values` of the labels; a new one if there is none.
    pub(super) fn of(&mut self, values: [&str; LABELS]) -> &mut V {
        let order = |own: &[String; LABELS]| own.iter().map(String::as_str).cmp(values);
        let at = self.members.binary_search_by(|(own, _)| order(own)).unwrap_or_else(|at| {
            self.members.insert(at, (values.map(str::to_owned), (self.new)()));
            at
        });
        &mut self.members[at].1
    }

    /// Its text: empty without members.
    pub(super) fn text(&self) -> FamilyText {
        let mut text = String::new();
        let Self { name, help, .. } = self;
        if !self.members.is_empty() {
            text = format!("# HELP {name} {help}\n# TYPE {name} {}\n", V::KIND);
        }
        for (values, value) in &self.members {
            let labels = self.labels.iter().zip(values).map(|(label, value)| {
                let value = value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
                format!("{label}=\"{value}\"")
            });
            let labels = labels.collect::<Vec<_>>().join(",");
            value.write(&mut Lines { text: &mut text, name, labels });
        }
        (name, text)
    }
}

impl Lines<'_> {
    /// Writes a line: a `number`, after the name with `suffix` and the labels, with one more in the form `le="1"` if
    /// there is one.
    pub(super) fn push(&mut self, suffix: &str, label: &str, number: impl Display) {
        let Self { text, name, labels } = self;
        let comma = if labels.is_empty() || label.is_empty() { "" } else { "," };
        // Writing to memory does not fail.
        let _ = match labels.len() + label.len() {
            0 => writeln!(text, "{name}{suffix} {number}"),
            _ => writeln!(text, "{name}{suffix}{{{labels}{comma}{label}}} {number}"),
        };
    }
}

impl Value for u64 {
    const KIND: &'static str = "counter";

    fn write(&self, lines: &mut Lines<'_>) {
        lines.push("", "", self);
    }
}

impl Value for f64 {
    const KIND: &'static str = "gauge";

    fn write(&self, lines: &mut Lines<'_>) {
        lines.push("", "", self);
    }
}

impl Value for AtomicU64 {
    const KIND: &'static str = u64::KIND;

    fn write(&self, lines: &mut Lines<'_>) {
        self.load(Ordering::Relaxed).write(lines);
    }
}

impl<V: Value> Value for Arc<V> {
    const KIND: &'static str = V::KIND;

    fn write(&self, lines: &mut Lines<'_>) {
        V::write(self, lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sorted_by_their_labels_and_escaped() {
        let mut family = Counter::new("n_total", "Help", ["a", "b"]);
        assert_eq!(family.text(), ("n_total", String::new()));
        *family.of(["y", ""]) += 1;
        *family.of(["x", "a \"b\" \\c\nd"]) += u64::MAX;
        *family.of(["y", ""]) += 1;
        *family.of(["x", "Z"]) += 0;
        let expected = "# HELP n_total Help\n\
                        # TYPE n_total counter\n\
                        n_total{a=\"x\",b=\"Z\"} 0\n\
                        n_total{a=\"x\",b=\"a \\\"b\\\" \\\\c\\nd\"} 18446744073709551615\n\
                        n_total{a=\"y\",b=\"\"} 2\n";
        assert_eq!(family.text().1, expected);
    }

    #[test]
    fn a_metric_without_labels_has_no_braces() {
        let mut family = Gauge::new("n", "Help", []);
        *family.of([]) = 0.25;
        assert_eq!(family.text().1, "# HELP n Help\n# TYPE n gauge\nn 0.25\n");
    }
}
