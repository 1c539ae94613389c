//! One entry of `providers`, with its `auto_refresh_config`.

use std::time::Duration;

use crate::config::raw::Section;
use crate::config::resolve::{Sources, is_loopback_url, login, split_url};
use crate::config::slug;
use crate::config::{
    AuthType, AutoRefresh, ClientAuth, Credential, Egress, Found, GrantType, Missing, Provider,
    ProviderKind, RequestFormat, SecretFiles, WatchedFile, secret_of_file,
};
use crate::secret::Secret;
use crate::token::watched::{Fields, Form};

/// Bounds of the numbers, each with its unit.
const REFRESH_BEFORE_MAX_SECONDS: u64 = 7 * 24 * 3600;
const RETRY_INTERVAL_MAX_SECONDS: u64 = 30 * 24 * 3600;
const IN_FLIGHT_MAX: u64 = 65_535;

/// Keys of the original family of configuration files that evertoken does not use.
const UNUSED: [&str; 1] = ["streaming_mode"];

/// Keys of `auto_refresh_config` that a `credentials_file` makes useless.
const REFRESH_KEYS: [&str; 19] = [
    "token_url",
    "client_id_env",
    "client_id_file",
    "client_secret_env",
    "client_secret_file",
    "refresh_token_env",
    "refresh_token_file",
    "grant_type",
    "client_auth",
    "request_format",
    "scope",
    "extra_params",
    "headers",
    "refresh_before_expiry",
    "retry_interval",
    "authorization_url",
    "device_authorization_url",
    "redirect_uri",
    "issuer",
];

/// Header fields that frame a message or belong to a connection: nobody may configure them.
const FORBIDDEN_FIELDS: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "proxy-connection",
    "proxy-authorization",
];

/// Reads one provider. What is wrong is reported; what is returned then is never used.
pub(super) fn read(
    section: &Section<'_>,
    sources: &Sources<'_>,
    max_connections: usize,
) -> Provider {
    let name = section.text("name").unwrap_or_default();
    if name.is_empty() {
        section.error("name", "a provider needs a 'name'");
    }
    let slug = read_slug(section, &name);
    let kind = section.choice(
        "type",
        &[
            ("anthropic", ProviderKind::Anthropic),
            ("openai", ProviderKind::OpenAi),
            ("generic", ProviderKind::Generic),
        ],
    );
    if !section.has("type") {
        section.error("type", "a provider needs a 'type': anthropic, openai or generic");
    }
    let auth_type = section.choice(
        "auth_type",
        &[
            ("auth_token", AuthType::AuthToken),
            ("api_key", AuthType::ApiKey),
            ("none", AuthType::None),
        ],
    );
    let provider = Provider {
        base_url: read_base_url(section),
        enabled: section.flag("enabled", true),
        auth_type,
        credential: read_credential(section, auth_type, sources),
        headers: read_headers(section),
        egress: read_egress(section, sources),
        max_in_flight: section.integer(
            "max_in_flight",
            (max_connections as u64 * 3 / 4).max(1),
            1,
            IN_FLIGHT_MAX,
        ),
        name,
        slug,
        kind,
    };
    section.finish(&UNUSED);
    provider
}

/// The slug that is written, else the one that the name makes.
fn read_slug(section: &Section<'_>, name: &str) -> String {
    let Some(written) = section.text("slug") else {
        let made = slug::of_name(name);
        if made.is_empty() && !name.is_empty() {
            section.error(
                "name",
                format!("the name '{name}' has no letter and no digit; choose a 'slug' for it"),
            );
        } else if let Some(why) = slug::problem(&made).filter(|_| !made.is_empty()) {
            let message =
                format!("no slug can be made of this name: {why}; choose one with 'slug'");
            section.error("name", message);
        }
        return made;
    };
    let written = slug::composed(&written).into_owned();
    if let Some(why) = slug::problem(&written) {
        section.error("slug", format!("'slug' can't be '{written}': {why}"));
    }
    written
}

fn read_base_url(section: &Section<'_>) -> String {
    let Some(url) = section.text("base_url") else {
        section.error("base_url", "a provider needs a 'base_url'");
        return String::new();
    };
    match split_url(&url) {
        None => section.error("base_url", "'base_url' must be an http or https URL without a user"),
        Some((_, _, path)) if path.contains(['?', '#']) => {
            section.error("base_url", "'base_url' must end with its path, without '?' or '#'");
        }
        Some(_) => {}
    }
    url.trim_end_matches('/').to_owned()
}

fn read_credential(
    section: &Section<'_>,
    auth_type: AuthType,
    sources: &Sources<'_>,
) -> Credential {
    let literal = section.text("auth_value").filter(|value| !value.is_empty());
    let named = sources.secret(section, "auth_value_env", "auth_value_file");
    let file = section.text("auth_value_file").map(|path| sources.path(&path));
    let refresh = read_auto_refresh(section, sources);
    if literal.is_some() && named.is_some() {
        section.error("auth_value", "give one of auth_value, auth_value_env and auth_value_file");
    }
    let visible = |text: &str| text.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    let found = named.as_ref().and_then(|found| found.as_ref().ok()).map(Secret::expose);
    if [literal.as_deref(), found].into_iter().flatten().any(|text| !visible(text)) {
        let message = "the credential holds a blank or another byte that no header field may hold";
        section.error("auth_value", message);
    }
    let is_passthrough = literal.as_deref() == Some("passthrough");
    if literal.is_some() && !is_passthrough && sources.is_exposed() {
        let advice =
            "this file can be read by group or others; chmod 600 it, or use auth_value_env";
        section.warn("auth_value", advice);
    }
    if auth_type == AuthType::None {
        if refresh.is_some() || literal.is_some() || named.is_some() {
            section.warn("auth_type", "'auth_type' is \"none\", so no credential is sent");
        }
        return Credential::None;
    }
    if let (None, None, Some(path), Some(found)) = (&refresh, &literal, file, &named) {
        let missing = found.as_ref().err().cloned();
        return Credential::Watched(WatchedFile { path, form: Form::Text, missing });
    }
    match (refresh, literal, named) {
        (Some(source), literal, named) => {
            if literal.is_some() || named.is_some() {
                section.warn("auto_refresh_config", "this is used in the place of the auth_value");
            }
            match source {
                TokenSource::Refreshed(refresh) => Credential::Refreshed(refresh),
                TokenSource::Owned(file) => Credential::Watched(file),
            }
        }
        (None, Some(_), _) if is_passthrough => Credential::Passthrough,
        (None, Some(value), _) => Credential::Static(Secret::new(value)),
        (None, None, Some(Ok(value))) => Credential::Static(value),
        (None, None, Some(Err(missing))) => Credential::Missing(missing),
        // A provider that is not used may be left unfinished.
        (None, None, None) if !section.flag("enabled", true) => Credential::None,
        (None, None, None) => {
            section.error_here(
                "a provider needs a credential: auto_refresh_config, auth_value, auth_value_env or \
                 auth_value_file, or auth_type \"none\"",
            );
            Credential::None
        }
    }
}

fn read_headers(section: &Section<'_>) -> Vec<(String, String)> {
    let headers = section.text_map("headers");
    for (name, value) in &headers {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let visible = |character: char| character == '\t' || !character.is_control();
        if name.is_empty() || !name.bytes().all(token) {
            section.error("headers", format!("'{name}' is no name for a header field"));
        } else if FORBIDDEN_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field)) {
            section.error("headers", format!("'{name}' is set by evertoken itself"));
        } else if !value.chars().all(visible) {
            section.error("headers", format!("the value of '{name}' holds a control character"));
        }
    }
    headers
}

fn read_egress(section: &Section<'_>, sources: &Sources<'_>) -> Egress {
    let proxy = section.text("proxy");
    if let Some(url) = &proxy {
        let accepted =
            ["http://", "https://", "socks4://", "socks4a://", "socks5://", "socks5h://"];
        if !accepted.iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len()) {
            section.error("proxy", "'proxy' must be an http://… or socks5://… URL");
        }
    }
    let extra_roots_pem = section.text("ca_file").and_then(|path| {
        let problem = match (sources.files)(&sources.path(&path)) {
            Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => return Some(pem),
            Ok(_) => "there is no PEM certificate in it".to_owned(),
            Err(error) => error.to_string(),
        };
        section.error("ca_file", format!("'ca_file' can't be used: {problem}"));
        None
    });
    Egress { proxy: proxy.map(Secret::new), extra_roots_pem }
}

/// Where fresh tokens come from.
enum TokenSource {
    /// A token endpoint.
    Refreshed(Box<AutoRefresh>),
    /// A file that another program keeps.
    Owned(WatchedFile),
}

/// `auto_refresh_config`; None where it is left out or not enabled. What is written is checked then
/// too, but nothing is asked for.
fn read_auto_refresh(provider: &Section<'_>, sources: &Sources<'_>) -> Option<TokenSource> {
    if !provider.has("auto_refresh_config") {
        // Asked for all the same, so that it is a known key.
        let _ = provider.section("auto_refresh_config");
        return None;
    }
    let section = provider.section("auto_refresh_config");
    let enabled = section.flag("enabled", true);
    if let Some(owned) = read_owned(&section, sources) {
        return enabled.then_some(owned);
    }
    let grant_type = section.choice(
        "grant_type",
        &[
            ("refresh_token", GrantType::RefreshToken),
            ("client_credentials", GrantType::ClientCredentials),
        ],
    );
    let client_secret = sources.secret(&section, "client_secret_env", "client_secret_file");
    let client_auth = read_client_auth(&section, grant_type, client_secret.is_some());
    let login = login::read(&section, grant_type);
    let refresh = AutoRefresh {
        token_url: read_token_url(&section, enabled),
        client_id: read_client_id(&section, sources, enabled),
        client_secret: client_secret.filter(|_| client_auth != ClientAuth::None),
        seed: read_seed(&section, grant_type, !enabled || login.exist(), sources),
        grant_type,
        client_auth,
        request_format: section.choice(
            "request_format",
            &[("form", RequestFormat::Form), ("json", RequestFormat::Json)],
        ),
        scope: section.text("scope"),
        extra_params: section.text_map("extra_params"),
        headers: read_headers(&section),
        refresh_before_expiry: Duration::from_secs(section.integer(
            "refresh_before_expiry",
            300,
            0,
            REFRESH_BEFORE_MAX_SECONDS,
        )),
        retry_interval: Duration::from_secs(section.integer(
            "retry_interval",
            3600,
            1,
            RETRY_INTERVAL_MAX_SECONDS,
        )),
        files: SecretFiles {
            client_id: section.text("client_id_file").map(|path| sources.path(&path)),
            client_secret: section.text("client_secret_file").map(|path| sources.path(&path)),
            seed: section.text("refresh_token_file").map(|path| sources.path(&path)),
        },
        login,
    };
    check_extra_params(&section, &refresh.extra_params);
    section.finish(&[]);
    enabled.then(|| TokenSource::Refreshed(Box::new(refresh)))
}

/// `credentials_file`: with it nothing is refreshed here, so no other key has a meaning.
fn read_owned(section: &Section<'_>, sources: &Sources<'_>) -> Option<TokenSource> {
    let file = section.text("credentials_file").map(|path| sources.path(&path));
    let fields = section.section("credentials_fields");
    let path = |key, otherwise: &str| -> Vec<String> {
        let path = fields.text(key).unwrap_or_else(|| otherwise.to_owned());
        if path.split('.').any(str::is_empty) {
            fields.error(key, format!("'{key}' must be names with dots between them"));
        }
        path.split('.').map(str::to_owned).collect()
    };
    let form = Form::Json(Fields {
        access_token: path("access_token", "claudeAiOauth.accessToken"),
        expires_at: path("expires_at", "claudeAiOauth.expiresAt"),
    });
    fields.finish(&[]);
    let Some(file) = file else {
        if section.has("credentials_fields") {
            section.error("credentials_fields", "this needs a 'credentials_file'");
        }
        return None;
    };
    section.finish(&REFRESH_KEYS);
    let missing = secret_of_file(&file, (sources.files)(&file)).err();
    Some(TokenSource::Owned(WatchedFile { path: file, form, missing }))
}

fn read_token_url(section: &Section<'_>, is_needed: bool) -> String {
    let Some(url) = section.text("token_url") else {
        if is_needed {
            section.error("token_url", "auto_refresh_config needs a 'token_url'");
        }
        return String::new();
    };
    check_endpoint(section, "token_url", &url, "secrets are sent there");
    url
}

/// Reports what is wrong with the `url` of an endpoint.
pub(super) fn check_endpoint(section: &Section<'_>, key: &str, url: &str, why: &str) {
    match split_url(url) {
        None => section.error(key, format!("'{key}' must be an https URL without a user")),
        Some((_, _, path)) if path.contains('#') => {
            section.error(key, format!("'{key}' must not hold a '#'"));
        }
        Some(("http", _, _)) if !is_loopback_url(url) => {
            let message =
                format!("'{key}' must be https, since {why}; http is for loopback addresses alone");
            section.error(key, message);
        }
        Some(_) => {}
    }
}

fn read_client_auth(section: &Section<'_>, grant: GrantType, has_secret: bool) -> ClientAuth {
    let written = section.has("client_auth");
    let chosen = section.choice(
        "client_auth",
        &[
            ("client_secret_post", ClientAuth::SecretPost),
            ("client_secret_basic", ClientAuth::SecretBasic),
            ("none", ClientAuth::None),
        ],
    );
    let client_auth = if written || has_secret { chosen } else { ClientAuth::None };
    match (client_auth, has_secret) {
        (ClientAuth::SecretPost | ClientAuth::SecretBasic, false) => section.error(
            "client_auth",
            "this 'client_auth' needs a client_secret_env or client_secret_file",
        ),
        (ClientAuth::None, true) => {
            section.warn("client_auth", "'client_auth' is \"none\", so the secret is not sent");
        }
        (ClientAuth::None, false) if grant == GrantType::ClientCredentials => section.error(
            "grant_type",
            "client_credentials needs a client_secret_env or client_secret_file",
        ),
        _ => {}
    }
    client_auth
}

fn read_client_id(
    section: &Section<'_>,
    sources: &Sources<'_>,
    is_needed: bool,
) -> Result<String, Missing> {
    let Some(found) = sources.secret(section, "client_id_env", "client_id_file") else {
        if is_needed {
            section.error("client_id_env", "auto_refresh_config needs a 'client_id_env'");
        }
        return Ok(String::new());
    };
    found.map(|id| id.expose().to_owned())
}

/// The first refresh token; where there is a way to log in, it may be left out.
fn read_seed(
    section: &Section<'_>,
    grant: GrantType,
    may_lack: bool,
    sources: &Sources<'_>,
) -> Option<Found> {
    let seed = sources.secret(section, "refresh_token_env", "refresh_token_file");
    match (grant, &seed) {
        (GrantType::RefreshToken, None) if !may_lack => section.error(
            "refresh_token_env",
            "auto_refresh_config needs a 'refresh_token_env', or an 'authorization_url' or \
             'device_authorization_url' for evertoken login",
        ),
        (GrantType::ClientCredentials, Some(_)) => {
            section.error("grant_type", "client_credentials uses no refresh token");
        }
        _ => {}
    }
    seed
}

fn check_extra_params(section: &Section<'_>, params: &[(String, String)]) {
    const OWN: [&str; 8] = [
        "grant_type",
        "refresh_token",
        "client_id",
        "client_secret",
        "scope",
        "code",
        "code_verifier",
        "redirect_uri",
    ];
    for (name, _) in params {
        if OWN.contains(&name.as_str()) {
            section.error("extra_params", format!("'{name}' has a key of its own"));
        }
    }
}
