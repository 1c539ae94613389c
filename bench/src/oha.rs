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
            // Requests that are under way at the end are waited for: they may be the slowest.
            .args(["--no-tui", "--output-format", "csv", "-w"])
            .args(options)
            .args(["-z", &format!("{}s", (START + time).as_secs())])
            .args(["-c", &connections.to_string()])
            .args(["-m", "POST", "-T", "application/json", "-d"])
            .arg("x".repeat(BODY_BYTES))
            .arg(format!("http://{}/json", subject.address)),
    )?;
    let mut round =
        read(&said, connections, time).ok_or_else(|| format!("oha said:\n{said:.2000}"))?;
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

/// The figures of the requests that began in `time` after the start, from a line for each that has an answer. One without
/// an answer has no line, but another connection takes the place of its own.
fn read(said: &str, connections: usize, time: Duration) -> Option<Round> {
    let mut lines = said.lines();
    let head: Vec<&str> = lines.next()?.split(',').collect();
    let place = |name| head.iter().position(|one| *one == name);
    let (begins, lasts) = (place("request-start")?, place("request-duration")?);
    let (status, connects) = (place("status")?, place("DNS+dialup")?);
    let (mut failed, mut connected) = (0_usize, 0_usize);
    let counted = START.as_secs_f64()..(START + time).as_secs_f64();
    let mut times_us = Vec::new();
    for row in lines {
        let fields: Vec<&str> = row.split(',').collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let began_s = number(begins)?;
        if fields.get(status) != Some(&"200") {
            failed += 1;
        }
        if number(connects)? > 0.0 {
            connected += 1;
        }
        if counted.contains(&began_s) {
            times_us.push(number(lasts)? * 1e6);
        }
    }
    times_us.sort_by(f64::total_cmp);
    let slowest =
        |one_of: usize| times_us.get(times_us.len() - times_us.len().div_ceil(one_of)).copied();
    Some(Round {
        per_second: count(times_us.len()) / time.as_secs_f64(),
        p50_us: slowest(2)?,
        p99_us: slowest(100)?,
        p999_us: slowest(1000)?,
        errors: count(failed + connected.saturating_sub(connections)),
        ..Round::default()
    })
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "request-start,DNS,DNS+dialup,Response-delay,request-duration,bytes,status\n";
    const TIME: Duration = Duration::from_secs(2);

    fn line(began_s: f64, connecting_s: f64, lasted_s: f64, status: u16) -> String {
        format!("{began_s},0,{connecting_s},{lasted_s},{lasted_s},1024,{status}\n")
    }

    fn assert_figures(said: &str, expected: [f64; 5]) {
        let round = read(said, 1, TIME).unwrap();
        let figures = [round.per_second, round.p50_us, round.p99_us, round.p999_us, round.errors];
        assert!(figures.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{figures:?}");
    }

    #[test]
    fn what_oha_says_is_read() {
        // The first request of a connection, which is slow, one that is answered with an error, and one after the time.
        let mut said = [HEAD, &line(0.5, 0.3, 0.9, 200), &line(0.9, 0.0, 0.1, 502)].concat();
        for number in 1_u32..=1000 {
            let began_s = 1.0 + f64::from(number - 1) / 500.0;
            said.push_str(&line(began_s, 0.0, f64::from(number) / 1e6, 200));
        }
        said.push_str(&line(3.0, 0.0, 5.0, 200));
        assert_figures(&said, [500.0, 501.0, 991.0, 1000.0, 1.0]);
        assert!(read("{}", 1, TIME).is_none() && read(HEAD, 1, TIME).is_none());
    }

    #[test]
    fn a_program_that_breaks_off_or_ends_early_looks_no_better_for_it() {
        let once = [HEAD, &line(0.1, 0.01, 0.001, 200), &line(1.5, 0.0, 0.001, 200)].concat();
        assert_figures(&once, [0.5, 1000.0, 1000.0, 1000.0, 0.0]);
        let again = [&*once, &line(1.6, 0.01, 0.001, 200)].concat();
        assert_figures(&again, [1.0, 1000.0, 1000.0, 1000.0, 1.0]);
    }
}
