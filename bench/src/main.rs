//! Measures evertoken beside other proxies, each in turn, on this machine; `bench --help` lists the options.
//!
//! Everything is on 127.0.0.1 and bounded in time. The provider behind the proxies runs in a separate process (`bench
//! mock`), so that a proxy's cost is its own.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

mod bodies;
mod certificate;
mod curves;
mod delay;
mod folder;
mod http;
mod mock;
mod oha;
mod path;
mod plain;
mod plot;
mod process;
mod providers;
mod proxies;
mod relay;
mod report;
mod size;
mod streams;
mod suite;
mod time;
mod websockets;

/// An error ends the run with its words.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
bench [--short] [--rounds N] [--with litellm,portkey] [--only SECTION,…] [--write]
    measures everything; --short fewer rounds, of a second each; --write puts the tables into
    docs/performance.md and the plots beside it, of all sections. They are: shipped, plain, tls, websockets, streams,
    bodies, idle, burst, curves, size
bench check [--record]
    counts the instructions of the hot path and compares them with bench/instructions.txt
bench mock | bench path CASE REQUESTS | bench relay AT PROVIDER plain|tls NANOSECONDS | bench delay AT PROVIDER MILLISECONDS
    the parts that run in processes of their own";

/// The measurements to make.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Rounds of each figure, interleaved; medians are shown.
    pub(crate) rounds: usize,
    /// The length of a round under load.
    pub(crate) round: Duration,
    /// Leaves out slow parts.
    pub(crate) is_short: bool,
    /// Writes the documents.
    pub(crate) writes: bool,
    /// Other gateways to measure.
    pub(crate) gateways: Vec<String>,
    /// The sections to measure; all if it is empty.
    pub(crate) only: Vec<String>,
}

impl Plan {
    fn wants(&self, section: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == section)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["--help"] => {
            say(HELP);
            Ok(())
        }
        ["mock"] => mock::run(),
        ["delay", at, provider, milliseconds] => delay::run(at, provider, milliseconds),
        ["relay", at, provider, way, work] => relay::run(at, provider, *way == "tls", work),
        ["path", case, requests] => path::run(case, requests),
        ["check"] => path::check(false),
        ["check", "--record"] => path::check(true),
        options => plan(options).and_then(|plan| suite::run(&plan)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn plan(options: &[&str]) -> Outcome<Plan> {
    let list = |text: &str| text.split(',').map(str::to_owned).collect();
    let mut plan = Plan {
        rounds: 5,
        round: Duration::from_secs(1),
        is_short: false,
        writes: false,
        gateways: Vec::new(),
        only: Vec::new(),
    };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--short" => {
                plan.is_short = true;
                plan.rounds = 3;
                plan.round = Duration::from_secs(1);
            }
            "--rounds" => {
                let rounds = options.next().ok_or("--rounds needs a number")?;
                plan.rounds = rounds.parse()?;
            }
            "--write" => plan.writes = true,
            "--with" => plan.gateways = options.next().map(|text| list(text)).unwrap_or_default(),
            "--only" => plan.only = options.next().map(|text| list(text)).unwrap_or_default(),
            other => return Err(format!("unknown option {other}\n{HELP}").into()),
        }
    }
    if plan.writes && !plan.only.is_empty() {
        return Err("--write takes all sections: it replaces all tables of the page".into());
    }
    Ok(plan)
}

/// Prints a line.
fn say(line: &str) {
    // A closed output means that nobody reads it.
    let _ = writeln!(std::io::stdout(), "{line}");
}
