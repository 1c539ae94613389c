//! evertoken's cost at rest, and its size.

use crate::mock::Mock;
use crate::proxies::Kind;
use crate::report::{Bound, Figures, Table, short};
use crate::suite::Results;
use crate::{Outcome, Plan, size};

/// The streams of a burst.
const BURST: usize = 500;

/// Measures evertoken at rest.
pub(super) fn rest(plan: &Plan, mock: &Mock, results: &mut Results) -> Outcome<()> {
    let mut table = Table::new(["idle", "RSS MB", "PSS MB", "threads", "wake-ups in 30 s"]);
    for (kind, most_mb) in [(Kind::Evertoken, 4.5), (Kind::Static, 3.0)] {
        let Ok(idle) = size::idle(kind, plan, mock) else { continue };
        let name = kind.name();
        let rss_mb = Figures(vec![idle.rss_kib / 1024.0]);
        table.row([
            name.to_owned(),
            rss_mb.in_words(),
            short(idle.pss_kib / 1024.0),
            idle.threads.to_string(),
            short(idle.wakes_per_30s),
        ]);
        results.target(format!("RSS idle, MB: {name}"), rss_mb, Bound::AtMost(most_mb));
        results.target(
            format!("wake-ups in 30 s idle: {name}"),
            Figures(vec![idle.wakes_per_30s]),
            Bound::AtMost(1.0),
        );
    }
    let starts = size::starts()?;
    let text = format!(
        "{}\n\nFrom the start of the process to its line that it listens: {} ms.",
        table.markdown(),
        starts.in_words()
    );
    results.section("At rest", &text);
    results.target("start to listening, ms", starts, Bound::AtMost(10.0));
    Ok(())
}

/// Measures evertoken around a burst of streams over TLS.
pub(super) fn burst(mock: &Mock, results: &mut Results) -> Outcome<()> {
    let mut table = Table::new(["through", "RSS MB before", "during", "a minute after their end"]);
    for kind in [Kind::Evertoken, Kind::Static] {
        if kind.program().is_err() {
            continue;
        }
        let burst = size::burst(kind, BURST, mock)?;
        let name = kind.name();
        let megabytes = |kib: f64| kib / 1024.0;
        table.row([
            name.to_owned(),
            short(megabytes(burst.before)),
            short(megabytes(burst.during)),
            short(megabytes(burst.after)),
        ]);
        results.target(
            format!("RSS of {name} with {BURST} streams over TLS, MB"),
            Figures(vec![megabytes(burst.during)]),
            Bound::AtMost(24.0),
        );
        results.target(
            format!("growth of RSS of {name} by {BURST} streams over TLS, a minute after, MB"),
            Figures(vec![megabytes(burst.after - burst.before)]),
            Bound::AtMost(3.0),
        );
    }
    results.section(
        &format!("A burst of {BURST} streams over TLS to the provider"),
        &table.markdown(),
    );
    Ok(())
}

/// Measures the binary, and builds it from nothing.
pub(super) fn sizes(results: &mut Results) -> Outcome<()> {
    let [own, fixed] = size::binaries()?;
    let seconds = size::build()?;
    let megabytes = |bytes: f64| bytes / 1e6;
    let text = format!(
        "The stripped release binary has {} MB, the static one {} MB. `cargo build --release` from nothing takes {} s.",
        short(megabytes(own)),
        short(megabytes(fixed)),
        short(seconds)
    );
    results.section("Binary and build", &text);
    results.target("static binary, MB", Figures(vec![megabytes(fixed)]), Bound::AtMost(4.4));
    results.target("release build from nothing, s", Figures(vec![seconds]), Bound::AtMost(90.0));
    Ok(())
}
