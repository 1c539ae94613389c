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

/// The first moment of a load, whose requests do not count: connections are made, and the program starts.
const START: Duration = Duration::from_secs(1);
/// The release of oha that is installed if there is none.
const VERSION: &str = "1.16.0";

/// Loads `subject` with so many requests a second over `connections`, for `time` after the start.
pub(crate) fn at_rate(
    subject: &Subject,
    rate: u32,
    connections: usize,
    time: Duration,
) -> Outcome<Round> {
    load(subject, &["--latency-correction", "-q", &rate.to_string()], connections, time)
}

/// Loads `subject` over `connections`, each of which asks again when it has its answer, for `time` after the start.
pub(crate) fn in_turn(subject: &Subject, connections: usize, time: Duration) -> Outcome<Round> {
    load(subject, &[], connections, time)
}

fn load(subject: &Subject, options: &[&str], connections: usize, time: Duration) -> Outcome<Round> {
    let before = subject.running.as_ref().map(Running::usage);
    let said = output(
        Command::new(program()?)
            .args(["--no-tui", "--output-format", "csv"])
            .args(options)
            .args(["-z", &format!("{}s", (START + time).as_secs())])
            .args(["-c", &connections.to_string()])
            .args(["-m", "POST", "-T", "application/json", "-d"])
            .arg("x".repeat(BODY_BYTES))
            .arg(format!("http://{}/json", subject.address)),
    )?;
    let mut round = read(&said).ok_or_else(|| format!("oha said:\n{said:.2000}"))?;
    if let (Some(before), Some(running)) = (before, &subject.running) {
        // One line has the names.
        round.cpu_us =
            (running.usage().cpu_s - before.cpu_s) * 1e6 / count(said.lines().skip(1).count());
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

/// The figures of the requests that began after the start, from a line for each that has an answer.
fn read(said: &str) -> Option<Round> {
    let mut lines = said.lines();
    let head: Vec<&str> = lines.next()?.split(',').collect();
    let place = |name| head.iter().position(|one| *one == name);
    let (begins, lasts) = (place("request-start")?, place("request-duration")?);
    let status = place("status")?;
    let mut failed = 0;
    let mut newest_s: f64 = 0.0;
    let mut times_us = Vec::new();
    for row in lines {
        let fields: Vec<&str> = row.split(',').collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let began_s = number(begins)?;
        if fields.get(status) != Some(&"200") {
            failed += 1;
        }
        if began_s >= START.as_secs_f64() {
            times_us.push(number(lasts)? * 1e6);
            newest_s = newest_s.max(began_s);
        }
    }
    times_us.sort_by(f64::total_cmp);
    let slowest =
        |one_of: usize| times_us.get(times_us.len() - times_us.len().div_ceil(one_of)).copied();
    Some(Round {
        per_second: count(times_us.len()) / (newest_s - START.as_secs_f64()),
        p50_us: slowest(2)?,
        p99_us: slowest(100)?,
        p999_us: slowest(1000)?,
        errors: count(failed),
        ..Round::default()
    })
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_oha_says_is_read() {
        let head = "request-start,DNS,DNS+dialup,Response-delay,request-duration,bytes,status\n";
        let line = |began: f64, lasted: f64, status| {
            format!("{began},0,0,{lasted},{lasted},1024,{status}\n")
        };
        let mut said = head.to_owned();
        // A new connection's first request, which is slow, and one that is answered with an error.
        said.push_str(&line(0.5, 0.9, 200));
        said.push_str(&line(0.9, 0.1, 502));
        for number in 1_u32..=1000 {
            said.push_str(&line(1.0 + f64::from(number) / 500.0, f64::from(number) / 1e6, 200));
        }
        let round = read(&said).unwrap();
        let figures = [round.per_second, round.p50_us, round.p99_us, round.p999_us, round.errors];
        let expected = [500.0, 501.0, 991.0, 1000.0, 1.0];
        assert!(figures.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{figures:?}");
        assert!(read("{}").is_none() && read(head).is_none());
    }
}
