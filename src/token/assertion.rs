//! The assertions of token requests (RFC 7523): what they claim, and their form as signed JSON Web Tokens. Time and
//! chance come in as a [`SigningStamp`].

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::config::{
    Assertion, AssertionContent, AutoRefresh, ClientAuth, ClientCertificate, GrantType, Missing,
    SecretFile, SignedAssertion,
};
use crate::secret::Secret;
use crate::signing;

pub(crate) mod blame;

/// The time by which an assertion begins earlier than now, for an issuer whose clock is behind.
pub(crate) const SKEW_SECONDS: i64 = 30;

/// The time of a request, and an identifier that no other request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SigningStamp {
    pub(crate) now: Timestamp,
    pub(crate) id: String,
}

impl SigningStamp {
    /// The stamp of a request at `now`.
    pub(crate) fn at(now: Timestamp) -> Self {
        // Without random bytes no TLS connection is made either, so nobody sees the other identifier.
        let id = signing::random_id().unwrap_or_else(|| now.as_millis().to_string());
        Self { now, id }
    }
}

/// The assertions of one token request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assertions {
    /// The client's (RFC 7523 §2.2).
    pub(crate) client: Option<Secret>,
    /// The grant's (RFC 7523 §2.1).
    pub(crate) grant: Option<Secret>,
    /// The grant's claims hold the scope, so the request has none.
    pub(crate) claims_scope: bool,
}

impl Assertions {
    /// Those of the request for the next token; the error names the missing file.
    pub(crate) fn of(config: &AutoRefresh, stamp: &SigningStamp) -> Result<Self, Missing> {
        let own = Self::of_client(config, stamp)?;
        let GrantType::JwtBearer(bearer) = &config.grant_type else { return Ok(own) };
        match &bearer.assertion {
            Assertion::Ready(file) => Ok(Self { grant: Some(file.found.clone()?), ..own }),
            Assertion::Signed(signed) => {
                let (usual, claims_scope) = usual_claims(config, signed, bearer.is_bearer);
                let grant = Some(sign(signed, usual, stamp, &stamp.id)?);
                Ok(Self { grant, claims_scope, ..own })
            }
        }
    }

    /// The client's alone, for requests with another grant; the error names the missing file.
    pub(crate) fn of_client(config: &AutoRefresh, stamp: &SigningStamp) -> Result<Self, Missing> {
        // Each assertion has an identifier of its own.
        let id = format!("{}c", stamp.id);
        let client = match &config.client_auth {
            ClientAuth::PrivateKeyJwt(Assertion::Ready(file)) => Some(file.found.clone()?),
            ClientAuth::PrivateKeyJwt(Assertion::Signed(signed)) => {
                Some(sign(signed, claims_of_client(config), stamp, &id)?)
            }
            ClientAuth::SecretJwt(content) => {
                let secret = config.client_secret.as_ref().map(|found| found.as_ref());
                let secret = secret.transpose().map_err(Clone::clone)?;
                secret.map(|secret| {
                    let claims = claims(content, claims_of_client(config), stamp, &id);
                    let message = message(&json!({"alg": "HS256", "typ": "JWT"}), &claims);
                    let mac = signing::hmac_sha256(secret.expose(), message.as_bytes());
                    joined(&message, &mac)
                })
            }
            _ => None,
        };
        Ok(Self { client, ..Self::default() })
    }
}

/// A text that differs whenever the assertions of `config` differ in more than time, or its certificate differs.
pub(crate) fn fingerprint(config: &AutoRefresh) -> String {
    let mut text = String::new();
    let mut add = |file: &SecretFile| {
        text.push_str(&file.found.as_ref().map_or_else(|_| String::new(), Secret::hash));
    };
    config.client_certificate.iter().flat_map(ClientCertificate::files).for_each(&mut add);
    config.assertions().flat_map(Assertion::files).for_each(add);
    for assertion in config.assertions() {
        if let Assertion::Signed(signed) = assertion {
            let rest = format!("{:?}{:?}{:?}", signed.algorithm, signed.key_id, signed.content);
            text.push_str(&rest);
        }
    }
    if let ClientAuth::SecretJwt(content) = &config.client_auth {
        let secret = config.client_secret.as_ref().and_then(|found| found.as_ref().ok());
        text.push_str(&secret.map(Secret::hash).unwrap_or_default());
        let content = format!("{content:?}");
        text.push_str(&content);
    }
    text
}

type Claims = Vec<(&'static str, Value)>;

/// RFC 7523 §3: the client speaks of itself, to the token endpoint.
fn claims_of_client(config: &AutoRefresh) -> Claims {
    let client = config.client_id.as_deref().unwrap_or_default();
    vec![("iss", client.into()), ("sub", client.into()), ("aud", config.token_url.as_str().into())]
}

/// The usual claims of a grant's assertion, and whether the scope is one of them, as Google wants it.
fn usual_claims(config: &AutoRefresh, signed: &SignedAssertion, is_bearer: bool) -> (Claims, bool) {
    let account = signed.account();
    let client = config.client_id.as_deref().unwrap_or_default();
    let issuer = account.as_ref().map_or(client, |account| &account.email);
    let mut claims = Vec::new();
    if !issuer.is_empty() {
        claims.push(("iss", issuer.into()));
    }
    if !is_bearer {
        claims.push(("aud", config.token_url.as_str().into()));
    }
    let scope = config.scope.as_deref().filter(|_| account.is_some());
    claims.extend(scope.map(|scope| ("scope", scope.into())));
    (claims, account.is_some())
}

/// All claims: the times and the identifier, the `usual` ones, and in their place those of the configuration.
fn claims(content: &AssertionContent, usual: Claims, stamp: &SigningStamp, id: &str) -> Value {
    let issued = stamp.now.as_millis().div_euclid(1000) - SKEW_SECONDS;
    let lifetime = i64::try_from(content.lifetime.as_secs()).unwrap_or(i64::MAX);
    let times = [
        ("iat", issued.into()),
        ("nbf", issued.into()),
        ("exp", issued.saturating_add(lifetime).into()),
        ("jti", Value::from(id)),
    ];
    let own = times.into_iter().chain(usual).map(|(name, value)| (name.to_owned(), value));
    let mut claims: Map<String, Value> = own.collect();
    claims.extend(content.claims.iter().cloned());
    claims.retain(|_, value| !value.is_null());
    Value::Object(claims)
}

fn sign(
    signed: &SignedAssertion,
    usual: Claims,
    stamp: &SigningStamp,
    id: &str,
) -> Result<Secret, Missing> {
    let (key, algorithm, account) = signed.key()?;
    let mut header = json!({"alg": algorithm.name(), "typ": "JWT"});
    let key_id = signed.key_id.clone().or(account.and_then(|account| account.key_id));
    if let Some(key_id) = key_id {
        header["kid"] = key_id.into();
    }
    if let Some(certificate) = signed.certificate()? {
        header["x5t#S256"] = BASE64_URL_SAFE_NO_PAD.encode(certificate.sha256()).into();
    }
    let message = message(&header, &claims(&signed.content, usual, stamp, id));
    let signature = key.sign(algorithm, message.as_bytes());
    let signature =
        signature.ok_or_else(|| signed.key.unusable(&"its numbers do not fit each other"))?;
    Ok(joined(&message, &signature))
}

/// The part of a JWT that is signed (RFC 7515 §5.1).
fn message(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

fn joined(message: &str, signature: &[u8]) -> Secret {
    Secret::new(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::config::{JwtBearer, SecretFile};
    use crate::jwt;
    use crate::signing::tests::{ED25519, P256, RSA};
    use crate::token::grant::tests::config;

    const CERTIFICATE: &str = include_str!("../../tests/data/keys/p256-cert.pem");

    fn file(text: &str) -> SecretFile {
        SecretFile { path: PathBuf::from("/k"), found: Ok(Secret::new(text)) }
    }

    fn content(claims: &[(&str, Value)]) -> AssertionContent {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        AssertionContent { claims: claims.collect(), lifetime: Duration::from_mins(5) }
    }

    /// An assertion with the key in PEM and these claims.
    pub(crate) fn signed(pem: &str, claims: &[(&str, Value)]) -> Assertion {
        Assertion::Signed(Box::new(SignedAssertion {
            key: file(pem),
            algorithm: None,
            key_id: None,
            certificate: None,
            content: content(claims),
        }))
    }

    fn stamp() -> SigningStamp {
        SigningStamp { now: Timestamp::from_millis(1_800_000_000_999), id: "id1".into() }
    }

    fn header(token: &Secret) -> Value {
        let header = token.expose().split('.').next().unwrap();
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
    }

    #[test]
    fn a_client_speaks_of_itself_to_the_token_endpoint() {
        let mut config = config();
        config.client_auth = ClientAuth::PrivateKeyJwt(signed(P256, &[]));
        let made = Assertions::of(&config, &stamp()).unwrap();
        let token = made.client.unwrap();
        assert_eq!(header(&token), json!({"alg": "ES256", "typ": "JWT"}));
        assert_eq!(
            jwt::claims(token.expose()).unwrap(),
            json!({
                "iss": "id with space", "sub": "id with space", "aud": "https://issuer.example/token",
                "iat": 1_799_999_970, "nbf": 1_799_999_970, "exp": 1_800_000_270, "jti": "id1c",
            })
        );
        assert!(made.grant.is_none() && !made.claims_scope);
        config.client_auth = ClientAuth::SecretJwt(content(&[("aud", "https://i".into())]));
        let token = Assertions::of(&config, &stamp()).unwrap().client.unwrap();
        assert_eq!(header(&token), json!({"alg": "HS256", "typ": "JWT"}));
        assert_eq!(jwt::claims(token.expose()).unwrap()["aud"], "https://i");
        let (message, mac) = token.expose().rsplit_once('.').unwrap();
        let expected = signing::hmac_sha256("s&cret", message.as_bytes());
        assert_eq!(mac, BASE64_URL_SAFE_NO_PAD.encode(expected));
    }

    #[test]
    fn the_configuration_replaces_and_takes_out_claims() {
        let claims =
            [("aud", json!(["a"])), ("sub", Value::Null), ("nbf", Value::Null), ("x", json!(1))];
        let mut config = config();
        config.client_auth = ClientAuth::PrivateKeyJwt(signed(ED25519, &claims));
        let token = Assertions::of_client(&config, &stamp()).unwrap().client.unwrap();
        let claims = jwt::claims(token.expose()).unwrap();
        assert_eq!((&claims["aud"], &claims["x"]), (&json!(["a"]), &json!(1)));
        assert_eq!((claims.get("sub"), claims.get("nbf")), (None, None));
        assert_eq!(header(&token)["alg"], "EdDSA");
    }

    #[test]
    fn the_key_and_its_certificate_are_named() {
        let mut config = config();
        let Assertion::Signed(mut one) = signed(P256, &[]) else { panic!() };
        one.key_id = Some("k".into());
        one.certificate = Some(file(CERTIFICATE));
        config.client_auth = ClientAuth::PrivateKeyJwt(Assertion::Signed(one));
        let token = Assertions::of_client(&config, &stamp()).unwrap().client.unwrap();
        let header = header(&token);
        assert_eq!((&header["kid"], header["x5t#S256"].as_str().unwrap().len()), (&json!("k"), 43));
    }

    #[test]
    fn a_service_account_speaks_for_itself_and_claims_the_scope() {
        let account = json!({
            "type": "service_account", "private_key": RSA, "private_key_id": "k1", "client_email": "a@p",
        });
        let mut config = config();
        config.client_auth = ClientAuth::None;
        config.scope = Some("s1 s2".into());
        let mut made = |assertion, is_bearer| {
            config.grant_type = GrantType::JwtBearer(Box::new(JwtBearer { assertion, is_bearer }));
            Assertions::of(&config, &stamp()).unwrap()
        };
        let google = made(signed(&account.to_string(), &[("sub", "u@p".into())]), false);
        let token = google.grant.unwrap();
        assert_eq!(header(&token), json!({"alg": "RS256", "kid": "k1", "typ": "JWT"}));
        let claims = jwt::claims(token.expose()).unwrap();
        assert_eq!(
            (&claims["iss"], &claims["sub"], &claims["scope"], &claims["aud"]),
            (&json!("a@p"), &json!("u@p"), &json!("s1 s2"), &json!("https://issuer.example/token"))
        );
        assert!(google.claims_scope);
        // GitHub wants the app as the issuer, and no audience.
        let github = made(signed(RSA, &[]), true);
        let claims = jwt::claims(github.grant.unwrap().expose()).unwrap();
        assert_eq!((&claims["iss"], claims.get("aud")), (&json!("id with space"), None));
        assert!(!github.claims_scope);
        let ready = made(Assertion::Ready(file("ready.jwt.x")), false);
        assert_eq!(ready.grant.unwrap().expose(), "ready.jwt.x");
    }

    #[test]
    fn a_key_file_that_lost_its_key_is_a_missing_secret() {
        let mut config = config();
        config.client_auth = ClientAuth::PrivateKeyJwt(signed(CERTIFICATE, &[]));
        let missing = Assertions::of_client(&config, &stamp()).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "Missing secret file: '/k' (it holds a certificate and no private key)"
        );
    }

    #[test]
    fn the_fingerprint_is_that_of_the_key_and_not_of_the_time() {
        let mut config = config();
        let mut of = |assertion| {
            config.client_auth = ClientAuth::PrivateKeyJwt(assertion);
            fingerprint(&config)
        };
        assert_eq!(of(signed(P256, &[])), of(signed(P256, &[])));
        assert_ne!(of(signed(P256, &[])), of(signed(RSA, &[])));
        assert_ne!(of(signed(P256, &[])), of(signed(P256, &[("aud", "a".into())])));
        assert!(!of(signed(P256, &[])).contains("MI"));
    }
}
