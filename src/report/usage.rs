//! The usage of the last days as values: today's and that of seven days, in all and by model. Pure.

use serde::{Deserialize, Serialize};

use crate::usage::day::Day;
use crate::usage::table::{Counts, Table};

/// The tokens of the last days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsageReport {
    /// Today's, in UTC.
    pub today: Counts,
    /// Those of today and the six days before.
    pub last_7_days: Counts,
    /// The same by model; the one with the most tokens first.
    pub models: Vec<ModelUsage>,
}

/// The tokens of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelUsage {
    /// Its name; empty if it is unknown.
    pub model: String,
    pub today: Counts,
    pub last_7_days: Counts,
}

impl UsageReport {
    /// Of `days`, of which the first is today.
    pub(crate) fn of(days: &[(Day, Table)]) -> Self {
        let mut report = Self::default();
        for (index, (_, table)) in days.iter().enumerate() {
            for row in table.rows() {
                report.add(&row.model, &row.counts, index == 0);
            }
        }
        report.models.sort_by(|one, other| {
            let tokens = |usage: &ModelUsage| usage.last_7_days.tokens();
            tokens(other).cmp(&tokens(one)).then_with(|| one.model.cmp(&other.model))
        });
        report
    }

    fn add(&mut self, model: &str, counts: &Counts, is_today: bool) {
        self.last_7_days.add(counts);
        let known = self.models.iter().position(|one| one.model == model);
        let index = known.unwrap_or_else(|| {
            let (today, last_7_days) = <(Counts, Counts)>::default();
            self.models.push(ModelUsage { model: model.to_owned(), today, last_7_days });
            self.models.len() - 1
        });
        let own = &mut self.models[index];
        own.last_7_days.add(counts);
        if is_today {
            own.today.add(counts);
            self.today.add(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_added_up_by_model() {
        let day = |text| Day::parse(text).unwrap();
        let counts = |input| Counts { input, requests: 1, ..Counts::default() };
        let (mut today, mut before) = (Table::default(), Table::default());
        today.add("A", "m", "", &counts(1));
        today.add("B", "m", "", &counts(2));
        before.add("A", "m", "", &counts(4));
        before.add("A", "n", "", &counts(80));
        let report = UsageReport::of(&[(day("2026-11-02"), today), (day("2026-11-01"), before)]);
        assert_eq!((report.today.input, report.last_7_days.input), (3, 87));
        let models: Vec<_> = report
            .models
            .iter()
            .map(|one| (one.model.as_str(), one.today.input, one.last_7_days.input))
            .collect();
        assert_eq!(models, [("n", 0, 80), ("m", 3, 7)]);
    }
}
