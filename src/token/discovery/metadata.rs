//! An issuer's metadata document (RFC 8414 §2): the values that evertoken uses. Pure.

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::config::url::{is_loopback, split_url};
use crate::http::inflate::plain;
use crate::http::message::Headers;
use crate::json;

/// The largest document, compressed or inflated.
pub(crate) const METADATA_MAX_BYTES: usize = 256 * 1024;
/// The longest text of a document that a message shows.
const SHOWN_MAX_CHARS: usize = 200;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The endpoints of a document.
const ENDPOINTS: [&str; 5] =
    ["authorization_endpoint", TOKEN, DEVICE, REVOCATION, "registration_endpoint"];
const TOKEN: &str = "token_endpoint";
const DEVICE: &str = "device_authorization_endpoint";
const REVOCATION: &str = "revocation_endpoint";
/// The member with endpoints for clients with a certificate.
const MTLS_ALIASES: &str = "mtls_endpoint_aliases";
const AUTH_METHODS: &str = "token_endpoint_auth_methods_supported";
const SCOPES: &str = "scopes_supported";
const SENDS_ISS: &str = "authorization_response_iss_parameter_supported";

/// An issuer's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// The issuer's identifier.
    pub issuer: String,
    pub authorization_endpoint: Option<String>,
    pub token_endpoint: Option<String>,
    pub device_authorization_endpoint: Option<String>,
    pub revocation_endpoint: Option<String>,
    pub registration_endpoint: Option<String>,
    /// The endpoints for clients with a certificate.
    pub mtls: MtlsAliases,
    /// The ways in which a client may authenticate at the token endpoint; None if the document does not say.
    pub auth_methods: Option<Vec<String>>,
    /// The scopes that the issuer knows.
    pub scopes: Vec<String>,
    /// True if the callback of a login always says which issuer it comes from (RFC 9207 §3).
    pub sends_iss: bool,
}

/// Endpoints that ask for a client certificate (RFC 8705 §5); None where the usual one serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MtlsAliases {
    pub token: Option<String>,
    pub device: Option<String>,
    pub revocation: Option<String>,
}

/// The reason why a document can't be used; `Display` continues after its address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMetadata {
    /// It is too large.
    #[error("is over {} KiB", METADATA_MAX_BYTES / 1024)]
    TooLarge,
    /// It is no JSON object.
    #[error("is no JSON object")]
    NotJson,
    /// It is another issuer's: the found and the expected one.
    #[error(
        "is of the issuer \"{found}\", and not of \"{expected}\": {advice}",
        found = shown(found),
        advice = advice_on(found)
    )]
    OfAnother { found: String, expected: String },
    /// A member is missing, or of another type.
    #[error("has no '{0}'")]
    Lacks(&'static str),
    /// An endpoint that can't be used: its name and value.
    #[error(
        "names \"{url}\" as its '{key}', which must be https: secrets are sent there (http is for an issuer on this \
         machine alone)",
        url = shown(url)
    )]
    Endpoint { key: &'static str, url: String },
}

/// Microsoft's document for all tenants has `{tenantid}` in the issuer's name.
fn advice_on(found: &str) -> &'static str {
    if found.contains('{') {
        "it stands for many issuers, so name your own tenant in 'issuer', or write the endpoints"
    } else {
        "'issuer' must be exactly as the issuer writes it"
    }
}

/// A text of a document for a message: without control characters, and not too long.
pub(crate) fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_MAX_CHARS).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{}{rest}", short.escape_debug())
}

/// The JSON object in the body of an answer.
pub(crate) fn read_json(headers: &Headers, body: &[u8]) -> Result<Value, BadMetadata> {
    let inflated = plain(headers, body, METADATA_MAX_BYTES);
    if inflated.is_over || inflated.bytes.len() > METADATA_MAX_BYTES {
        return Err(BadMetadata::TooLarge);
    }
    let bytes: &[u8] = &inflated.bytes;
    let value: Option<Value> =
        json::read(bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)).ok();
    value.filter(Value::is_object).ok_or(BadMetadata::NotJson)
}

impl Metadata {
    /// Reads an answer's body, which must be the document of `issuer`.
    pub(crate) fn read(headers: &Headers, body: &[u8], issuer: &str) -> Result<Self, BadMetadata> {
        Self::of(&read_json(headers, body)?, issuer)
    }

    /// The document's values, if they are of `issuer`, which RFC 8414 §3.3 compares character by character.
    pub(crate) fn of(document: &Value, issuer: &str) -> Result<Self, BadMetadata> {
        let text = |key| document.get(key).and_then(Value::as_str).map(str::to_owned);
        let found = text("issuer").ok_or(BadMetadata::Lacks("issuer"))?;
        if found != issuer {
            return Err(BadMetadata::OfAnother { found, expected: issuer.to_owned() });
        }
        let [authorization, token, device, revocation, registration] =
            ENDPOINTS.map(|key| endpoint(document, key, issuer));
        let aliases = document.get(MTLS_ALIASES).unwrap_or(&Value::Null);
        let mtls = MtlsAliases {
            token: endpoint(aliases, TOKEN, issuer)?,
            device: endpoint(aliases, DEVICE, issuer)?,
            revocation: endpoint(aliases, REVOCATION, issuer)?,
        };
        Ok(Self {
            issuer: found,
            authorization_endpoint: authorization?,
            token_endpoint: token?,
            device_authorization_endpoint: device?,
            revocation_endpoint: revocation?,
            registration_endpoint: registration?,
            mtls,
            auth_methods: texts(document, AUTH_METHODS),
            scopes: texts(document, SCOPES).unwrap_or_default(),
            sends_iss: document.get(SENDS_ISS).and_then(Value::as_bool).unwrap_or(false),
        })
    }

    /// The same for a client that has a certificate, or has none.
    pub(crate) fn for_client(&self, has_certificate: bool) -> Cow<'_, Self> {
        if !has_certificate || self.mtls == MtlsAliases::default() {
            return Cow::Borrowed(self);
        }
        let MtlsAliases { token, device, revocation } = self.mtls.clone();
        let mut found = self.clone();
        found.token_endpoint = token.or(found.token_endpoint);
        found.device_authorization_endpoint = device.or(found.device_authorization_endpoint);
        found.revocation_endpoint = revocation.or(found.revocation_endpoint);
        Cow::Owned(found)
    }

    /// The values as a document, which [`Metadata::of`] reads.
    pub(crate) fn to_document(&self) -> Value {
        let mut document = json!({ "issuer": self.issuer, SENDS_ISS: self.sends_iss });
        let endpoints = [
            &self.authorization_endpoint,
            &self.token_endpoint,
            &self.device_authorization_endpoint,
            &self.revocation_endpoint,
            &self.registration_endpoint,
        ];
        for (key, url) in ENDPOINTS.into_iter().zip(endpoints) {
            if let Some(url) = url {
                document[key] = url.as_str().into();
            }
        }
        let mtls = &self.mtls;
        for (key, url) in
            [(TOKEN, &mtls.token), (DEVICE, &mtls.device), (REVOCATION, &mtls.revocation)]
        {
            if let Some(url) = url {
                document[MTLS_ALIASES][key] = url.as_str().into();
            }
        }
        if let Some(methods) = &self.auth_methods {
            document[AUTH_METHODS] = methods.clone().into();
        }
        if !self.scopes.is_empty() {
            document[SCOPES] = self.scopes.clone().into();
        }
        document
    }
}

/// The endpoint under `key`, if there is one.
fn endpoint(
    members: &Value,
    key: &'static str,
    issuer: &str,
) -> Result<Option<String>, BadMetadata> {
    let url = members.get(key).and_then(Value::as_str).filter(|url| !url.is_empty());
    match url {
        Some(url) if !may_be_endpoint(url, issuer) => {
            Err(BadMetadata::Endpoint { key, url: url.to_owned() })
        }
        url => Ok(url.map(str::to_owned)),
    }
}

/// True for an https URL; http is for an issuer on this machine, which may also lead elsewhere on it.
fn may_be_endpoint(url: &str, issuer: &str) -> bool {
    match split_url(url) {
        Some((_, _, path)) if path.contains('#') => false,
        Some(("https", ..)) => true,
        Some(_) => is_loopback(url) && is_loopback(issuer),
        None => false,
    }
}

/// The texts in a list; other values in it are left out.
fn texts(document: &Value, key: &str) -> Option<Vec<String>> {
    let list = document.get(key)?.as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Metadata, BadMetadata> {
        Metadata::read(&Headers::new(), body.as_bytes(), "https://i")
    }

    #[test]
    fn the_values_that_are_used_are_read_and_written() {
        let all = r#"{"issuer":"https://i","authorization_endpoint":"https://i/a","token_endpoint":"https://j/t",
            "device_authorization_endpoint":"https://i/d","revocation_endpoint":"https://i/r","jwks_uri":7,
            "registration_endpoint":"https://i/n","scopes_supported":["a",1,"b"],
            "authorization_response_iss_parameter_supported":true,
            "mtls_endpoint_aliases":{"token_endpoint":"https://m/t","userinfo_endpoint":7},
            "token_endpoint_auth_methods_supported":["none","private_key_jwt"]}"#;
        let found = read(all).unwrap();
        assert_eq!(found.token_endpoint.as_deref(), Some("https://j/t"));
        assert_eq!(found.registration_endpoint.as_deref(), Some("https://i/n"));
        assert!(found.sends_iss);
        assert_eq!(found.mtls.token.as_deref(), Some("https://m/t"));
        assert_eq!(found.scopes, ["a", "b"]);
        assert_eq!(found.auth_methods.as_ref().unwrap(), &["none", "private_key_jwt"]);
        assert_eq!(Metadata::of(&found.to_document(), "https://i").unwrap(), found);
        let least = read("\u{feff}{\"issuer\":\"https://i\",\"token_endpoint\":\"\"}").unwrap();
        assert_eq!(least, Metadata { issuer: "https://i".into(), ..Metadata::default() });
        assert_eq!(Metadata::of(&least.to_document(), "https://i").unwrap(), least);
    }

    #[test]
    fn what_is_no_document_of_this_issuer_is_told() {
        for (body, expected) in [
            ("", "is no JSON object"),
            ("<html>", "is no JSON object"),
            ("[]", "is no JSON object"),
            ("{}", "has no 'issuer'"),
            (r#"{"issuer":7}"#, "has no 'issuer'"),
            (
                r#"{"issuer":"https://i/"}"#,
                "is of the issuer \"https://i/\", and not of \"https://i\": 'issuer' must be exactly as the issuer \
                 writes it",
            ),
            (
                r#"{"issuer":"https://i/{tenantid}/v2.0"}"#,
                "is of the issuer \"https://i/{tenantid}/v2.0\", and not of \"https://i\": it stands for many issuers, \
                 so name your own tenant in 'issuer', or write the endpoints",
            ),
            (
                r#"{"issuer":"https://i","token_endpoint":"http://i/t"}"#,
                "names \"http://i/t\" as its 'token_endpoint', which must be https: secrets are sent there (http is \
                 for an issuer on this machine alone)",
            ),
        ] {
            assert_eq!(read(body).unwrap_err().to_string(), expected, "{body}");
        }
        for wrong in ["http://127.0.0.1/x", "https://u@i/", "javascript:x", "https://i/#f", "x"] {
            let body = format!(r#"{{"issuer":"https://i","revocation_endpoint":"{wrong}"}}"#);
            let why = read(&body).unwrap_err();
            let key = "revocation_endpoint";
            assert_eq!(why, BadMetadata::Endpoint { key, url: wrong.into() }, "{wrong}");
        }
        let found = format!("\u{1b}[2J{}", "x".repeat(999));
        let told = BadMetadata::OfAnother { found, expected: "i".into() }.to_string();
        assert!(!told.contains('\u{1b}') && told.len() < 400, "{told}");
    }

    #[test]
    fn an_issuer_on_this_machine_may_use_http() {
        let body = r#"{"issuer":"http://127.0.0.1:1","token_endpoint":"http://localhost:2/t"}"#;
        assert!(Metadata::read(&Headers::new(), body.as_bytes(), "http://127.0.0.1:1").is_ok());
        let body = body.replace("localhost", "example.com");
        assert!(Metadata::read(&Headers::new(), body.as_bytes(), "http://127.0.0.1:1").is_err());
    }

    #[test]
    fn a_document_of_256_kib_is_read_and_a_larger_one_is_not() {
        let sized = |bytes: usize| {
            let start = r#"{"issuer":"https://i","x":""#;
            format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2))
        };
        assert!(read(&sized(METADATA_MAX_BYTES)).is_ok());
        let over = sized(METADATA_MAX_BYTES + 1);
        assert_eq!(read(&over).unwrap_err(), BadMetadata::TooLarge);
        // Zeros compress well: a small body may inflate to a large one.
        let small = miniz_oxide::deflate::compress_to_vec_zlib(over.as_bytes(), 6);
        assert!(small.len() < METADATA_MAX_BYTES / 10);
        let read = Metadata::read(&Headers::new(), &small, "https://i");
        assert_eq!(read.unwrap_err(), BadMetadata::TooLarge);
    }
}
