//! Curves: rates, times and memory as connections and providers grow.

use crate::curves::{self, Point};
use crate::mock::Mock;
use crate::proxies::{Kind, Setting, start};
use crate::report::{Figures, Table};
use crate::suite::Results;
use crate::{Outcome, Plan, plot};

/// Draws the curves.
pub(super) fn growth(plan: &Plan, mock: &Mock, results: &mut Results) -> Outcome<()> {
    let begin = |kind| start(kind, mock, Setting::default());
    let compared = [begin(Kind::Evertoken)?, begin(Kind::Nginx)?];
    let curves = curves::by_connections(plan, &compared)?;
    let mut table = Table::new([
        "connections", "through", "requests/s", "p50 µs", "CPU µs a request", "RSS MB",
    ]);
    for index in 0..curves::CONNECTIONS.len() {
        for (kind, curve) in &curves {
            table.row(cells(&curve[index], kind.name()));
        }
    }
    results.section("As connections grow", &table.markdown());
    let line = |figure: fn(&Point) -> f64| -> Vec<plot::Line> {
        curves
            .iter()
            .map(|(kind, curve)| {
                (kind.name().to_owned(), curve.iter().map(|one| (one.x, figure(one))).collect())
            })
            .collect()
    };
    let rate = plot::lines(
        "Requests a second as connections grow",
        "connections",
        "requests/s",
        &line(|one| one.per_second.median()),
    );
    results.plot("connections-rate", "requests a second as connections grow", rate);
    let memory = plot::lines(
        "Memory as connections grow",
        "connections",
        "RSS MB",
        &line(|one| one.rss_kib.median() / 1024.0),
    );
    results.plot("connections-memory", "memory as connections grow", memory);
    let latency = plot::lines(
        "Median time as connections grow",
        "connections",
        "p50 ms",
        &line(|one| one.p50_us.median() / 1e3),
    );
    results.plot("connections-latency", "median time as connections grow", latency);
    drop(compared);
    let [named, any] = curves::by_providers(plan, mock)?;
    let mut table =
        Table::new(["providers", "asked", "requests/s", "p50 µs", "CPU µs a request", "RSS MB"]);
    for (named, any) in named.iter().zip(&any) {
        table.row(cells(named, "/to/<last>/…"));
        table.row(cells(any, curves::BY_API));
    }
    results.section("As providers grow, 32 connections", &table.markdown());
    let points = |curve: &[Point]| curve.iter().map(|one| (one.x, one.cpu_us.median())).collect();
    let lines = [("by name".to_owned(), points(&named)), ("by type".to_owned(), points(&any))];
    results.plot(
        "providers",
        "CPU a request as providers grow",
        plot::lines("CPU a request as providers grow", "providers", "µs", &lines),
    );
    Ok(())
}

fn cells(point: &Point, through: &str) -> [String; 6] {
    let memory = Figures(point.rss_kib.0.iter().map(|kib| kib / 1024.0).collect());
    [
        format!("{}", point.x),
        through.to_owned(),
        point.per_second.in_words(),
        point.p50_us.in_words(),
        point.cpu_us.in_words(),
        memory.in_words(),
    ]
}
