//! The tokens of the last days, as a part of the page. Pure.

use std::fmt::{self, Write};

use crate::report::html::Text;
use crate::report::usage::UsageReport;
use crate::report::words::count;
use crate::usage::table::Counts;

/// The section, or nothing without counts.
pub(super) fn section(usage: Option<&UsageReport>) -> String {
    let mut out = String::new();
    if let Some(usage) = usage {
        // Writing to a text does not fail.
        let _ = write_section(&mut out, usage);
    }
    out
}

fn write_section(out: &mut String, usage: &UsageReport) -> fmt::Result {
    write!(
        out,
        "<section class=\"tokens\" aria-labelledby=\"n-tokens\"><h2 id=\"n-tokens\">Tokens of answers</h2>\n\
         <div class=\"wide\" tabindex=\"0\" role=\"region\" aria-labelledby=\"n-tokens\" id=\"tokens\" data-live>"
    )?;
    if usage.last_7_days.requests == 0 {
        write!(out, "<p class=\"muted\">None in the last 7 days</p>")?;
    } else {
        table(out, usage)?;
    }
    writeln!(out, "</div></section>")
}

fn table(out: &mut String, usage: &UsageReport) -> fmt::Result {
    write!(
        out,
        "<table><thead><tr><th rowspan=\"2\" scope=\"col\">Model</th><th colspan=\"3\" scope=\"colgroup\">Today, \
         UTC</th><th colspan=\"3\" scope=\"colgroup\">7 days</th></tr><tr>"
    )?;
    for _ in 0..2 {
        for name in ["Input", "of it cached", "Output"] {
            write!(out, "<th scope=\"col\">{name}</th>")?;
        }
    }
    write!(out, "</tr></thead><tbody>")?;
    for one in &usage.models {
        let name = if one.model.is_empty() { "unknown" } else { &one.model };
        row(out, name, [&one.today, &one.last_7_days])?;
    }
    if usage.models.len() > 1 {
        row(out, "All models", [&usage.today, &usage.last_7_days])?;
    }
    write!(out, "</tbody></table>")?;
    let Counts { requests, unknown, .. } = usage.last_7_days;
    if unknown > 0 {
        let (unknown, requests) = (count(unknown), count(requests));
        write!(
            out,
            "<p class=\"muted\">The tokens of {unknown} of {requests} answers in 7 days are unknown</p>"
        )?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, times: [&Counts; 2]) -> fmt::Result {
    write!(out, "<tr><th scope=\"row\">{}</th>", Text(name))?;
    for counts in times {
        let cached = counts.cache_read;
        let input = counts.input.saturating_add(cached).saturating_add(counts.cache_write);
        let percent = cached.saturating_mul(100).checked_div(input);
        let cached = percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent} %"));
        write!(out, "<td>{}</td><td>{cached}</td><td>{}</td>", count(input), count(counts.output))?;
    }
    write!(out, "</tr>")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::usage::ModelUsage;

    #[test]
    fn models_are_rows_and_unknown_answers_are_said() {
        assert_eq!(section(None), "");
        let none = section(Some(&UsageReport::default()));
        assert!(none.contains("None in the last 7 days"), "{none}");
        let counts = Counts {
            requests: 3,
            input: 1000,
            output: 2345,
            cache_read: 3000,
            unknown: 1,
            ..Counts::default()
        };
        let model = |model: &str| ModelUsage {
            model: model.to_owned(),
            today: Counts::default(),
            last_7_days: counts,
        };
        let models = vec![model("<b>"), model("")];
        let usage = UsageReport { today: Counts::default(), last_7_days: counts, models };
        let html = section(Some(&usage));
        for part in [
            "<th scope=\"row\">&lt;b&gt;</th><td>0</td><td>–</td><td>0</td>\
             <td>4,000</td><td>75 %</td><td>2,345</td>",
            "<th scope=\"row\">unknown</th>",
            "<th scope=\"row\">All models</th>",
            "The tokens of 1 of 3 answers in 7 days are unknown",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
    }
}
