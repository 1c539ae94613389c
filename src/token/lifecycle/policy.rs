//! The part of the configuration that a token's lifecycle depends on.

use std::time::Duration;

use crate::config::{AutoRefresh, GrantType, TokenCommand};
use crate::secret::Secret;
use crate::token::assertion::{self, Assertions};
use crate::token::grant;

/// The configuration of one lifecycle.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The time from a refresh to the expiry of the token, in milliseconds.
    pub refresh_before_ms: u64,
    /// The wait after a permanent failure, in milliseconds.
    pub retry_interval_ms: u64,
    /// The configured refresh token; None if there is none, or it is missing.
    pub seed: Option<Secret>,
    /// The grant uses no refresh token (all but the refresh grant).
    pub without_refresh_token: bool,
    /// The configured scope.
    pub scope: Option<String>,
    /// Hash of the rest of the request. A stored failure applies only to the same hash.
    pub client_hash: String,
}

impl Policy {
    /// The policy of `config`.
    pub fn of(config: &AutoRefresh) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let client_hash = match config.command() {
            Some(command) => hash_of_command(command),
            None => hash_of_request(config),
        };
        Self {
            refresh_before_ms: millis(config.refresh_before_expiry),
            retry_interval_ms: millis(config.retry_interval),
            seed: config.seed.clone().and_then(Result::ok),
            without_refresh_token: config.grant_type != GrantType::RefreshToken,
            scope: config.scope.clone(),
            client_hash,
        }
    }
}

/// Hash of a token request, without the refresh token, and with the keys of its assertions instead of these, which are
/// new each time; empty if a secret is missing.
fn hash_of_request(config: &AutoRefresh) -> String {
    let unsigned = Assertions::default();
    let Ok(request) = grant::request(config, None, config.scope.as_deref(), &unsigned) else {
        return String::new();
    };
    let mut all = format!("{}\n{}", request.url, request.body.expose());
    // A new version of this program is the same client.
    for (name, value) in request.headers.iter().filter(|(name, _)| name != grant::USER_AGENT) {
        all.push_str(name);
        all.push_str(value.expose());
    }
    all.push_str(&assertion::fingerprint(config));
    Secret::new(all).hash()
}

/// Hash of everything that a command's output depends on here.
fn hash_of_command(command: &TokenCommand) -> String {
    let mut all = format!("{}\0{}", command.program, command.folder.display());
    for argument in &command.arguments {
        all.extend(["\0", argument]);
    }
    for (name, value) in &command.variables {
        all.extend(["\0\0", name, "=", value.expose()]);
    }
    Secret::new(all).hash()
}
