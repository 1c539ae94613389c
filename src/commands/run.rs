//! `evertoken run`: the proxy in the foreground, and its signals.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use crate::app::App;
use crate::assemble::StartError;
use crate::bound::Bound;
use crate::cli::Files;
use crate::clock::{Clock, Stopwatch};
use crate::config::resolve::{Problem, tls};
use crate::config::{Config, ListenAddress, ServerKind, Settings};
use crate::current::Current;
use crate::ingress::bind::Listener;
use crate::ingress::door::descriptors_wanted;
use crate::ingress::handed;
use crate::listener_owner;
use crate::logger;
use crate::reload;
use crate::thread;
use crate::token::command;
use crate::token::state_file::check_writable;
use crossbeam_channel::{Sender, bounded};
use log::{error, info, warn};
use rustix::process::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};

use crate::commands::common::{
    BAD_CONFIG, CANT_BIND, Done, FAILED, SIGNAL_STACK_BYTES, Variables, environment, fail, load,
    refuse, start_log, tell, variable,
};
use crate::commands::interruption::end_start_on_signals;
use crate::commands::restart::Program;
use crate::commands::unset;

/// The stack of the thread that reads the configuration again.
const RELOAD_STACK_BYTES: usize = 512 * 1024;

/// Runs until a signal ends it.
pub(crate) fn run(files: Files, listen: Option<ListenAddress>, log: logger::Options) -> Done {
    // Absolute, because `evertoken reload` may be called elsewhere; as it was given if that fails.
    let configuration = std::path::absolute(&files.config).unwrap_or_else(|_| files.config.clone());
    let named = files.environment.clone();
    // Before anything is opened.
    let handed = handed::take(variable).map_err(|error| tell(error, CANT_BIND))?;
    let listen = Listen { by_command_line: listen, handed: replacing(&handed) };
    let read = move || -> Result<(Config, Vec<String>), Vec<Problem>> {
        let (config, mut warnings) = load(&files, Variables::of_named(&files))?;
        warnings.extend(listen.left_out(&config.settings.listen));
        warnings.extend(listen.plain_to_others(&config.settings));
        let config = listen.applied_to(config).map_err(|problem| vec![problem])?;
        Ok((config, warnings))
    };
    let started = Stopwatch::start();
    let (config, warnings) = read().map_err(|problems| refuse(&problems, log))?;
    let clock = Clock::system();
    start_log(&config, warnings, log, &clock);
    raise_descriptor_limit(&config.settings);
    // Before anything starts, so that no signal takes its default action.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])
        .map_err(|error| fail(format_args!("Signals can't be handled: {error}"), FAILED))?;
    // Nobody reads those before the app serves, and until then it may have to wait for a disk.
    let starting = end_start_on_signals();
    let state_dir = config.settings.state_dir.clone();
    let reload = Box::new(move || unset::explained(read(), named.as_deref(), std::process::id()));
    let sockets = handed.iter().map(Listener::socket).collect();
    let all = config.settings.listen.clone();
    let prepared = move || drop(starting);
    let app = App::start(config, handed, environment(clock), reload, prepared);
    let app = app.map_err(|error| match &error {
        StartError::Bind(address, cause) => {
            fail(format_args!("{error}{}", bind_advice(address, &all, cause)), CANT_BIND)
        }
        StartError::Provider(..) | StartError::Tls(_) => fail(error, BAD_CONFIG),
        StartError::Thread(_) => fail(error, FAILED),
    })?;
    if let Some(program) = Program::of_process(sockets, app.kept()) {
        program.start_after_panics(move || started.elapsed());
    }
    serve(app, signals, state_dir, configuration);
    Ok(())
}

/// Advice for an address, one of `all`, that can't be bound, with the process that has it.
fn bind_advice(address: &ListenAddress, all: &[ListenAddress], cause: &io::Error) -> String {
    match address {
        ListenAddress::Tcp { port, .. } => {
            let before = all.iter().take_while(|one| *one != address);
            let same_port = |one: &&ListenAddress| matches!(one, ListenAddress::Tcp { port: other, .. } if other == port);
            let mut before = before.filter(same_port);
            port_advice(*port, before.next(), cause.kind())
        }
        ListenAddress::Unix { .. } => match cause.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AlreadyExists => {
                "; settings.listen takes another path".to_owned()
            }
            io::ErrorKind::NotFound => {
                "; its folder does not exist: create it, or have the service manager do \
                                        so (systemd: RuntimeDirectory=)"
                    .to_owned()
            }
            io::ErrorKind::PermissionDenied => {
                "; the user that runs evertoken needs a folder of its own for the socket".to_owned()
            }
            _ => String::new(),
        },
    }
}

/// `own` is another address of evertoken's with this port.
fn port_advice(port: u16, own: Option<&ListenAddress>, cause: io::ErrorKind) -> String {
    match cause {
        io::ErrorKind::AddrInUse => {
            let owner = match (listener_owner::find(port), own) {
                (Some(owner), _) => format!("the port is in use by {owner}"),
                (None, Some(own)) if listener_owner::CAN_FIND => {
                    return format!(
                        "; settings.listen has {own} too, which is the same: leave one of them out"
                    );
                }
                (None, Some(own)) => {
                    format!(
                        "another process has the port, or {own} of settings.listen is the same address"
                    )
                }
                (None, None) => "another process has the port".to_owned(),
            };
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

/// The addresses that take the place of those in the configuration.
struct Listen {
    by_command_line: Option<ListenAddress>,
    /// Those of the sockets that the service manager handed over.
    handed: Vec<ListenAddress>,
}

impl Listen {
    /// The addresses, and where they come from; None for those in the configuration.
    fn named(&self) -> Option<(&[ListenAddress], &'static str)> {
        match (&*self.handed, &self.by_command_line) {
            ([], None) => None,
            ([], Some(address)) => Some((slice::from_ref(address), "--listen")),
            (handed, _) => Some((handed, "LISTEN_FDS (a socket of the service manager)")),
        }
    }

    fn applied_to(&self, mut config: Config) -> Result<Config, Problem> {
        let Some((addresses, place)) = self.named() else { return Ok(config) };
        for address in addresses {
            check_listen(address, &config).map_err(|why| Problem::of(place, why))?;
        }
        if config.settings.server == ServerKind::TinyHttp && addresses.len() > 1 {
            return Err(Problem::of(place, "settings.server \"tiny_http\" listens on one address"));
        }
        config.settings.listen = addresses.to_vec();
        Ok(config)
    }

    /// The warning that other machines reach them without TLS, unless there is one about the addresses in `settings`.
    fn plain_to_others(&self, settings: &Settings) -> Option<String> {
        let (addresses, place) = self.named()?;
        if settings.tls.is_some() || tls::plain_to_others(&settings.listen).is_some() {
            return None;
        }
        Some(Problem::of(place, tls::plain_to_others(addresses)?).in_log())
    }

    /// Warnings about addresses that are not listened on, because of the sockets that were handed over.
    fn left_out(&self, configured: &[ListenAddress]) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.handed.is_empty() {
            return warnings;
        }
        let handed: Vec<_> = self.handed.iter().map(ToString::to_string).collect();
        let handed = handed.join(", ");
        if let Some(address) = &self.by_command_line {
            warnings.push(format!(
                "--listen {address} is left out: the service manager handed over {handed} (LISTEN_FDS)"
            ));
        }
        let is_found = |one: &ListenAddress| self.handed.iter().any(|own| is_found_at(one, own));
        if !configured.iter().any(is_found) {
            warnings.push(format!(
                "The service manager handed over {handed} (LISTEN_FDS), which the file does not name: `evertoken \
                 status`, `token` and `reload` look for evertoken at the addresses in the file, so name it there too"
            ));
        }
        warnings
    }
}

/// True if a command that looks for evertoken at `configured` finds the socket that is bound to `handed`.
fn is_found_at(configured: &ListenAddress, handed: &ListenAddress) -> bool {
    use ListenAddress::{Tcp, Unix};
    let ip = |host: &str| host.parse::<IpAddr>().map(|address| address.to_canonical()).ok();
    match (configured, handed) {
        (Unix { path, .. }, Unix { path: handed, .. }) => path == handed,
        (Tcp { port, .. }, Tcp { port: handed, .. }) if port != handed => false,
        // A name may be that of any address.
        (Tcp { host, .. }, Tcp { host: handed, .. }) => match (ip(host), ip(handed)) {
            (Some(own), Some(handed)) => {
                let is_local = own.is_unspecified() && handed.is_loopback();
                own == handed || handed.is_unspecified() || is_local
            }
            _ => true,
        },
        _ => false,
    }
}

/// The addresses of those that take the place of configured ones. A kept socket is at an address that was configured.
fn replacing(handed: &[Listener]) -> Vec<ListenAddress> {
    handed.iter().filter(|one| !one.is_kept()).map(address).collect()
}

/// The address of a socket that was handed over.
fn address(listener: &Listener) -> ListenAddress {
    match listener.bound() {
        Bound::Tcp(address) | Bound::Tls(address) => {
            ListenAddress::Tcp { host: address.ip().to_string(), port: address.port() }
        }
        // Its mode is the service manager's.
        Bound::Unix(path) => ListenAddress::Unix { path: path.clone(), mode: 0o600 },
    }
}

/// The configuration's check of a listening address, for an address from the command line.
fn check_listen(address: &ListenAddress, config: &Config) -> Result<(), &'static str> {
    let settings = &config.settings;
    if !address.is_local() && settings.inbound_keys.is_none() {
        return Err("an address that is not loopback needs settings.auth.enabled");
    }
    let is_loopback_port = address.is_local() && matches!(address, ListenAddress::Tcp { .. });
    if settings.server == ServerKind::TinyHttp && !is_loopback_port {
        return Err("settings.server \"tiny_http\" is for loopback addresses only");
    }
    Ok(())
}

/// The most descriptors that macOS allows, whatever its maximum says (`OPEN_MAX`, setrlimit(2)).
const MACOS_DESCRIPTORS_MAX: u64 = 10_240;

/// Raises the descriptor limit to the system's maximum, and warns if that is not enough.
fn raise_descriptor_limit(settings: &Settings) {
    let max_connections = settings.limits.max_connections;
    let mut limit = getrlimit(Resource::Nofile);
    // None means no limit.
    if limit.current.is_some() {
        let present = limit.current;
        limit.current = limit.maximum;
        if setrlimit(Resource::Nofile, limit).is_err() && present < Some(MACOS_DESCRIPTORS_MAX) {
            limit.current = Some(MACOS_DESCRIPTORS_MAX);
            // If that is not allowed, the present limit stays.
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = descriptors_wanted(max_connections, settings.tls.is_some());
    if allowed < wanted {
        warn!(
            "{allowed} descriptors are allowed (ulimit -n), but settings.max_connections \
             ({max_connections}) may need {wanted}; connections beyond that wait or are ended"
        );
    }
}

/// Obeys signals until the proxy has stopped. Other threads do the slow work, so that a signal is always heard.
fn serve(app: App, mut signals: Signals, state_dir: PathBuf, configuration: PathBuf) {
    let handle = signals.handle();
    let stopper = Stopper::start(handle);
    let current = app.current();
    let mut reloads = Reloads { current: current.clone(), state_dir, configuration, inbox: None };
    let mut running = Some(app);
    for signal in signals.forever() {
        match (signal, running.take()) {
            (SIGTERM | SIGINT, Some(app)) => {
                info!("Stopping; requests in flight are finished first");
                stopper.stop(app);
            }
            (SIGTERM | SIGINT, None) => {
                warn!("Stopping at once");
                command::kill_all();
                return;
            }
            (SIGUSR1, Some(app)) => {
                info!("Refreshing every provider");
                current.refresh_all();
                running = Some(app);
            }
            (SIGHUP, Some(app)) => {
                reloads.order();
                running = Some(app);
            }
            (_, other) => running = other,
        }
    }
    info!("Stopped");
}

/// Stops the proxy on a thread that exists from the start, because at the end the system may have none to give.
struct Stopper {
    inbox: Option<Sender<App>>,
    handle: Handle,
}

impl Stopper {
    fn start(handle: Handle) -> Self {
        let (inbox, asked) = bounded::<App>(1);
        let of_thread = handle.clone();
        let wait = move || {
            if let Ok(app) = asked.recv() {
                stop(app, &of_thread);
            }
        };
        match thread::spawn("stop", SIGNAL_STACK_BYTES, wait) {
            Ok(thread) => {
                // A second signal does not wait for it.
                thread.detach();
                Self { inbox: Some(inbox), handle }
            }
            Err(error) => {
                warn!("A stop will be heard only once ({error})");
                Self { inbox: None, handle }
            }
        }
    }

    fn stop(&self, app: App) {
        let app = match &self.inbox {
            Some(inbox) => match inbox.send(app) {
                Ok(()) => return,
                Err(unsent) => unsent.0,
            },
            None => app,
        };
        stop(app, &self.handle);
    }
}

/// Stops the proxy, and then the wait for signals.
fn stop(app: App, handle: &Handle) {
    let cut_off = app.stop();
    if cut_off > 0 {
        warn!("{cut_off} connections were cut off");
    }
    handle.close();
}

/// Runs reloads on a thread that the first reload starts, because a reload may hang as a disk may.
struct Reloads {
    current: Arc<Current>,
    state_dir: PathBuf,
    configuration: PathBuf,
    inbox: Option<Sender<()>>,
}

impl Reloads {
    fn order(&mut self) {
        if self.inbox.is_none() {
            let places = (self.state_dir.clone(), self.configuration.clone());
            self.inbox = start_reloads(self.current.clone(), places);
        }
        if let Some(inbox) = &self.inbox {
            // A waiting reload will read the same file.
            let _ = inbox.try_send(());
        }
    }
}

fn start_reloads(
    current: Arc<Current>,
    (state_dir, configuration): (PathBuf, PathBuf),
) -> Option<Sender<()>> {
    let (inbox, orders) = bounded::<()>(1);
    let obey = move || {
        for (count, ()) in (1..).zip(orders) {
            let outcome = current.reload();
            let is_in_use = outcome.is_ok();
            let lines = outcome.unwrap_or_else(|problems| problems);
            let (process, configuration) = (std::process::id(), configuration.clone());
            let told = reload::ReloadOutcome { process, count, is_in_use, lines, configuration };
            tell_outcome(&state_dir, &told);
            // The caller has the new file, and looks in the folder that it names.
            let moved_to = current.proxy().settings.state_dir.clone();
            if moved_to != state_dir {
                tell_outcome(&moved_to, &told);
            }
        }
    };
    match thread::spawn("reload", RELOAD_STACK_BYTES, obey) {
        Ok(thread) => {
            thread.detach();
            Some(inbox)
        }
        Err(error) => {
            error!("The configuration can't be reloaded now: {error}");
            None
        }
    }
}

/// Stores the outcome of a reload for `evertoken reload`; the log already has the file's mistakes.
fn tell_outcome(state_dir: &Path, told: &reload::ReloadOutcome) {
    // Creates the folder if no token was stored in it yet.
    if let Err(error) =
        check_writable(state_dir).and_then(|()| reload::write_outcome(state_dir, told))
    {
        warn!("How the reload went can't be written for `evertoken reload`: {error}");
    }
}
