//! A report as a table for a terminal. Pure.

use std::fmt::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::clock::Timestamp;
use crate::report::listeners::certificate_problems;
use crate::report::words::{bytes, count, duration, millis, percent, until};
use crate::report::{
    CredentialKind as Kind, ProviderReport, Report, State, TunnelsReport, WindowReport,
};
use crate::visible::is_unseen;

/// The widest line, unless a single word is wider.
pub(crate) const WIDTH_MAX: usize = 80;
/// The fewest columns on a narrow terminal: name, state, time left.
const COLUMNS_LEAST: usize = 3;
/// The shortest width to which names are cut.
const NAME_LEAST: usize = 8;
/// The gap between columns.
const GAP: &str = "  ";
/// The indentation of remarks about a provider.
const INDENT: &str = "  ";
const HEADINGS: [&str; 7] =
    ["PROVIDER", "STATE", "TOKEN LEFT", "REFRESHES", "REQUESTS", "ERRORS", "P50"];

/// The look of a piece of text, as an SGR parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Bold,
    Faint,
    Fine,
    Busy,
    Warn,
    Bad,
}

impl Style {
    const fn of(state: State) -> Self {
        match state {
            State::Ready => Self::Fine,
            State::Refreshing => Self::Busy,
            State::Failing | State::CoolingDown => Self::Warn,
            State::Unavailable => Self::Bad,
            State::Disabled => Self::Faint,
        }
    }

    const fn parameter(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Faint => "2",
            Self::Fine => "32",
            Self::Busy => "36",
            Self::Warn => "33",
            Self::Bad => "31",
        }
    }
}

/// The report of the instance at `url` in lines of `width`; with colours where `is_coloured` holds.
pub(crate) fn render(report: &Report, url: &str, is_coloured: bool, width: usize) -> String {
    let paint = |text: &str, look: Style| match look.parameter() {
        parameter if is_coloured && !parameter.is_empty() => {
            format!("\x1b[{parameter}m{text}\x1b[0m")
        }
        _ => text.to_owned(),
    };
    let mut out = String::new();
    // Writing to a text does not fail.
    let _ = write_all(&mut out, report, &plain(url), &paint, width);
    out
}

fn write_all(
    out: &mut String,
    report: &Report,
    url: &str,
    paint: &dyn Fn(&str, Style) -> String,
    width: usize,
) -> fmt::Result {
    let (version, up) = (plain(&report.version), duration(report.uptime_seconds));
    let program = format!("evertoken {version}");
    let facts = format!("at {url}, up {up}, {} in flight", count(report.in_flight));
    let between = if program.width() + 1 + facts.width() <= width { ' ' } else { '\n' };
    let facts = wrapped(&facts, width).join("\n");
    writeln!(out, "{}{between}{facts}", paint(&program, Style::Bold))?;
    let look = if report.ready { Style::Plain } else { Style::Bad };
    writeln!(out, "{}", paint(&report.summary(), look))?;
    let store = report.token_store.iter();
    for text in store.flat_map(|store| store.problem.iter().chain(&store.warning)) {
        for piece in wrapped(&plain(text), width) {
            writeln!(out, "{}", paint(&piece, Style::Warn))?;
        }
    }
    for problem in certificate_problems(&report.listeners) {
        for piece in wrapped(&plain(problem), width) {
            writeln!(out, "{}", paint(&piece, Style::Warn))?;
        }
    }
    if let Some(failed) = &report.failed_reload {
        for text in [failed.summary(report.now)].iter().chain(&failed.problems) {
            for piece in wrapped(&plain(text), width) {
                writeln!(out, "{}", paint(&piece, Style::Warn))?;
            }
        }
    }
    writeln!(out)?;
    let mut rows: Vec<_> = report.providers.iter().map(cells).collect();
    let headings = HEADINGS.map(str::to_owned);
    let mut widths = [0; HEADINGS.len()];
    for row in rows.iter().chain([&headings]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    // The last columns give way.
    let others = |columns: usize| widths[1..columns].iter().map(|width| width + GAP.len()).sum();
    let fits = |columns: &usize| NAME_LEAST.min(widths[0]) + others(*columns) <= width;
    let columns = (COLUMNS_LEAST..=HEADINGS.len()).rev().find(fits).unwrap_or(COLUMNS_LEAST);
    widths[0] = widths[0].min(width.saturating_sub(others(columns)).max(NAME_LEAST));
    for row in &mut rows {
        row[0] = cut(&row[0], widths[0]);
    }
    writeln!(
        out,
        "{}",
        paint(line(&headings, &widths)[..columns].join(GAP).trim_end(), Style::Faint)
    )?;
    for (row, provider) in rows.iter().zip(&report.providers) {
        let mut cells = line(row, &widths);
        cells[1] = paint(&cells[1], Style::of(provider.state));
        writeln!(out, "{}", cells[..columns].join(GAP).trim_end())?;
        for (text, look) in remarks(provider, report) {
            for piece in wrapped(&plain(&text), width.saturating_sub(INDENT.len())) {
                writeln!(out, "{INDENT}{}", paint(&piece, look))?;
            }
        }
    }
    if !report.listeners.is_empty() {
        writeln!(out, "\n{}", paint("LISTENING ON", Style::Faint))?;
    }
    for listener in &report.listeners {
        for piece in wrapped(&plain(&listener.line(report.now)), width) {
            writeln!(out, "{piece}")?;
        }
    }
    Ok(())
}

/// The cells of a line, padded to their columns; words to the left, numbers to the right.
fn line(cells: &[String; 7], widths: &[usize; 7]) -> Vec<String> {
    let columns = cells.iter().zip(widths).enumerate();
    let fill = |(index, (cell, width)): (usize, (&String, &usize))| {
        let space = " ".repeat(width.saturating_sub(cell.width()));
        if index < 4 { format!("{cell}{space}") } else { format!("{space}{cell}") }
    };
    columns.map(fill).collect()
}

fn cells(provider: &ProviderReport) -> [String; 7] {
    let token = match (&provider.token, provider.credential) {
        (Some(token), _) => match token.expires_in_seconds {
            Some(left) if left > 0 => duration(u64::try_from(left).unwrap_or(0)),
            Some(_) => "expired".to_owned(),
            None => "no expiry".to_owned(),
        },
        (None, Kind::Refreshed | Kind::File | Kind::Stored | Kind::Missing) => "none".to_owned(),
        (None, Kind::Static) => "fixed".to_owned(),
        (None, Kind::Passthrough) => "client's".to_owned(),
        (None, Kind::None) => "-".to_owned(),
    };
    let refreshes = match (provider.credential, provider.refresh.failures) {
        (Kind::Refreshed, 0) => count(provider.refresh.successes),
        (Kind::Refreshed, failures) => {
            format!("{}, {} bad", count(provider.refresh.successes), count(failures))
        }
        _ => "-".to_owned(),
    };
    [
        plain(&provider.name),
        provider.state.words().to_owned(),
        token,
        refreshes,
        count(provider.requests.total),
        count(provider.requests.errors),
        provider.requests.first_byte.map_or_else(|| "-".to_owned(), |time| millis(time.p50_ms)),
    ]
}

/// The remarks about a provider.
fn remarks(provider: &ProviderReport, report: &Report) -> Vec<(String, Style)> {
    let mut remarks = Vec::new();
    if let Some(problem) = &provider.problem {
        remarks.push((problem.clone(), Style::of(provider.state)));
    }
    if let Some(until_at) = provider.cooldown_until {
        let left = until(until_at, report.now);
        remarks.push((format!("Passed over for {left} more."), Style::Plain));
    }
    if !provider.quota.is_empty() {
        let windows: Vec<_> = provider.quota.iter().map(|one| window(one, report.now)).collect();
        let is_used_up = provider.quota.iter().any(|one| one.used_up_until.is_some());
        let look = if is_used_up { Style::Warn } else { Style::Plain };
        remarks.push((format!("Quota: {}.", windows.join("; ")), look));
    }
    if provider.tunnels.open > 0 {
        let TunnelsReport { open, received_bytes, sent_bytes, .. } = provider.tunnels;
        let what = if open == 1 { "WebSocket" } else { "WebSockets" };
        let (open, received, sent) = (count(open), bytes(received_bytes), bytes(sent_bytes));
        remarks.push((format!("{open} {what} open; {received} in, {sent} out."), Style::Plain));
    }
    for one in &provider.resting_models {
        let (model, left) = (&one.model, until(one.until, report.now));
        remarks.push((format!("Passed over for {model} for {left} more."), Style::Plain));
    }
    if let Some(at) = provider.refresh.next_attempt_at.filter(|_| provider.problem.is_some()) {
        remarks.push((format!("Next try in {}.", until(at, report.now)), Style::Plain));
    }
    if let Some(advice) = &provider.advice {
        remarks.push((advice.clone(), Style::Plain));
    }
    let warnings = provider.warning.as_deref().into_iter().chain(provider.login_due());
    remarks.extend(warnings.map(|warning| (warning.to_owned(), Style::Warn)));
    remarks
}

/// `5h 73 % left, reset in 1 h 00 min`.
fn window(window: &WindowReport, now: Timestamp) -> String {
    let left = match (window.used_up_until, window.remaining_ratio) {
        (Some(_), _) => "used up".to_owned(),
        (None, Some(ratio)) => format!("{} left", percent(ratio)),
        (None, None) => "something left".to_owned(),
    };
    let reset = window.reset_at.or(window.used_up_until);
    let reset = reset.map_or_else(String::new, |at| format!(", reset in {}", until(at, now)));
    let model = window.model.as_ref().map_or_else(String::new, |model| format!(" of {model}"));
    format!("{}{model} {left}{reset}", window.window)
}

/// The text without characters that a terminal would obey, or that nobody sees.
fn plain(text: &str) -> String {
    let is_odd = |one: char| one.is_control() || is_unseen(one);
    text.chars().map(|one| if is_odd(one) { '\u{fffd}' } else { one }).collect()
}

fn cut(text: &str, most: usize) -> String {
    if text.width() <= most {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut width = 1;
    for character in text.chars() {
        width += character.width().unwrap_or(0);
        if width > most {
            break;
        }
        kept.push(character);
    }
    kept + "…"
}

/// Lines of at most `most` columns, broken at spaces.
pub(super) fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one from the start");
        if last.is_empty() {
            last.push_str(word);
        } else if last.width() + 1 + word.width() <= most {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests;
