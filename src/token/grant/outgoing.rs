//! A request to an issuer, ready to be sent: its header fields and its body. Pure.

use serde_json::Value;

use crate::config::{AutoRefresh, RequestFormat};
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

impl TokenRequest {
    /// Stands in where a command is run instead, which is sent nothing.
    pub(super) fn nothing() -> Self {
        Self { method: "POST", url: String::new(), headers: Vec::new(), body: Secret::new("") }
    }
}

/// A request for the document at `url`.
pub(crate) fn get(url: &str) -> TokenRequest {
    let headers = vec![
        ("accept".to_owned(), Secret::new("application/json")),
        (USER_AGENT.to_owned(), Secret::new(OWN_USER_AGENT)),
    ];
    TokenRequest { method: "GET", url: url.to_owned(), headers, body: Secret::new("") }
}

/// A request that posts `document` as JSON, without the client's authentication.
pub(crate) fn json_request(url: &str, document: &Value) -> TokenRequest {
    let mut request = get(url);
    request.headers.push(("content-type".to_owned(), Secret::new("application/json")));
    TokenRequest { method: "POST", body: Secret::new(document.to_string()), ..request }
}

/// The request to `url` with `params` in its body, and the configured headers.
pub(super) fn finished(
    config: &AutoRefresh,
    url: &str,
    mut headers: Vec<(String, Secret)>,
    params: Option<&[(&str, &str)]>,
) -> TokenRequest {
    let mut body = Secret::new("");
    if let Some(params) = params {
        let (content_type, encoded) = encode(config.request_format, params);
        headers.push(("content-type".to_owned(), Secret::new(content_type)));
        body = encoded;
    }
    headers.push(("accept".to_owned(), Secret::new("application/json")));
    // Some issuers refuse requests without a User-Agent.
    headers.push((USER_AGENT.to_owned(), Secret::new(OWN_USER_AGENT)));
    replace_headers(&mut headers, &config.headers);
    TokenRequest { method: "POST", url: url.to_owned(), headers, body }
}

/// Puts `configured` in the place of fields of the same names.
pub(super) fn replace_headers(
    headers: &mut Vec<(String, Secret)>,
    configured: &[(String, String)],
) {
    for (name, value) in configured {
        headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        headers.push((name.clone(), Secret::new(value.clone())));
    }
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
