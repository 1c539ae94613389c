//! The checked configuration, whose values cannot be wrong.
//!
//! [`raw`] reads the YAML as written, with the place of each value. [`resolve`] turns it into these values, or into
//! the full list of problems.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;

pub(crate) mod assertion;
mod auto_refresh;
mod base_url;
pub(crate) mod call;
mod client_certificate;
mod credential;
pub(crate) mod egress;
pub(crate) mod encoding;
mod endpoint_request;
pub(crate) mod inbound_key;
mod key_file;
mod listen;
mod listen_host;
mod loopback;
mod missing;
mod nfc;
pub(crate) mod no_proxy;
pub(crate) mod problem;
pub(crate) mod raw;
pub(crate) mod redirect;
pub(crate) mod request_fields;
pub(crate) mod resolve;
pub(crate) mod secret_file;
pub(crate) mod slug;
pub(crate) mod store_address;
mod tls;
pub(crate) mod token_command;
pub(crate) mod token_fields;
pub(crate) mod url;

pub(crate) use assertion::{Assertion, AssertionContent, SecretFile, SignedAssertion};
pub(crate) use auto_refresh::{
    AutoRefresh, ClientAuth, GrantType, JwtBearer, LoginEndpoints, RequestFormat, SecretFiles,
    TokenExchange, Unwritten,
};
pub(crate) use call::CommandLine;
pub(crate) use client_certificate::{ClientCertificate, ClientCertificateFiles};
pub(crate) use credential::{Credential, CredentialFields, FileFormat, WatchedFile};
pub(crate) use egress::{Egress, OwnTrust, ProxyRule};
pub(crate) use endpoint_request::{Bearer, EndpointRequest};
pub(crate) use inbound_key::{InboundKey, KeyHash, KeyRights, KeySecret};
pub(crate) use listen::ADDRESSES_MAX;
pub use listen::ListenAddress;
pub(crate) use loopback::{is_loopback_host, is_metadata_host};
pub use missing::Missing;
pub(crate) use missing::SecretLookup;
pub(crate) use no_proxy::NoProxy;
pub(crate) use redirect::Redirect;
use request_fields::FieldValue;
pub(crate) use secret_file::secret_of_file;
use store_address::StoreAddress;
pub(crate) use tls::{OwnTls, TlsPaths};
pub(crate) use token_command::TokenCommand;

/// The configuration from `providers.yaml` and the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// `settings`.
    pub settings: Settings,
    /// `model_routes`, in file order.
    pub model_routes: Vec<ModelRoute>,
    /// `providers`, in file order, including disabled ones.
    pub providers: Vec<ProviderConfig>,
}

/// The provider with the name `wanted`, else the one with that slug; an enabled one before a disabled one, which conflicts
/// with nobody.
pub(crate) fn find_provider(providers: &[ProviderConfig], wanted: &str) -> Option<usize> {
    let wanted = nfc::composed(wanted);
    let rank = |provider: &ProviderConfig| {
        let is_called_so = nfc::composed(&provider.name) == wanted;
        (is_called_so || provider.slug == wanted).then_some((!provider.enabled, !is_called_so))
    };
    let meant = providers.iter().enumerate();
    meant.filter_map(|(index, one)| Some((rank(one)?, index))).min().map(|(_, index)| index)
}

/// The enabled provider whose slug is this segment of a path, percent-encoded or not.
pub(crate) fn find_by_segment<'a, P: AsRef<ProviderConfig>>(
    providers: &'a [P],
    segment: &str,
) -> Option<&'a P> {
    let slug = slug::of_segment(segment)?;
    providers.iter().find(|one| one.as_ref().enabled && one.as_ref().slug == slug)
}

/// `settings`: everything that does not belong to one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The addresses to listen on, at least one.
    pub listen: Vec<ListenAddress>,
    /// The certificate and key for clients on TCP; None for no TLS.
    pub tls: Option<OwnTls>,
    /// The log level, unless `RUST_LOG` sets another.
    pub log_level: log::LevelFilter,
    /// The server that takes the connections.
    pub server: ServerKind,
    /// The folder for tokens.
    pub state_dir: PathBuf,
    /// Explicit bounds of the forwarding path.
    pub limits: Limits,
    /// The cooldown of a failing provider.
    pub failure_cooldown: Duration,
    /// The time for requests in flight after a stop was requested.
    pub shutdown_grace: Duration,
    /// The keys that let a client in; None if `auth` is off.
    pub inbound_keys: Option<Vec<InboundKey>>,
    /// Accepted host names besides the listening ones, in lower case.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call, as browsers send them.
    pub allowed_origins: Vec<String>,
    /// Counts the tokens that answers report.
    pub usage: bool,
    /// The time from a change of what is counted to its write, in which further changes gather.
    pub save_interval: Duration,
    /// True if `/-/token/<slug>` hands out access tokens.
    pub token_endpoint: bool,
    /// The way to choose the next provider.
    pub selection_strategy: SelectionStrategy,
    /// The server through which several hosts share their tokens; None for the state folder alone.
    pub token_store: Option<SharedStore>,
    /// Proxy and roots for providers without their own.
    pub egress: Egress,
}

/// `settings.token_store` and the keys beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStore {
    /// The server's address.
    pub place: StoreAddress,
    /// The prefix of its keys.
    pub prefix: String,
    /// The key that seals the records; None leaves them unsealed.
    pub key: Option<Secret>,
    /// PEM text of the trusted roots that replace the public ones.
    pub ca_pem: Option<String>,
    /// The behaviour of refreshing if the server can't be reached.
    pub fallback: Fallback,
}

/// `settings.token_store_fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing is refreshed: two hosts never use the same refresh token.
    Wait,
    /// Each host refreshes for itself, for issuers that accept a refresh token more than once.
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
    /// Largest request body that is held for sending it again.
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
    /// evertoken's own blocking ingress.
    Builtin,
    /// `tiny_http`, on loopback addresses only.
    TinyHttp,
}

/// `settings.selection_strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectionStrategy {
    /// File order.
    Priority,
    /// The next provider each time.
    RoundRobin,
    /// A random provider.
    Random,
    /// The same provider for all requests of a conversation.
    Sticky,
}

/// One entry of `model_routes`: a pattern and its candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRoute {
    /// Pattern with `*` for any run of characters.
    pub pattern: String,
    /// Sorted by priority, and by file order within one priority.
    pub candidates: Vec<RouteCandidate>,
}

/// A provider in a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCandidate {
    /// Index into [`Config::providers`].
    pub provider: usize,
    /// The model name to send; None keeps the client's.
    pub model: Option<String>,
    /// The lowest is tried first.
    pub priority: i64,
}

/// One provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The name as written.
    pub name: String,
    /// The name in paths and file names, see [`slug`].
    pub slug: String,
    /// The API that it speaks.
    pub kind: ProviderKind,
    /// The target of requests: scheme, authority and a path without a trailing slash.
    pub base_url: String,
    /// False takes the provider out.
    pub enabled: bool,
    /// The form of the credential in a request.
    pub auth_type: AuthType,
    /// The source of the credential.
    pub credential: Credential,
    /// The header field for the credential; None for the usual one.
    pub auth_header: Option<String>,
    /// The text before the credential in it; None for the usual one.
    pub auth_prefix: Option<String>,
    /// Extra request headers, in file order.
    pub headers: Vec<(String, FieldValue)>,
    /// Parameters added to every request, unencoded, in file order.
    pub query: Vec<(String, String)>,
    /// Proxy and roots of its endpoints.
    pub egress: Egress,
    /// The most requests in flight, so that a slow provider leaves workers to the others.
    pub max_in_flight: u64,
    /// Its share among the providers of one priority.
    pub weight: u64,
    /// False refuses requests for a WebSocket.
    pub websocket: bool,
    /// The time limits of requests to it.
    pub timeouts: ProviderTimeouts,
}

/// The time limits of a request to a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProviderTimeouts {
    /// For the name, and again for TCP and TLS.
    pub connect: Duration,
    /// From the end of the request to the head of the response.
    pub response: Duration,
    /// For silence within a response, or without progress in sending the request.
    pub idle: Duration,
}

impl ProviderConfig {
    /// Proxy, roots and client certificate of token requests.
    pub(crate) fn token_egress(&self) -> Egress {
        let certificate = match &self.credential {
            Credential::Refreshed(refresh) => refresh.client_certificate.as_ref(),
            _ => None,
        };
        let client_certificate = certificate.map(ClientCertificate::paths);
        Egress { client_certificate, ..self.egress.clone() }
    }
}

/// Routing works on anything that has a provider's configuration, and on the configuration itself.
impl AsRef<ProviderConfig> for ProviderConfig {
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
    /// All types.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Generic];

    /// The word in `type`.
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

/// The longest time that a request waits for a provider's first token.
pub(crate) const FIRST_TOKEN_WAIT: Duration = Duration::from_secs(10);
