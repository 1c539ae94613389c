//! The common parts of the commands: the configuration from disk, the environment, the log, exit codes.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use crate::assemble::{self, Environment, StartError, bearer};
use crate::cli::Files;
use crate::clock::Clock;
use crate::config::problem::Position;
use crate::config::resolve::{self, Problem};
use crate::config::{Config, Credential, ProviderConfig, encoding, find_provider, secret_file};
use crate::environment_file;
use crate::logger;
use crate::regular_file;
use crate::supervisor::Supervisor;
use crate::token::group::{Group, groups};
use crate::token::refresher::{Setup, obtain_once};
use crate::token::store::{PostingKey, TokenStore};
use log::{error, warn};
use signal_hook::consts::{SIGCHLD, SIGXFSZ};

/// The end of a command: success, or the exit code of a failure that people were told.
pub(super) type Done = Result<(), ExitCode>;

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const CANT_BIND: u8 = 69;
pub(super) const BAD_CONFIG: u8 = 78;
/// The stack of a thread that waits for a signal or stops the proxy.
pub(super) const SIGNAL_STACK_BYTES: usize = 128 * 1024;

/// Makes a write beyond the file size limit (`ulimit -f`) fail, as on a full disk; by default it ends the process.
pub(super) fn survive_file_size_limit() {
    // The flag is never read; if it can't be registered, the limit ends the process as before.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Has children wait to be reaped. A parent that ignores their ends (Perl's `$SIG{CHLD} = 'IGNORE'`) hands that on, and the
/// system would forget the exit code of a `token_command`.
pub(super) fn keep_ended_children() {
    // As above, the flag is never read.
    let _ = signal_hook::flag::register(SIGCHLD, Arc::default());
}

/// Prints a line on stderr; if that fails, nobody is left to tell.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub(super) fn say_all(lines: &[String]) {
    for line in lines {
        say(line);
    }
}

/// The first failure to print on stdout.
static UNPRINTED: OnceLock<io::Error> = OnceLock::new();

/// Prints on stdout. [`well_printed`] tells of a failure at the end of the command.
pub(super) fn say_out(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(why) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        let _ = UNPRINTED.set(why);
    }
}

/// True if everything was printed so far.
pub(super) fn is_printed() -> bool {
    UNPRINTED.get().is_none()
}

/// The end of a command that is `done`: without its output, it has failed.
pub(super) fn well_printed(done: Done) -> Done {
    let Some(why) = UNPRINTED.get() else { return done };
    // A closed pipe is a reader that wants no more.
    if why.kind() != io::ErrorKind::BrokenPipe {
        say(&format!("The output can't be printed: {why}"));
    }
    done.and(Err(ExitCode::from(FAILED)))
}

#[expect(clippy::disallowed_methods, reason = "the environment enters the program here")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The variables of the process, and those in a file for names that the process has not set.
#[derive(Debug, Default)]
pub(super) struct Variables {
    file: HashMap<String, String>,
    /// The file that an option named.
    pub(super) named: Option<String>,
    /// The file beside the configuration that gave some, without an option.
    pub(super) beside: Option<String>,
    /// Warnings about the file.
    pub(super) warnings: Vec<String>,
    /// The reason why the file beside the configuration can't be read.
    pub(super) unread: Option<Problem>,
}

impl Variables {
    /// With the named file, else with the file beside the configuration, if it exists: the shell of a login lacks a
    /// service's variables. The error is the reason why a named file can't be read.
    pub(super) fn of(files: &Files) -> Result<Self, Problem> {
        let beside = files.config.with_file_name(environment_file::USUAL_NAME);
        let path = files.environment.as_ref().unwrap_or(&beside);
        let shown = path.display().to_string();
        match regular_file::read_to_string(path) {
            Ok(text) => {
                let found = Self::of_file(path, &text);
                Ok(match files.environment {
                    Some(_) => Self { named: Some(shown), ..found },
                    None => found.beside_configuration(path),
                })
            }
            Err(error) if files.environment.is_some() => Err(unreadable(&shown, &error)),
            Err(error) if is_absent(&error) => Ok(Self::default()),
            Err(error) => {
                let warning = format!(
                    "{shown}: warning: can't be read, so its variables are missing: {error}"
                );
                let unread = Some(unreadable(&shown, &error));
                Ok(Self { warnings: vec![warning], unread, ..Self::default() })
            }
        }
    }

    /// The same without a named file, whose mode matters in that case.
    fn beside_configuration(mut self, path: &Path) -> Self {
        let shown = path.display().to_string();
        let mode = fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
        if mode & 0o044 != 0 && !self.file.is_empty() {
            self.warnings.push(format!(
                "{shown}: warning: this file has mode {mode:o}, so group or others can read the secrets in it; \
                 chmod 600 it"
            ));
        }
        Self { beside: Some(shown), ..self }
    }

    /// With the named file, if any.
    pub(super) fn of_named(files: &Files) -> Result<Self, Problem> {
        if files.environment.is_some() { Self::of(files) } else { Ok(Self::default()) }
    }

    fn of_file(path: &Path, text: &str) -> Self {
        let found = environment_file::parse(text);
        let unclear = |line| {
            format!("{}:{line}: warning: this is not NAME=value, so it is ignored", path.display())
        };
        let warnings = found.unclear_lines.into_iter().map(unclear).collect();
        Self { file: found.values, warnings, ..Self::default() }
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        let of_process = variable(name).filter(|value| !value.is_empty());
        of_process.or_else(|| self.file.get(name).cloned())
    }
}

fn unreadable(path: &str, error: &io::Error) -> Problem {
    Problem::of(path, format!("can't be read: {error}"))
}

/// A folder in place of the file counts as no file.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

/// The configuration and its warnings, in words for log lines of that level, or every problem.
pub(super) fn load(
    files: &Files,
    variables: Result<Variables, Problem>,
) -> Result<(Config, Vec<String>), Vec<Problem>> {
    load_for(files, variables, |problem| problem)
}

/// The same for a command that takes the problems as `taken`.
fn load_for(
    files: &Files,
    variables: Result<Variables, Problem>,
    taken: fn(Problem) -> Problem,
) -> Result<(Config, Vec<String>), Vec<Problem>> {
    let variables = variables.map_err(|problem| vec![problem])?;
    let (config, problems) = inspect(&files.config, &variables);
    let problems = problems.into_iter().map(taken).collect();
    let (config, problems) = resolve::usable((config, problems))?;
    let mut warnings = variables.warnings;
    warnings.extend(problems.iter().map(Problem::in_log));
    Ok((config, warnings))
}

/// Reads the configuration for a command without the server and begins the log, or prints the problems that keep the
/// configuration from use.
pub(super) fn begin(
    files: &Files,
    log: logger::Options,
) -> Result<(Config, Environment), ExitCode> {
    let loaded = load_for(files, Variables::of(files), Problem::without_server);
    let (config, warnings) = loaded.map_err(|problems| refuse(&problems, log))?;
    let clock = Clock::system();
    start_log(&config, warnings, log, &clock);
    Ok((config, environment(clock)))
}

pub(super) fn refuse(problems: &[Problem], log: logger::Options) -> ExitCode {
    let (lines, now) = (line_form(log), Clock::system().wall());
    for problem in problems {
        say(&lines.of_problem(&problem.to_string(), now));
    }
    ExitCode::from(BAD_CONFIG)
}

/// The text of the configuration, or the reason why there is none.
pub(super) fn text_of(path: &Path) -> Result<String, (Option<Position>, String)> {
    let bytes = regular_file::read(path).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "ask its owner or root, or name another file with --config"
            }
            _ => "copy providers.yaml.example to start with, or name another file with --config",
        };
        (None, format!("can't be read: {error}; {advice}"))
    })?;
    encoding::text_of(bytes)
}

/// See [`resolve::inspect`].
pub(super) fn inspect(path: &Path, variables: &Variables) -> (Option<Config>, Vec<Problem>) {
    let shown = path.display().to_string();
    let text = match text_of(path) {
        Ok(text) => text,
        Err((position, message)) => {
            return (None, vec![Problem { position, ..Problem::of(&shown, message) }]);
        }
    };
    inspect_text(&text, path, variables)
}

/// The same for the text of the file at `path`.
pub(super) fn inspect_text(
    text: &str,
    path: &Path,
    variables: &Variables,
) -> (Option<Config>, Vec<Problem>) {
    let shown = path.display().to_string();
    let mode = mode_of(path);
    // If it is unknown, a relative path stays as it is.
    let working_folder = std::env::current_dir().ok();
    let sources = resolve::Sources {
        environment: &|name| variables.get(name),
        files: &secret_file::read,
        now: Clock::system().wall(),
        file_modes: &mode_of,
        file_mode: mode,
        is_root: rustix::process::geteuid().is_root(),
        working_folder: working_folder.as_deref(),
    };
    let (mut config, problems) = resolve::inspect(text, &shown, &sources);
    for provider in config.iter_mut().flat_map(|config| &mut config.providers) {
        if let (Credential::Refreshed(refresh), Some(file)) =
            (&mut provider.credential, &variables.named)
        {
            refresh.call = refresh.call.clone().with_environment_file(file);
        }
    }
    (config, problems)
}

fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.permissions().mode())
}

/// The index of the provider called `name`, or a failure with the names that exist.
pub(super) fn provider_called(name: &str, config: &Config) -> Result<usize, ExitCode> {
    find_provider(&config.providers, name).ok_or_else(|| {
        let slugs: Vec<_> = config.providers.iter().map(|one| one.slug.as_str()).collect();
        fail(format!("There is no provider '{name}'; there are: {}", slugs.join(", ")), USAGE)
    })
}

/// A refresher of `group` without the server.
pub(super) fn refresher(
    posting: PostingKey,
    group: &Group,
    config: &Config,
    environment: &mut Environment,
) -> Result<Setup, ExitCode> {
    let store = Arc::new(TokenStore::default());
    setup_of(posting, group, config, &store, environment).map_err(|error| fail(error, BAD_CONFIG))
}

/// The same, with its postings in `store`. The provider whose token its requests carry has a valid one then, if it can.
pub(super) fn setup_of(
    posting: PostingKey,
    group: &Group,
    config: &Config,
    store: &Arc<TokenStore>,
    environment: &mut Environment,
) -> Result<Setup, StartError> {
    // Apart from the keys of the groups, which are counted from 0.
    let keys = |index: usize| PostingKey::MAX - index as PostingKey;
    let all = groups(&config.providers);
    let bearer = bearer::provider_of(&group.config, config);
    let other = bearer.and_then(|index| all.iter().find(|one| one.members.contains(&index)));
    if let Some((index, other)) = bearer.zip(other) {
        obtain_once(setup_of(keys(index), other, config, store, environment)?);
    }
    let place = assemble::place_of(group, config);
    assemble::refresher_setup(posting, group, &place, config, store, environment, &keys)
}

/// The reason why the tokens of `provider` are not refreshed.
pub(super) fn not_refreshed(provider: &ProviderConfig) -> String {
    let why = provider.credential.why_not_refreshed();
    if provider.enabled {
        format!("Provider {} is not refreshed: {why}", provider.name)
    } else {
        format!("Provider {} is disabled (its 'enabled' is false), and {why}", provider.name)
    }
}

/// The form of log lines.
fn line_form(log: logger::Options) -> logger::LineForm {
    let stream = variable("JOURNAL_STREAM");
    logger::LineForm::new(log.format, logger::goes_to_journal(stream.as_deref()))
}

/// Begins the log, with the warnings of the configuration.
pub(super) fn start_log(
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

pub(super) fn environment(clock: Clock) -> Environment {
    Environment {
        clock,
        rng: fastrand::Rng::new(),
        timer: crossbeam_channel::after,
        supervisor: Supervisor::systemd(variable("FDSTORE").as_deref()),
    }
}

/// Logs why a command failed.
pub(super) fn fail(why: impl Display, code: u8) -> ExitCode {
    error!("{why}");
    ExitCode::from(code)
}

/// Prints why a command without a log failed.
pub(super) fn tell(why: impl Display, code: u8) -> ExitCode {
    say(&why.to_string());
    ExitCode::from(code)
}
