//! `auto_refresh_config` of a provider.

use std::time::Duration;

use crate::config::raw::Section;
use crate::config::raw::homes::REFRESH_KEYS;
use crate::config::resolve::grant::{self, GrantChoice};
use crate::config::resolve::request_fields::read_headers;
use crate::config::resolve::sources::{NamedSecret, Sources};
use crate::config::resolve::{
    client_auth, client_certificate, endpoint, login_endpoints, token_command, token_fields,
};
use crate::config::{
    AutoRefresh, ClientAuth, CommandLine, CredentialFields, FileFormat, GrantType, RequestFormat,
    SecretFiles, TokenCommand, Unwritten, WatchedFile, secret_of_file,
};
use crate::secret::Secret;

/// Bounds of the numbers, each with its unit.
const REFRESH_BEFORE_MAX_SECONDS: u64 = 7 * 24 * 3600;
const RETRY_INTERVAL_MAX_SECONDS: u64 = 30 * 24 * 3600;

/// The source of fresh tokens.
pub(super) enum TokenSource {
    /// A token endpoint.
    Refreshed(Box<AutoRefresh>),
    /// A file that another program keeps.
    Owned(WatchedFile),
    /// The value is not a section, which was reported.
    Unreadable,
    /// Refreshing is off: the stored token counts, if it began with this refresh token.
    Stored {
        /// The configured refresh token, if it is there.
        seed: Option<Secret>,
        /// Hash of the `token_url` and the client, if both are there.
        client: Option<String>,
    },
}

/// `auto_refresh_config`; None if it is missing, or if it names a file and is disabled. A disabled section is checked
/// too, but nothing in it is required.
pub(super) fn read_auto_refresh(
    provider: &Section<'_>,
    sources: &Sources<'_>,
) -> Option<TokenSource> {
    if !provider.has("auto_refresh_config") {
        // Read anyway, so that the key is known.
        let _ = provider.section("auto_refresh_config");
        return None;
    }
    let section = provider.section("auto_refresh_config");
    if section.is_unreadable() {
        return Some(TokenSource::Unreadable);
    }
    let enabled = section.flag("enabled", true);
    if let Some(owned) = read_owned(&section, sources) {
        return enabled.then_some(owned);
    }
    let command = token_command::read(&section, sources);
    if section.has("token_command") {
        let source = read_command(&section, command);
        return enabled.then_some(source);
    }
    let known_grant = GrantChoice::read(&section);
    let client_secret = sources.secret(&section, "client_secret_env", "client_secret_file", false);
    let choice = known_grant.unwrap_or(GrantChoice::RefreshToken);
    let grant_type = grant::read(&section, known_grant, enabled, sources);
    let client_certificate = client_certificate::read(&section, sources);
    let has = client_auth::Has {
        secret: client_secret.is_some(),
        certificate: section.has("client_cert_file"),
    };
    let client_auth = client_auth::read(&section, choice, has, sources);
    let login = login_endpoints::read(&section, choice);
    let is_of_client = known_grant.is_some_and(|choice| !choice.needs_no_client());
    let needs_client = is_of_client || client_auth != ClientAuth::None;
    let client_id = read_client_id(&section, sources, enabled && needs_client);
    grant::check_issuer(&section, &grant_type, client_id.is_some());
    let seed = read_seed(&section, known_grant, !enabled || login.exist(), sources);
    let of_account = token_url_of_account(&grant_type);
    if enabled && login.issuer.is_none() && of_account.is_none() {
        let message =
            "auto_refresh_config needs a 'token_url', or an 'issuer' whose metadata names it";
        section.require("token_url", message);
    }
    let unwritten = Unwritten {
        token_url: login.issuer.is_some() && !section.has("token_url") && of_account.is_none(),
        client_auth: !section.has("client_auth"),
    };
    let sends_secret = matches!(
        client_auth,
        ClientAuth::SecretPost | ClientAuth::SecretBasic | ClientAuth::SecretJwt(_)
    );
    let file_of = |secret: &Option<NamedSecret>| secret.as_ref()?.file.clone();
    let mut refresh = AutoRefresh {
        files: SecretFiles {
            client_id: file_of(&client_id),
            client_secret: file_of(&client_secret),
            seed: file_of(&seed),
        },
        token_url: endpoint::read_with(
            &section,
            "token_url",
            "secrets are sent there",
            asks_freely(&grant_type),
        )
        .or(of_account)
        .unwrap_or_default(),
        client_id: client_id
            .map_or_else(|| Ok(String::new()), |id| Ok(id.found?.expose().to_owned())),
        client_secret: client_secret.map(|secret| secret.found).filter(|_| sends_secret),
        seed: seed.map(|seed| seed.found),
        grant_type,
        client_auth,
        client_certificate,
        request_format: section.choice(
            "request_format",
            &[("form", RequestFormat::Form), ("json", RequestFormat::Json)],
        ),
        scope: section.text("scope"),
        extra_params: section.text_map("extra_params"),
        headers: read_headers(&section),
        token_fields: token_fields::read(&section),
        refresh_before_expiry: Duration::ZERO,
        retry_interval: Duration::ZERO,
        login,
        unwritten,
        call: CommandLine::default(),
    };
    read_times(&section, &mut refresh);
    check_extra_params(&section, &refresh.extra_params);
    section.finish(&[]);
    Some(if enabled {
        TokenSource::Refreshed(Box::new(refresh))
    } else {
        let client = refresh.client_hash();
        TokenSource::Stored { seed: refresh.seed.and_then(Result::ok), client }
    })
}

fn read_times(section: &Section<'_>, refresh: &mut AutoRefresh) {
    refresh.refresh_before_expiry =
        section.seconds("refresh_before_expiry", 300, 0, REFRESH_BEFORE_MAX_SECONDS);
    refresh.retry_interval = section.seconds("retry_interval", 3600, 1, RETRY_INTERVAL_MAX_SECONDS);
}

/// `token_command`: there is no token endpoint, so its keys have no meaning.
fn read_command(section: &Section<'_>, command: Option<TokenCommand>) -> TokenSource {
    if section.has("grant_type") {
        section.error("grant_type", "a 'token_command' takes the place of a 'grant_type'");
    }
    if section.has("token_request") {
        let message = "give a 'token_command' or a 'token_request', not both";
        section.error("token_request", message);
    }
    let Some(command) = command else {
        section.finish(&[&REFRESH_KEYS[..], &["headers", "token_fields"]].concat());
        return TokenSource::Unreadable;
    };
    let mut refresh = AutoRefresh::of_command(command);
    refresh.token_fields = token_fields::read(section);
    read_times(section, &mut refresh);
    section.finish(&[&REFRESH_KEYS[..], &["headers"]].concat());
    TokenSource::Refreshed(Box::new(refresh))
}

/// `credentials_file`: with it evertoken refreshes nothing, so no other key has a meaning.
fn read_owned(section: &Section<'_>, sources: &Sources<'_>) -> Option<TokenSource> {
    let file = sources.path(section, "credentials_file");
    let fields = section.section("credentials_fields");
    let path = |key, otherwise: [&str; 2]| {
        token_fields::path_in(&fields, key).unwrap_or_else(|| otherwise.map(str::to_owned).into())
    };
    let form = FileFormat::Json(CredentialFields {
        access_token: path("access_token", ["claudeAiOauth", "accessToken"]),
        expires_at: path("expires_at", ["claudeAiOauth", "expiresAt"]),
        expires_at_is_written: fields.has("expires_at"),
        zone: (sources.environment)("TZ"),
    });
    fields.finish(&[]);
    let Some(file) = file else {
        if section.has("credentials_fields") {
            section.error("credentials_fields", "this needs a 'credentials_file'");
        }
        return None;
    };
    section.finish(&[&REFRESH_KEYS[..], &["headers", "token_fields"]].concat());
    let missing = secret_of_file(&file, (sources.files)(&file)).err();
    Some(TokenSource::Owned(WatchedFile { path: file, form, missing }))
}

fn read_client_id(
    section: &Section<'_>,
    sources: &Sources<'_>,
    is_needed: bool,
) -> Option<NamedSecret> {
    let client_id = sources.secret(section, "client_id_env", "client_id_file", is_needed);
    if is_needed && client_id.is_none() {
        section.require("client_id_env", "auto_refresh_config needs a 'client_id_env'");
    }
    client_id
}

/// The first refresh token; it may be missing if there is a way to log in, or if the grant is unknown.
fn read_seed(
    section: &Section<'_>,
    grant: Option<GrantChoice>,
    may_lack: bool,
    sources: &Sources<'_>,
) -> Option<NamedSecret> {
    let is_needed = grant == Some(GrantChoice::RefreshToken) && !may_lack;
    let seed = sources.secret(section, "refresh_token_env", "refresh_token_file", is_needed);
    match (grant, &seed) {
        (Some(GrantChoice::RefreshToken), None) if is_needed => section.require(
            "refresh_token_env",
            "auto_refresh_config needs a 'refresh_token_env', or an 'issuer', 'authorization_url' or \
             'device_authorization_url' for evertoken login",
        ),
        (Some(grant), Some(_)) if grant != GrantChoice::RefreshToken => {
            let key = if grant == GrantChoice::Request { "refresh_token_env" } else { "grant_type" };
            section.error(key, format!("{} uses no refresh token", grant.name()));
        }
        _ => {}
    }
    seed
}

/// True for a request without any credential.
fn asks_freely(grant: &GrantType) -> bool {
    matches!(grant, GrantType::Request(request) if request.bearer.is_none())
}

/// The token endpoint that the file of a service account names; an empty one as long as that file can't be read.
fn token_url_of_account(grant: &GrantType) -> Option<String> {
    let GrantType::JwtBearer(bearer) = grant else { return None };
    let is_unread = bearer.assertion.files().any(|file| file.found.is_err());
    bearer.assertion.token_url().or(is_unread.then(String::new))
}

fn check_extra_params(section: &Section<'_>, params: &[(String, String)]) {
    const OWN: [&str; 14] = [
        "grant_type", "refresh_token", "client_id", "client_secret", "scope", "code",
        "code_verifier", "redirect_uri", "assertion", "client_assertion", "client_assertion_type",
        "subject_token", "subject_token_type", "requested_token_type",
    ];
    for (name, _) in params {
        if OWN.contains(&name.as_str()) {
            section.error_in("extra_params", name, format!("'{name}' has a key of its own"));
        }
    }
}
