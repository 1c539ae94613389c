//! `evertoken refresh`: a refresh without the server.

use std::process::ExitCode;
use std::sync::Arc;

use crate::assemble;
use crate::cli::Files;
use crate::clock::Clock;
use crate::config::find_provider;
use crate::logger;
use crate::token::group::{Group, groups};
use crate::token::refresher::refresh_once;
use crate::token::store::TokenStore;

use crate::commands::common::{
    BAD_CONFIG, USAGE, environment, fail, load, not_refreshed, start_log, unknown_provider,
};

/// Refreshes one provider, or every enabled one.
pub(crate) fn run(files: &Files, wanted: Option<&str>, log: logger::Options) -> ExitCode {
    let (config, warnings) = match load(files, log) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let clock = Clock::system();
    start_log(&config, warnings, log, &clock);
    let mut environment = environment(clock);
    let store = Arc::new(TokenStore::default());
    let meant = wanted.map(|name| find_provider(&config.providers, name));
    if let (Some(name), Some(None)) = (wanted, meant) {
        return fail(&unknown_provider(name, &config), USAGE);
    }
    let is_meant = |group: &&Group| match meant {
        Some(meant) => meant.is_some_and(|index| group.members.contains(&index)),
        None => group.is_enabled(&config.providers),
    };
    let mut refreshed = 0;
    let mut failed = false;
    for (posting, group) in (0..).zip(groups(&config.providers).iter().filter(is_meant)) {
        match assemble::refresher_setup(
            posting,
            group,
            &assemble::place_of(group, &config),
            &config,
            &store,
            &mut environment,
        ) {
            Ok(setup) => {
                refreshed += 1;
                failed |= refresh_once(setup).is_err();
            }
            Err(error) => return fail(&error.to_string(), BAD_CONFIG),
        }
    }
    if let Some(Some(index)) = meant.filter(|_| refreshed == 0) {
        return fail(&not_refreshed(&config.providers[index]), USAGE);
    }
    if refreshed == 0 {
        let why = match wanted {
            Some(name) => format!(
                "Provider '{name}' has no auto_refresh_config, so there is no token to refresh"
            ),
            None => "No enabled provider has a token to refresh".to_owned(),
        };
        return fail(&why, USAGE);
    }
    ExitCode::from(u8::from(failed))
}
