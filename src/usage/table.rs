//! Counts by provider, model and key. Pure.

use serde::{Deserialize, Serialize};

use crate::usage::tokens::Tokens;

/// The most models of one provider that are told apart; the names come from answers, and so from others.
const MODELS_MAX: usize = 64;
/// The longest name of a model.
const MODEL_MAX_BYTES: usize = 128;
/// The name of all other models, and of those that nobody names.
pub(crate) const OTHER: &str = "other";
pub(crate) const UNKNOWN: &str = "unknown";

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    /// Answers, errors included.
    pub requests: u64,
    /// Tokens, as in [`Tokens`].
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    /// Answers whose tokens are unknown: they reported none, or could not be read.
    pub unknown: u64,
    /// Answers that ended early, whose tokens are those reported before.
    pub cut: u64,
}

impl Counts {
    /// One answer with `tokens`.
    pub(crate) fn of(tokens: Tokens) -> Self {
        let Tokens { input, output, cache_read, cache_write } = tokens;
        Self { requests: 1, input, output, cache_read, cache_write, unknown: 0, cut: 0 }
    }

    /// All tokens.
    pub(crate) fn tokens(&self) -> u64 {
        let kinds = [self.input, self.output, self.cache_read, self.cache_write];
        kinds.into_iter().fold(0, u64::saturating_add)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (own, other) in [
            (&mut self.requests, other.requests),
            (&mut self.input, other.input),
            (&mut self.output, other.output),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.unknown, other.unknown),
            (&mut self.cut, other.cut),
        ] {
            *own = own.saturating_add(other);
        }
    }
}

/// The counts of one combination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The provider's name.
    pub provider: String,
    /// The model, as answers name it, else as the request does.
    pub model: String,
    /// The name of the client's key; empty without one.
    pub key: String,
    pub counts: Counts,
}

/// Rows, each combination once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds `counts` to the row of this combination.
    pub(crate) fn add(&mut self, provider: &str, model: &str, key: &str, counts: &Counts) {
        if let Some(row) = self.row(provider, model, key) {
            return row.counts.add(counts);
        }
        let model = if self.has_room(provider, model) { model } else { OTHER };
        if let Some(row) = self.row(provider, model, key) {
            return row.counts.add(counts);
        }
        let [provider, model, key] = [provider, model, key].map(str::to_owned);
        self.rows.push(Row { provider, model, key, counts: *counts });
    }

    fn row(&mut self, provider: &str, model: &str, key: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| {
            // The length of the model tells most of them apart.
            row.model.len() == model.len()
                && row.key == key
                && row.provider == provider
                && row.model == model
        })
    }

    /// True if `model` of `provider` has a row.
    pub(crate) fn knows(&self, provider: &str, model: &str) -> bool {
        self.rows.iter().any(|row| row.model == model && row.provider == provider)
    }

    /// True if another model of `provider` may get a name of its own.
    fn has_room(&self, provider: &str, model: &str) -> bool {
        if model == UNKNOWN {
            return true;
        }
        if model.len() > MODEL_MAX_BYTES || model.contains(char::is_control) {
            return false;
        }
        let mut models: Vec<&str> = Vec::new();
        for row in self.rows.iter().filter(|row| row.provider == provider) {
            if !models.contains(&&*row.model) {
                models.push(&row.model);
            }
        }
        models.contains(&model) || models.len() < MODELS_MAX
    }

    /// Adds all of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        for Row { provider, model, key, counts } in &other.rows {
            self.add(provider, model, key, counts);
        }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number of all requests.
    pub(crate) fn requests(&self) -> u64 {
        self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.counts.requests))
    }

    /// The sum of all rows for which `is_wanted` holds.
    pub(crate) fn sum(&self, is_wanted: impl Fn(&Row) -> bool) -> Counts {
        let mut sum = Counts::default();
        self.rows.iter().filter(|row| is_wanted(row)).for_each(|row| sum.add(&row.counts));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Counts {
        Counts::of(Tokens { input: 1, output: 2, cache_read: 3, cache_write: 4 })
    }

    #[test]
    fn each_combination_has_its_row() {
        let mut table = Table::default();
        for (provider, model, key) in
            [("A", "m", "k"), ("A", "m", "k"), ("A", "m", ""), ("A", "n", "k"), ("B", "m", "k")]
        {
            table.add(provider, model, key, &one());
        }
        assert_eq!(table.rows().len(), 4);
        assert_eq!(table.rows()[0].counts.requests, 2);
        let mut twice = table.clone();
        twice.merge(&table);
        assert_eq!(twice.rows().len(), 4);
        assert_eq!(twice.sum(|row| row.key == "k").tokens(), 2 * 4 * 10);
    }

    #[test]
    fn counts_of_a_file_that_makes_no_sense_do_not_overflow() {
        let mut table = Table::default();
        for model in ["m", "n"] {
            table.add("A", model, "", &Counts { requests: u64::MAX, ..one() });
        }
        assert_eq!((table.requests(), table.sum(|_| true).requests), (u64::MAX, u64::MAX));
    }

    #[test]
    fn names_that_an_upstream_makes_up_share_one_row() {
        let mut table = Table::default();
        for number in 0..MODELS_MAX + 9 {
            table.add("A", &format!("m{number}"), "", &one());
        }
        table.add("B", "m", "", &one());
        assert_eq!(table.rows().len(), MODELS_MAX + 2);
        assert_eq!(table.sum(|row| row.model == OTHER).requests, 9);
        table.add("A", "m0", "k", &one());
        assert_eq!(table.rows().last().unwrap().model, "m0", "a known name has room");
        let mut table = Table::default();
        let longest = "m".repeat(MODEL_MAX_BYTES);
        for (model, expected) in
            [(longest.as_str(), longest.as_str()), (&format!("{longest}m"), OTHER), ("a\nb", OTHER)]
        {
            table.add("A", model, "", &one());
            assert_eq!(table.rows().last().unwrap().model, expected);
        }
    }
}
