//! `evertoken login`: a provider's first refresh token, with the terminal and the desktop.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use crate::assemble;
use crate::cli::Files;
use crate::clock::Clock;
use crate::config::find_provider;
use crate::logger;
use crate::login::terminal::{self, TerminalLines};
use crate::login::{self, LoginError, LoginOptions};
use crate::token::group::groups;
use crate::token::refresher::Setup;
use crate::token::state_file::check_writable;
use crate::token::store::TokenStore;

use crate::commands::common::{
    BAD_CONFIG, CANT_BIND, FAILED, USAGE, environment, fail, load, not_refreshed, say_out,
    start_log, unknown_provider, variable,
};

/// Logs in to the provider called `name`.
pub(crate) fn run(files: &Files, name: &str, options: LoginOptions) -> ExitCode {
    let log = logger::Options::default();
    let (config, warnings) = match load(files, log) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let clock = Clock::system();
    start_log(&config, warnings, log, &clock);
    let found = find_provider(&config.providers, name);
    let Some(index) = found else {
        return fail(&unknown_provider(name, &config), USAGE);
    };
    if let Err(error) = check_writable(&config.settings.state_dir) {
        let folder = config.settings.state_dir.display();
        return fail(&format!("The state folder {folder} can't be written: {error}"), BAD_CONFIG);
    }
    let (mut environment, store) = (environment(clock), Arc::new(TokenStore::default()));
    let groups = groups(&config.providers);
    let Some(group) = groups.iter().find(|group| group.members.contains(&index)) else {
        return fail(&not_refreshed(&config.providers[index]), BAD_CONFIG);
    };
    let setup = match assemble::refresher_setup(
        0,
        group,
        &assemble::place_of(group, &config),
        &config,
        &store,
        &mut environment,
    ) {
        Ok(setup) => setup,
        Err(error) => return fail(&error.to_string(), BAD_CONFIG),
    };
    if let Some(error) = unreadable_state(&setup) {
        let path = setup.state.path();
        let path = path.display();
        let why = format!(
            "The state file {path} can't be read ({error}), so a login could not be stored; mend that first"
        );
        return fail(&why, FAILED);
    }
    match log_in(&setup, options) {
        Ok(done) => {
            say_out(&done);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string(), exit_code(&error)),
    }
}

fn exit_code(error: &LoginError) -> u8 {
    match error {
        LoginError::Unconfigured(..) | LoginError::Missing(_) => BAD_CONFIG,
        LoginError::Bind(..) => CANT_BIND,
        _ => FAILED,
    }
}

/// The reason why the state file can't be read, which would leave no place for the login's tokens.
fn unreadable_state(setup: &Setup) -> Option<io::Error> {
    setup.state.load().err().filter(|error| error.kind() != io::ErrorKind::InvalidData)
}

/// Logs in with the terminal, the desktop and the system's random bytes; returns the final message.
fn log_in(setup: &Setup, options: LoginOptions) -> Result<String, LoginError> {
    let mut lines = None;
    let mut ask = |allowed| match &mut lines {
        Some(lines) => TerminalLines::next(lines, allowed),
        none => none.insert(TerminalLines::of_stdin()?).next(allowed),
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
    let mut io =
        login::LoginIo { say: &mut say, ask: &mut ask, open: &mut open, random: &mut random };
    login::run(setup, options, &mut io)
}
