//! WebSockets side by side.

use std::time::Duration;

use crate::mock::Mock;
use crate::process::Running;
use crate::proxies::{Kind, Setting, start};
use crate::report::{Bound, Figures, Table};
use crate::suite::{Results, of, way};
use crate::time::sleep;
use crate::websockets::{MESSAGE_BYTES, open, round_trips};
use crate::{Outcome, Plan};

/// The WebSockets that are open at once.
const OPEN: usize = 500;
/// The messages of a round.
const MESSAGES: usize = 3000;
/// The silence before their memory is read.
const SILENCE: Duration = Duration::from_secs(2);

/// Compares the time of a message, and the memory of many WebSockets.
pub(super) fn websockets(
    plan: &Plan,
    kinds: &[Kind],
    with_tls: bool,
    results: &mut Results,
) -> Outcome<()> {
    let mock = Mock::start()?;
    let is_compared = |kind: &&Kind| {
        matches!(
            **kind,
            Kind::Direct | Kind::Evertoken | Kind::Static | Kind::Nginx | Kind::Haproxy
        )
    };
    let subjects = kinds
        .iter()
        .filter(is_compared)
        .map(|kind| start(*kind, &mock, Setting { with_tls, ..Setting::default() }));
    let subjects = subjects.collect::<Outcome<Vec<_>>>()?;
    let mut p50: Vec<_> = subjects.iter().map(|one| (one.kind, Figures::default())).collect();
    let (mut p99, mut rss, mut pss) = (p50.clone(), p50.clone(), p50.clone());
    for _ in 0..plan.rounds {
        for (index, subject) in subjects.iter().enumerate() {
            let [half, most] = round_trips(subject.address, MESSAGES)?;
            p50[index].1.0.push(half);
            p99[index].1.0.push(most);
        }
    }
    for (index, subject) in subjects.iter().enumerate() {
        let all = (0..OPEN).map(|_| open(subject.address)).collect::<Outcome<Vec<_>>>()?;
        sleep(SILENCE);
        let usage = subject.running.as_ref().map(Running::usage).unwrap_or_default();
        rss[index].1.0.push(usage.rss_kib / 1024.0);
        pss[index].1.0.push(usage.pss_kib / 1024.0);
        drop(all);
    }
    let rss_column = format!("RSS MB with {OPEN} open");
    let mut table =
        Table::new(["through", "there and back p50 µs", "p99 µs", &rss_column, "PSS MB"]);
    for (index, subject) in subjects.iter().enumerate() {
        let memory = |figures: &Figures| {
            if subject.running.is_some() { figures.in_words() } else { "–".to_owned() }
        };
        table.row([
            subject.kind.name().to_owned(),
            p50[index].1.in_words(),
            p99[index].1.in_words(),
            memory(&rss[index].1),
            memory(&pss[index].1),
        ]);
    }
    let way = way(with_tls);
    let title =
        format!("WebSockets{way}: a message of {MESSAGE_BYTES} bytes, and {OPEN} that are silent");
    results.section(&title, &table.markdown());
    let ratio = of(&p50, Kind::Evertoken).ratio_to(&of(&p50, Kind::Nginx));
    // Rounds differ by more than the two do.
    let what = format!("time of a WebSocket message, of nginx's{way}");
    results.target(what, ratio, Bound::AtMost(1.1));
    for kind in [Kind::Evertoken, Kind::Static] {
        let name = kind.name();
        let own = of(&rss, kind);
        results.target(
            format!("RSS of {name} with {OPEN} silent WebSockets, of nginx's PSS{way}"),
            own.ratio_to(&of(&pss, Kind::Nginx)),
            Bound::AtMost(1.0),
        );
        if !with_tls {
            let what = format!("RSS of {name} with {OPEN} silent WebSockets, MB");
            results.target(what, own, Bound::AtMost(20.0));
        }
    }
    Ok(())
}
