//! The source of each provider's credential, and missing secrets.

use std::io;
use std::path::Path;

use crate::assemble::{foreign_place, place_of};
use crate::clock::{Moment, Timestamp};
use crate::config::assertion::end_of;
use crate::config::resolve::missing_secrets;
use crate::config::{
    Assertion, AutoRefresh, Bearer, ClientAuth, Config, Credential, EndpointRequest, FileFormat,
    GrantType, Missing, ProviderConfig, TokenCommand, TokenExchange, WatchedFile,
};
use crate::credential::claims::left_out;
use crate::record::{Saved, SavedAccess};
use crate::secret::Secret;
use crate::token::command::program;
use crate::token::discovery;
use crate::token::group::{Group, groups, sharing};
use crate::token::lifecycle::{Lifecycle, Policy, Presented};
use crate::token::state_file::StateFile;
use crate::token::watched::Watched;

/// The findings about the credentials of all enabled providers.
#[derive(Debug, Default)]
pub(crate) struct CredentialFindings {
    /// `name: source`, one per line.
    pub lines: Vec<String>,
    /// The missing secrets, one per line.
    pub problems: Vec<String>,
    /// The warnings, one per line.
    pub warnings: Vec<String>,
    /// The names of providers whose last refresh failed permanently, which a warning reports.
    pub failing: Vec<String>,
}

/// Examines the configuration and the state folder.
pub(crate) fn find(config: &Config, now: Moment) -> CredentialFindings {
    let mut found = CredentialFindings::default();
    let groups = groups(&config.providers);
    for (index, provider) in config.providers.iter().enumerate().filter(|(_, one)| one.enabled) {
        if let Credential::Watched(file) = &provider.credential
            && file.missing.is_none()
        {
            found.look_into(provider, file, now);
            continue;
        }
        let group = groups.iter().find(|group| group.members.contains(&index));
        match source_of(provider, group, config, now) {
            Ok(Some(source)) => found.tell(&provider.name, &source),
            Ok(None) => {}
            Err(problem) => found.problems.push(format!("{}: {problem}", provider.name)),
        }
        if let Credential::Refreshed(refresh) = &provider.credential {
            found.lines.extend(endpoints_of(provider, refresh, config));
        }
        if let Some(group) = group.filter(|group| group.lead == index) {
            found.warn_of_foreign_tokens(group, config);
        }
        if let Some(access) = stored_access(provider, group, config) {
            found.warn_of_claims(provider, &access.token);
        }
    }
    found.lines.extend(sharing(&config.providers));
    found
}

/// The reason why the provider with this index has no credential that it could send, and no way to one.
pub(crate) fn lacking(config: &Config, index: usize, now: Moment) -> Option<String> {
    let provider = &config.providers[index];
    let missing = missing_secrets(config).into_iter().find(|(name, _)| *name == provider.name);
    if let Some((_, missing)) = missing {
        return Some(missing.to_string());
    }
    if let Credential::Watched(file) = &provider.credential {
        return Watched::of(file, None).read(now).err().map(|why| why.to_string());
    }
    let groups = groups(&config.providers);
    let group = groups.iter().find(|group| group.members.contains(&index));
    let failed = match source_of(provider, group, config, now) {
        Ok(source) => format!("its last refresh failed: {}", source?.failed?),
        Err(problem) => problem,
    };
    let stored = stored_access(provider, group, config);
    stored.is_none_or(|access| access.expires_at <= now.wall).then_some(failed)
}

impl CredentialFindings {
    fn tell(&mut self, name: &str, source: &CredentialOrigin) {
        let failed = source.failed.as_ref().map(|what| format!("its last refresh failed: {what}"));
        let end = failed.as_ref().map(|failed| format!("; {failed}")).unwrap_or_default();
        self.lines.push(format!("{name}: {}{end}", source.words));
        if let Some(failed) = failed {
            self.warnings.push(format!("{name}: {failed}"));
            self.failing.push(name.to_owned());
        }
    }

    /// Warns as the log of a run does about stored tokens that are not used.
    fn warn_of_foreign_tokens(&mut self, group: &Group, config: &Config) {
        self.warnings.extend(foreign_place(group, config).map(|path| {
            format!(
                "the state file {} holds tokens of another token_url or client_id than provider {} has: they are \
                 neither used nor replaced",
                path.display(),
                group.name
            )
        }));
    }

    /// Reads a credential that another program keeps. It may be missing if refreshing was turned off.
    fn look_into(&mut self, provider: &ProviderConfig, file: &WatchedFile, now: Moment) {
        let name = &provider.name;
        let watched = Watched::of(file, None);
        let is_stored = matches!(file.form, FileFormat::Stored { .. });
        let path = watched.path();
        let path = path.display();
        match watched.newest(now) {
            Ok(kept) => {
                let what = if is_stored { "the token stored in" } else { "the file" };
                let until = kept.expires_at.map(|at| format!(", until {at}")).unwrap_or_default();
                self.lines.push(format!("{name}: {what} {path}{until}"));
                self.warn_of_claims(provider, &kept.secret);
                let expired = watched.read(now).err().map(|why| why.to_string());
                self.warnings
                    .extend(expired.or(watched.warning()).map(|why| format!("{name}: {why}")));
            }
            Err(why) if is_stored => self.warnings.push(format!("{name}: {why}")),
            Err(why) => self.problems.push(format!("{name}: {why}")),
        }
    }

    /// Names the headers for which the present token has no claims.
    fn warn_of_claims(&mut self, provider: &ProviderConfig, token: &Secret) {
        let lines = left_out(provider, token);
        self.warnings.extend(lines.iter().map(|line| format!("{}: {line}", provider.name)));
    }
}

/// The line about endpoints that the issuer's metadata names.
fn endpoints_of(
    provider: &ProviderConfig,
    refresh: &AutoRefresh,
    config: &Config,
) -> Option<String> {
    let issuer = refresh.issuer_for_endpoints()?;
    let kept = match discovery::load(&config.settings.state_dir, issuer) {
        Some(kept) => format!("kept copy of {}", kept.fetched_at),
        None => "not fetched yet".to_owned(),
    };
    Some(format!("{}: endpoints come from {issuer}'s metadata ({kept})", provider.name))
}

/// None if the credential itself is missing, which [`crate::config::resolve::missing_secrets`] reports. The error is
/// the reason why it can't be found.
fn source_of(
    provider: &ProviderConfig,
    group: Option<&Group>,
    config: &Config,
    now: Moment,
) -> Result<Option<CredentialOrigin>, String> {
    Ok(Some(match &provider.credential {
        Credential::None => "nothing is sent".into(),
        Credential::Passthrough => "the client's own".into(),
        Credential::Static(_) => "a fixed one of the configuration".into(),
        Credential::Missing(_) | Credential::Watched(_) => return Ok(None),
        Credential::Refreshed(refresh) if refresh.command().is_some() => {
            return refresh.command().map(of_command).transpose();
        }
        Credential::Refreshed(refresh) => {
            let place =
                group.map_or_else(|| provider.slug.clone(), |group| place_of(group, config));
            let refresh = group.map_or(&**refresh, |group| &group.config);
            let refresh = discovery::completed(refresh, &config.settings.state_dir);
            let state = StateFile::new(&config.settings.state_dir, place);
            let stored = state.load_if_there();
            let stored = stored.map_err(|error| unusable(&state.path(), &error))?;
            return refreshed((&refresh, &provider.slug), stored, &state.path(), now);
        }
    }))
}

/// The stored access token of a provider with refreshes.
fn stored_access(
    provider: &ProviderConfig,
    group: Option<&Group>,
    config: &Config,
) -> Option<SavedAccess> {
    let (Credential::Refreshed(refresh), Some(group)) = (&provider.credential, group) else {
        return None;
    };
    if refresh.grant_type.keeps_nothing() {
        return None;
    }
    let state = StateFile::new(&config.settings.state_dir, place_of(group, config));
    // An unreadable file is a separate problem, which is reported.
    state.load_if_there().ok()??.access
}

/// A command, which is not run; the error says why it can't be.
fn of_command(command: &TokenCommand) -> Result<CredentialOrigin, String> {
    let found = program::find(command)
        .map_err(|error| format!("the token_command can't be run: {error}"))?;
    Ok(CredentialOrigin {
        words: format!("the token_command {} (a check does not run it)", found.display()),
        failed: None,
    })
}

/// The refresh token that the refresher would present.
fn refreshed(
    (refresh, slug): (&AutoRefresh, &str),
    stored: Option<Saved>,
    path: &Path,
    now: Moment,
) -> Result<Option<CredentialOrigin>, String> {
    let machine = Lifecycle::new(Policy::of(refresh), stored.clone(), now);
    let logged_out = stored.as_ref().filter(|saved| saved.is_logged_out());
    let logged_out = logged_out.and_then(|saved| saved.logged_out_at);
    let stored = stored.filter(|saved| saved.refresh_token.is_some());
    let words = match (machine.presented(), stored) {
        (Presented::Nothing, _) => return Ok(Some(without_refresh_token(refresh).into())),
        (Presented::Missing, _) if let Some(at) = logged_out => {
            return Err(format!("logged out at {at}; run: {}", refresh.call.login(slug)));
        }
        // The lack of a refresh token and of a way to log in was already reported.
        (Presented::Missing, _) if refresh.seed.is_none() && !refresh.login.exist() => {
            return Ok(None);
        }
        (Presented::Missing, _) => return Err(missing(refresh, slug).to_string()),
        (Presented::Token(token), Some(saved)) if saved.refresh_token.as_ref() == Some(&token) => {
            in_state_file(path, &saved, refresh)
        }
        (Presented::Token(_), stored) => in_configuration(path, refresh, stored.is_some()),
    };
    let failed = machine.applicable_failure().map(|failure| failure.what.clone());
    Ok(Some(CredentialOrigin { words, failed }))
}

/// The credential of a grant that uses no refresh token.
fn without_refresh_token(refresh: &AutoRefresh) -> String {
    let from = match &refresh.grant_type {
        GrantType::JwtBearer(bearer) => words_of_assertion(&bearer.assertion),
        GrantType::TokenExchange(exchange) => subject_of(exchange),
        GrantType::Request(request) => words_of_bearer(request),
        _ => match &refresh.client_auth {
            ClientAuth::PrivateKeyJwt(assertion) => {
                format!("the client's own id and {}", words_of_assertion(assertion))
            }
            ClientAuth::Tls => {
                let paths = refresh.client_certificate.iter().map(|own| own.chain.path.display());
                let file = paths.map(|path| path.to_string()).collect::<String>();
                format!("the client's own id and the certificate in {file}")
            }
            _ => "the client's own id and secret".to_owned(),
        },
    };
    format!("{from} ({})", refresh.grant_type.name())
}

/// The credential of a request to an endpoint that is no OAuth.
fn words_of_bearer(request: &EndpointRequest) -> String {
    match &request.bearer {
        None => "a request without a credential".to_owned(),
        Some(Bearer::Provider(name)) => format!("a request with the token of provider {name}"),
        Some(Bearer::Secret { file: Some(path), .. }) => {
            format!("a request with the credential in {}", path.display())
        }
        Some(Bearer::Secret { file: None, .. }) => {
            "a request with the credential of the environment".to_owned()
        }
    }
}

fn words_of_assertion(assertion: &Assertion) -> String {
    match assertion {
        Assertion::Signed(signed) => {
            let key = signed.key.path.display();
            let known = signed.key().map(|(_, algorithm, _)| format!(" ({})", algorithm.name()));
            format!("an assertion signed with the key in {key}{}", known.unwrap_or_default())
        }
        Assertion::Ready(file) => {
            format!("the assertion in {}{}", file.path.display(), until(end_of(&file.found)))
        }
    }
}

fn subject_of(exchange: &TokenExchange) -> String {
    let end = end_of(&exchange.subject_token);
    match &exchange.subject_token_file {
        Some(path) => format!("the subject token in {}{}", path.display(), until(end)),
        None => format!("the subject token of the environment{}", until(end)),
    }
}

fn until(end: Option<Timestamp>) -> String {
    end.map(|end| format!(", until {end}")).unwrap_or_default()
}

fn missing(refresh: &AutoRefresh, slug: &str) -> Missing {
    let seed = refresh.seed.as_ref().and_then(|seed| seed.as_ref().err()).cloned();
    seed.unwrap_or_else(|| Missing::Login(refresh.call.login(slug)))
}

/// A state file that can't be read or understood.
fn unusable(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::InvalidData {
        return format!(
            "the state file {path} can't be used: {error}; it would be kept aside, and the refresh token of the \
             configuration tried"
        );
    }
    format!("the state file {path} can't be read: {error}; nothing is refreshed until it can be")
}

/// The source of a credential, in words that continue after the provider's name.
struct CredentialOrigin {
    words: String,
    /// The permanent failure of its last refresh.
    failed: Option<String>,
}

impl From<&str> for CredentialOrigin {
    fn from(words: &str) -> Self {
        words.to_owned().into()
    }
}

impl From<String> for CredentialOrigin {
    fn from(words: String) -> Self {
        Self { words, failed: None }
    }
}

/// A stored refresh token, and that a configured one which is missing is not needed.
fn in_state_file(path: &Path, saved: &Saved, refresh: &AutoRefresh) -> String {
    let is_by_login = saved.login_hash.is_some();
    let began = if is_by_login { "a login began" } else { "began with the configured one" };
    let not_needed = match refresh.seed.as_ref().and_then(|seed| seed.as_ref().err()) {
        Some(Missing::Variable(name)) => format!(" ({name} is not set, and not needed)"),
        Some(Missing::File(file, _)) => format!(" ({file} can't be read, and is not needed)"),
        Some(Missing::Login(_) | Missing::Credential | Missing::Several(_)) | None => String::new(),
    };
    format!("the refresh token stored in {}, which {began}{not_needed}", path.display())
}

/// The configured refresh token; `is_anothers` says that the state file holds another provider's tokens.
fn in_configuration(path: &Path, refresh: &AutoRefresh, is_anothers: bool) -> String {
    let is_file = refresh.files.seed.is_some();
    let key = if is_file { "refresh_token_file" } else { "refresh_token_env" };
    let stored = if is_anothers {
        format!(", which is new: it takes the place of the one stored in {}", path.display())
    } else {
        format!("; nothing is stored yet in {}", path.parent().unwrap_or(path).display())
    };
    format!("the configured refresh token ({key}){stored}")
}
