//! Token requests (RFC 6749 §2.3.1, §4.4, §6), ready to be posted. Pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::config::{AutoRefresh, ClientAuth, GrantType, Missing, RequestFormat};
use crate::secret::Secret;

/// The header that names the program.
pub(in crate::token) const USER_AGENT: &str = "user-agent";

/// Its value.
const OWN_USER_AGENT: &str = concat!("evertoken/", env!("CARGO_PKG_VERSION"));

/// A request to an issuer, ready to be sent.
#[derive(Debug)]
pub struct TokenRequest {
    /// `POST`, or `GET`, which has no body.
    pub method: &'static str,
    /// The endpoint's URL.
    pub url: String,
    /// Header fields; values may hold the client's secret.
    pub headers: Vec<(String, Secret)>,
    /// The body, which holds secrets.
    pub body: Secret,
}

/// The request for the next token, with `refresh_token` for the refresh grant, and `scope`.
///
/// The error names the missing client id or secret.
pub(crate) fn request(
    config: &AutoRefresh,
    refresh_token: Option<&Secret>,
    scope: Option<&str>,
) -> Result<TokenRequest, Missing> {
    let grant_type = match config.grant_type {
        GrantType::RefreshToken => "refresh_token",
        GrantType::ClientCredentials => "client_credentials",
    };
    let mut params = vec![("grant_type", grant_type)];
    if let Some(token) = refresh_token {
        params.push(("refresh_token", token.expose()));
    }
    request_with(config, &config.token_url, params, scope)
}

/// A request for the document at `url`.
pub(crate) fn get(url: &str) -> TokenRequest {
    let headers = vec![
        ("accept".to_owned(), Secret::new("application/json")),
        (USER_AGENT.to_owned(), Secret::new(OWN_USER_AGENT)),
    ];
    TokenRequest { method: "GET", url: url.to_owned(), headers, body: Secret::new("") }
}

/// A request to revoke `token` (RFC 7009 §2.1), which is of the `kind` that its hint says.
pub(crate) fn revocation(
    config: &AutoRefresh,
    url: &str,
    token: &Secret,
    kind: &str,
) -> Result<TokenRequest, Missing> {
    // The configured parameters are for token requests.
    let config = AutoRefresh { extra_params: Vec::new(), ..config.clone() };
    let params = vec![("token", token.expose()), ("token_type_hint", kind)];
    request_with(&config, url, params, None)
}

/// A request to `url` with these parameters, the client's own, `scope` and the configured ones.
///
/// The error names the missing client id or secret.
pub(crate) fn request_with<'a>(
    config: &'a AutoRefresh,
    url: &str,
    mut params: Vec<(&'a str, &'a str)>,
    scope: Option<&'a str>,
) -> Result<TokenRequest, Missing> {
    if let Some(missing) = Missing::all(config.missing_of_client()) {
        return Err(missing);
    }
    let client_id = config.client_id.as_deref().map_err(Clone::clone)?;
    let client_secret = match &config.client_secret {
        Some(found) => Some(found.as_ref().map_err(Clone::clone)?),
        None => None,
    };
    let mut headers = Vec::new();
    match (config.client_auth, client_secret) {
        (ClientAuth::SecretBasic, Some(secret)) => {
            headers.push(("authorization".to_owned(), basic(client_id, secret)));
        }
        (ClientAuth::SecretPost, Some(secret)) => {
            params.push(("client_id", client_id));
            params.push(("client_secret", secret.expose()));
        }
        (_, _) => params.push(("client_id", client_id)),
    }
    if let Some(scope) = scope {
        params.push(("scope", scope));
    }
    params.extend(config.extra_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let (content_type, body) = encode(config.request_format, &params);
    headers.push(("content-type".to_owned(), Secret::new(content_type)));
    headers.push(("accept".to_owned(), Secret::new("application/json")));
    // Some issuers refuse requests without a User-Agent.
    headers.push((USER_AGENT.to_owned(), Secret::new(OWN_USER_AGENT)));
    for (name, value) in &config.headers {
        headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        headers.push((name.clone(), Secret::new(value.clone())));
    }
    Ok(TokenRequest { method: "POST", url: url.to_owned(), headers, body })
}

/// RFC 6749 §2.3.1: both parts form-encoded before they are joined.
fn basic(client_id: &str, secret: &Secret) -> Secret {
    let encode =
        |part: &str| -> String { form_urlencoded::byte_serialize(part.as_bytes()).collect() };
    let joined = Secret::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(joined.expose())))
}

fn encode(format: RequestFormat, params: &[(&str, &str)]) -> (&'static str, Secret) {
    match format {
        RequestFormat::Form => {
            let body = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(params.iter().copied())
                .finish();
            ("application/x-www-form-urlencoded", Secret::new(body))
        }
        RequestFormat::Json => {
            let fields = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
            let object: serde_json::Map<String, Value> = fields.collect();
            ("application/json", Secret::new(Value::Object(object).to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::grant::Failure;
    use crate::token::grant::tests::config;

    fn body(config: &AutoRefresh) -> String {
        request(config, Some(&Secret::new("r1")), config.scope.as_deref())
            .unwrap()
            .body
            .expose()
            .to_owned()
    }

    #[test]
    fn requests_by_client_auth_and_format() {
        let post = config();
        assert_eq!(
            body(&post),
            "grant_type=refresh_token&refresh_token=r1&client_id=id+with+space&client_secret=s%26cret"
        );
        let basic = AutoRefresh { client_auth: ClientAuth::SecretBasic, ..config() };
        let made = request(&basic, Some(&Secret::new("r1")), None).unwrap();
        assert_eq!(made.body.expose(), "grant_type=refresh_token&refresh_token=r1");
        assert_eq!(made.headers[0].0, "authorization");
        // base64 of "id+with+space:s%26cret"
        assert_eq!(made.headers[0].1.expose(), "Basic aWQrd2l0aCtzcGFjZTpzJTI2Y3JldA==");
        let public = AutoRefresh {
            client_auth: ClientAuth::None,
            client_secret: None,
            request_format: RequestFormat::Json,
            scope: Some("a b".into()),
            extra_params: vec![("audience".into(), "x".into())],
            ..config()
        };
        assert_eq!(
            body(&public),
            r#"{"audience":"x","client_id":"id with space","grant_type":"refresh_token","refresh_token":"r1","scope":"a b"}"#
        );
        let own = AutoRefresh {
            grant_type: GrantType::ClientCredentials,
            headers: vec![("Accept".into(), "x/y".into())],
            ..config()
        };
        let made = request(&own, None, None).unwrap();
        assert!(made.body.expose().starts_with("grant_type=client_credentials&client_id="));
        let accepts: Vec<_> =
            made.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("accept")).collect();
        assert_eq!(accepts.len(), 1);
        assert_eq!(accepts[0].1.expose(), "x/y");
    }

    #[test]
    fn a_request_says_which_program_sends_it_unless_the_configuration_does() {
        let agent = |config: &AutoRefresh| {
            let request = request(config, None, None).unwrap();
            let mut agents = request.headers.into_iter();
            agents.find(|(name, _)| name.eq_ignore_ascii_case("user-agent")).unwrap().1
        };
        let own = concat!("evertoken/", env!("CARGO_PKG_VERSION"));
        assert_eq!(agent(&config()).expose(), own);
        let headers = vec![("User-Agent".into(), "other/1".into())];
        assert_eq!(agent(&AutoRefresh { headers, ..config() }).expose(), "other/1");
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = Missing::Variable("CLAUDE_CLIENT_ID".into());
        let config = AutoRefresh { client_id: Err(missing.clone()), ..config() };
        assert_eq!(request(&config, None, None).unwrap_err(), missing);
        let secret = Some(Err(Missing::Variable("CLAUDE_CLIENT_SECRET".into())));
        let both = AutoRefresh { client_secret: secret, ..config };
        assert_eq!(
            request(&both, None, None).unwrap_err().to_string(),
            "Missing environment variable: 'CLAUDE_CLIENT_ID' and 'CLAUDE_CLIENT_SECRET'"
        );
        assert_eq!(
            Failure::missing(missing).what.to_string(),
            "Missing environment variable: 'CLAUDE_CLIENT_ID'"
        );
    }
}
