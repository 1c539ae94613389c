//! What evertoken takes at rest, and how large it is.

use crate::mock::Mock;
use crate::report::{Bound, Figures, short};
use crate::suite::Results;
use crate::{Outcome, Plan, size};

/// Looks at evertoken at rest.
pub(super) fn rest(plan: &Plan, mock: &Mock, results: &mut Results) -> Outcome<()> {
    let idle = size::idle(plan, mock)?;
    let starts = size::starts()?;
    let text = format!(
        "Idle after a request: {} MB resident ({} MB PSS), {} threads, {} wake-ups in 30 s. From the start of the process to its line \
         that it listens: {} ms.",
        short(idle.rss_kib / 1024.0),
        short(idle.pss_kib / 1024.0),
        idle.threads,
        short(idle.wakes_per_30s),
        starts.in_words()
    );
    results.section("At rest", &text);
    results.target("RSS idle, MB", Figures(vec![idle.rss_kib / 1024.0]), Bound::AtMost(4.0));
    results.target("wake-ups in 30 s idle", Figures(vec![idle.wakes_per_30s]), Bound::AtMost(1.0));
    results.target("start to listening, ms", starts, Bound::AtMost(10.0));
    Ok(())
}

/// Looks at the binary, and builds it from nothing.
pub(super) fn sizes(results: &mut Results) -> Outcome<()> {
    let [own, fixed] = size::binaries()?;
    let seconds = size::build()?;
    let megabytes = |bytes: f64| bytes / 1024.0 / 1024.0;
    let text = format!(
        "The stripped release binary has {} MB, one that needs no library {} MB. `cargo build --release` from nothing takes {} s.",
        short(megabytes(own)),
        short(megabytes(fixed)),
        short(seconds)
    );
    results.section("Binary and build", &text);
    results.target("static binary, MB", Figures(vec![megabytes(fixed)]), Bound::AtMost(4.0));
    results.target("release build from nothing, s", Figures(vec![seconds]), Bound::AtMost(90.0));
    Ok(())
}
