//! Large bodies: speeds and memory side by side.

use crate::bodies::{self, LARGE_BYTES};
use crate::process::Running;
use crate::proxies::{Kind, Subject};
use crate::report::{Bound, Figures, Table};
use crate::suite::{Results, of};
use crate::{Outcome, Plan};

/// Compares large bodies.
pub(super) fn large(
    plan: &Plan,
    subjects: &[Subject],
    way: &str,
    results: &mut Results,
) -> Outcome<()> {
    let mut down: Vec<_> = subjects.iter().map(|one| (one.kind, Figures::default())).collect();
    let (mut up, mut growth) = (down.clone(), down.clone());
    for _ in 0..plan.rounds * 2 {
        for (index, subject) in subjects.iter().enumerate() {
            // The bare relay takes a request for whole that comes in one piece.
            if subject.kind == Kind::Relay {
                continue;
            }
            let before = subject.running.as_ref().map(Running::usage).unwrap_or_default();
            down[index].1.0.push(bodies::download(subject)?);
            up[index].1.0.push(bodies::upload(subject)?);
            let after = subject.running.as_ref().map(Running::usage).unwrap_or_default();
            growth[index].1.0.push((after.peak_kib - before.peak_kib) / 1024.0);
        }
    }
    let mut table = Table::new([
        "through", "answer MB/s", "of nginx's", "request MB/s", "of nginx's", "peak RSS grew by MB",
    ]);
    for (index, subject) in
        subjects.iter().enumerate().filter(|(index, _)| !down[*index].1.0.is_empty())
    {
        let nginx = |figures: &[(Kind, Figures)]| {
            figures[index].1.ratio_to(&of(figures, Kind::Nginx)).in_words()
        };
        table.row([
            subject.kind.name().to_owned(),
            down[index].1.in_words(),
            nginx(&down),
            up[index].1.in_words(),
            nginx(&up),
            growth[index].1.in_words(),
        ]);
    }
    results.section(&format!("Bodies of {} MB{way}", LARGE_BYTES / 1024 / 1024), &table.markdown());
    for (what, figures) in [("answers", &down), ("requests", &up)] {
        let ratio = of(figures, Kind::Evertoken).ratio_to(&of(figures, Kind::Nginx));
        results.target(
            format!("speed of 50 MB {what}, of nginx's{way}"),
            ratio,
            Bound::AtLeast(1.0),
        );
    }
    results.target(
        format!("growth of RSS by 50 MB bodies{way}, MB"),
        of(&growth, Kind::Evertoken),
        Bound::AtMost(1.0),
    );
    Ok(())
}
