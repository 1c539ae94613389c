//! The configuration as meant: checked values that cannot be wrong.
//!
//! [`raw`] reads the YAML as written and knows where everything stands; [`resolve`] makes these
//! values of it, or the full list of problems.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::token_fields::TokenFields;
use crate::secret::Secret;
use crate::shared::place::Place;
use crate::token::watched::Form;

pub mod call;
pub mod egress;
pub mod encoding;
pub mod no_proxy;
pub mod raw;
pub mod redirect;
pub mod request_fields;
pub mod resolve;
pub mod secret_file;
pub mod slug;
pub mod token_fields;

pub use call::Call;
pub use egress::{Egress, ProxyRule};
pub use no_proxy::NoProxy;
pub use redirect::Redirect;
use request_fields::FieldValue;
pub use secret_file::secret_of_file;

/// Everything that `providers.yaml` and the environment say.
#[derive(Clone, Debug)]
pub struct Config {
    /// `settings`.
    pub settings: Settings,
    /// `model_routes`, in file order.
    pub model_routes: Vec<ModelRoute>,
    /// `providers`, in file order, the disabled ones too.
    pub providers: Vec<Provider>,
}

/// The provider that is called `wanted`, by name or slug: an enabled one rather than a disabled one.
pub fn find_provider(providers: &[Provider], wanted: &str) -> Option<usize> {
    let wanted = slug::composed(wanted);
    let is_meant =
        |provider: &&Provider| slug::composed(&provider.name) == wanted || provider.slug == wanted;
    let enabled = providers.iter().position(|one| one.enabled && is_meant(&one));
    enabled.or_else(|| providers.iter().position(|one| is_meant(&one)))
}

/// The enabled provider that a segment of a path names by its slug, percent-encoded or not.
pub fn find_by_segment(providers: &[Provider], segment: &str) -> Option<usize> {
    let slug = slug::of_segment(segment)?;
    providers.iter().position(|one| one.enabled && one.slug == slug)
}

/// `settings`: everything that is not one provider's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address to listen on, as written.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// What is logged where `RUST_LOG` says nothing else.
    pub log_level: log::LevelFilter,
    /// Which server takes the connections.
    pub server: Server,
    /// Where tokens are kept.
    pub state_dir: PathBuf,
    /// Explicit bounds of the forwarding path.
    pub limits: Limits,
    /// Seconds a failing provider is passed over.
    pub failure_cooldown: Duration,
    /// How long requests in flight may take once a stop is asked for.
    pub shutdown_grace: Duration,
    /// Keys of which a client must show one; None where `auth` is off.
    pub inbound_keys: Option<Vec<Secret>>,
    /// Host names answered to beside the listening ones, lower case.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call, as browsers send them.
    pub allowed_origins: Vec<String>,
    /// How the next provider is chosen.
    pub selection_strategy: SelectionStrategy,
    /// The server that several hosts share their tokens through; None for the state folder alone.
    pub token_store: Option<SharedStore>,
    /// How the endpoints of providers are reached that say nothing else.
    pub egress: Egress,
}

/// `settings.token_store` and the keys beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    /// Where it is.
    pub place: Place,
    /// What its keys begin with.
    pub prefix: String,
    /// What records are sealed with; None leaves them as they are.
    pub key: Option<Secret>,
    /// PEM text of the roots that are trusted in the place of the public ones.
    pub ca_pem: Option<String>,
    /// What refreshing does while it can't be reached.
    pub fallback: Fallback,
}

/// `settings.token_store_fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing is refreshed: two hosts never use the same refresh token.
    Wait,
    /// Each host refreshes for itself: for issuers whose refresh tokens may be used more than once.
    Local,
}

/// Bounds of the forwarding path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at once, one thread each.
    pub max_connections: usize,
    /// Connections served at once for one address that is not loopback.
    pub max_connections_per_address: usize,
    /// Largest request body.
    pub max_body_bytes: u64,
    /// Largest request body that is held so that it can be sent again.
    pub replay_body_bytes: u64,
    /// For a connection to a provider: name, TCP and TLS together.
    pub connect: Duration,
    /// From the last byte of the request to the head of the response.
    pub response: Duration,
    /// Longest silence within a response, and longest time a client may leave a piece unread.
    pub idle: Duration,
    /// From the first byte of a request head to its last.
    pub client_head: Duration,
    /// Longest silence of a client between requests and within a request body.
    pub client_idle: Duration,
}

/// `settings.server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// Our own blocking ingress.
    Builtin,
    /// `tiny_http`, on loopback addresses only.
    TinyHttp,
}

/// `settings.selection_strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectionStrategy {
    /// File order.
    Priority,
    /// The next one each time.
    RoundRobin,
    /// Any.
    Random,
}

/// One entry of `model_routes`: a pattern and its candidates by priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRoute {
    /// Pattern with `*` for any run of characters.
    pub pattern: String,
    /// Sorted by priority, file order within one.
    pub candidates: Vec<RouteCandidate>,
}

/// One provider that a route may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCandidate {
    /// Index into [`Config::providers`].
    pub provider: usize,
    /// The model name to send, or None to leave the client's.
    pub model: Option<String>,
    /// Lower is tried first.
    pub priority: i64,
}

/// One provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The name as written.
    pub name: String,
    /// The name in paths and file names, see [`slug`].
    pub slug: String,
    /// Which API it speaks.
    pub kind: ProviderKind,
    /// Where requests go: scheme, authority and a path without a trailing slash.
    pub base_url: String,
    /// Whether it takes part.
    pub enabled: bool,
    /// How the credential is put into a request.
    pub auth_type: AuthType,
    /// Where the credential comes from.
    pub credential: Credential,
    /// The header field that the credential goes into; None for the usual one.
    pub auth_header: Option<String>,
    /// What stands before the credential in it; None for the usual.
    pub auth_prefix: Option<String>,
    /// Extra request headers, in file order.
    pub headers: Vec<(String, FieldValue)>,
    /// Parameters that are added to every request, not encoded, in file order.
    pub query: Vec<(String, String)>,
    /// How its endpoints are reached.
    pub egress: Egress,
    /// Requests that it may have under way, so that a slow provider leaves workers to the others.
    pub max_in_flight: u64,
}

/// `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// Anthropic Messages API.
    Anthropic,
    /// `OpenAI` API.
    OpenAi,
    /// Anything else over HTTP.
    Generic,
}

impl ProviderKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Generic];

    /// As `type` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Generic => "generic",
        }
    }
}

/// `auth_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    /// `Authorization: Bearer …`.
    AuthToken,
    /// `x-api-key: …` for anthropic, `Authorization: Bearer …` for the others.
    ApiKey,
    /// No credential at all.
    None,
}

/// Where a provider's credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// None is sent.
    None,
    /// The client's own is passed on.
    Passthrough,
    /// A fixed text.
    Static(Secret),
    /// A fixed text that is not there: the message says what is missing.
    Missing(Missing),
    /// In a file that is read again when it changes: one with the credential alone, or one that
    /// another program keeps fresh.
    Watched(WatchedFile),
    /// Got from a token endpoint and kept fresh.
    Refreshed(Box<AutoRefresh>),
}

impl Credential {
    /// Why there is nothing to refresh, for a credential that is not [`Credential::Refreshed`].
    pub fn why_not_refreshed(&self) -> &'static str {
        match self {
            Self::Watched(file) if matches!(file.form, Form::Stored { .. }) => {
                "its auto_refresh_config.enabled is false"
            }
            Self::Watched(_) => "its credential is in a file that another program keeps",
            _ => "it has no auto_refresh_config, or one that is not used",
        }
    }
}

/// A file with a credential that is read again when it changes. Two are the same whatever could be read of them at
/// the start.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub form: Form,
    /// Why it could not be read at the start, where that is so.
    pub missing: Option<Missing>,
}

impl PartialEq for WatchedFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.form) == (&other.path, &other.form)
    }
}

impl Eq for WatchedFile {}

/// A secret that the configuration names and the environment or the disk does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An environment variable that is not set or empty.
    Variable(String),
    /// A file that can't be read or is empty: its path and why.
    File(String, String),
    /// A refresh token that only a login can bring: the command for it.
    Login(String),
    /// The configuration names no credential at all.
    Credential,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "Missing environment variable: '{name}'"),
            Self::File(path, why) => write!(f, "Missing secret file: '{path}' ({why})"),
            Self::Login(command) => write!(f, "There is no refresh token yet; run: {command}"),
            Self::Credential => f.write_str(
                "There is no credential: give auto_refresh_config, auth_value, auth_value_env or \
                 auth_value_file, or auth_type \"none\"",
            ),
        }
    }
}

/// A secret named in the configuration: found, or what is missing.
pub type Found = Result<Secret, Missing>;

/// `auto_refresh_config`, where it is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoRefresh {
    /// `https`, or `http` to a loopback address.
    pub token_url: String,
    /// The client's identifier (RFC 6749 §2.2).
    pub client_id: Result<String, Missing>,
    /// None for a public client.
    pub client_secret: Option<Found>,
    /// The first refresh token; None for the client credentials grant, and where it comes from a
    /// login.
    pub seed: Option<Found>,
    /// Which grant is used.
    pub grant_type: GrantType,
    /// How the client shows who it is (RFC 6749 §2.3.1).
    pub client_auth: ClientAuth,
    /// How the request body is written.
    pub request_format: RequestFormat,
    /// `scope` of the request.
    pub scope: Option<String>,
    /// More parameters, in file order.
    pub extra_params: Vec<(String, String)>,
    /// Extra headers on token requests.
    pub headers: Vec<(String, String)>,
    /// Where an answer keeps its values.
    pub token_fields: TokenFields,
    /// How long before expiry a token is refreshed.
    pub refresh_before_expiry: Duration,
    /// How long to wait after a permanent failure.
    pub retry_interval: Duration,
    /// The files that the secrets came from, where they did.
    pub files: SecretFiles,
    /// Where `evertoken login` gets the first refresh token.
    pub login: LoginEndpoints,
    /// How commands for this configuration are written.
    pub call: Call,
}

/// What `evertoken login` needs beside the token endpoint; it is of no use to anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginEndpoints {
    /// Where the browser is sent (RFC 6749 §3.1); its query is kept.
    pub authorization_url: Option<String>,
    /// Where a device code is asked for (RFC 8628 §3.1).
    pub device_authorization_url: Option<String>,
    /// Where the browser comes back to (RFC 6749 §3.1.2).
    pub redirect_uri: Option<Redirect>,
    /// What the callback's `iss` must be (RFC 9207).
    pub issuer: Option<String>,
}

impl LoginEndpoints {
    /// Whether there is a way to log in.
    pub fn exist(&self) -> bool {
        self.authorization_url.is_some() || self.device_authorization_url.is_some()
    }
}

/// Files that hold secrets of an [`AutoRefresh`]; they are read again before each refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFiles {
    /// `client_id_file`.
    pub client_id: Option<PathBuf>,
    /// `client_secret_file`.
    pub client_secret: Option<PathBuf>,
    /// `refresh_token_file`.
    pub seed: Option<PathBuf>,
}

/// `grant_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantType {
    /// RFC 6749 §6.
    RefreshToken,
    /// RFC 6749 §4.4.
    ClientCredentials,
}

/// `client_auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_id` and `client_secret` in the body.
    SecretPost,
    /// HTTP Basic.
    SecretBasic,
    /// A public client: `client_id` in the body alone.
    None,
}

/// `request_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
}

/// The largest request head, start line and fields together.
pub const HEAD_MAX_BYTES: usize = 64 * 1024;
/// The most header fields in a request head.
pub const HEAD_MAX_FIELDS: usize = 128;
/// How long a request waits for a provider's first token.
pub const FIRST_TOKEN_WAIT: Duration = Duration::from_secs(10);

/// Whether `host`, a name or an address without port and brackets, is this machine's loopback.
pub fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
