//! Medians, spreads and tables in Markdown.

use std::fmt::Write as _;

/// The figures of one measurement, one for each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(pub(crate) Vec<f64>);

impl Figures {
    /// The median; NaN without figures.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.as_slice() {
            [] => f64::NAN,
            all if all.len() % 2 == 1 => all[all.len() / 2],
            all => f64::midpoint(all[all.len() / 2 - 1], all[all.len() / 2]),
        }
    }

    /// Median, least and most.
    pub(crate) fn in_words(&self) -> String {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self.0.len() {
            0 => "–".to_owned(),
            1 => short(least),
            _ => format!("{} ({}–{})", short(self.median()), short(least), short(most)),
        }
    }

    /// The ratio round by round.
    pub(crate) fn ratio_to(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, theirs)| own / theirs).collect())
    }

    /// The difference round by round.
    pub(crate) fn less(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, theirs)| own - theirs).collect())
    }
}

/// A figure with three significant digits.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size >= 10_000.0 => format!("{:.1}k", figure / 1000.0),
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// A table in Markdown.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub(crate) fn new<T: Into<String>>(columns: impl IntoIterator<Item = T>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table as text, with aligned columns.
    pub(crate) fn markdown(&self) -> String {
        let width = |index: usize| {
            let cells = self.rows.iter().chain([&self.columns]).filter_map(|row| row.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut text = String::from("|");
            for (cell, width) in cells.iter().zip(&widths) {
                let _ = write!(text, " {cell:width$} |");
            }
            text
        };
        let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        let mut lines = vec![line(&self.columns), line(&rule)];
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines.join("\n")
    }
}

/// A target and its measurement, as in the table of targets.
pub(crate) struct Target {
    /// The target.
    pub(crate) what: String,
    /// The measured figures.
    pub(crate) measured: Figures,
    /// Its upper or lower bound.
    pub(crate) bound: Bound,
}

/// The side of a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
}

impl Target {
    /// True if the median meets it.
    pub(crate) fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost(most) => self.measured.median() <= most,
            Bound::AtLeast(least) => self.measured.median() >= least,
        }
    }

    /// The row of a table.
    pub(crate) fn cells(&self) -> [String; 4] {
        let bound = match self.bound {
            Bound::AtMost(most) => format!("≤ {}", short(most)),
            Bound::AtLeast(least) => format!("≥ {}", short(least)),
        };
        let met = if self.is_met() { "met" } else { "**missed**" };
        [self.what.clone(), bound, self.measured.in_words(), met.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        let figures = Figures(vec![3.0, 1.0, 2.0]);
        assert!((figures.median() - 2.0).abs() < 1e-9);
        assert_eq!(figures.in_words(), "2.00 (1.00–3.00)");
        let ratio = figures.ratio_to(&Figures(vec![1.0, 2.0, 4.0]));
        assert_eq!(ratio.in_words(), "0.50 (0.50–3.00)");
        let rest = figures.less(&Figures(vec![1.0, 2.0, 4.0]));
        assert_eq!(rest.in_words(), "-1.00 (-2.00–2.00)");
        assert_eq!(Figures::default().in_words(), "–");
        assert_eq!(short(12_345.0), "12.3k");
    }

    #[test]
    fn a_target_is_met_on_its_side() {
        let target = |bound| Target { what: "x".into(), measured: Figures(vec![1.0]), bound };
        assert!(target(Bound::AtMost(1.0)).is_met() && !target(Bound::AtMost(0.9)).is_met());
        assert!(target(Bound::AtLeast(1.0)).is_met() && !target(Bound::AtLeast(1.1)).is_met());
    }

    #[test]
    fn a_table_is_aligned() {
        let mut table = Table::new(["a", "bcd"]);
        table.row(["xyz", "1"]);
        assert_eq!(table.markdown(), "| a   | bcd |\n| --- | --- |\n| xyz | 1   |");
    }
}
