//! The manners of an issuer, as data: its requirements, its answers, and its rotation of refresh tokens.
//!
//! Each kind of issuer has a YAML file in `sandbox/manners`. [`answer`] fills in their answers, [`request`] compares
//! requests with them, and [`crate::issuer`] keeps the tokens.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

pub mod answer;
pub mod request;

/// The kinds that come with the sandbox: name and text.
pub const KINDS: &[(&str, &str)] = &[
    ("anthropic", include_str!("../manners/anthropic.yaml")),
    ("auth0", include_str!("../manners/auth0.yaml")),
    ("entra", include_str!("../manners/entra.yaml")),
    ("gateway", include_str!("../manners/gateway.yaml")),
    ("github", include_str!("../manners/github.yaml")),
    ("google", include_str!("../manners/google.yaml")),
    ("keycloak", include_str!("../manners/keycloak.yaml")),
    ("okta", include_str!("../manners/okta.yaml")),
    ("openai", include_str!("../manners/openai.yaml")),
    ("repeating", include_str!("../manners/repeating.yaml")),
    ("rfc6749", include_str!("../manners/rfc6749.yaml")),
    ("salesforce", include_str!("../manners/salesforce.yaml")),
    ("slack", include_str!("../manners/slack.yaml")),
    ("spotify", include_str!("../manners/spotify.yaml")),
    ("xai", include_str!("../manners/xai.yaml")),
    ("zoho", include_str!("../manners/zoho.yaml")),
];

/// The sandbox's own manners, the default.
const OWN: &str = include_str!("../manners/own/sandbox.yaml");

/// The behaviour of one kind of issuer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manners {
    /// The issuer, and which of its grants.
    pub about: String,
    /// Titles of the documents that describe it.
    pub sources: Vec<String>,
    /// Assumptions that no document confirms.
    pub assumed: Vec<String>,
    /// The requirements of a token request.
    pub request: Request,
    /// The properties of its tokens.
    pub tokens: Tokens,
    /// The treatment of a used refresh token.
    pub rotation: Rotation,
    /// The answers of the token endpoint.
    pub answers: Answers,
    /// The API's answers to a rejected token.
    pub api: Api,
}

/// The requirements of a token request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The accepted encodings of the body.
    pub formats: Vec<Format>,
    /// The accepted ways of client authentication.
    pub client_auth: Vec<ClientAuth>,
    /// Required header fields, in lower case.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Parameters with required values.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
}

/// The encoding of a body.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    Json,
    /// JSON if `Accept` asks for it, else a form. Only for answers.
    ByAccept,
}

/// The client's authentication, in the words of `providers.yaml`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// Id and secret in the body.
    ClientSecretPost,
    /// Id and secret in `Authorization: Basic`.
    ClientSecretBasic,
    /// The id alone, in the body.
    None,
}

impl ClientAuth {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretPost => "client_secret_post",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::None => "none",
        }
    }
}

/// The properties of tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The beginning of an access token, unless it is a JWT.
    #[serde(default)]
    pub access_token_prefix: Option<String>,
    /// The beginning of a refresh token.
    pub refresh_token_prefix: String,
    /// True if the access token is a JWT with an `exp`.
    #[serde(default)]
    pub jwt: bool,
    /// More claims of the JWT.
    #[serde(default)]
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// The lifetime of an access token.
    pub lifetime_seconds: u64,
    /// The lifetime of a refresh token; unlimited if missing.
    #[serde(default)]
    pub refresh_token_lifetime_seconds: Option<u64>,
    /// The time from a login to the end of all its refresh tokens; unlimited if missing.
    #[serde(default)]
    pub session_seconds: Option<u64>,
    /// True if the same access token is given out until it expires.
    #[serde(default)]
    pub repeats: bool,
}

/// The treatment of a used refresh token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// True if a refresh brings another refresh token.
    pub rotates: bool,
    /// The time for which a used refresh token still works.
    #[serde(default)]
    pub overlap_seconds: u64,
    /// The treatment of a later reuse.
    pub used_token: UsedToken,
    /// True if a refresh revokes the previous access token.
    #[serde(default)]
    pub ends_access_token: bool,
}

/// The reaction to the reuse of a used-up refresh token.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum UsedToken {
    /// It works.
    Works,
    /// It is refused, and nothing else happens.
    IsRefused,
    /// It is refused, and all tokens that followed from the same login are revoked.
    RevokesAll,
}

/// The answers of the token endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// The encoding of `body`.
    pub format: Format,
    /// Changes to every answer.
    #[serde(default)]
    pub wrapping: Vec<Wrapping>,
    /// A token.
    pub granted: Template,
    /// A token for a refresh token; if missing, the answer for any other token.
    #[serde(default)]
    pub refreshed: Option<Template>,
    /// The refresh token is unknown, expired or revoked.
    pub dead_refresh_token: Template,
    /// The refresh token was used before; if missing, the answer for a dead one.
    #[serde(default)]
    pub used_refresh_token: Option<Template>,
    /// The client is unknown, or its secret is wrong.
    pub wrong_client: Template,
    /// The request has the wrong form.
    pub wrong_request: Template,
    /// A header field is missing; if missing, the answer for a wrong request.
    #[serde(default)]
    pub header_missing: Option<Template>,
    /// Too many requests.
    pub rate_limit: Template,
    /// The issuer has an internal error.
    pub server_error: Template,
    /// Pages that replace it for a moment: of a firewall, a gateway, a maintenance.
    #[serde(default)]
    pub pages: Vec<Template>,
}

/// A change to a body on its way.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Wrapping {
    /// A byte order mark precedes it.
    ByteOrderMark,
    /// It is compressed, and no header field says so.
    GzipWithoutHeader,
}

/// The API's answers to a rejected token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Required header fields of a request, in lower case, each with a part of its value.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// To an expired, revoked or unknown token; if missing, the usual answer of the path's API.
    #[serde(default)]
    pub stale_token: Option<Template>,
    /// To a valid token without the permission.
    #[serde(default)]
    pub forbidden: Option<Template>,
}

/// An answer with places to fill in; see [`answer::fill`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The status.
    #[serde(default = "ok")]
    pub status: u16,
    /// Header fields besides the type of the body.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A body, encoded as [`Answers::format`] says.
    #[serde(default)]
    pub body: Option<Value>,
    /// A literal body, such as a page.
    #[serde(default)]
    pub text: Option<String>,
}

fn ok() -> u16 {
    200
}

impl Manners {
    /// The sandbox's own manners: any request is accepted, and used refresh tokens revoke their family.
    pub fn own() -> Self {
        Self::parse(OWN).expect("a test reads this file")
    }

    /// The manners of a kind that comes with the sandbox, or of the file at the path `name`.
    pub fn find(name: &str) -> Result<Self, String> {
        if let Some((_, text)) = KINDS.iter().find(|(kind, _)| *kind == name) {
            return Self::parse(text).map_err(|why| format!("{name}: {why}"));
        }
        let text = std::fs::read_to_string(Path::new(name)).map_err(|error| {
            let kinds: Vec<_> = KINDS.iter().map(|(kind, _)| *kind).collect();
            format!(
                "no kind is called '{name}', and as a file: {error}; kinds: {}",
                kinds.join(", ")
            )
        })?;
        Self::parse(&text).map_err(|why| format!("{name}: {why}"))
    }

    /// Parses the text of a file; unknown keys and answers that can't be encoded are errors.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manners: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        manners.check().map(|()| manners)
    }

    /// All answers of the token endpoint, by their keys.
    pub fn templates(&self) -> Vec<(&'static str, &Template)> {
        let answers = &self.answers;
        let mut all = vec![
            ("granted", &answers.granted),
            ("dead_refresh_token", &answers.dead_refresh_token),
            ("wrong_client", &answers.wrong_client),
            ("wrong_request", &answers.wrong_request),
            ("rate_limit", &answers.rate_limit),
            ("server_error", &answers.server_error),
        ];
        all.extend(answers.refreshed.iter().map(|one| ("refreshed", one)));
        all.extend(answers.used_refresh_token.iter().map(|one| ("used_refresh_token", one)));
        all.extend(answers.header_missing.iter().map(|one| ("header_missing", one)));
        all.extend(answers.pages.iter().map(|one| ("pages", one)));
        all
    }

    fn check(&self) -> Result<(), String> {
        if self.request.formats.is_empty() || self.request.formats.contains(&Format::ByAccept) {
            return Err("'request.formats' must list form, json or both".to_owned());
        }
        if self.request.client_auth.is_empty() {
            return Err("'request.client_auth' is empty".to_owned());
        }
        if self.tokens.jwt == self.tokens.access_token_prefix.is_some() {
            return Err("'tokens' needs one of 'jwt' and 'access_token_prefix'".to_owned());
        }
        let api = [("stale_token", &self.api.stale_token), ("forbidden", &self.api.forbidden)];
        let api = api.into_iter().filter_map(|(name, one)| Some((name, one.as_ref()?)));
        for (name, template) in self.templates().into_iter().chain(api) {
            template.check().map_err(|why| format!("'{name}': {why}"))?;
        }
        let flat = |body: &Map<String, Value>| {
            !body.values().any(|value| value.is_object() || value.is_array())
        };
        for (name, template) in self.templates() {
            let is_flat = template.body.as_ref().and_then(Value::as_object).is_none_or(flat);
            if self.answers.format != Format::Json && !is_flat {
                return Err(format!("'{name}': a form can't be nested"));
            }
        }
        Ok(())
    }
}

impl Template {
    fn check(&self) -> Result<(), String> {
        if !(200..600).contains(&self.status) {
            return Err(format!("{} is no status of a final answer", self.status));
        }
        match (&self.body, &self.text) {
            (Some(_), Some(_)) => Err("both 'body' and 'text' are given".to_owned()),
            (None, None) => Err("neither 'body' nor 'text' is given".to_owned()),
            (Some(body), None) => answer::unknown_place(body)
                .map_or(Ok(()), |place| Err(format!("no value is called '{place}'"))),
            (None, Some(_)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_and_is_in_the_list() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manners");
        let mut found: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(found, KINDS.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
        for kind in found {
            let manners = Manners::find(&kind).unwrap_or_else(|why| panic!("{why}"));
            assert!(!manners.sources.is_empty(), "{kind} says where it is from");
        }
        Manners::own();
    }

    #[test]
    fn a_file_of_ones_own_is_found_by_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        std::fs::write(path, OWN).unwrap();
        assert!(Manners::find(path).is_ok());
        let why = Manners::find("./gitlab.yaml").unwrap_err();
        assert!(why.contains("kinds: anthropic, auth0"), "{why}");
    }

    #[test]
    fn mistakes_are_refused_with_their_place() {
        let cases = [
            ("about:", "abuot:", "abuot"),
            ("  format: json\n", "  format: jsn\n", "jsn"),
            ("rotates: true", "rotates: true\n  overlap: 3", "overlap"),
            ("formats: [form, json]", "formats: []", "request.formats"),
            ("[client_secret_post, client_secret_basic]", "[]", "request.client_auth"),
            ("  access_token_prefix:", "  jwt: true\n  access_token_prefix:", "one of"),
            ("formats: [form, json]", "formats: [by_accept]", "request.formats"),
            ("{expires_in}", "{expires}", "expires"),
            ("status: 503", "status: 199", "199"),
            ("status: 503", "status: 600", "600"),
            ("text: unwell", "text: unwell\n    body: {}", "both"),
            ("text: unwell", "headers: {}", "neither"),
            ("  format: json\n", "  format: form\n", "nested"),
        ];
        let good = OWN.replace("{ error: server_error }", "{ error: { type: server_error } }");
        assert!(Manners::parse(&good).is_ok());
        for (from, to, named) in cases {
            assert!(good.contains(from), "{from}");
            let why = Manners::parse(&good.replacen(from, to, 1)).unwrap_err();
            assert!(why.contains(named), "{to}: {why}");
        }
    }
}
