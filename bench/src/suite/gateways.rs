//! Gateways for language models beside evertoken. They read each request and answer, so only the order of magnitude
//! can be compared. They come last, because they keep working after a load has ended.

use crate::mock::Mock;
use crate::process::Running;
use crate::proxies::{Kind, Setting, start};
use crate::report::{Figures, Table};
use crate::suite::Results;
use crate::{Outcome, Plan, plain, say};

/// The connections under which they are measured.
const CONNECTIONS: [usize; 2] = [1, 32];

/// Compares the gateways in the plan.
pub(super) fn gateways(plan: &Plan, mock: &Mock, results: &mut Results) -> Outcome<()> {
    let all = [(Kind::Litellm, "litellm"), (Kind::Portkey, "portkey")];
    let wanted = all.iter().filter(|(_, name)| plan.gateways.iter().any(|own| own == name));
    let mut table = Table::new([
        "through", "connections", "requests/s", "p50 µs", "CPU µs a request", "RSS MB",
    ]);
    let mut versions = Vec::new();
    for kind in [Kind::Evertoken].into_iter().chain(wanted.map(|(kind, _)| *kind)) {
        let subject = match start(kind, mock, Setting::default()) {
            Ok(subject) => subject,
            Err(error) => {
                say(&format!("{} is left out: {error}", kind.name()));
                continue;
            }
        };
        versions.push(format!("{}: `{}`", kind.name(), kind.version()));
        for connections in CONNECTIONS {
            let [mut rates, mut medians, mut costs] = [const { Figures(Vec::new()) }; 3];
            for _ in 0..plan.rounds {
                let round = plain::round(&subject, connections, plan.round)?;
                rates.0.push(round.per_second);
                medians.0.push(round.p50_us);
                costs.0.push(round.cpu_us);
            }
            let usage = subject.running.as_ref().map(Running::usage).unwrap_or_default();
            table.row([
                kind.name().to_owned(),
                connections.to_string(),
                rates.in_words(),
                medians.in_words(),
                costs.in_words(),
                Figures(vec![usage.rss_kib / 1024.0]).in_words(),
            ]);
        }
    }
    let text = format!("{}\n\n{}.", table.markdown(), versions.join("; "));
    results.section("Gateways: POST 1 KB, answer 1 KB, kept connections", &text);
    Ok(())
}
