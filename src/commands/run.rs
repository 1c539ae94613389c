//! `evertoken run`: the proxy in the foreground, and the signals that it obeys.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use evertoken::app::{App, StartError};
use evertoken::cli::Files;
use evertoken::clock::Clock;
use evertoken::config::{Config, Server, is_loopback_host};
use evertoken::{listener_owner, logger, reload, thread};
use log::{info, warn};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::commands::{
    BAD_CONFIG, CANT_BIND, FAILED, SIGNAL_STACK_BYTES, Variables, environment, fail, read, refuse,
    start_log,
};

/// Descriptors beside those of connections: state files, refreshes, signals, the log.
const OTHER_DESCRIPTORS: u64 = 64;

/// Runs until a signal ends it.
pub(crate) fn run(files: Files, listen: Option<(String, u16)>, log: logger::Options) -> ExitCode {
    let reload = move || -> Result<(Config, Vec<String>), Vec<String>> {
        let variables = Variables::of_named(&files).map_err(|why| vec![why])?;
        let (config, mut warnings) = read(&files.config, &variables)?;
        let config = listen_on(config, listen.as_ref()).map_err(|why| vec![why])?;
        warnings.splice(0..0, variables.warnings);
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
    let state_dir = config.settings.state_dir.clone();
    let port = config.settings.port;
    match App::start(config, environment(clock), Box::new(reload)) {
        Ok(app) => serve(app, signals, &state_dir),
        Err(error @ StartError::Bind(..)) => {
            fail(&format!("{error}{}", way_out(&error, port)), CANT_BIND)
        }
        Err(error @ StartError::Provider(..)) => fail(&error.to_string(), BAD_CONFIG),
        Err(error @ StartError::Thread(_)) => fail(&error.to_string(), FAILED),
    }
}

/// What to do about an address that can't be bound, and who has it.
fn way_out(error: &StartError, port: u16) -> String {
    let StartError::Bind(_, cause) = error else { return String::new() };
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            let owner = listener_owner::find(port).map_or_else(
                || "another process has the port".to_owned(),
                |owner| format!("the port is in use by {owner}"),
            );
            format!("; {owner}; --listen HOST:PORT or settings.port takes another one")
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 are for root: --listen HOST:PORT or settings.port takes another one"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "; this machine has no such address: see settings.host, or --listen HOST:PORT"
                .to_owned()
        }
        _ => String::new(),
    }
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

/// Obeys signals until the proxy has stopped.
fn serve(app: App, mut signals: Signals, state_dir: &Path) -> ExitCode {
    let mut reloads = 0;
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
                match thread::spawn("stop", SIGNAL_STACK_BYTES, stop) {
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
                reloads += 1;
                tell_outcome(state_dir, reloads, app.reload());
                running = Some(app);
            }
            (_, other) => running = other,
        }
    }
    drop(stopping);
    info!("Stopped");
    ExitCode::SUCCESS
}

/// Leaves for `evertoken reload` how a reload went; what is wrong with the file is in the log already.
fn tell_outcome(state_dir: &Path, count: u64, outcome: Result<Vec<String>, Vec<String>>) {
    let is_in_use = outcome.is_ok();
    let lines = outcome.unwrap_or_else(|problems| problems);
    let told = reload::Outcome { process: std::process::id(), count, is_in_use, lines };
    if let Err(error) = reload::tell(state_dir, &told) {
        warn!("How the reload went can't be written for `evertoken reload`: {error}");
    }
}
