//! Small requests: rates, times and costs side by side.

use crate::mock::Mock;
use crate::plain::{self, Round};
use crate::proxies::{Kind, Setting, start};
use crate::report::{Bound, Figures, Table};
use crate::suite::{Results, way};
use crate::{Outcome, Plan, plot};

/// The connections under which small requests are measured.
const CONNECTIONS: [usize; 3] = [1, 32, 256];

/// The factor for the rounds of small requests. One start of a program differs from the next, by the placement of its
/// memory and threads, more than most programs differ from each other, so each round has its own starts.
const MORE: usize = 3;

/// The rounds of each kind, in the same order.
type All = [(Kind, Vec<Round>)];

/// Compares small requests, through each kind in turn.
pub(super) fn small(
    plan: &Plan,
    kinds: &[Kind],
    with_tls: bool,
    results: &mut Results,
) -> Outcome<()> {
    let way = way(with_tls);
    let mut table = Table::new([
        "connections", "through", "requests/s", "of nginx's", "p50 µs", "p99 µs",
        "CPU µs a request", "of nginx's", "of it user's",
    ]);
    let mut groups = Vec::new();
    for connections in CONNECTIONS {
        let all = measure(plan, kinds, with_tls, connections)?;
        for kind in kinds {
            table.row(cells(connections, *kind, &all));
        }
        targets(connections, way, &all, results);
        let rates = kinds.iter().map(|kind| figures(&all, *kind, |one| one.per_second).median());
        groups.push((connections.to_string(), rates.collect()));
    }
    let title = format!("Small requests{way}: POST 1 KB, answer 1 KB, kept connections");
    results.section(&title, &table.markdown());
    let names: Vec<String> = kinds.iter().map(|kind| kind.name().to_owned()).collect();
    let svg = plot::bars(
        &format!("Requests a second by connections{way}"),
        "requests/s",
        &names,
        &groups,
    );
    results.plot(if with_tls { "tls" } else { "plain" }, "requests a second", svg);
    Ok(())
}

/// All rounds. Provider and proxies are started anew for each round, and a different kind begins each time.
fn measure(
    plan: &Plan,
    kinds: &[Kind],
    with_tls: bool,
    connections: usize,
) -> Outcome<Vec<(Kind, Vec<Round>)>> {
    let mut all: Vec<_> = kinds.iter().map(|kind| (*kind, Vec::new())).collect();
    for number in 0..plan.rounds * MORE {
        let mock = Mock::start()?;
        let (last, first) = all.split_at_mut(number % kinds.len());
        for (kind, rounds) in first.iter_mut().chain(last) {
            let subject = start(*kind, &mock, Setting { with_tls, ..Setting::default() })?;
            let round = plain::round(&subject, connections, plan.round)?;
            if round.errors > 0.0 {
                let name = kind.name();
                return Err(format!("{name} answered {} requests with errors", round.errors).into());
            }
            rounds.push(round);
        }
    }
    Ok(all)
}

fn figures(all: &All, kind: Kind, figure: fn(&Round) -> f64) -> Figures {
    let rounds = all.iter().find(|(own, _)| *own == kind).map(|(_, rounds)| rounds.as_slice());
    Figures(rounds.unwrap_or_default().iter().map(figure).collect())
}

fn cells(connections: usize, kind: Kind, all: &All) -> [String; 9] {
    let own = |figure| figures(all, kind, figure);
    let of_nginx = |figure| own(figure).ratio_to(&figures(all, Kind::Nginx, figure)).in_words();
    let [cost, cost_ratio, user_cost] = if kind == Kind::Direct {
        ["–"; 3].map(str::to_owned)
    } else {
        let cost = |one: &Round| one.cpu_us;
        [own(cost).in_words(), of_nginx(cost), own(|one| one.user_us).in_words()]
    };
    [
        connections.to_string(),
        kind.name().to_owned(),
        own(|one| one.per_second).in_words(),
        of_nginx(|one| one.per_second),
        own(|one| one.p50_us).in_words(),
        own(|one| one.p99_us).in_words(),
        cost,
        cost_ratio,
        user_cost,
    ]
}

fn targets(connections: usize, way: &str, all: &All, results: &mut Results) {
    let of = |kind, figure| figures(all, kind, figure);
    let ratio = |figure| of(Kind::Evertoken, figure).ratio_to(&of(Kind::Nginx, figure));
    let p50_us = |one: &Round| one.p50_us;
    match connections {
        1 => {
            let direct = of(Kind::Direct, p50_us);
            let added = |kind| of(kind, p50_us).less(&direct);
            let (what, measured) = if direct.0.is_empty() {
                ("p50 at 1 connection, of nginx's", ratio(p50_us))
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
                ratio(|one| one.per_second),
                Bound::AtLeast(1.0),
            );
            results.target(
                format!("CPU a request at 32 connections, of nginx's{way}"),
                ratio(|one| one.cpu_us),
                Bound::AtMost(1.2),
            );
        }
        _ => results.target(
            format!("requests/s at 256 connections, of nginx's{way}"),
            ratio(|one| one.per_second),
            Bound::AtLeast(0.8),
        ),
    }
}
