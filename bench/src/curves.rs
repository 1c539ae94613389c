//! Throughput, latency and memory as connections and providers grow.

use crate::mock::Mock;
use crate::plain::{self, Round};
use crate::proxies::{Kind, Setting, Subject, start};
use crate::report::Figures;
use crate::{Outcome, Plan};

/// Connections at once.
pub(crate) const CONNECTIONS: [usize; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000];
/// Providers in the configuration.
pub(crate) const PROVIDERS: [usize; 6] = [1, 5, 20, 50, 100, 200];
/// The connections that load each number of providers.
const LOAD_CONNECTIONS: usize = 32;

/// One point of a curve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Point {
    /// The growing number.
    pub(crate) x: f64,
    /// Requests a second.
    pub(crate) per_second: Figures,
    /// Median time of a request.
    pub(crate) p50_us: Figures,
    /// Processor time of a request.
    pub(crate) cpu_us: Figures,
    /// Resident memory after the round.
    pub(crate) rss_kib: Figures,
}

impl Point {
    fn note(&mut self, round: Round, subject: &Subject) {
        self.per_second.0.push(round.per_second);
        self.p50_us.0.push(round.p50_us);
        self.cpu_us.0.push(round.cpu_us);
        if let Some(running) = &subject.running {
            self.rss_kib.0.push(running.usage().rss_kib);
        }
    }
}

/// A curve for each subject, interleaved point by point.
pub(crate) fn by_connections(
    plan: &Plan,
    subjects: &[Subject],
) -> Outcome<Vec<(Kind, Vec<Point>)>> {
    let mut curves: Vec<_> = subjects.iter().map(|one| (one.kind, Vec::new())).collect();
    for connections in CONNECTIONS {
        let x = f64::from(u32::try_from(connections)?);
        for (_, curve) in &mut curves {
            curve.push(Point { x, ..Point::default() });
        }
        for _ in 0..plan.rounds {
            for (subject, (_, curve)) in subjects.iter().zip(&mut curves) {
                let round = plain::round(subject, connections, plan.round)?;
                if let Some(point) = curve.last_mut() {
                    point.note(round, subject);
                }
            }
        }
    }
    Ok(curves)
}

/// A path that generic providers serve in turn.
pub(crate) const BY_API: &str = "/v1/embeddings";

/// evertoken with more and more providers: asked by the name of the last one, and by the API alone.
pub(crate) fn by_providers(plan: &Plan, mock: &Mock) -> Outcome<[Vec<Point>; 2]> {
    let mut curves = [Vec::new(), Vec::new()];
    for providers in PROVIDERS {
        let more: String = (1..providers)
            .map(|index| {
                format!(
                    "  - {{name: P{index}, type: generic, base_url: \"http://{}\", auth_value: token{index}}}\n",
                    mock.plain
                )
            })
            .collect();
        let subject = start(Kind::Evertoken, mock, Setting { more: &more, ..Setting::default() })?;
        let last = if providers == 1 { "p".to_owned() } else { format!("p{}", providers - 1) };
        let x = f64::from(u32::try_from(providers)?);
        let paths = [format!("/to/{last}/json"), BY_API.to_owned()];
        for (curve, path) in curves.iter_mut().zip(paths) {
            let mut point = Point { x, ..Point::default() };
            for _ in 0..plan.rounds {
                let Some(running) = &subject.running else { continue };
                let before = running.usage().cpu_s;
                let mut round = plain::load(
                    subject.address, &path, subject.provider, LOAD_CONNECTIONS, plan.round,
                )?;
                let requests = round.per_second * plan.round.as_secs_f64();
                round.cpu_us = (running.usage().cpu_s - before) * 1e6 / requests.max(1.0);
                point.note(round, &subject);
            }
            curve.push(point);
        }
    }
    Ok(curves)
}
