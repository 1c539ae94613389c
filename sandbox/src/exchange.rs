//! Endpoints that are no OAuth and give out tokens: GitHub Copilot's exchange, and the metadata servers of Google's and
//! Azure's clouds. Pure.
//!
//! Copilot's is as its clients use it (litellm, copilot-api), the metadata servers as Google's "Access the VM metadata
//! server" and Microsoft's "How to use managed identities on a VM" describe them.

use serde_json::json;

use crate::common::{Answer, refusal};

/// A kind of endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    Copilot,
    Google,
    Azure,
}

/// The parts of a request that such endpoints look at.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    /// A header field by its name.
    pub(crate) header: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) query: &'a str,
}

impl Exchange {
    /// The endpoint at `path`.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/copilot_internal/v2/token" => Some(Self::Copilot),
            "/computeMetadata/v1/instance/service-accounts/default/token" => Some(Self::Google),
            "/metadata/identity/oauth2/token" => Some(Self::Azure),
            _ => None,
        }
    }

    /// Refuses a request without the header, parameters or credential that the endpoint wants.
    pub(crate) fn check(
        self,
        asked: &Asked<'_>,
        knows: impl Fn(&str) -> bool,
    ) -> Result<(), Answer> {
        let is = |name: &str, value: &str| (asked.header)(name).as_deref() == Some(value);
        if asked.method != "GET" {
            return Err(refusal(405, "method_not_allowed"));
        }
        match self {
            Self::Copilot => {
                let credential = (asked.header)("authorization");
                let token = credential.as_deref().and_then(|value| {
                    value.strip_prefix("token ").or_else(|| value.strip_prefix("Bearer "))
                });
                let is_known = token.is_some_and(knows);
                let body = json!({ "message": "Bad credentials", "status": "401" });
                if is_known { Ok(()) } else { Err((401, body)) }
            }
            Self::Google if is("metadata-flavor", "Google") => Ok(()),
            Self::Google => Err((403, json!("Forbidden"))),
            Self::Azure => {
                let has = |name: &str| asked.query.split('&').any(|pair| pair.starts_with(name));
                let is_whole = is("metadata", "true") && has("api-version=") && has("resource=");
                if is_whole { Ok(()) } else { Err(refusal(400, "invalid_request")) }
            }
        }
    }

    /// The answer with `token`, which lives until `expires_at`, `seconds` from now.
    pub(crate) fn answer(self, token: &str, seconds: u64, expires_at: u64) -> Answer {
        let body = match self {
            Self::Copilot => json!({
                "token": token, "expires_at": expires_at, "refresh_in": seconds.saturating_sub(300).max(seconds / 2),
                "sku": "sandbox", "endpoints": {},
            }),
            Self::Google => {
                json!({ "access_token": token, "expires_in": seconds, "token_type": "Bearer" })
            }
            Self::Azure => json!({
                "access_token": token, "refresh_token": "", "expires_in": seconds.to_string(),
                "expires_on": expires_at.to_string(), "token_type": "Bearer",
            }),
        };
        (200, body)
    }
}
