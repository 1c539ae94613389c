//! `evertoken logout`: revokes and deletes the tokens of a provider.

use std::process::ExitCode;

use crate::cli::Files;
use crate::config::GrantType;
use crate::logger;
use crate::login::logout::{self, LogoutError};
use crate::token::group::groups;
use crate::token::state_file::check_writable;

use crate::commands::common::{
    BAD_CONFIG, Done, FAILED, USAGE, begin, fail, not_refreshed, provider_called, refresher,
    say_out,
};

/// Logs out of the provider called `name`.
pub(crate) fn run(files: &Files, name: &str) -> Done {
    let (config, mut environment) = begin(files, logger::Options::default())?;
    let index = provider_called(name, &config)?;
    let groups = groups(&config.providers);
    let group = groups.iter().find(|group| group.members.contains(&index));
    let group = group.ok_or_else(|| {
        let why =
            format!("{}, so there is no login to end", not_refreshed(&config.providers[index]));
        fail(why, USAGE)
    })?;
    if matches!(group.config.grant_type, GrantType::Command(_)) {
        let name = &config.providers[index].name;
        let why =
            format!("Provider {name} has no login to end: its token_command brings its tokens");
        return Err(fail(why, USAGE));
    }
    check_writable(&config.settings.state_dir).map_err(|error| {
        let folder = config.settings.state_dir.display();
        fail(format!("The state folder {folder} can't be written: {error}"), BAD_CONFIG)
    })?;
    let mut setup = refresher(0, group, &config, &mut environment)?;
    say_out(&format!("Logging out of provider: {}\n", setup.name));
    let done = logout::run(&mut setup).map_err(|error| match error {
        LogoutError::Missing(_) => fail(error, BAD_CONFIG),
        LogoutError::NotStored(_) => fail(error, FAILED),
    })?;
    for line in &done.lines {
        say_out(&format!("{line}\n"));
    }
    if done.is_complete { Ok(()) } else { Err(ExitCode::from(FAILED)) }
}
