//! Gets an access token for `evertoken token` and `evertoken exec`: from the running instance, else from the state
//! folder.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use rustix::process::geteuid;
use serde_json::Value;

use crate::bound::connect_unix;
use crate::cli::Files;
use crate::clock::Clock;
use crate::config::inbound_key::key_for_token;
use crate::config::resolve::Problem;
use crate::config::{
    AutoRefresh, Config, Credential, FIRST_TOKEN_WAIT, FileFormat, ListenAddress, ProviderConfig,
    WatchedFile, slug,
};
use crate::credential::{AccessToken, NO_TOKEN, waiting};
use crate::json;
use crate::logger::{Format, Options};
use crate::peer;
use crate::status::{Asked, Instance, get, own_certificate, url_at};
use crate::token::group::groups;
use crate::token::refresher::obtain_once;
use crate::token::store::TokenStore;
use crate::token::watched::Watched;

use crate::commands::common::{
    BAD_CONFIG, FAILED, USAGE, Variables, environment, inspect, provider_called, say_all, setup_of,
    start_log, tell,
};
use crate::commands::interruption::end_on_signals;

/// The longest wait for the instance's answer: it may wait for its first token.
const ANSWER_MAX: Duration = FIRST_TOKEN_WAIT.saturating_add(Duration::from_secs(5));
/// The longest wait for a connection: the instance is on this machine.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Warnings and errors go to stderr, because stdout is for the token.
const LOG: Options = Options { format: Format::Text, is_quiet: true };

/// A valid access token of the provider called `wanted`, or of the only one that has tokens.
pub(super) fn obtain(
    files: &Files,
    wanted: Option<&str>,
) -> Result<(ProviderConfig, AccessToken), ExitCode> {
    let config = configuration(files)?;
    let clock = Clock::system();
    // `check` shows the warnings; here they would come with each call.
    start_log(&config, Vec::new(), LOG, &clock);
    let index = match wanted {
        Some(name) => provider_called(name, &config)?,
        None => only_one(&config).map_err(|why| tell(why, USAGE))?,
    };
    let provider = &config.providers[index];
    let token = match of_instance(provider, &config) {
        FromInstance::Token(token) => Ok(token),
        FromInstance::None(why) => Err(why),
        FromInstance::Unasked => of_disk(index, &config, &clock),
    };
    let token = token.map_err(|why| tell(why, FAILED))?;
    Ok((provider.clone(), token))
}

/// The configuration, with or without variables that the running instance alone may have, and files that it alone needs.
fn configuration(files: &Files) -> Result<Config, ExitCode> {
    let variables = Variables::of(files).map_err(|problem| tell(problem, BAD_CONFIG))?;
    let (config, problems) = inspect(&files.config, &variables);
    let problems: Vec<_> = problems.into_iter().map(Problem::without_server).collect();
    let counts = |problem: &&Problem| !problem.is_warning && problem.unset.is_empty();
    let mistakes: Vec<_> = problems.iter().filter(counts).map(ToString::to_string).collect();
    say_all(&mistakes);
    config.filter(|_| mistakes.is_empty()).ok_or(ExitCode::from(BAD_CONFIG))
}

/// The index of the only enabled provider that has tokens.
fn only_one(config: &Config) -> Result<usize, String> {
    let has_tokens = |one: &ProviderConfig| {
        let is_plain =
            matches!(&one.credential, Credential::Watched(file) if file.form == FileFormat::Text);
        let is_token = matches!(one.credential, Credential::Refreshed(_) | Credential::Watched(_));
        one.enabled && is_token && !is_plain
    };
    let all = config.providers.iter().enumerate();
    let found: Vec<_> = all.filter(|(_, one)| has_tokens(one)).collect();
    match &found[..] {
        [(index, _)] => Ok(*index),
        [] => Err("No enabled provider has access tokens".to_owned()),
        several => {
            let slugs: Vec<_> = several.iter().map(|(_, one)| one.slug.as_str()).collect();
            Err(format!("Name one of them with --provider: {}", slugs.join(", ")))
        }
    }
}

/// The outcome of asking the running instance.
enum FromInstance {
    Token(AccessToken),
    /// It has no valid token, and this is why.
    None(String),
    /// There is no instance, or none that hands out this token.
    Unasked,
}

/// Asks the running instance: over its unix sockets, and with a key over its ports.
fn of_instance(provider: &ProviderConfig, config: &Config) -> FromInstance {
    let settings = &config.settings;
    if !settings.token_endpoint {
        return FromInstance::Unasked;
    }
    let keys = settings.inbound_keys.as_deref().unwrap_or_default();
    let key = key_for_token(keys, &provider.slug).cloned();
    let is_unix = |address: &&ListenAddress| matches!(address, ListenAddress::Unix { .. });
    let (sockets, ports): (Vec<_>, Vec<_>) = settings.listen.iter().partition(is_unix);
    let ports = ports.into_iter().filter(|_| key.is_some());
    // Of an instance of another user. Its tokens are not ours to refresh.
    let mut refused = None;
    for address in sockets.into_iter().chain(ports) {
        let Ok(url) = url_at(address, settings.tls.is_some()) else { continue };
        if let Some(why) = closed_to_us(address) {
            refused = Some(why);
            continue;
        }
        let certificate = own_certificate(settings);
        let instance = Instance { urls: vec![url], key: key.clone(), certificate };
        let path = format!("/-/token/{}", slug::in_path(&provider.slug));
        match get(&instance, &path, ANSWER_MAX) {
            Ok(Asked { status: 200, text, url }) => match AccessToken::of_json(&text) {
                Some(token) => return FromInstance::Token(token),
                None => debug!("{url} answers with no token"),
            },
            Ok(Asked { status, text, url }) => match no_token(&text) {
                Some(why) => return FromInstance::None(why),
                None if is_unix(&address) && status == 403 => {
                    let said = message(&text).unwrap_or(text);
                    refused = Some(format!("{url} gives no token: {said}"));
                }
                None => debug!("{url} gives no token: {text}"),
            },
            Err(errors) => errors.iter().for_each(|error| debug!("{error}")),
        }
    }
    refused.map_or(FromInstance::Unasked, FromInstance::None)
}

/// The reason why we may not connect to an instance's unix socket.
fn closed_to_us(address: &ListenAddress) -> Option<String> {
    const ADVICE: &str = "run this as the user that runs evertoken, or as root";
    let ListenAddress::Unix { path, .. } = address else { return None };
    match connect_unix(path, CONNECT_MAX) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Some(format!("{address} can't be reached: {error}; {ADVICE}"))
        }
        Err(_) => None,
        Ok(connection) => {
            let process = peer::of(connection)?;
            is_foreign(process.user, geteuid().as_raw()).then(|| {
                format!(
                    "{address} belongs to process {} of user {}, which gives us no token; {ADVICE}",
                    process.id, process.user
                )
            })
        }
    }
}

/// True if a server of `user` gives us no token, so that it must not get our key either. Root trusts the path.
fn is_foreign(user: u32, own: u32) -> bool {
    own != 0 && own != user
}

/// The message of an answer which says that the instance itself has no valid token.
fn no_token(text: &str) -> Option<String> {
    let answer: Value = json::read(text.as_bytes()).ok()?;
    let code = answer["error"]["code"].as_str();
    matches!(code, Some("token_unavailable" | "login_needed")).then(|| message(text))?
}

/// The message of an answer that is an error.
fn message(text: &str) -> Option<String> {
    let answer: Value = json::read(text.as_bytes()).ok()?;
    answer["error"]["message"].as_str().map(str::to_owned)
}

/// The token on disk, refreshed if it must be.
fn of_disk(index: usize, config: &Config, clock: &Clock) -> Result<AccessToken, String> {
    let provider = &config.providers[index];
    match &provider.credential {
        Credential::Watched(file) if file.form != FileFormat::Text => {
            of_file(provider, file, clock)
        }
        Credential::Refreshed(refresh) => refreshed(index, refresh, config, clock),
        Credential::Missing(missing) => {
            Err(format!("No credential for {}: {missing}", provider.name))
        }
        Credential::None
        | Credential::Passthrough
        | Credential::Static(_)
        | Credential::Watched(_) => {
            Err(format!("{} has no access token: {NO_TOKEN}", provider.name))
        }
    }
}

fn of_file(
    provider: &ProviderConfig,
    file: &WatchedFile,
    clock: &Clock,
) -> Result<AccessToken, String> {
    let kept = Watched::of(file, None).read(clock.now());
    let kept = kept.map_err(|why| format!("No credential for {}: {why}", provider.name))?;
    Ok(AccessToken { secret: kept.secret, expires_at: kept.expires_at })
}

/// The stored token, or a new one.
fn refreshed(
    index: usize,
    refresh: &AutoRefresh,
    config: &Config,
    clock: &Clock,
) -> Result<AccessToken, String> {
    const KEY: u64 = 0;
    let provider = &config.providers[index];
    let groups = groups(&config.providers);
    let group = groups.iter().find(|group| group.members.contains(&index));
    let group = group.ok_or_else(|| format!("{} is not refreshed", provider.name))?;
    let store = Arc::new(TokenStore::default());
    let mut environment = environment(clock.clone());
    end_on_signals();
    let setup = setup_of(KEY, group, config, &store, &mut environment);
    obtain_once(setup.map_err(|error| error.to_string())?);
    let mut posting = (*store.read(KEY)).clone();
    let now = clock.now();
    if let Some(token) = posting.valid_token(now) {
        let expires_at = Some(token.expires.wall);
        return Ok(AccessToken { secret: token.secret.clone(), expires_at });
    }
    // Nobody waits for the next try.
    posting.refresh.next_attempt_at = None;
    let command = refresh.call.refresh(&provider.slug);
    Err(waiting::no_token(&provider.name, &posting, now.wall, &command).message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_another_user_is_not_asked() {
        for (user, own, is_other) in [
            (1000, 1000, false),
            (1001, 1000, true),
            (0, 1000, true),
            (1000, 0, false),
            (0, 0, false),
        ] {
            assert_eq!(is_foreign(user, own), is_other, "{user} {own}");
        }
    }
}
