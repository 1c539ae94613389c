//! Programs as people run them: evertoken with its defaults, and a line for each request in a log; before the bench's own
//! provider, before nginx, and before one that is far away.

use std::time::Duration;

use crate::mock::Mock;
use crate::plain::{self, Round};
use crate::proxies::{Kind, Setting, Subject, start};
use crate::report::{Bound, Figures, Table};
use crate::suite::Results;
use crate::{Outcome, Plan, oha, providers};

/// The connections of clients that ask again as soon as they have an answer.
const CONNECTIONS: [usize; 3] = [1, 32, 256];
/// Requests a second at a constant rate.
const RATES: [u32; 3] = [1000, 4000, 8000];
/// The connections over which those come, and those of the far provider.
const RATE_CONNECTIONS: usize = 64;
/// The way to the far provider takes so long in each direction.
const FAR_MILLISECONDS: u64 = 20;
/// About the requests a second that those connections come to, which wait for twice that long.
const FAR_RATE: u32 = 1500;
/// The least share of a constant rate that counts as that rate.
const RATE_LEAST: f64 = 0.98;
/// The tries for a round without an error, since other load on the machine may spoil one.
const TRIES_MAX: usize = 3;
/// The requests of a round at a known rate: p99.9 is the time of the tenth slowest.
const STEADY_REQUESTS: u32 = 10_000;
/// The time for which the slowest requests are looked for.
const TAIL: Duration = Duration::from_secs(3);

/// The programs that are compared, in the order of the tables; the log of the one at WARN has no line for a request.
const COMPARED: [(Kind, bool); 7] = [
    (Kind::Evertoken, true),
    (Kind::Evertoken, false),
    (Kind::Static, true),
    (Kind::Nginx, true),
    (Kind::Haproxy, true),
    (Kind::Relay, false),
    (Kind::BusyRelay, false),
];

/// One program, and its rounds.
struct Measured {
    kind: Kind,
    as_shipped: bool,
    rounds: Vec<Round>,
}

impl Measured {
    fn name(&self) -> String {
        match (self.kind, self.as_shipped) {
            (Kind::Evertoken, false) => "evertoken at WARN".to_owned(),
            (kind, _) => kind.name().to_owned(),
        }
    }
}

/// Compares them before each provider, plainly and over TLS.
pub(super) fn shipped(plan: &Plan, kinds: &[Kind], results: &mut Results) -> Outcome<()> {
    for (provider, words) in [
        (Mock::start as fn() -> _, "the bench's provider"),
        (providers::nginx, "nginx as provider"),
    ] {
        for with_tls in [false, true] {
            let mock = provider()?;
            let way = if with_tls { format!("{words}, over TLS") } else { words.to_owned() };
            let setting = Setting { with_tls, ..Setting::default() };
            closed(plan, kinds, (&mock, &way, setting), results)?;
            if !with_tls {
                constant(plan, kinds, (&mock, &way, setting), results)?;
            }
        }
    }
    for with_tls in [false, true] {
        let near = providers::nginx()?;
        let far = providers::far(&near, FAR_MILLISECONDS)?;
        let over = if with_tls { ", over TLS" } else { "" };
        let way = format!("nginx as provider, {FAR_MILLISECONDS} ms away each way{over}");
        let setting = Setting { with_tls, ..Setting::default() };
        distant(plan, kinds, (&far, &way, setting), results)?;
    }
    Ok(())
}

/// Clients that ask again as soon as they have an answer.
fn closed(
    plan: &Plan,
    kinds: &[Kind],
    (mock, way, setting): (&Mock, &str, Setting<'_>),
    results: &mut Results,
) -> Outcome<()> {
    let mut table = table("connections");
    for connections in CONNECTIONS {
        let work = work(plan, kinds, mock, setting, connections)?;
        let setting = Setting { work: work.unwrap_or_default(), ..setting };
        let kinds: Vec<_> = kinds.iter().copied().chain(work.map(|_| Kind::BusyRelay)).collect();
        let all = measure(plan, &kinds, mock, setting, |subject| {
            let round = plain::round(subject, connections, plan.round)?;
            // wrk counts each slow request several times, for those that would have come in its time, and its first ones are slow.
            let slow = oha::in_turn(subject, connections, long(plan, TAIL))?;
            let errors = round.errors + slow.errors;
            Ok(Round { p99_us: slow.p99_us, p999_us: slow.p999_us, errors, ..round })
        })?;
        rows(&mut table, &connections.to_string(), &all);
        let least = if connections == 256 { 0.9 } else { 0.95 };
        let own = (Kind::Evertoken, true);
        if connections > 1 {
            for (other, name) in
                [((Kind::Nginx, true), "nginx's"), ((Kind::Relay, false), "the bare relay's")]
            {
                results.target(
                    format!(
                        "as shipped: requests/s at {connections} connections, of {name}; {way}"
                    ),
                    ratio(&all, own, other, |one| one.per_second),
                    Bound::AtLeast(least),
                );
            }
        }
        tail(&format!("at {connections} connections, of nginx's; {way}"), &all, results);
        if connections == 32 {
            results.target(
                format!("requests/s with log lines at {connections} connections, of those without; {way}"),
                ratio(&all, own, (Kind::Evertoken, false), |one| one.per_second),
                Bound::AtLeast(0.95),
            );
            results.target(
                format!("CPU a request of evertoken static at {connections} connections, of nginx's; {way}"),
                ratio(&all, (Kind::Static, true), (Kind::Nginx, true), |one| one.cpu_us),
                Bound::AtMost(1.2),
            );
        }
    }
    results.section(&format!("As shipped: {way}"), &table.markdown());
    Ok(())
}

/// The processor time that evertoken takes for a request and the bare relay does not; None without that relay, or if the
/// relay takes more.
fn work(
    plan: &Plan,
    kinds: &[Kind],
    mock: &Mock,
    setting: Setting<'_>,
    connections: usize,
) -> Outcome<Option<Duration>> {
    if !kinds.contains(&Kind::Relay) {
        return Ok(None);
    }
    let cpu_us = |kind, as_shipped| -> Outcome<f64> {
        let subject = start(kind, mock, Setting { as_shipped, ..setting })?;
        Ok(plain::round(&subject, connections, plan.round)?.cpu_us)
    };
    let more_us = cpu_us(Kind::Evertoken, true)? - cpu_us(Kind::Relay, false)?;
    Ok((more_us > 0.0).then(|| Duration::from_secs_f64(more_us / 1e6)))
}

/// Requests at constant rates.
fn constant(
    plan: &Plan,
    kinds: &[Kind],
    (mock, way, setting): (&Mock, &str, Setting<'_>),
    results: &mut Results,
) -> Outcome<()> {
    let mut table = table("requests/s wanted");
    for rate in RATES {
        let all = measure(plan, kinds, mock, setting, |subject| {
            let mut round = oha::at_rate(subject, rate, RATE_CONNECTIONS, steady(plan, rate))?;
            // Those that were due and were never sent have no time of their own.
            if round.per_second < RATE_LEAST * f64::from(rate) {
                round.errors += f64::from(rate) - round.per_second;
            }
            Ok(round)
        })?;
        rows(&mut table, &rate.to_string(), &all);
        tail(&format!("at a constant rate of {rate}/s, of nginx's; {way}"), &all, results);
    }
    let title =
        format!("As shipped, at a constant rate over {RATE_CONNECTIONS} connections: {way}");
    results.section(&title, &table.markdown());
    Ok(())
}

/// A provider that is far away.
fn distant(
    plan: &Plan,
    kinds: &[Kind],
    (mock, way, setting): (&Mock, &str, Setting<'_>),
    results: &mut Results,
) -> Outcome<()> {
    let mut table = table("connections");
    let all = measure(plan, kinds, mock, setting, |subject| {
        oha::in_turn(subject, RATE_CONNECTIONS, steady(plan, FAR_RATE))
    })?;
    rows(&mut table, &RATE_CONNECTIONS.to_string(), &all);
    tail(&format!("at {RATE_CONNECTIONS} connections, of nginx's; {way}"), &all, results);
    results.section(&format!("As shipped: {way}"), &table.markdown());
    Ok(())
}

/// The slowest requests take at most as long as nginx's.
fn tail(of_what: &str, all: &[Measured], results: &mut Results) {
    let of_nginx = |figure| ratio(all, (Kind::Evertoken, true), (Kind::Nginx, true), figure);
    for (name, ratios) in
        [("p99", of_nginx(|one| one.p99_us)), ("p99.9", of_nginx(|one| one.p999_us))]
    {
        results.target(format!("as shipped: {name} {of_what}"), ratios, Bound::AtMost(1.0));
    }
}

/// The length of a round with so many requests a second.
fn steady(plan: &Plan, rate: u32) -> Duration {
    long(plan, Duration::from_secs(STEADY_REQUESTS.div_ceil(rate).into()))
}

/// The length of a round that takes `time` at least, but in short mode.
fn long(plan: &Plan, time: Duration) -> Duration {
    if plan.is_short { plan.round } else { plan.round.max(time) }
}

/// The rounds of each program, which is started anew for each; another one begins each time.
fn measure(
    plan: &Plan,
    kinds: &[Kind],
    mock: &Mock,
    setting: Setting<'_>,
    round: impl Fn(&Subject) -> Outcome<Round>,
) -> Outcome<Vec<Measured>> {
    let is_there = |(kind, _): &(Kind, bool)| kinds.contains(kind);
    let new = |(kind, as_shipped)| Measured { kind, as_shipped, rounds: Vec::new() };
    let mut all: Vec<_> = COMPARED.into_iter().filter(is_there).map(new).collect();
    for number in 0..plan.rounds {
        let middle = number % all.len();
        let (last, first) = all.split_at_mut(middle);
        for one in first.iter_mut().chain(last) {
            let clean = (0..TRIES_MAX).find_map(|_| {
                let setting = Setting { as_shipped: one.as_shipped, ..setting };
                let outcome = start(one.kind, mock, setting).and_then(|subject| round(&subject));
                outcome.map(|round| (round.errors == 0.0).then_some(round)).transpose()
            });
            let name = one.name();
            let round = clean.ok_or_else(|| {
                format!("{name} had errors, or was too slow for the rate, in {TRIES_MAX} rounds")
            })??;
            one.rounds.push(round);
        }
    }
    Ok(all)
}

fn table(first: &str) -> Table {
    Table::new([
        first, "through", "requests/s", "of nginx's", "p50 µs", "p99 µs", "of nginx's", "p99.9 µs",
        "CPU µs a request", "of nginx's",
    ])
}

fn rows(table: &mut Table, first: &str, all: &[Measured]) {
    for one in all {
        let own = (one.kind, one.as_shipped);
        let of = |figure: fn(&Round) -> f64| figures(all, own, figure).in_words();
        let of_nginx = |figure| ratio(all, own, (Kind::Nginx, true), figure).in_words();
        table.row([
            first.to_owned(),
            one.name(),
            of(|round| round.per_second),
            of_nginx(|round| round.per_second),
            of(|round| round.p50_us),
            of(|round| round.p99_us),
            of_nginx(|round| round.p99_us),
            of(|round| round.p999_us),
            of(|round| round.cpu_us),
            of_nginx(|round| round.cpu_us),
        ]);
    }
}

fn figures(all: &[Measured], which: (Kind, bool), figure: fn(&Round) -> f64) -> Figures {
    let one = all.iter().find(|one| (one.kind, one.as_shipped) == which);
    Figures(one.map(|one| one.rounds.iter().map(figure).collect()).unwrap_or_default())
}

fn ratio(
    all: &[Measured],
    own: (Kind, bool),
    other: (Kind, bool),
    figure: fn(&Round) -> f64,
) -> Figures {
    figures(all, own, figure).ratio_to(&figures(all, other, figure))
}
