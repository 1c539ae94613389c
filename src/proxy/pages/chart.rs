//! The last refreshes as a small chart, and as a list. Pure.

use std::fmt::{self, Write};

use crate::clock::Timestamp;
use crate::report::words::{millis, time};
use crate::token::history::{History, REFRESHES_KEPT_MAX, Refreshed, Trouble};

/// Width of one refresh, and height of the chart, in the chart's own units.
const SLOT: usize = 10;
const HEIGHT: u64 = 40;
/// The least height of a bar, so that a quick refresh is visible.
const LEAST: u64 = 6;

/// One bar for each refresh, the newest at the right, with its duration as height; a failed one has another colour
/// and a mark on top.
pub(super) fn draw(out: &mut String, history: &History, now: Timestamp) -> fmt::Result {
    let longest = history.iter().map(|one| one.took_ms).max().unwrap_or(0);
    let width = SLOT * REFRESHES_KEPT_MAX;
    write!(
        out,
        "<svg class=\"chart\" viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"{}\">",
        in_words(history, longest)
    )?;
    let empty = REFRESHES_KEPT_MAX - history.iter().len();
    for slot in 0..empty {
        let (x, y) = (slot * SLOT + 1, HEIGHT - 2);
        write!(out, "<rect class=\"none\" x=\"{x}\" y=\"{y}\" width=\"8\" height=\"2\"/>")?;
    }
    for (index, refreshed) in history.iter().enumerate() {
        bar(out, (empty + index) * SLOT + 1, refreshed, longest, now)?;
    }
    write!(out, "</svg>")?;
    if let Some((first, last)) = history.iter().next().zip(history.iter().last()) {
        write!(
            out,
            "<p class=\"scale muted\"><span>{}</span><span>max {}</span><span>{} UTC</span></p>",
            time(first.at, now),
            millis(longest),
            time(last.at, now)
        )?;
    }
    Ok(())
}

fn bar(
    out: &mut String,
    x: usize,
    refreshed: &Refreshed,
    longest: u64,
    now: Timestamp,
) -> fmt::Result {
    let class = if refreshed.trouble.is_some() { "bad" } else { "fine" };
    // A mark takes the topmost tenth.
    let most = HEIGHT - 6;
    let height = (refreshed.took_ms * most).checked_div(longest).unwrap_or(0).clamp(LEAST, most);
    write!(
        out,
        "<g class=\"{class}\"><title>{} UTC: {}</title><rect x=\"{x}\" y=\"{}\" width=\"8\" \
         height=\"{height}\"/>",
        time(refreshed.at, now),
        outcome(refreshed),
        HEIGHT - height
    )?;
    if refreshed.trouble.is_some() {
        write!(out, "<rect x=\"{x}\" y=\"0\" width=\"8\" height=\"4\"/>")?;
    }
    write!(out, "</g>")
}

fn in_words(history: &History, longest: u64) -> String {
    let count = history.iter().len();
    let failed = history.iter().filter(|one| one.trouble.is_some()).count();
    let longest = millis(longest);
    format!("The last {count} refreshes: {failed} failed, the longest took {longest}")
}

/// A table, the newest first.
pub(super) fn list(out: &mut String, history: &History, now: Timestamp) -> fmt::Result {
    write!(
        out,
        "<table><thead><tr><th scope=\"col\">UTC</th><th scope=\"col\">Took</th><th \
         scope=\"col\">Outcome</th></tr></thead><tbody>"
    )?;
    for refreshed in history.iter().rev() {
        let class = if refreshed.trouble.is_some() { "bad" } else { "fine" };
        write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"{class}\">{}</td></tr>",
            time(refreshed.at, now),
            millis(refreshed.took_ms),
            refreshed.trouble.map_or("succeeded", words)
        )?;
    }
    write!(out, "</tbody></table>")
}

fn outcome(refreshed: &Refreshed) -> String {
    let took = millis(refreshed.took_ms);
    match refreshed.trouble {
        None => format!("succeeded in {took}"),
        Some(trouble) => format!("failed after {took}, {}", words(trouble)),
    }
}

const fn words(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Missing => "a secret is missing",
        Trouble::LoginNeeded => "no login yet",
        Trouble::Unreachable => "no connection",
        Trouble::OutOfResources => "descriptors, threads or memory ran out",
        Trouble::NoMetadata => "the issuer's metadata is not known",
        Trouble::NoAnswer => "no answer",
        Trouble::NotAToken => "no token in the answer",
        Trouble::NoBearer => "another provider has no token",
        Trouble::CommandFails => "the command failed",
        Trouble::Throttled => "asked too often",
        Trouble::IssuerFails => "a fault of the issuer",
        Trouble::TokenDead => "the refresh token is refused",
        Trouble::AnswerLost => "the refresh token is refused, an answer was lost",
        Trouble::ClientRefused => "the client is refused",
        Trouble::RequestRefused => "the form of the request is refused",
        Trouble::ScopeRefused => "the scope is refused",
        Trouble::AssertionRefused => "the assertion is refused",
        Trouble::ClockOff => "this machine's clock is off",
        Trouble::SubjectEnded => "the token to exchange has ended",
        Trouble::WrongUrl => "no token endpoint there",
        Trouble::StoreAway => "the token store can't be used",
        Trouble::NoReason => "refused without a reason",
        Trouble::Refused => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(took: &[(u64, Option<Trouble>)]) -> String {
        let now = Timestamp::from_secs(1_800_000_000);
        let mut history = History::default();
        for &(took_ms, trouble) in took {
            history.push(Refreshed { at: now, took_ms, trouble });
        }
        let mut out = String::new();
        draw(&mut out, &history, now).unwrap();
        out
    }

    #[test]
    fn bars_are_as_high_as_a_refresh_took_long() {
        let chart = drawn(&[(500, None), (1000, None), (1, Some(Trouble::TokenDead))]);
        assert_eq!(chart.matches("class=\"none\"").count(), REFRESHES_KEPT_MAX - 3);
        assert!(chart.contains("x=\"291\" y=\"23\" width=\"8\" height=\"17\""));
        assert!(chart.contains("x=\"301\" y=\"6\" width=\"8\" height=\"34\""));
        assert!(chart.contains("x=\"311\" y=\"34\" width=\"8\" height=\"6\""));
        assert!(chart.contains("x=\"311\" y=\"0\" width=\"8\" height=\"4\""), "the mark");
        assert!(chart.contains("The last 3 refreshes: 1 failed, the longest took 1.0 s"));
        assert!(chart.contains("failed after 1 ms, the refresh token is refused"));
    }

    #[test]
    fn instant_ones_can_be_drawn_too() {
        assert!(drawn(&[(0, None)]).contains("height=\"6\""));
    }
}
