//! The `evertoken` command: arguments, environment, logger, signals and exit codes.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use evertoken::app::{App, Environment, StartError};
use evertoken::cli::{self, Command};
use evertoken::clock::Clock;
use evertoken::config::resolve::{self, Problem};
use evertoken::config::{Config, Server, find_provider, is_loopback_host};
use evertoken::logger;
use evertoken::login::terminal::{self, Lines};
use evertoken::login::{self, Wish};
use evertoken::proxy::route;
use evertoken::status::{self, Target};
use evertoken::supervisor::Supervisor;
use evertoken::token::refresher::Setup;
use evertoken::token::state_file::check_writable;
use evertoken::token::store::TokenStore;
use evertoken::{app, check, thread};
use log::{error, info, warn};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CANT_BIND: u8 = 69;
const BAD_CONFIG: u8 = 78;
/// Descriptors beside those of connections: state files, refreshes, signals, the log.
const OTHER_DESCRIPTORS: u64 = 64;
/// The stack of the thread that stops the proxy, and of the one that waits for Ctrl-C.
const STOP_STACK_BYTES: usize = 128 * 1024;
/// The configuration that `status` looks for where none is named.
const USUAL_CONFIG: &str = "providers.yaml";

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { config, listen, log }) => run(&config, listen, log),
        Ok(Command::Check { config, online }) => run_check(&config, online),
        Ok(Command::Refresh { config, provider, log }) => {
            run_refresh(&config, provider.as_deref(), log)
        }
        Ok(Command::Status { config, url, wish }) => {
            run_status(config.as_deref(), url.as_deref(), wish)
        }
        Ok(Command::Login { config, provider, wish }) => run_login(&config, &provider, wish),
        Ok(Command::Print(text)) => {
            say_out(&text);
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(why.trim_end());
            ExitCode::from(USAGE)
        }
    }
}

/// A line on stderr; there is nobody left to tell where that fails.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn say_out(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

#[expect(clippy::disallowed_methods, reason = "the environment enters the program here")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the configuration; the problems that keep it from use are printed.
fn load(path: &Path, log: logger::Options) -> Result<(Config, Vec<String>), ExitCode> {
    read(path).map_err(|problems| refuse(&problems, log))
}

fn refuse(problems: &[String], log: logger::Options) -> ExitCode {
    let (lines, now) = (line_form(log), Clock::system().wall());
    for problem in problems {
        say(&lines.of_problem(problem, now));
    }
    ExitCode::from(BAD_CONFIG)
}

/// Reads the configuration: it and its warnings, or every problem.
fn read(path: &Path) -> Result<(Config, Vec<String>), Vec<String>> {
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
fn inspect(path: &Path) -> (Option<Config>, Vec<Problem>) {
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
        files: &|path| std::fs::read_to_string(path),
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
fn start_log(config: &Config, warnings: Vec<String>, log: logger::Options, clock: &Clock) {
    let filters = variable("RUST_LOG");
    let level = config.settings.log_level;
    logger::start(line_form(log), level, log, filters.as_deref(), clock.clone());
    for warning in warnings {
        warn!("{warning}");
    }
}

/// Takes as many descriptors as the system allows, and says where that is not enough.
fn raise_descriptor_limit(max_connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    // None is no limit.
    if limit.current.is_some() {
        limit.current = limit.maximum;
        // Where that is not allowed, the present limit stays.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Each connection may need one to its provider, and there are files, folders and refreshes.
    let wanted = 2 * max_connections as u64 + OTHER_DESCRIPTORS;
    if allowed < wanted {
        warn!(
            "{allowed} descriptors are allowed (ulimit -n), but settings.max_connections \
             ({max_connections}) may need {wanted}; connections beyond that wait or are ended"
        );
    }
}

fn environment(clock: Clock) -> Environment {
    Environment {
        clock,
        rng: fastrand::Rng::new(),
        timer: crossbeam_channel::after,
        supervisor: Supervisor::systemd(),
    }
}

fn run(path: &Path, listen: Option<(String, u16)>, log: logger::Options) -> ExitCode {
    let source = path.to_owned();
    let reload = move || -> Result<(Config, Vec<String>), Vec<String>> {
        let (config, warnings) = read(&source)?;
        let config = listen_on(config, listen.as_ref()).map_err(|why| vec![why])?;
        Ok((config, warnings))
    };
    let (config, warnings) = match reload() {
        Ok(loaded) => loaded,
        Err(problems) => return refuse(&problems, log),
    };
    let clock = Clock::system();
    start_log(&config, warnings, log, &clock);
    raise_descriptor_limit(config.settings.limits.max_connections);
    // Before anything starts, so that no signal finds its default action.
    let signals = match Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1]) {
        Ok(signals) => signals,
        Err(error) => return fail(&format!("Signals can't be handled: {error}"), FAILED),
    };
    match App::start(config, environment(clock), Box::new(reload)) {
        Ok(app) => serve(app, signals),
        Err(error @ StartError::Bind(..)) => fail(&error.to_string(), CANT_BIND),
        Err(error @ StartError::Provider(..)) => fail(&error.to_string(), BAD_CONFIG),
        Err(error @ StartError::Thread(_)) => fail(&error.to_string(), FAILED),
    }
}

fn fail(why: &str, code: u8) -> ExitCode {
    error!("{why}");
    ExitCode::from(code)
}

/// The configuration with the address of the command line, where one is given.
fn listen_on(mut config: Config, listen: Option<&(String, u16)>) -> Result<Config, String> {
    if let Some((host, port)) = listen {
        config.settings.host.clone_from(host);
        config.settings.port = *port;
        check_listen(&config).map_err(|why| format!("--listen: {why}"))?;
    }
    Ok(config)
}

/// What the configuration check says of a listening address, for one from the command line.
fn check_listen(config: &Config) -> Result<(), &'static str> {
    let settings = &config.settings;
    if is_loopback_host(&settings.host) {
        return Ok(());
    }
    if settings.inbound_keys.is_none() {
        return Err("an address that is not loopback needs settings.auth.enabled");
    }
    if settings.server == Server::TinyHttp {
        return Err("settings.server \"tiny_http\" is for loopback addresses only");
    }
    Ok(())
}

/// Obeys signals until the proxy has stopped.
fn serve(app: App, mut signals: Signals) -> ExitCode {
    let mut running = Some(app);
    let mut stopping = None;
    let handle = signals.handle();
    for signal in signals.forever() {
        match (signal, running.take()) {
            (SIGTERM | SIGINT, Some(app)) => {
                info!("Stopping; requests in flight are finished first");
                let handle = handle.clone();
                let stop = move || {
                    let cut_off = app.stop();
                    if cut_off > 0 {
                        warn!("{cut_off} connections were cut off");
                    }
                    handle.close();
                };
                match thread::spawn("stop", STOP_STACK_BYTES, stop) {
                    Ok(thread) => stopping = Some(thread),
                    Err(error) => return fail(&format!("Can't stop in order: {error}"), FAILED),
                }
            }
            (SIGTERM | SIGINT, None) => {
                warn!("Stopping at once");
                if let Some(thread) = stopping.take() {
                    thread.detach();
                }
                return ExitCode::SUCCESS;
            }
            (SIGUSR1, Some(app)) => {
                info!("Refreshing every provider");
                app.refresh_all();
                running = Some(app);
            }
            (SIGHUP, Some(app)) => {
                // What is wrong with it is in the log.
                let _ = app.reload();
                running = Some(app);
            }
            (_, other) => running = other,
        }
    }
    drop(stopping);
    info!("Stopped");
    ExitCode::SUCCESS
}

fn run_check(path: &Path, online: bool) -> ExitCode {
    let (config, found) = inspect(path);
    for problem in &found {
        say(&problem.to_string());
    }
    let Some(config) = config else { return ExitCode::from(BAD_CONFIG) };
    if found.iter().any(|problem| !problem.is_warning) {
        // What the environment and the state folder lack is said in the same go.
        for problem in check::offline(&config) {
            say(&problem);
        }
        return ExitCode::from(BAD_CONFIG);
    }
    say_out("Requests go to:\n");
    for line in route::explain(&config) {
        say_out(&format!("  {line}\n"));
    }
    if let Some(line) = check::sharing(&config) {
        say_out(&format!("{line}\n"));
    }
    let mut problems = check::offline(&config);
    problems.extend(check::ways(&config));
    if online {
        let report = check::online(&config, &Clock::system());
        say_out(&report.fine.iter().map(|line| format!("{line}\n")).collect::<String>());
        problems.extend(report.problems);
    }
    for problem in &problems {
        say(problem);
    }
    if problems.is_empty() {
        say_out(&format!("{}: everything is in order\n", path.display()));
        return ExitCode::SUCCESS;
    }
    ExitCode::from(BAD_CONFIG)
}

fn run_refresh(path: &Path, wanted: Option<&str>, log: logger::Options) -> ExitCode {
    let (config, warnings) = match load(path, log) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let clock = Clock::system();
    start_log(&config, warnings, log, &clock);
    let mut environment = environment(clock);
    let store = Arc::new(TokenStore::new());
    let mut refreshed = 0;
    let mut failed = false;
    let meant = wanted.map(|name| find_provider(&config.providers, name));
    for (index, provider) in config.providers.iter().enumerate() {
        if meant.map_or(!provider.enabled, |meant| meant != Some(index)) {
            continue;
        }
        let posting = index as u64;
        let setup =
            app::refresher_setup(posting, provider, &config.settings, &store, &mut environment);
        match setup {
            Ok(Some(setup)) => {
                refreshed += 1;
                failed |= evertoken::token::refresher::refresh_once(setup).is_err();
            }
            Ok(None) => {}
            Err(error) => return fail(&error.to_string(), BAD_CONFIG),
        }
    }
    if refreshed == 0 {
        return fail("There is no such provider with a token to refresh", USAGE);
    }
    ExitCode::from(u8::from(failed))
}

fn run_login(path: &Path, name: &str, wish: Wish) -> ExitCode {
    let log = logger::Options::default();
    let (config, warnings) = match load(path, log) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let clock = Clock::system();
    start_log(&config, warnings, log, &clock);
    let found = find_provider(&config.providers, name);
    let Some(provider) = found.map(|index| &config.providers[index]) else {
        return fail(&format!("There is no provider '{name}'"), USAGE);
    };
    if let Err(error) = check_writable(&config.settings.state_dir) {
        let folder = config.settings.state_dir.display();
        return fail(&format!("The state folder {folder} can't be written: {error}"), BAD_CONFIG);
    }
    let (mut environment, store) = (environment(clock), Arc::new(TokenStore::new()));
    let setup = app::refresher_setup(0, provider, &config.settings, &store, &mut environment);
    let setup = match setup {
        Ok(Some(setup)) => setup,
        Ok(None) => return fail(&format!("Provider {name} has no token to refresh"), BAD_CONFIG),
        Err(error) => return fail(&error.to_string(), BAD_CONFIG),
    };
    match log_in(&setup, wish) {
        Ok(done) => {
            say_out(&done);
            ExitCode::SUCCESS
        }
        Err(login::Failed::Config(why)) => fail(&why, BAD_CONFIG),
        Err(login::Failed::Bind(why)) => fail(&why, CANT_BIND),
        Err(login::Failed::Login(why)) => fail(&why, FAILED),
    }
}

/// Logs in with the terminal, the desktop and the system's random bytes; what to say in the end.
fn log_in(setup: &Setup, wish: Wish) -> Result<String, login::Failed> {
    let mut lines = None;
    let mut ask = |allowed| match &mut lines {
        Some(lines) => Lines::next(lines, allowed),
        none => none.insert(Lines::of_stdin()?).next(allowed),
    };
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let has_display = is_set("DISPLAY") || is_set("WAYLAND_DISPLAY");
    let mut open = |address: &str| {
        if has_display {
            terminal::open_browser(address);
        }
    };
    let mut say = |text: &str| say_out(&format!("{text}\n"));
    let mut random = terminal::random;
    let mut means =
        login::Means { say: &mut say, ask: &mut ask, open: &mut open, random: &mut random };
    login::run(setup, wish, &mut means)
}

/// A configuration that was not named is read only where no address was.
fn run_status(config: Option<&Path>, url: Option<&str>, wish: status::Wish) -> ExitCode {
    let usual = Path::new(USUAL_CONFIG);
    let found = (url.is_none() && usual.exists()).then_some(usual);
    let loaded = config.or(found).map(|path| load(path, logger::Options::default()));
    let config = match loaded.transpose() {
        Ok(loaded) => loaded.map(|(config, _)| config),
        Err(code) => return code,
    };
    let key = variable("EVERTOKEN_API_KEY");
    let target = match Target::choose(url, config.as_ref(), key.as_deref()) {
        Ok(target) => target,
        Err(why) => {
            say(&why);
            return ExitCode::from(USAGE);
        }
    };
    let interrupted = match interruption() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            say(&format!("Signals can't be handled: {error}"));
            return ExitCode::from(FAILED);
        }
    };
    let size = || std::io::stdout().is_terminal().then(terminal_size);
    let no_colour = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut means = status::Means {
        out: &mut say_out,
        err: &mut say,
        size: &size,
        is_coloured: size().is_some() && !no_colour,
        interrupted,
    };
    let is_ready = status::run(&target, wish, &mut means);
    ExitCode::from(if is_ready { 0 } else { FAILED })
}

/// How large the terminal is, or the usual size where it does not say.
fn terminal_size() -> status::Size {
    let told = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    match told.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row))) {
        Some((columns @ 1.., rows @ 1..)) => status::Size { columns, rows },
        _ => status::Size { columns: 80, rows: 24 },
    }
}

/// Is disconnected by the first SIGINT or SIGTERM.
fn interruption() -> std::io::Result<Receiver<()>> {
    let (held, interrupted) = crossbeam_channel::bounded(0);
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let wait = move || {
        signals.forever().next();
        drop(held);
    };
    // It ends with the process.
    thread::spawn("signals", STOP_STACK_BYTES, wait)?.detach();
    Ok(interrupted)
}
