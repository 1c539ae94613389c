//! `evertoken refresh`: a refresh without the server.

use std::process::ExitCode;

use crate::cli::Files;
use crate::logger;
use crate::token::group::{Group, groups};
use crate::token::refresher::refresh_once;

use crate::commands::common::{
    Done, FAILED, USAGE, begin, fail, not_refreshed, provider_called, refresher,
};
use crate::commands::interruption::end_on_signals;

/// Refreshes one provider, or every enabled one.
pub(crate) fn run(files: &Files, wanted: Option<&str>, log: logger::Options) -> Done {
    let (config, mut environment) = begin(files, log)?;
    end_on_signals();
    let meant = wanted.map(|name| provider_called(name, &config)).transpose()?;
    let is_meant = |group: &&Group| match meant {
        Some(index) => group.members.contains(&index),
        None => group.is_enabled(&config.providers),
    };
    let mut refreshed = 0;
    let mut failed = false;
    for (posting, group) in (0..).zip(groups(&config.providers).iter().filter(is_meant)) {
        let setup = refresher(posting, group, &config, &mut environment)?;
        refreshed += 1;
        failed |= !refresh_once(setup);
    }
    match meant {
        _ if failed => Err(ExitCode::from(FAILED)),
        _ if refreshed > 0 => Ok(()),
        Some(index) => Err(fail(not_refreshed(&config.providers[index]), USAGE)),
        None => Err(fail("No enabled provider has a token to refresh", USAGE)),
    }
}
