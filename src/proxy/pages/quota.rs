//! What is left of a provider's quota, as bars on the page. Pure.

use std::fmt::{self, Write};

use crate::clock::Timestamp;
use crate::report::WindowReport;
use crate::report::html::Text;
use crate::report::words::{percent, until};

/// Below this share a bar shows that little is left.
const LOW_RATIO: f64 = 0.1;

/// A line and a bar for each window.
pub(super) fn bars(out: &mut String, windows: &[WindowReport], now: Timestamp) -> fmt::Result {
    for one in windows {
        let name = Text(&one.window);
        write!(out, "<p class=\"line\"><span>{name}")?;
        if let Some(model) = &one.model {
            write!(out, " of <code>{}</code>", Text(model))?;
        }
        write!(out, ": ")?;
        match (one.used_up_until, one.remaining_ratio) {
            (Some(_), _) => write!(out, "<b>used up</b></span>")?,
            (None, Some(ratio)) => write!(out, "<b>{}</b> left</span>", percent(ratio))?,
            (None, None) => write!(out, "something left</span>")?,
        }
        if let Some(at) = one.reset_at.or(one.used_up_until) {
            let (ms, left) = (at.as_millis(), until(at, now));
            write!(
                out,
                " <span class=\"muted\">reset in <span class=\"n\" data-until=\"{ms}\">{left}</span></span>"
            )?;
        }
        write!(out, "</p>")?;
        if let Some(ratio) = one.remaining_ratio {
            bar(out, ratio)?;
        }
    }
    Ok(())
}

fn bar(out: &mut String, ratio: f64) -> fmt::Result {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a share of 1"
    )]
    let thousandths = (ratio.clamp(0.0, 1.0) * 1000.0).round() as u32;
    let class = if ratio < LOW_RATIO { "left low" } else { "left" };
    write!(
        out,
        "<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect \
         class=\"all\" width=\"1000\" height=\"10\"/><rect class=\"{class}\" width=\"{thousandths}\" \
         height=\"10\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_for_each_window() {
        let now = Timestamp::from_secs(1_800_000_000);
        let window = |name: &str, remaining_ratio, reset_at, used_up_until| WindowReport {
            window: name.to_owned(),
            model: None,
            remaining_ratio,
            reset_at,
            used_up_until,
            stated_at: now,
        };
        let (soon, later) = (Some(now.plus_millis(90_000)), Some(now.plus_millis(3_600_000)));
        let shown = |one| {
            let mut out = String::new();
            bars(&mut out, &[one], now).unwrap();
            out
        };
        let cases = [
            (
                window("5h", Some(0.734), later, None),
                "<b>73 %</b> left",
                "reset in <span class=\"n\" data-until=\"1800003600000\">1 h 00 min<",
                "class=\"left\" width=\"734\"",
            ),
            (
                window("7d", Some(0.0), later, soon),
                "<b>used up</b>",
                "1 h 00 min",
                "class=\"left low\" width=\"0\"",
            ),
            (window("<b>", None, None, soon), "&lt;b&gt;: <b>used up</b>", "1 min 30 s", "</p>"),
            (window("x", None, None, None), "something left", "</span></p>", "</p>"),
        ];
        for (window, words, reset, bar) in cases {
            let shown = shown(window);
            for part in [words, reset, bar] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
        }
        let of_model = WindowReport {
            model: Some("m<1>".to_owned()),
            ..window("tokens", Some(0.5), later, None)
        };
        let words = "tokens of <code>m&lt;1&gt;</code>: <b>50 %</b> left";
        assert!(shown(of_model).contains(words), "{words}");
    }
}
