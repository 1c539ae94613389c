//! The configuration as meant: checked values that cannot be wrong.
//!
//! [`raw`] reads the YAML as written and knows where everything stands; [`resolve`] makes these
//! values of it, or the full list of problems.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

mod auto_refresh;
mod base_url;
pub mod call;
mod credential;
pub mod egress;
pub mod encoding;
mod listen_host;
mod loopback;
mod missing;
pub mod no_proxy;
pub mod raw;
pub mod redirect;
pub mod request_fields;
pub mod resolve;
pub mod secret_file;
pub mod slug;
pub mod store_address;
pub mod token_fields;
pub(crate) mod url;

pub use auto_refresh::{
    AutoRefresh, ClientAuth, GrantType, LoginEndpoints, RequestFormat, SecretFiles,
};
pub use call::Call;
pub use credential::{Credential, CredentialFields, FileFormat, WatchedFile};
pub use egress::{Egress, ProxyRule};
pub use loopback::is_loopback_host;
pub use missing::{Missing, SecretLookup};
pub use no_proxy::NoProxy;
pub use redirect::Redirect;
use request_fields::FieldValue;
pub use secret_file::secret_of_file;
use store_address::StoreAddress;

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
pub fn find_by_segment<'a, P: AsRef<Provider>>(providers: &'a [P], segment: &str) -> Option<&'a P> {
    let slug = slug::of_segment(segment)?;
    providers.iter().find(|one| one.as_ref().enabled && one.as_ref().slug == slug)
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
    pub server: ServerKind,
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
    /// Host names answered to besides the listening ones, lower case.
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
    pub place: StoreAddress,
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
pub enum ServerKind {
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

/// Whatever has a description of a provider can be routed to: this one itself, for one.
impl AsRef<Provider> for Provider {
    fn as_ref(&self) -> &Self {
        self
    }
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

/// How long a request waits for a provider's first token.
pub const FIRST_TOKEN_WAIT: Duration = Duration::from_secs(10);
