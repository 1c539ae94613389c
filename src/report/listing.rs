//! The usage of some days in rows, as `evertoken usage` prints it. Pure.

use std::fmt::Write;

use serde_json::{Map, Value};
use unicode_width::UnicodeWidthStr;

use crate::report::words::count;
use crate::usage::day::Day;
use crate::usage::table::{Counts, Row, Table};
use crate::visible::visible;

/// The common property of the counts that are added up in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Provider,
    Model,
    Key,
    Day,
}

impl By {
    /// All, with their names.
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("provider", Self::Provider),
        ("model", Self::Model),
        ("key", Self::Key),
        ("day", Self::Day),
    ];
    /// Those without a choice.
    const USUAL: [Self; 3] = [Self::Provider, Self::Model, Self::Key];

    fn name(self) -> &'static str {
        let own = Self::ALL.iter().find(|(_, by)| *by == self);
        own.map_or("", |(name, _)| name)
    }

    fn of(self, day: Day, row: &Row) -> String {
        match self {
            Self::Provider => row.provider.clone(),
            Self::Model => row.model.clone(),
            Self::Key => row.key.clone(),
            Self::Day => day.to_string(),
        }
    }
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    #[default]
    Table,
    Json,
    Csv,
}

/// The names of the counts in JSON and CSV, in order.
const COUNTS: [&str; 7] =
    ["requests", "input", "cache_read", "cache_write", "output", "unknown", "cut"];
/// The characters with which a formula begins in some spreadsheet.
const FORMULA_STARTS: [char; 10] = ['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠'];
/// The gap between columns of a table.
const GAP: &str = "  ";

fn numbers(counts: &Counts) -> [u64; COUNTS.len()] {
    let Counts { requests, input, output, cache_read, cache_write, unknown, cut } = *counts;
    [requests, input, cache_read, cache_write, output, unknown, cut]
}

/// Days, added up in rows.
#[derive(Debug)]
pub(crate) struct Listing {
    since: Day,
    until: Day,
    by: Vec<By>,
    rows: Vec<(Vec<String>, Counts)>,
}

impl Listing {
    /// The counts of `days`, from `since` until `until`, by one property, or by provider, model and key. The rows with
    /// the most tokens come first; days come in their order.
    pub(crate) fn of(days: &[(Day, Table)], since: Day, until: Day, by: Option<By>) -> Self {
        let by = by.map_or_else(|| By::USUAL.to_vec(), |one| vec![one]);
        let mut rows: Vec<(Vec<String>, Counts)> = Vec::new();
        for (day, table) in days {
            for row in table.rows() {
                let labels: Vec<String> = by.iter().map(|one| one.of(*day, row)).collect();
                match rows.iter_mut().find(|(known, _)| *known == labels) {
                    Some((_, counts)) => counts.add(&row.counts),
                    None => rows.push((labels, row.counts)),
                }
            }
        }
        if by == [By::Day] {
            rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        } else {
            rows.sort_by(|(one, counts), (other, others)| {
                others.tokens().cmp(&counts.tokens()).then_with(|| one.cmp(other))
            });
        }
        Self { since, until, by, rows }
    }

    fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.rows.iter().for_each(|(_, counts)| total.add(counts));
        total
    }

    pub(crate) fn render(&self, form: Form) -> String {
        match form {
            Form::Table => self.table(),
            Form::Json => self.json(),
            Form::Csv => self.csv(),
        }
    }

    fn json(&self) -> String {
        let object = |names: &[By], labels: &[String], counts: &Counts| {
            let labels = names.iter().zip(labels);
            let mut members: Map<String, Value> =
                labels.map(|(by, label)| (by.name().to_owned(), label.as_str().into())).collect();
            members.extend(
                COUNTS.iter().zip(numbers(counts)).map(|(name, n)| ((*name).to_owned(), n.into())),
            );
            Value::Object(members)
        };
        let rows = self.rows.iter().map(|(labels, counts)| object(&self.by, labels, counts));
        let whole = serde_json::json!({
            "since": self.since.to_string(),
            "until": self.until.to_string(),
            "rows": rows.collect::<Vec<_>>(),
            "total": object(&[], &[], &self.total()),
        });
        format!("{whole:#}\n")
    }

    /// RFC 4180, but for its line ends, which are those of other programs here.
    fn csv(&self) -> String {
        let names = self.by.iter().map(|by| by.name().to_owned());
        let mut lines = vec![names.chain(COUNTS.map(str::to_owned)).collect::<Vec<_>>().join(",")];
        for (labels, counts) in &self.rows {
            let labels = labels.iter().map(|label| cell(label));
            let cells = labels.chain(numbers(counts).map(|number| number.to_string()));
            lines.push(cells.collect::<Vec<_>>().join(","));
        }
        lines.join("\n") + "\n"
    }

    fn table(&self) -> String {
        let mut out = format!("Tokens from {} until {} (UTC)\n", self.since, self.until);
        if self.rows.is_empty() {
            return out + "None were counted.\n";
        }
        let headings = self.by.iter().map(|by| by.name());
        let headings = headings.chain(COUNTS).map(|name| name.to_uppercase().replace('_', " "));
        let line = |labels: &[String], counts: &Counts| -> Vec<String> {
            let labels = labels.iter().map(|label| shown(label));
            labels.chain(numbers(counts).map(count)).collect()
        };
        let mut lines = vec![headings.collect::<Vec<_>>()];
        lines.extend(self.rows.iter().map(|(labels, counts)| line(labels, counts)));
        if self.rows.len() > 1 {
            let mut labels = vec![String::from(" "); self.by.len()];
            "all".clone_into(&mut labels[0]);
            lines.push(line(&labels, &self.total()));
        }
        let widths: Vec<usize> = (0..lines[0].len())
            .map(|column| lines.iter().map(|line| line[column].width()).max().unwrap_or(0))
            .collect();
        for line in lines {
            let mut text = String::new();
            for (index, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let space = " ".repeat(width - cell.width());
                let (before, after) =
                    if index < self.by.len() { ("", space.as_str()) } else { (space.as_str(), "") };
                let gap = if index == 0 { "" } else { GAP };
                // Writing to a text does not fail.
                let _ = write!(text, "{gap}{before}{cell}{after}");
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A label as people see it, or a dash for none.
fn shown(label: &str) -> String {
    if label.is_empty() { "-".to_owned() } else { visible(label).into_owned() }
}

/// A label in CSV. A spreadsheet would run one that begins like a formula, so that has a quotation mark before it
/// (OWASP, CSV injection).
fn cell(label: &str) -> String {
    let is_formula = label.starts_with(FORMULA_STARTS);
    let guarded = format!("{}{label}", if is_formula { "'" } else { "" });
    let is_plain =
        !guarded.contains(['"', ',', ';', '\n', '\r', '\t']) && guarded.trim() == guarded;
    if is_plain { guarded } else { format!("\"{}\"", guarded.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days() -> Vec<(Day, Table)> {
        let counts = |input| {
            let known = Counts { output: 2, cache_read: 3, cache_write: 4, ..Counts::default() };
            Counts { requests: 1, input, ..known }
        };
        let (mut first, mut second) = (Table::default(), Table::default());
        first.add("A", "m", "ci", &counts(1000));
        first.add("B, \"b\"", "模型", "", &counts(1));
        second.add("A", "m", "ci", &counts(1000));
        second.add("A", "", "ci", &Counts { requests: 1, unknown: 1, ..Counts::default() });
        let day = |text| Day::parse(text).unwrap();
        vec![(day("2026-11-02"), second), (day("2026-11-01"), first)]
    }

    fn rendered(by: Option<By>, form: Form) -> String {
        let days = days();
        Listing::of(&days, days[1].0, days[0].0, by).render(form)
    }

    #[test]
    fn a_table_has_aligned_columns_and_a_sum() {
        assert_eq!(
            rendered(None, Form::Table),
            "Tokens from 2026-11-01 until 2026-11-02 (UTC)\n\
             PROVIDER  MODEL  KEY  REQUESTS  INPUT  CACHE READ  CACHE WRITE  OUTPUT  UNKNOWN  CUT\n\
             A         m      ci          2  2,000           6            8       4        0    0\n\
             B, \"b\"    模型   -           1      1           3            4       2        0    0\n\
             A         -      ci          1      0           0            0       0        1    0\n\
             all                          4  2,001           9           12       6        1    0\n"
        );
        assert_eq!(
            rendered(Some(By::Day), Form::Table),
            "Tokens from 2026-11-01 until 2026-11-02 (UTC)\n\
             DAY         REQUESTS  INPUT  CACHE READ  CACHE WRITE  OUTPUT  UNKNOWN  CUT\n\
             2026-11-01         2  1,001           6            8       4        0    0\n\
             2026-11-02         2  1,000           3            4       2        1    0\n\
             all                4  2,001           9           12       6        1    0\n"
        );
        let day = days()[0].0;
        let none = Listing::of(&[], day, day, None).render(Form::Table);
        assert!(none.ends_with("\nNone were counted.\n"), "{none}");
    }

    /// Prints the same names in each form.
    fn of_names(names: &[&str], form: Form) -> String {
        let day = days()[0].0;
        let mut table = Table::default();
        for name in names {
            table.add("P", "m", name, &Counts { requests: 1, ..Counts::default() });
        }
        Listing::of(&[(day, table)], day, day, Some(By::Key)).render(form)
    }

    #[test]
    fn a_name_was_a_formula_to_a_spreadsheet() {
        for (name, expected) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "\"'\t=1\""),
            ("\r=1", "\"'\r=1\""),
            ("＝1", "'＝1"),
            ("=HYPERLINK(\"x\",1)", "\"'=HYPERLINK(\"\"x\"\",1)\""),
            (" =1", "\" =1\""),
            ("a;=1", "\"a;=1\""),
            ("a=1", "a=1"),
            ("gpt-5", "gpt-5"),
            ("a\nb", "\"a\nb\""),
            ("", ""),
        ] {
            let csv = of_names(&[name], Form::Csv);
            let cell = csv.split_once('\n').unwrap().1.strip_suffix(",1,0,0,0,0,0,0\n");
            assert_eq!(cell, Some(expected), "{name:?}");
        }
    }

    #[test]
    fn a_name_turned_the_table_around_it_but_is_exact_in_json() {
        let names = ["gpt\u{202e}4", "a\u{200b}b\u{1b}[2J", "x\u{2066}\ny"];
        let table = of_names(&names, Form::Table);
        for shown in ["gpt\\u{202e}4 ", "a\\u{200b}b\\u{1b}[2J ", "x\\u{2066}\\ny "] {
            assert!(table.contains(shown), "{shown}: {table}");
        }
        assert!(!table.contains(['\u{202e}', '\u{200b}', '\u{1b}', '\u{2066}']), "{table}");
        let json: Value = serde_json::from_str(&of_names(&names, Form::Json)).unwrap();
        let keys = json["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap());
        assert!(keys.clone().count() == 3 && keys.into_iter().all(|key| names.contains(&key)));
    }

    #[test]
    fn csv_is_quoted_and_json_has_the_sum() {
        assert_eq!(
            rendered(Some(By::Provider), Form::Csv),
            "provider,requests,input,cache_read,cache_write,output,unknown,cut\n\
             A,3,2000,6,8,4,1,0\n\"B, \"\"b\"\"\",1,1,3,4,2,0,0\n"
        );
        let json: Value = serde_json::from_str(&rendered(Some(By::Key), Form::Json)).unwrap();
        assert_eq!((&json["since"], &json["until"]), (&"2026-11-01".into(), &"2026-11-02".into()));
        assert_eq!(json["rows"][0]["key"], "ci");
        assert_eq!(json["rows"][1]["key"], "");
        assert_eq!((&json["total"]["input"], &json["total"]["unknown"]), (&2001.into(), &1.into()));
        assert_eq!(json["rows"].as_array().unwrap().len(), 2);
    }
}
