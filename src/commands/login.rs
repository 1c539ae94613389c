//! `evertoken login`: a provider's first refresh token, with the terminal and the desktop.

use std::io;

use crate::cli::Files;
use crate::logger;
use crate::login::terminal::{self, TerminalLines};
use crate::login::{self, LoginError, LoginOptions};
use crate::token::group::groups;
use crate::token::refresher::Setup;
use crate::token::state_file::check_writable;
use log::warn;

use crate::commands::common::{
    BAD_CONFIG, CANT_BIND, Done, FAILED, begin, fail, not_refreshed, provider_called, refresher,
    say_out, variable,
};

/// Logs in to the provider called `name`.
pub(crate) fn run(files: &Files, name: &str, options: LoginOptions) -> Done {
    let (config, mut environment) = begin(files, logger::Options::default())?;
    let index = provider_called(name, &config)?;
    check_writable(&config.settings.state_dir).map_err(|error| {
        let folder = config.settings.state_dir.display();
        fail(format!("The state folder {folder} can't be written: {error}"), BAD_CONFIG)
    })?;
    let groups = groups(&config.providers);
    let group = groups.iter().find(|group| group.members.contains(&index));
    let group = group.ok_or_else(|| fail(not_refreshed(&config.providers[index]), BAD_CONFIG))?;
    complete(refresher(0, group, &config, &mut environment)?, options)
}

/// Logs in as `setup` says, and tells the outcome.
pub(super) fn complete(mut setup: Setup, options: LoginOptions) -> Done {
    if let Some(error) = unreadable_state(&setup) {
        let path = setup.state.path();
        let path = path.display();
        let why = format!(
            "The state file {path} can't be read ({error}), so a login could not be stored; mend that first"
        );
        return Err(fail(why, FAILED));
    }
    let found = login::discover(&mut setup, options);
    let warning = found.map_err(|error| fail(&error, exit_code(&error)))?;
    if let Some(warning) = warning {
        warn!("{warning}");
    }
    let done = log_in(&setup, options).map_err(|error| fail(&error, exit_code(&error)))?;
    say_out(&done);
    Ok(())
}

fn exit_code(error: &LoginError) -> u8 {
    match error {
        LoginError::Unconfigured(..) | LoginError::NotNeeded(..) | LoginError::Missing(_) => {
            BAD_CONFIG
        }
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
    let opens = has_display && !options.no_browser;
    let mut open = |address: &str| {
        if opens {
            terminal::open_browser(address);
        }
    };
    let mut say = |text: &str| say_out(&format!("{text}\n"));
    let mut random = terminal::random;
    let mut io =
        login::LoginIo { say: &mut say, ask: &mut ask, open: &mut open, random: &mut random };
    login::run(setup, options, &mut io)
}
