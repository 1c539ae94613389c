//! Token requests (RFC 6749 §2.3.1, §4.4, §6; RFC 7523; RFC 8693), ready to be posted. Pure.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::config::{AutoRefresh, ClientAuth, GrantType, Missing};
use crate::secret::Secret;
use crate::token::assertion::Assertions;
use crate::token::grant::endpoint::endpoint_request;
use crate::token::grant::outgoing::{TokenRequest, finished};

/// `grant_type` of RFC 7523 §2.1 and of RFC 8693 §2.1.
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// RFC 7523 §2.2.
const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The request for the next token, with `refresh_token` for the refresh grant, `scope`, and signed `assertions`.
///
/// The error names the missing secret.
pub(crate) fn request(
    config: &AutoRefresh,
    refresh_token: Option<&Secret>,
    scope: Option<&str>,
    assertions: &Assertions,
) -> Result<TokenRequest, Missing> {
    let scope = scope.filter(|_| !assertions.claims_scope);
    let mut params = Vec::new();
    match &config.grant_type {
        GrantType::RefreshToken => {
            params.push(("grant_type", "refresh_token"));
            params.extend(refresh_token.map(|token| ("refresh_token", token.expose())));
        }
        GrantType::ClientCredentials => params.push(("grant_type", "client_credentials")),
        GrantType::JwtBearer(bearer) if bearer.is_bearer => {
            return Ok(bearer_request(config, scope, assertions.grant.as_ref()));
        }
        GrantType::JwtBearer(_) => {
            params.push(("grant_type", JWT_BEARER));
            params.extend(assertions.grant.as_ref().map(|jwt| ("assertion", jwt.expose())));
        }
        GrantType::TokenExchange(exchange) => {
            let subject = exchange.subject_token.as_ref().map_err(Clone::clone)?;
            params.push(("grant_type", TOKEN_EXCHANGE));
            params.push(("subject_token", subject.expose()));
            params.push(("subject_token_type", &exchange.subject_token_type));
            params.extend(exchange.parameters.iter().map(|(name, value)| (*name, value.as_str())));
        }
        GrantType::Request(request) => return endpoint_request(config, request, scope),
        GrantType::Command(_) => return Ok(TokenRequest::nothing()),
    }
    request_with(config, &config.token_url, params, scope, assertions)
}

/// A request to revoke `token` (RFC 7009 §2.1), which is of the `kind` that its hint says.
pub(crate) fn revocation(
    config: &AutoRefresh,
    url: &str,
    token: &Secret,
    kind: &str,
    assertions: &Assertions,
) -> Result<TokenRequest, Missing> {
    // The configured parameters are for token requests.
    let config = AutoRefresh { extra_params: Vec::new(), ..config.clone() };
    let params = vec![("token", token.expose()), ("token_type_hint", kind)];
    request_with(&config, url, params, None, assertions)
}

/// A request to `url` with these parameters, the client's own, `scope` and the configured ones.
///
/// The error names the missing client id or secret.
pub(crate) fn request_with<'a>(
    config: &'a AutoRefresh,
    url: &str,
    mut params: Vec<(&'a str, &'a str)>,
    scope: Option<&'a str>,
    assertions: &'a Assertions,
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
    let basic = client_secret.filter(|_| config.client_auth == ClientAuth::SecretBasic);
    match basic {
        Some(secret) => {
            headers.push(("authorization".to_owned(), basic_credential(client_id, secret)));
        }
        // A grant may name the client by itself.
        None if client_id.is_empty() => {}
        None => params.push(("client_id", client_id)),
    }
    match &config.client_auth {
        ClientAuth::SecretPost => {
            params.extend(client_secret.map(|secret| ("client_secret", secret.expose())));
        }
        ClientAuth::PrivateKeyJwt(_) | ClientAuth::SecretJwt(_) => {
            params.push(("client_assertion_type", CLIENT_ASSERTION_TYPE));
            let assertion = assertions.client.as_ref();
            params.extend(assertion.map(|jwt| ("client_assertion", jwt.expose())));
        }
        ClientAuth::SecretBasic | ClientAuth::None | ClientAuth::Tls => {}
    }
    params.extend(scope.map(|scope| ("scope", scope)));
    params.extend(config.extra_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    Ok(finished(config, url, headers, Some(&params)))
}

/// A request whose credential is the assertion `jwt` itself, with a body only for configured parameters.
fn bearer_request(config: &AutoRefresh, scope: Option<&str>, jwt: Option<&Secret>) -> TokenRequest {
    let credential = jwt.map(|jwt| Secret::new(format!("Bearer {}", jwt.expose())));
    let headers = credential.into_iter().map(|value| ("authorization".to_owned(), value)).collect();
    let mut params: Vec<_> = scope.map(|scope| ("scope", scope)).into_iter().collect();
    params.extend(config.extra_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let params = Some(params.as_slice()).filter(|params| !params.is_empty());
    finished(config, &config.token_url, headers, params)
}

/// RFC 6749 §2.3.1: both parts form-encoded before they are joined.
fn basic_credential(client_id: &str, secret: &Secret) -> Secret {
    let encode =
        |part: &str| -> String { form_urlencoded::byte_serialize(part.as_bytes()).collect() };
    let joined = Secret::new(format!("{}:{}", encode(client_id), encode(secret.expose())));
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(joined.expose())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{JwtBearer, RequestFormat, TokenExchange};
    use crate::signing::tests::P256;
    use crate::token::assertion::tests::signed;
    use crate::token::grant::Failure;
    use crate::token::grant::tests::config;

    fn none() -> Assertions {
        Assertions::default()
    }

    fn body(config: &AutoRefresh) -> String {
        request(config, Some(&Secret::new("r1")), config.scope.as_deref(), &none())
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
        let made = request(&basic, Some(&Secret::new("r1")), None, &none()).unwrap();
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
        let made = request(&own, None, None, &none()).unwrap();
        assert!(made.body.expose().starts_with("grant_type=client_credentials&client_id="));
        let accepts: Vec<_> =
            made.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("accept")).collect();
        assert_eq!(accepts.len(), 1);
        assert_eq!(accepts[0].1.expose(), "x/y");
    }

    #[test]
    fn a_request_says_which_program_sends_it_unless_the_configuration_does() {
        let agent = |config: &AutoRefresh| {
            let request = request(config, None, None, &none()).unwrap();
            let mut agents = request.headers.into_iter();
            agents.find(|(name, _)| name.eq_ignore_ascii_case("user-agent")).unwrap().1
        };
        let own = concat!("evertoken/", env!("CARGO_PKG_VERSION"));
        assert_eq!(agent(&config()).expose(), own);
        let headers = vec![("User-Agent".into(), "other/1".into())];
        assert_eq!(agent(&AutoRefresh { headers, ..config() }).expose(), "other/1");
    }

    #[test]
    fn requests_with_assertions_and_subject_tokens() {
        let assertions = Assertions {
            client: Some(Secret::new("c.c.c")),
            grant: Some(Secret::new("g.g.g")),
            claims_scope: false,
        };
        let made = |config: &AutoRefresh, assertions: &Assertions| {
            let made = request(config, None, Some("s"), assertions).unwrap();
            let header = |name: &str| {
                let found = made.headers.iter().find(|(own, _)| own == name);
                found.map(|(_, value)| value.expose().to_owned())
            };
            (
                made.body.expose().to_owned(),
                header("authorization"),
                header("content-type").is_some(),
            )
        };
        let jwt_bearer = |is_bearer| {
            let assertion = signed(P256, &[]);
            GrantType::JwtBearer(Box::new(JwtBearer { assertion, is_bearer }))
        };
        let client_auth = ClientAuth::PrivateKeyJwt(signed(P256, &[]));
        let no_secret = AutoRefresh { client_secret: None, client_auth, ..config() };
        let machine = AutoRefresh { grant_type: GrantType::ClientCredentials, ..no_secret.clone() };
        assert_eq!(
            made(&machine, &assertions).0,
            "grant_type=client_credentials&client_id=id+with+space&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth\
             %3Aclient-assertion-type%3Ajwt-bearer&client_assertion=c.c.c&scope=s"
        );
        let nobody = AutoRefresh {
            client_id: Ok(String::new()),
            client_auth: ClientAuth::None,
            ..no_secret
        };
        let granted = AutoRefresh { grant_type: jwt_bearer(false), ..nobody.clone() };
        let start =
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=g.g.g";
        assert_eq!(made(&granted, &assertions).0, format!("{start}&scope=s"));
        let claimed = Assertions { claims_scope: true, ..assertions.clone() };
        assert_eq!(made(&granted, &claimed).0, start);
        // GitHub: no grant at all.
        let mut github = AutoRefresh { grant_type: jwt_bearer(true), ..nobody.clone() };
        let bearer = Some("Bearer g.g.g".to_owned());
        assert_eq!(made(&github, &claimed), (String::new(), bearer.clone(), false));
        github.extra_params = vec![("a".into(), "b".into())];
        assert_eq!(made(&github, &assertions), ("scope=s&a=b".to_owned(), bearer, true));
        let exchange = GrantType::TokenExchange(Box::new(TokenExchange {
            subject_token: Ok(Secret::new("s.s.s")),
            subject_token_file: None,
            subject_token_type: "urn:x".into(),
            parameters: vec![("audience", "a".into())],
        }));
        let exchange = AutoRefresh { grant_type: exchange, ..nobody };
        assert_eq!(
            made(&exchange, &none()).0,
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=s.s.s\
             &subject_token_type=urn%3Ax&audience=a&scope=s"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = Missing::Variable("CLAUDE_CLIENT_ID".into());
        let config = AutoRefresh { client_id: Err(missing.clone()), ..config() };
        assert_eq!(request(&config, None, None, &none()).unwrap_err(), missing);
        let secret = Some(Err(Missing::Variable("CLAUDE_CLIENT_SECRET".into())));
        let both = AutoRefresh { client_secret: secret, ..config };
        assert_eq!(
            request(&both, None, None, &none()).unwrap_err().to_string(),
            "Missing environment variable: 'CLAUDE_CLIENT_ID' and 'CLAUDE_CLIENT_SECRET'"
        );
        assert_eq!(
            Failure::missing(missing).what.to_string(),
            "Missing environment variable: 'CLAUDE_CLIENT_ID'"
        );
    }
}
