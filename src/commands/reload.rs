//! `evertoken reload`: checks the file, makes the running evertoken read it again, and prints the outcome.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bound::connect_unix;
use crate::check;
use crate::cli::Files;
use crate::config::resolve::Problem;
use crate::config::{Config, ListenAddress};
use crate::listener_owner;
use crate::reload::{self, ReloadOutcome};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::commands::common::{
    BAD_CONFIG, Done, FAILED, Variables, inspect, say_all, say_out, tell,
};

/// The longest time for the running evertoken to read its configuration again.
const OUTCOME_WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest wait for a connection to its unix socket.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// The time between two looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The reason why a reload has no known outcome, or was not begun.
#[derive(Debug, thiserror::Error)]
enum NoOutcome {
    /// The configuration leaves the port to the system.
    #[error(
        "settings.port is 0, so the running evertoken can't be found; name its process with --pid"
    )]
    PortUnknown,
    /// The system does not show who listens where.
    #[error("This system does not tell who listens on {0}; name evertoken's process with --pid")]
    Untold(Place),
    /// No visible process listens there.
    #[error(
        "No visible evertoken listens on {0}; if it runs as another user, or {key} has changed, name its process with \
         --pid",
        key = .0.key()
    )]
    NobodyListens(Place),
    /// Another program listens there.
    #[error("{0} is in use by {1}, which is no evertoken; name its process with --pid")]
    OtherListens(Place, listener_owner::Process),
    /// The named process is another program.
    #[error("Process {0} is {1}, which is no evertoken")]
    OtherProgram(u32, String),
    /// No process has this id.
    #[error("{0} is the id of no process")]
    NoProcess(u32),
    /// The process could not be sent a signal.
    #[error("Process {0} can't be told to reload: {1}")]
    Unsignalled(u32, Errno),
    /// The process did not report an outcome.
    #[error(
        "Process {0} was told to reload and did not say within {max} s how it went; its log does",
        max = OUTCOME_WAIT_MAX.as_secs()
    )]
    Silent(u32),
}

/// A place where the running evertoken is looked for.
#[derive(Debug)]
enum Place {
    Port(u16),
    Socket(PathBuf),
}

impl Place {
    /// None for a port that the system chooses.
    fn of(address: &ListenAddress) -> Option<Self> {
        match address {
            ListenAddress::Tcp { port: 0, .. } => None,
            ListenAddress::Tcp { port, .. } => Some(Self::Port(*port)),
            ListenAddress::Unix { path, .. } => Some(Self::Socket(path.clone())),
        }
    }

    fn key(&self) -> &'static str {
        match self {
            Self::Port(_) => "settings.port",
            Self::Socket(_) => "settings.listen",
        }
    }

    /// The process that listens there.
    fn owner(&self) -> Option<listener_owner::Process> {
        match self {
            Self::Port(port) => listener_owner::find(*port),
            Self::Socket(path) => {
                listener_owner::of_connection(&connect_unix(path, CONNECT_MAX).ok()?)
            }
        }
    }
}

/// `port 8080`, `unix:/run/evertoken.sock`
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reloads; a file with mistakes does not reach the running evertoken.
pub(crate) fn run(files: &Files, process: Option<u32>) -> Done {
    let shown = files.config.display();
    let stays = format!("{shown}: not reloaded, the configuration in use stays");
    let config = checked(files).map_err(|mistakes| {
        say_all(&mistakes);
        tell(&stays, BAD_CONFIG)
    })?;
    let outcome = ask(&config, process).map_err(|no_outcome| tell(no_outcome, FAILED))?;
    if outcome.is_of_another_than(&files.config) {
        let why = format!(
            "{shown}: not reloaded: process {} uses {}, and has read that again; its log says how that went",
            outcome.process,
            outcome.configuration.display()
        );
        return Err(tell(why, FAILED));
    }
    say_all(&outcome.lines);
    if !outcome.is_in_use {
        return Err(tell(stays, FAILED));
    }
    say_out(&format!("{shown}: in use now\n"));
    Ok(())
}

/// The configuration, or the problems that would keep `run` from starting. Only the running evertoken can tell
/// whether it lacks a variable that is not set here.
fn checked(files: &Files) -> Result<Config, Vec<String>> {
    let variables = Variables::of(files).map_err(|problem| vec![problem.to_string()])?;
    let (config, found) = inspect(&files.config, &variables);
    let counts = |problem: &&Problem| !problem.is_warning && problem.unset.is_empty();
    let mistakes: Vec<_> = found.iter().filter(counts).map(ToString::to_string).collect();
    let Some(config) = config.filter(|_| mistakes.is_empty()) else { return Err(mistakes) };
    let problems = check::connection_problems(&config);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Makes `process` reload, and waits for the outcome.
fn ask(config: &Config, process: Option<u32>) -> Result<ReloadOutcome, NoOutcome> {
    let process = match process {
        Some(named) => ours(named)?,
        None => find(config)?,
    };
    let state_dir = &config.settings.state_dir;
    let before = reload::read_outcome(state_dir);
    let id = i32::try_from(process).ok().and_then(Pid::from_raw);
    let id = id.ok_or(NoOutcome::NoProcess(process))?;
    kill_process(id, Signal::HUP).map_err(|error| NoOutcome::Unsignalled(process, error))?;
    wait(state_dir, process, before.as_ref())
}

/// The named process, unless it is another program, which the signal would end.
fn ours(process: u32) -> Result<u32, NoOutcome> {
    let own = listener_owner::name_of(std::process::id());
    match listener_owner::name_of(process) {
        Some(name) if name != "evertoken" && Some(&name) != own.as_ref() => {
            Err(NoOutcome::OtherProgram(process, name))
        }
        _ => Ok(process),
    }
}

/// The process that listens on one of the configured addresses; the error is about the first of them.
fn find(config: &Config) -> Result<u32, NoOutcome> {
    let places = config.settings.listen.iter().filter_map(Place::of);
    let found = places.map(|place| match place.owner() {
        None if !listener_owner::CAN_FIND => Err(NoOutcome::Untold(place)),
        Some(process) if process.name == "evertoken" => Ok(process.id),
        Some(process) => Err(NoOutcome::OtherListens(place, process)),
        None => Err(NoOutcome::NobodyListens(place)),
    });
    let mut first = None;
    for outcome in found {
        match outcome {
            Ok(process) => return Ok(process),
            Err(why) => _ = first.get_or_insert(why),
        }
    }
    Err(first.unwrap_or(NoOutcome::PortUnknown))
}

fn wait(
    state_dir: &Path,
    process: u32,
    before: Option<&ReloadOutcome>,
) -> Result<ReloadOutcome, NoOutcome> {
    let end = crossbeam_channel::after(OUTCOME_WAIT_MAX);
    loop {
        let outcome = reload::read_outcome(state_dir).filter(|outcome| outcome.process == process);
        if let Some(outcome) = outcome.filter(|outcome| Some(outcome) != before) {
            return Ok(outcome);
        }
        if end.try_recv().is_ok() {
            return Err(NoOutcome::Silent(process));
        }
        // Only the timer's end matters.
        let _ = crossbeam_channel::after(LOOK_EVERY).recv();
    }
}
