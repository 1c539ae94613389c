//! The metadata of the issuer (RFC 8414) and of the protected resource (RFC 9728), and the registration of clients
//! (RFC 7591). Pure.

use serde_json::{Value, json};

use crate::common::{Answer, random};

/// The scope that a login should ask for.
pub const SCOPE: &str = "offline_access";

/// The metadata of the issuer at `url`; each of its ways to authenticate is one of `auth_methods`.
pub(crate) fn of_issuer(url: &str, auth_methods: &[&str]) -> Value {
    json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/oauth/authorize"),
        "token_endpoint": format!("{url}/oauth/token"),
        "device_authorization_endpoint": format!("{url}/oauth/device"),
        "revocation_endpoint": format!("{url}/oauth/revoke"),
        "registration_endpoint": format!("{url}/oauth/register"),
        "token_endpoint_auth_methods_supported": auth_methods,
        "response_types_supported": ["code"],
        "grant_types_supported": [
            "authorization_code", "refresh_token", "client_credentials",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": [SCOPE],
        "authorization_response_iss_parameter_supported": true,
    })
}

/// The metadata of the protected resource at `path` of `url`, whose issuer is there too.
pub(crate) fn of_resource(url: &str, path: &str) -> Value {
    json!({
        "resource": format!("{url}{path}"),
        "authorization_servers": [url],
        "scopes_supported": [SCOPE],
        "bearer_methods_supported": ["header"],
    })
}

/// The challenge for a request without a valid token to `path` of `url` (RFC 9728 §5.1).
pub(crate) fn challenge(url: &str, path: &str) -> String {
    format!("Bearer resource_metadata=\"{url}/.well-known/oauth-protected-resource{path}\"")
}

/// Registers a public client: the answer, and its id.
pub(crate) fn register(asked: &Value, rng: &mut fastrand::Rng) -> Result<(Answer, String), Answer> {
    let has_redirect = asked["redirect_uris"].as_array().is_some_and(|uris| !uris.is_empty());
    if !has_redirect {
        let body =
            json!({ "error": "invalid_redirect_uri", "error_description": "said by the sandbox" });
        return Err((400, body));
    }
    let id = random(rng, "sandbox-registered-");
    let mut body = asked.clone();
    body["client_id"] = id.clone().into();
    body["token_endpoint_auth_method"] = "none".into();
    Ok(((201, body), id))
}
