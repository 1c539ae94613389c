//! `auto_refresh_config` after checking: how a provider's tokens are obtained and kept fresh.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::config::assertion::{Assertion, AssertionContent};
use crate::config::call::CommandLine;
use crate::config::client_certificate::ClientCertificate;
use crate::config::endpoint_request::{Bearer, EndpointRequest};
use crate::config::missing::{Missing, SecretLookup};
use crate::config::redirect::Redirect;
use crate::config::token_command::TokenCommand;
use crate::config::token_fields::TokenFields;
use crate::secret::Secret;

/// `auto_refresh_config`, if it is enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoRefresh {
    /// `https`, or `http` to a loopback address; empty as long as `issuer`'s metadata has to name it.
    pub token_url: String,
    /// The client's identifier (RFC 6749 §2.2).
    pub client_id: Result<String, Missing>,
    /// None for a public client.
    pub client_secret: Option<SecretLookup>,
    /// The first refresh token; None for the client credentials grant, or if a login brings it.
    pub seed: Option<SecretLookup>,
    /// The grant of token requests.
    pub grant_type: GrantType,
    /// The client's authentication (RFC 6749 §2.3.1).
    pub client_auth: ClientAuth,
    /// The format of the request body.
    pub request_format: RequestFormat,
    /// The `scope` of token requests.
    pub scope: Option<String>,
    /// More parameters, in file order.
    pub extra_params: Vec<(String, String)>,
    /// Extra headers on token requests.
    pub headers: Vec<(String, String)>,
    /// The places of the values in a token answer.
    pub token_fields: TokenFields,
    /// The time before expiry at which a token is refreshed.
    pub refresh_before_expiry: Duration,
    /// The wait after a permanent failure.
    pub retry_interval: Duration,
    /// The client's certificate for TLS (RFC 8705).
    pub client_certificate: Option<ClientCertificate>,
    /// The files of those secrets that come from files.
    pub files: SecretFiles,
    /// The endpoints for `evertoken login`.
    pub login: LoginEndpoints,
    /// The values that the metadata of `issuer` gives.
    pub unwritten: Unwritten,
    /// The form of commands for this configuration.
    pub call: CommandLine,
}

/// The values that stand nowhere in the configuration, so that the metadata of `issuer` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// `token_url`: the issuer stands for it in the identity of a chain.
    pub token_url: bool,
    /// `client_auth`.
    pub client_auth: bool,
}

impl AutoRefresh {
    /// Tokens that `command` prints; nothing is sent to an issuer.
    pub fn of_command(command: TokenCommand) -> Self {
        Self {
            token_url: String::new(),
            client_id: Ok(String::new()),
            client_secret: None,
            seed: None,
            grant_type: GrantType::Command(Box::new(command)),
            client_auth: ClientAuth::None,
            request_format: RequestFormat::Form,
            scope: None,
            extra_params: Vec::new(),
            headers: Vec::new(),
            token_fields: TokenFields::default(),
            refresh_before_expiry: Duration::ZERO,
            retry_interval: Duration::ZERO,
            client_certificate: None,
            files: SecretFiles::default(),
            login: LoginEndpoints::default(),
            unwritten: Unwritten::default(),
            call: CommandLine::default(),
        }
    }

    /// The command that prints its tokens, if that is their source.
    pub fn command(&self) -> Option<&TokenCommand> {
        match &self.grant_type {
            GrantType::Command(command) => Some(command),
            _ => None,
        }
    }

    /// The secrets of a request that are missing, besides its refresh token.
    pub fn missing_of_client(&self) -> Vec<Missing> {
        let secret = self.client_secret.as_ref().and_then(|found| found.as_ref().err());
        let of_tls = self.client_certificate.iter().flat_map(ClientCertificate::files);
        let files = self.assertions().flat_map(Assertion::files).chain(of_tls);
        let files = files.filter_map(|file| file.found.as_ref().err());
        let subject = match &self.grant_type {
            GrantType::TokenExchange(exchange) => exchange.subject_token.as_ref().err(),
            GrantType::Request(request) => request.missing(),
            _ => None,
        };
        let client = self.client_id.as_ref().err().into_iter().chain(secret);
        client.chain(files).chain(subject).cloned().collect()
    }

    /// The secrets of its requests, besides a chain's refresh token.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let of_grant = match &self.grant_type {
            GrantType::TokenExchange(exchange) => exchange.subject_token.as_ref().ok(),
            GrantType::Request(request) => match &request.bearer {
                Some(Bearer::Secret { found, .. }) => found.as_ref().ok(),
                _ => None,
            },
            _ => None,
        };
        let of_client = self.client_secret.as_ref().and_then(|found| found.as_ref().ok());
        of_grant.into_iter().chain(of_client)
    }

    /// The written text that tells this issuer from others: the `token_url`, else `issuer`, which stays the same
    /// while its metadata changes.
    pub fn issuer_or_token_url(&self) -> &str {
        match &self.login.issuer {
            Some(issuer) if self.unwritten.token_url => issuer,
            _ => &self.token_url,
        }
    }

    /// The issuer, if its metadata names endpoints that refreshes and logins need.
    pub fn issuer_for_endpoints(&self) -> Option<&str> {
        let login = &self.login;
        let has_way = login.authorization_url.is_some() || login.device_authorization_url.is_some();
        let is_login_open = !has_way && self.grant_type == GrantType::RefreshToken;
        let issuer = login.issuer.as_deref()?;
        (self.unwritten.token_url || is_login_open).then_some(issuer)
    }

    /// Hash of the `token_url`, or of `issuer` in its place, and the client, or whoever and whatever the tokens are for; None
    /// if one is missing. Of a `token_command`, its own.
    pub fn client_hash(&self) -> Option<String> {
        if let Some(command) = self.command() {
            return Some(command.hash());
        }
        let client_id = self.client_id.as_ref().ok()?;
        let account = self.grant_type.account()?;
        let issuer = self.issuer_or_token_url();
        if issuer.is_empty() || client_id.is_empty() && account.is_empty() {
            return None;
        }
        let mut all = format!("{issuer}\n{client_id}");
        if !account.is_empty() {
            all.extend(["\n", &account]);
        }
        for (name, value) in self.asked_each_time() {
            all.extend(["\n", name, "=", value]);
        }
        Some(Secret::new(all).hash())
    }

    /// The parameters that say what a token is for, if each request asks for it anew: a token for others is not used. A
    /// refresh token keeps what it was granted for, and its chain goes on.
    fn asked_each_time(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_asked = self.grant_type != GrantType::RefreshToken;
        let scope = self.scope.iter().map(|scope| ("scope", scope.as_str()));
        let more = self.extra_params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        scope.chain(more).filter(move |_| is_asked)
    }

    /// True if the tokens of `other` are certainly for another client or account, or for something else.
    pub fn is_of_another_client(&self, other: &Self) -> bool {
        let hashes = self.client_hash().zip(other.client_hash());
        hashes.is_some_and(|(own, others)| own != others)
    }

    /// The assertions of its requests: the grant's and the client's.
    pub fn assertions(&self) -> impl Iterator<Item = &Assertion> {
        let of_grant = match &self.grant_type {
            GrantType::JwtBearer(bearer) => Some(&bearer.assertion),
            _ => None,
        };
        let of_client = match &self.client_auth {
            ClientAuth::PrivateKeyJwt(assertion) => Some(assertion),
            _ => None,
        };
        of_grant.into_iter().chain(of_client)
    }

    /// The same, for reading their files again.
    pub(crate) fn assertions_mut(&mut self) -> impl Iterator<Item = &mut Assertion> {
        let of_grant = match &mut self.grant_type {
            GrantType::JwtBearer(bearer) => Some(&mut bearer.assertion),
            _ => None,
        };
        let of_client = match &mut self.client_auth {
            ClientAuth::PrivateKeyJwt(assertion) => Some(assertion),
            _ => None,
        };
        of_grant.into_iter().chain(of_client)
    }
}

/// The endpoints that only `evertoken login` and `evertoken logout` need, besides the token endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginEndpoints {
    /// The authorization endpoint (RFC 6749 §3.1); its query is kept.
    pub authorization_url: Option<String>,
    /// The device authorization endpoint (RFC 8628 §3.1).
    pub device_authorization_url: Option<String>,
    /// The address to which the browser returns (RFC 6749 §3.1.2).
    pub redirect_uri: Option<Redirect>,
    /// The issuer's identifier: the required value of the callback's `iss` (RFC 9207), and the place of its metadata.
    pub issuer: Option<String>,
    /// True if the issuer's metadata does not say that callbacks have an `iss`.
    pub iss_may_lack: bool,
    /// The revocation endpoint (RFC 7009 §2).
    pub revocation_url: Option<String>,
}

impl LoginEndpoints {
    /// True if there is a way to log in, or the issuer's metadata may name one.
    pub fn exist(&self) -> bool {
        self.authorization_url.is_some()
            || self.device_authorization_url.is_some()
            || self.issuer.is_some()
    }
}

/// Files with secrets of an [`AutoRefresh`], read again before each refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretFiles {
    /// `client_id_file`.
    pub client_id: Option<PathBuf>,
    /// `client_secret_file`.
    pub client_secret: Option<PathBuf>,
    /// `refresh_token_file`.
    pub seed: Option<PathBuf>,
}

/// The way to a token: `grant_type`, or the key that takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantType {
    /// RFC 6749 §6.
    RefreshToken,
    /// RFC 6749 §4.4.
    ClientCredentials,
    /// RFC 7523 §2.1.
    JwtBearer(Box<JwtBearer>),
    /// RFC 8693.
    TokenExchange(Box<TokenExchange>),
    /// `token_request`.
    Request(Box<EndpointRequest>),
    /// `token_command`.
    Command(Box<TokenCommand>),
}

/// The grant with an assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtBearer {
    /// `assertion`.
    pub assertion: Assertion,
    /// True if the assertion is the credential of a request without a grant: `as: "bearer"`.
    pub is_bearer: bool,
}

/// The exchange of another issuer's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenExchange {
    /// `subject_token_env` or `subject_token_file`.
    pub subject_token: SecretLookup,
    /// The file; None for a variable.
    pub subject_token_file: Option<PathBuf>,
    /// `subject_token_type`, a URI.
    pub subject_token_type: String,
    /// `audience`, `resource` and `requested_token_type`, as they are sent.
    pub parameters: Vec<(&'static str, String)>,
}

impl GrantType {
    /// Its name in the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer(_) => "jwt_bearer",
            Self::TokenExchange(_) => "token_exchange",
            Self::Request(_) => "token_request",
            Self::Command(_) => "token_command",
        }
    }

    /// Whoever the tokens are for, besides the client, so that a changed configuration does not go on with another
    /// account's token; None if it is unknown.
    fn account(&self) -> Option<String> {
        match self {
            Self::RefreshToken | Self::ClientCredentials | Self::Command(_) => Some(String::new()),
            Self::JwtBearer(bearer) => match &bearer.assertion {
                Assertion::Ready(file) => Some(format!("jwt_bearer {}", file.path.display())),
                Assertion::Signed(signed) => {
                    signed.key.found.as_ref().ok()?;
                    let email = signed.account().map(|account| account.email).unwrap_or_default();
                    let claims: serde_json::Map<String, Value> =
                        signed.content.claims.iter().cloned().collect();
                    Some(format!("jwt_bearer {email} {}", Value::Object(claims)))
                }
            },
            Self::Request(request) => request.account(),
            Self::TokenExchange(exchange) => {
                let parameters = exchange.parameters.iter();
                let texts = parameters.map(|(name, value)| format!("{name}={value}"));
                Some(format!("token_exchange {}", texts.collect::<Vec<_>>().join(" ")))
            }
        }
    }

    /// True if its tokens are never stored.
    pub fn keeps_nothing(&self) -> bool {
        matches!(self, Self::Command(_))
    }
}

/// `client_auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_id` and `client_secret` in the body.
    SecretPost,
    /// HTTP Basic.
    SecretBasic,
    /// A public client: `client_id` in the body alone.
    None,
    /// An assertion signed with the client's key (RFC 7523 §2.2), or one that another program keeps.
    PrivateKeyJwt(Assertion),
    /// An assertion signed with the client's secret.
    SecretJwt(AssertionContent),
    /// The certificate of the TLS connection (RFC 8705 §2); `client_id` in the body.
    Tls,
}

/// `request_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFormat {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
}
