//! A token request, compared with an issuer's manners. Pure.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::{ClientAuth, Format, Manners};

/// A token request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The encoding of its body.
    pub format: Format,
    /// The client's authentication.
    pub client_auth: ClientAuth,
    /// Its parameters, with the client's Basic credentials mixed in.
    pub params: HashMap<String, String>,
}

/// The mistake in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The encoding, or a parameter.
    Request,
    /// A header field is missing.
    Header,
    /// The client's authentication is not accepted.
    Client,
}

impl TokenRequest {
    /// Reads a request with these values of `Content-Type` and `Authorization`.
    pub fn read(content_type: &str, authorization: &str, body: &[u8]) -> Self {
        let json: Option<Value> =
            content_type.contains("json").then(|| serde_json::from_slice(body).ok()).flatten();
        let (format, mut params) = match json {
            Some(Value::Object(members)) => (Format::Json, texts(members)),
            _ => (Format::Form, form_urlencoded::parse(body).into_owned().collect()),
        };
        let basic = authorization.strip_prefix("Basic ").and_then(credentials);
        let client_auth = if basic.is_some() {
            ClientAuth::ClientSecretBasic
        } else if params.contains_key("client_secret") {
            ClientAuth::ClientSecretPost
        } else {
            ClientAuth::None
        };
        if let Some((id, secret)) = basic {
            params.insert("client_id".into(), id);
            params.insert("client_secret".into(), secret);
        }
        Self { format, client_auth, params }
    }

    /// Its mistake according to `manners`; `has_header` tells whether a header field is there.
    pub fn wrong(&self, manners: &Manners, has_header: impl Fn(&str) -> bool) -> Option<Wrong> {
        let asked = &manners.request;
        if !asked.headers.iter().all(|name| has_header(name)) {
            return Some(Wrong::Header);
        }
        if !asked.formats.contains(&self.format) {
            return Some(Wrong::Request);
        }
        if !asked.params.iter().all(|(name, value)| self.params.get(name) == Some(value)) {
            return Some(Wrong::Request);
        }
        let taken = asked.client_auth.contains(&self.client_auth);
        (!taken).then_some(Wrong::Client)
    }
}

fn texts(members: serde_json::Map<String, Value>) -> HashMap<String, String> {
    members
        .into_iter()
        .map(|(name, value)| (name, value.as_str().unwrap_or("").to_owned()))
        .collect()
}

/// Id and secret, each form-encoded (RFC 6749 §2.3.1).
fn credentials(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |part: &str| {
        let pair = format!("v={part}");
        form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    Some((decoded(id)?, decoded(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded";

    #[test]
    fn encodings_and_ways_to_authenticate() {
        let form = TokenRequest::read(FORM, "", b"client_id=a&client_secret=b%26");
        assert_eq!((form.format, form.client_auth), (Format::Form, ClientAuth::ClientSecretPost));
        assert_eq!(form.params["client_secret"], "b&");
        let json = TokenRequest::read("application/json", "", br#"{"client_id":"a"}"#);
        assert_eq!((json.format, json.client_auth), (Format::Json, ClientAuth::None));
        // base64 of "id+x:s%26"
        let basic = TokenRequest::read(FORM, "Basic aWQreDpzJTI2", b"grant_type=x");
        assert_eq!(basic.client_auth, ClientAuth::ClientSecretBasic);
        assert_eq!(
            (basic.params["client_id"].as_str(), basic.params["client_secret"].as_str()),
            ("id x", "s&")
        );
        // JSON without its media type does not count as JSON.
        assert_eq!(TokenRequest::read(FORM, "", b"{}").format, Format::Form);
    }

    #[test]
    fn what_the_manners_ask_for_is_missed() {
        let mut manners = Manners::own();
        let request = TokenRequest::read(FORM, "", b"client_id=a&client_secret=b&audience=c");
        let wrong = |manners: &Manners| request.wrong(manners, |name| name == "accept");
        manners.request.headers = vec!["accept".to_owned()];
        manners.request.params = [("audience".to_owned(), "c".to_owned())].into();
        assert_eq!(wrong(&manners), None);
        manners.request.client_auth = vec![ClientAuth::None];
        assert_eq!(wrong(&manners), Some(Wrong::Client));
        manners.request.params = [("audience".to_owned(), "d".to_owned())].into();
        assert_eq!(wrong(&manners), Some(Wrong::Request));
        manners.request.params.clear();
        manners.request.formats = vec![Format::Json];
        assert_eq!(wrong(&manners), Some(Wrong::Request));
        manners.request.headers = vec!["user-agent".to_owned()];
        assert_eq!(wrong(&manners), Some(Wrong::Header));
    }
}
