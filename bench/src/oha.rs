//! The time that requests take, by oha: one after another on each connection, or at a constant rate, whether or not the earlier
//! ones have their answers. Then the time of a request counts from when it was due, so a wait of the server shows in the
//! requests that came behind it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::plain::{BODY_BYTES, Round};
use crate::process::{Running, output};
use crate::proxies::Subject;
use crate::{Outcome, folder, say};

/// The release of oha that is installed if there is none.
const VERSION: &str = "1.16.0";

/// Loads `subject` with so many requests a second over `connections`, for `time`.
pub(crate) fn at_rate(
    subject: &Subject,
    rate: usize,
    connections: usize,
    time: Duration,
) -> Outcome<Round> {
    load(subject, &["--latency-correction", "-q", &rate.to_string()], connections, time)
}

/// Loads `subject` over `connections`, each of which asks again when it has its answer, for `time`.
pub(crate) fn in_turn(subject: &Subject, connections: usize, time: Duration) -> Outcome<Round> {
    load(subject, &[], connections, time)
}

fn load(subject: &Subject, options: &[&str], connections: usize, time: Duration) -> Outcome<Round> {
    let before = subject.running.as_ref().map(Running::usage);
    let said = output(
        Command::new(program()?)
            .args(["--no-tui", "--output-format", "json"])
            .args(options)
            .args(["-z", &format!("{}s", time.as_secs().max(1))])
            .args(["-c", &connections.to_string()])
            .args(["-m", "POST", "-T", "application/json", "-d"])
            .arg("x".repeat(BODY_BYTES))
            .arg(format!("http://{}/json", subject.address)),
    )?;
    let mut round = read(&said).ok_or_else(|| format!("oha said:\n{said}"))?;
    if let (Some(before), Some(running)) = (before, &subject.running) {
        let requests = (round.per_second * time.as_secs_f64()).max(1.0);
        round.cpu_us = (running.usage().cpu_s - before.cpu_s) * 1e6 / requests;
    }
    Ok(round)
}

/// oha from `PATH`, or one that is built below `target/`, which takes some minutes.
fn program() -> Outcome<PathBuf> {
    if Command::new("oha").arg("--version").output().is_ok_and(|one| one.status.success()) {
        return Ok("oha".into());
    }
    let root = folder::scratch()?.join("oha");
    let path = root.join("bin/oha");
    if !path.exists() {
        say(&format!("installing oha {VERSION} into {}", root.display()));
        output(
            Command::new("cargo")
                .args(["install", "--quiet", "--locked", "oha", "--version", VERSION, "--root"])
                .arg(&root),
        )?;
    }
    Ok(path)
}

/// The figures in its JSON, with times in seconds.
fn read(said: &str) -> Option<Round> {
    // The name of a part, and then of a figure in it.
    let number = |part: &str, name: &str| -> Option<f64> {
        let (_, rest) = said.split_once(&format!("\"{part}\":"))?;
        let (_, rest) = rest.split_once(&format!("\"{name}\":"))?;
        rest.trim_start().split([',', '}', '\n']).next()?.trim().parse().ok()
    };
    let (_, statuses) = said.split_once("\"statusCodeDistribution\":")?;
    let (statuses, _) = statuses.split_once('{')?.1.split_once('}')?;
    let others = statuses.split(',').filter(|one| !one.contains("\"200\""));
    let errors = others.filter_map(|one| one.split(':').nth(1)?.trim().parse::<f64>().ok()).sum();
    Some(Round {
        per_second: number("summary", "requestsPerSec")?,
        p50_us: number("latencyPercentiles", "p50")? * 1e6,
        p99_us: number("latencyPercentiles", "p99")? * 1e6,
        p999_us: number("latencyPercentiles", "p99.9")? * 1e6,
        errors,
        ..Round::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_oha_says_is_read() {
        let said = "{\"summary\": {\"successRate\": 1.0, \"requestsPerSec\": 998.5},\n\
                    \"metrics\": {\"latency_ms\": {\"p50\": 0.1, \"p99\": 2}},\n\
                    \"latencyPercentiles\": {\"p50\": 0.0001, \"p99\": 0.002, \"p99.9\": 0.003},\n\
                    \"statusCodeDistribution\": {\"200\": 998, \"502\": 3}}";
        let round = read(said).unwrap();
        let figures = [round.per_second, round.p50_us, round.p99_us, round.p999_us, round.errors];
        let expected = [998.5, 100.0, 2000.0, 3000.0, 3.0];
        assert!(figures.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{figures:?}");
        assert!(read("{}").is_none());
    }
}
