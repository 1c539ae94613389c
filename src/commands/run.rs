//! `evertoken run`: the proxy in the foreground, and the signals that it obeys.

use std::path::Path;
use std::process::ExitCode;

use evertoken::app::{App, StartError};
use evertoken::clock::Clock;
use evertoken::config::{Config, Server, is_loopback_host};
use evertoken::{logger, thread};
use log::{info, warn};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::commands::{
    BAD_CONFIG, CANT_BIND, FAILED, SIGNAL_STACK_BYTES, environment, fail, read, refuse, start_log,
};

/// Descriptors beside those of connections: state files, refreshes, signals, the log.
const OTHER_DESCRIPTORS: u64 = 64;

/// Runs until a signal ends it.
pub(crate) fn run(path: &Path, listen: Option<(String, u16)>, log: logger::Options) -> ExitCode {
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
