//! Many streams: delays and memory side by side.

use crate::process::{Running, Usage};
use crate::proxies::{Kind, Subject};
use crate::report::{Bound, Figures, Table, short};
use crate::streams::{self, Shape};
use crate::suite::{Results, of};
use crate::{Outcome, Plan, plot};

/// The compared streams, and the streams that evertoken alone must hold.
const STREAMS: usize = 500;
const MANY_STREAMS: usize = 2000;

fn shape(plan: &Plan, streams: usize) -> Shape {
    let gap_ms = if streams > STREAMS { 500 } else { 200 };
    Shape { streams, events: if plan.is_short { 15 } else { 25 }, gap_ms }
}

/// Compares many streams, and makes evertoken hold more of them.
pub(super) fn many_streams(
    plan: &Plan,
    subjects: &[Subject],
    way: &str,
    results: &mut Results,
) -> Outcome<()> {
    let shape = shape(plan, STREAMS);
    let mut p50: Vec<_> = subjects.iter().map(|one| (one.kind, Figures::default())).collect();
    let (mut p99, mut pss, mut rss, mut whole, mut opening) =
        (p50.clone(), p50.clone(), p50.clone(), p50.clone(), p50.clone());
    for _ in 0..plan.rounds {
        for (index, subject) in subjects.iter().enumerate() {
            let mut during = Usage::default();
            let delays = streams::run(subject.address, shape, || {
                during = subject.running.as_ref().map(Running::usage).unwrap_or_default();
            })?;
            p50[index].1.0.push(delays.p50_us);
            p99[index].1.0.push(delays.p99_us);
            pss[index].1.0.push(during.pss_kib / 1024.0);
            rss[index].1.0.push(during.rss_kib / 1024.0);
            whole[index].1.0.push(f64::from(u32::try_from(delays.intact)?));
            opening[index].1.0.push(delays.open_ms);
        }
    }
    let mut table = Table::new([
        "through", "event delay p50 µs", "p99 µs", "RSS MB", "PSS MB", "all open after ms",
        "streams intact",
    ]);
    for (index, subject) in subjects.iter().enumerate() {
        table.row([
            subject.kind.name().to_owned(),
            p50[index].1.in_words(),
            p99[index].1.in_words(),
            rss[index].1.in_words(),
            pss[index].1.in_words(),
            opening[index].1.in_words(),
            whole[index].1.in_words(),
        ]);
    }
    let title =
        format!("{STREAMS} streams at once{way}, an event every {} ms on each", shape.gap_ms);
    results.section(&title, &table.markdown());
    let names = ["p50".to_owned(), "p99".to_owned()];
    let groups: Vec<_> = (0..subjects.len())
        .map(|index| {
            (
                subjects[index].kind.name().to_owned(),
                vec![p50[index].1.median(), p99[index].1.median()],
            )
        })
        .collect();
    let svg =
        plot::bars(&format!("Delay of an event on {STREAMS} streams{way}"), "µs", &names, &groups);
    results.plot(if way.is_empty() { "streams" } else { "streams-tls" }, "delay of an event", svg);
    for (kind, name) in [(Kind::Nginx, "nginx"), (Kind::Haproxy, "HAProxy")] {
        for (what, figures) in [("p50", &p50), ("p99", &p99)] {
            let ratio = of(figures, Kind::Evertoken).ratio_to(&of(figures, kind));
            results.target(
                format!("event delay {what} on {STREAMS} streams, of {name}'s{way}"),
                ratio,
                Bound::AtMost(1.0),
            );
        }
    }
    for kind in [Kind::Evertoken, Kind::Static] {
        results.target(
            format!("RSS of {} with {STREAMS} streams, of nginx's PSS{way}", kind.name()),
            of(&rss, kind).ratio_to(&of(&pss, Kind::Nginx)),
            Bound::AtMost(1.0),
        );
    }
    even_more(plan, subjects, way, results)
}

fn even_more(plan: &Plan, subjects: &[Subject], way: &str, results: &mut Results) -> Outcome<()> {
    let mut table =
        Table::new(["through", "event delay p50 µs", "p99 µs", "RSS MB", "threads", "intact"]);
    for subject in subjects {
        if !matches!(subject.kind, Kind::Evertoken | Kind::Static | Kind::Nginx | Kind::Relay) {
            continue;
        }
        let mut during = Usage::default();
        let delays = streams::run(subject.address, self::shape(plan, MANY_STREAMS), || {
            during = subject.running.as_ref().map(Running::usage).unwrap_or_default();
        })?;
        if matches!(subject.kind, Kind::Evertoken | Kind::Static) {
            let name = subject.kind.name();
            results.target(
                format!("{MANY_STREAMS} streams intact through {name}{way}"),
                Figures(vec![f64::from(u32::try_from(delays.intact)?)]),
                Bound::AtLeast(f64::from(u32::try_from(MANY_STREAMS)?)),
            );
            results.target(
                format!("RSS of {name} with {MANY_STREAMS} streams{way}, MB"),
                Figures(vec![during.rss_kib / 1024.0]),
                Bound::AtMost(80.0),
            );
        }
        table.row([
            subject.kind.name().to_owned(),
            short(delays.p50_us),
            short(delays.p99_us),
            short(during.rss_kib / 1024.0),
            during.threads.to_string(),
            delays.intact.to_string(),
        ]);
    }
    results.section(&format!("{MANY_STREAMS} streams at once{way}"), &table.markdown());
    Ok(())
}
