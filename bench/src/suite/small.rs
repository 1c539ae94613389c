//! Small requests: rates, times and costs side by side.

use crate::plain;
use crate::proxies::{Kind, Subject};
use crate::report::{Bound, Figures, Table};
use crate::suite::{Results, of};
use crate::{Outcome, Plan, plot};

/// Connections under which small requests are measured.
const CONNECTIONS: [usize; 3] = [1, 32, 256];

/// How many times as long as others these rounds are: each begins with new connections, for which a
/// proxy with threads makes new ones, and that should not be most of what is measured.
const LONGER: u32 = 2;

/// Compares small requests, through each subject in turn.
pub(super) fn small(
    plan: &Plan,
    subjects: &[Subject],
    way: &str,
    results: &mut Results,
) -> Outcome<()> {
    let mut table = Table::new([
        "connections",
        "through",
        "requests/s",
        "of nginx's",
        "p50 µs",
        "p99 µs",
        "CPU µs a request",
        "of nginx's",
        "of it user's",
    ]);
    let mut groups = Vec::new();
    for connections in CONNECTIONS {
        let empty =
            || subjects.iter().map(|one| (one.kind, Figures::default())).collect::<Vec<_>>();
        let (mut rates, mut medians, mut tails) = (empty(), empty(), empty());
        let (mut costs, mut in_user) = (empty(), empty());
        for _ in 0..plan.rounds {
            for (index, subject) in subjects.iter().enumerate() {
                let round = plain::round(subject, connections, plan.round * LONGER)?;
                if round.errors > 0.0 {
                    return Err(format!(
                        "{} answered {} requests with errors",
                        subject.kind.name(),
                        round.errors
                    )
                    .into());
                }
                rates[index].1.0.push(round.per_second);
                medians[index].1.0.push(round.p50_us);
                tails[index].1.0.push(round.p99_us);
                costs[index].1.0.push(round.cpu_us);
                in_user[index].1.0.push(round.user_us);
            }
        }
        for (index, subject) in subjects.iter().enumerate() {
            let nginx = |figures: &[(Kind, Figures)]| {
                figures[index].1.ratio_to(&of(figures, Kind::Nginx)).in_words()
            };
            let cost = match subject.kind {
                Kind::Direct => ["–"; 3].map(str::to_owned),
                _ => [costs[index].1.in_words(), nginx(&costs), in_user[index].1.in_words()],
            };
            let [cost, cost_ratio, user_cost] = cost;
            table.row([
                connections.to_string(),
                subject.kind.name().to_owned(),
                rates[index].1.in_words(),
                nginx(&rates),
                medians[index].1.in_words(),
                tails[index].1.in_words(),
                cost,
                cost_ratio,
                user_cost,
            ]);
        }
        targets(connections, way, [&rates, &medians, &costs], results);
        groups.push((
            format!("{connections}"),
            rates.iter().map(|(_, figures)| figures.median()).collect(),
        ));
    }
    let title = format!("Small requests{way}: POST 1 KB, answer 1 KB, kept connections");
    results.section(&title, &table.markdown());
    let names: Vec<String> = subjects.iter().map(|one| one.kind.name().to_owned()).collect();
    let svg = plot::bars(
        &format!("Requests a second by connections{way}"),
        "requests/s",
        &names,
        &groups,
    );
    results.plot(if way.is_empty() { "plain" } else { "tls" }, "requests a second", svg);
    Ok(())
}

/// Figures of each subject.
type All = [(Kind, Figures)];

fn targets(
    connections: usize,
    way: &str,
    [rates, medians, costs]: [&All; 3],
    results: &mut Results,
) {
    let ratio = |figures: &All| of(figures, Kind::Evertoken).ratio_to(&of(figures, Kind::Nginx));
    match connections {
        1 => {
            let direct = of(medians, Kind::Direct);
            let added = |kind| {
                Figures(
                    of(medians, kind)
                        .0
                        .iter()
                        .zip(&direct.0)
                        .map(|(own, direct)| own - direct)
                        .collect(),
                )
            };
            let (what, measured) = if direct.0.is_empty() {
                ("p50 at 1 connection, of nginx's", ratio(medians))
            } else {
                (
                    "added p50 at 1 connection, of nginx's",
                    added(Kind::Evertoken).ratio_to(&added(Kind::Nginx)),
                )
            };
            results.target(format!("{what}{way}"), measured, Bound::AtMost(1.0));
        }
        32 => {
            results.target(
                format!("requests/s at 32 connections, of nginx's{way}"),
                ratio(rates),
                Bound::AtLeast(1.0),
            );
            results.target(
                format!("CPU a request at 32 connections, of nginx's{way}"),
                ratio(costs),
                Bound::AtMost(1.2),
            );
        }
        _ => results.target(
            format!("requests/s at 256 connections, of nginx's{way}"),
            ratio(rates),
            Bound::AtLeast(0.8),
        ),
    }
}
