//! The commands, one file each, and what they share: the configuration from disk, the log, exit codes.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use evertoken::app::Environment;
use evertoken::clock::Clock;
use evertoken::config::resolve::{self, Problem};
use evertoken::config::{Config, secret_file};
use evertoken::logger;
use evertoken::supervisor::Supervisor;
use log::{error, warn};

pub(crate) mod check;
pub(crate) mod login;
pub(crate) mod refresh;
pub(crate) mod run;
pub(crate) mod status;

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const CANT_BIND: u8 = 69;
pub(crate) const BAD_CONFIG: u8 = 78;
/// The stack of a thread that waits for a signal or stops the proxy.
const SIGNAL_STACK_BYTES: usize = 128 * 1024;

/// A line on stderr; there is nobody left to tell where that fails.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(crate) fn say_out(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

#[expect(clippy::disallowed_methods, reason = "the environment enters the program here")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the configuration; the problems that keep it from use are printed.
pub(crate) fn load(path: &Path, log: logger::Options) -> Result<(Config, Vec<String>), ExitCode> {
    read(path).map_err(|problems| refuse(&problems, log))
}

pub(crate) fn refuse(problems: &[String], log: logger::Options) -> ExitCode {
    let (lines, now) = (line_form(log), Clock::system().wall());
    for problem in problems {
        say(&lines.of_problem(problem, now));
    }
    ExitCode::from(BAD_CONFIG)
}

/// Reads the configuration: it and its warnings, or every problem.
pub(crate) fn read(path: &Path) -> Result<(Config, Vec<String>), Vec<String>> {
    match inspect(path) {
        (Some(config), problems) if problems.iter().all(|one| one.is_warning) => {
            Ok((config, lines(&problems)))
        }
        (_, problems) => Err(lines(&problems)),
    }
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// See [`resolve::inspect`].
pub(crate) fn inspect(path: &Path) -> (Option<Config>, Vec<Problem>) {
    let shown = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!(
                "can't be read: {error}; copy providers.yaml.example to start with, or name \
                 another file with --config"
            );
            return (
                None,
                vec![Problem { file: shown, position: None, message, is_warning: false }],
            );
        }
    };
    let mode = std::fs::metadata(path).ok().map(|metadata| metadata.permissions().mode());
    let sources = resolve::Sources {
        environment: &variable,
        files: &secret_file::read,
        file_mode: mode,
        is_root: rustix::process::geteuid().is_root(),
    };
    resolve::inspect(&text, &shown, &sources)
}

/// How lines of the log are written.
fn line_form(log: logger::Options) -> logger::Lines {
    let stream = variable("JOURNAL_STREAM");
    logger::Lines::new(log.format, logger::goes_to_journal(stream.as_deref()))
}

/// Begins the log, with the warnings of the configuration.
pub(crate) fn start_log(
    config: &Config,
    warnings: Vec<String>,
    log: logger::Options,
    clock: &Clock,
) {
    let filters = variable("RUST_LOG");
    let level = config.settings.log_level;
    logger::start(line_form(log), level, log, filters.as_deref(), clock.clone());
    for warning in warnings {
        warn!("{warning}");
    }
}

pub(crate) fn environment(clock: Clock) -> Environment {
    Environment {
        clock,
        rng: fastrand::Rng::new(),
        timer: crossbeam_channel::after,
        supervisor: Supervisor::systemd(),
    }
}

pub(crate) fn fail(why: &str, code: u8) -> ExitCode {
    error!("{why}");
    ExitCode::from(code)
}
