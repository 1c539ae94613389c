//! The proxy's own answers instead of forwarding: codes, statuses and the two error shapes.

use std::time::Duration;

use crate::config::ProviderKind;
use crate::http::message::{Headers, ResponseHead};

/// The longest `Retry-After`: clients silently sleep for as long as it says.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// The one version of WebSockets.
pub(crate) const WEBSOCKET_VERSION: &str = "13";

/// The reason for a refusal; its name is sent as `x-evertoken-error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Malformed head, conflicting or unknown framing, bytes that a header may not contain.
    BadRequest,
    /// Inbound key missing or wrong.
    Unauthorized,
    /// A foreign `Host`.
    ForbiddenHost,
    /// A browser's cross-origin request.
    ForbiddenOrigin,
    /// The client may not have what it asks for.
    NotAllowed,
    /// A WebSocket where none is taken.
    WebSocketOff,
    /// A WebSocket of another version.
    WebSocketVersion,
    /// The client's key has used up one of its limits.
    KeyLimit,
    /// `/to/<slug>` that does not exist or is disabled.
    UnknownProvider,
    /// No provider serves the API of the request, or it belongs to none.
    NoProvider,
    /// A page under `/-/` that does not exist.
    NotFound,
    /// A page under `/-/`, requested with a method that it does not have.
    MethodNotAllowed,
    /// The client took too long.
    ClientTimeout,
    /// The body is over the limit.
    BodyTooLarge,
    /// The head is over the limit.
    HeadTooLarge,
    /// No connection to the provider.
    UpstreamUnreachable,
    /// The provider's answer is not HTTP.
    UpstreamBroken,
    /// The provider did not answer in time.
    UpstreamTimeout,
    /// No valid token for now.
    TokenUnavailable,
    /// No valid token, and only a person can get one.
    LoginNeeded,
    /// No connection slot.
    Overloaded,
    /// Descriptors, threads or memory ran out; for the client, the same as [`Code::Overloaded`].
    OutOfResources,
    /// Draining.
    ShuttingDown,
    /// A fault of evertoken.
    Internal,
}

impl Code {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::ForbiddenHost | Self::ForbiddenOrigin | Self::LoginNeeded | Self::NotAllowed => {
                403
            }
            Self::UnknownProvider | Self::NoProvider | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::ClientTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::WebSocketOff | Self::WebSocketVersion => 426,
            Self::KeyLimit => 429,
            Self::HeadTooLarge => 431,
            Self::Internal => 500,
            Self::UpstreamUnreachable | Self::UpstreamBroken => 502,
            Self::TokenUnavailable
            | Self::Overloaded
            | Self::OutOfResources
            | Self::ShuttingDown => 503,
            Self::UpstreamTimeout => 504,
        }
    }

    /// The code as sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::ForbiddenHost => "forbidden_host",
            Self::ForbiddenOrigin => "forbidden_origin",
            Self::NotAllowed => "not_allowed",
            Self::WebSocketOff => "websocket_off",
            Self::WebSocketVersion => "websocket_version",
            Self::KeyLimit => "key_limit",
            Self::UnknownProvider => "unknown_provider",
            Self::NoProvider => "no_provider",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::ClientTimeout => "client_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::HeadTooLarge => "head_too_large",
            Self::Internal => "internal_error",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamBroken => "upstream_broken",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::TokenUnavailable => "token_unavailable",
            Self::LoginNeeded => "login_needed",
            Self::Overloaded | Self::OutOfResources => "overloaded",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The `type` of the error in the provider's own vocabulary, so that SDKs raise the right class of error.
    const fn error_type(self, kind: ProviderKind) -> &'static str {
        match (kind, self.status()) {
            (ProviderKind::Anthropic, 401) => "authentication_error",
            (ProviderKind::Anthropic, 403) => "permission_error",
            (ProviderKind::Anthropic, 404) => "not_found_error",
            (ProviderKind::Anthropic, 413) => "request_too_large",
            (ProviderKind::Anthropic, 503) => "overloaded_error",
            (ProviderKind::Anthropic, 504) => "timeout_error",
            (_, 429) => "rate_limit_error",
            (_, 400..=499) => "invalid_request_error",
            (ProviderKind::Anthropic, _) => "api_error",
            (_, _) => "server_error",
        }
    }
}

/// A refusal for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub code: Code,
    /// The event and the remedy, for a person. Holds no secret.
    pub message: String,
    /// The time after which another try makes sense; always set for a 503.
    pub retry_after: Option<Duration>,
    /// True if a browser may ask its user for the key (Basic authentication).
    pub asks_browser: bool,
    /// The allowed methods, for [`Code::MethodNotAllowed`] (RFC 9110 §15.5.6).
    pub allowed: Option<String>,
}

impl Refusal {
    /// A refusal; a 503 asks to come back in a second unless [`Refusal::retry_in`] sets another time.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry_after = (code.status() == 503).then_some(Duration::from_secs(1));
        Self { code, message: message.into(), retry_after, asks_browser: false, allowed: None }
    }

    /// Adds the allowed methods.
    #[must_use]
    pub fn allowing(mut self, methods: &[&str]) -> Self {
        self.allowed = Some(methods.join(", "));
        self
    }

    /// Sets the time to come back: at most [`RETRY_AFTER_MAX`].
    #[must_use]
    pub fn retry_in(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay.min(RETRY_AFTER_MAX));
        self
    }

    /// The response in the error shape of `kind` (docs/reference.md): head, without framing or
    /// connection fields, and JSON body.
    pub fn render(&self, kind: ProviderKind) -> (ResponseHead, Vec<u8>) {
        let mut headers = Headers::new();
        headers.push("content-type", "application/json");
        headers.push("x-evertoken-error", self.code.as_str());
        if let Some(delay) = self.retry_after {
            let secs = delay.as_millis().div_ceil(1000).max(1);
            headers.push("retry-after", secs.to_string());
            if delay > RETRY_AFTER_MAX {
                // Anthropic's SDK would sleep until then, without a word.
                headers.push("x-should-retry", "false");
            }
        }
        if self.code == Code::Unauthorized && self.asks_browser {
            headers.push("www-authenticate", "Basic realm=\"evertoken\", charset=\"UTF-8\"");
        }
        if let Some(methods) = &self.allowed {
            headers.push("allow", &**methods);
        }
        if self.code == Code::Unauthorized {
            headers.push("www-authenticate", "Bearer realm=\"evertoken\"");
        }
        // A 426 names the protocol that is spoken instead (RFC 9110 §15.5.22).
        let instead = match self.code {
            Code::WebSocketOff => Some("HTTP/1.1"),
            Code::WebSocketVersion => Some("websocket"),
            _ => None,
        };
        if let Some(instead) = instead {
            headers.push("upgrade", instead);
        }
        if self.code == Code::WebSocketVersion {
            headers.push("sec-websocket-version", WEBSOCKET_VERSION);
        }
        let error_type = self.code.error_type(kind);
        let body = match kind {
            ProviderKind::Anthropic => serde_json::json!({
                "type": "error",
                "error": { "type": error_type, "message": self.message },
            }),
            ProviderKind::OpenAi | ProviderKind::Generic => serde_json::json!({
                "error": {
                    "message": self.message, "type": error_type, "code": self.code.as_str(),
                },
            }),
        };
        (ResponseHead { status: self.code.status(), headers }, body.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes() {
        let refusal =
            Refusal::new(Code::TokenUnavailable, "no token").retry_in(Duration::from_millis(1500));
        let (head, body) = refusal.render(ProviderKind::Anthropic);
        assert_eq!(head.status, 503);
        assert_eq!(head.headers.first("retry-after"), Some(b"2".as_slice()));
        assert_eq!(head.headers.first("x-evertoken-error"), Some(b"token_unavailable".as_slice()));
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"error":{"message":"no token","type":"overloaded_error"},"type":"error"}"#
        );
        let (_, body) = refusal.render(ProviderKind::OpenAi);
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"error":{"code":"token_unavailable","message":"no token","type":"server_error"}}"#
        );
    }

    #[test]
    fn nobody_is_sent_to_sleep_for_more_than_a_minute() {
        for (delay, shown) in [
            (RETRY_AFTER_MAX.saturating_sub(Duration::from_secs(1)), "59"),
            (RETRY_AFTER_MAX, "60"),
            (RETRY_AFTER_MAX + Duration::from_millis(1), "60"),
            (Duration::from_hours(1), "60"),
        ] {
            let refusal = Refusal::new(Code::TokenUnavailable, "x").retry_in(delay);
            let (head, _) = refusal.render(ProviderKind::OpenAi);
            assert_eq!(head.headers.first("retry-after"), Some(shown.as_bytes()));
        }
    }

    #[test]
    fn unauthorized_names_its_scheme_and_every_503_says_when() {
        let (head, _) = Refusal::new(Code::Unauthorized, "x").render(ProviderKind::Generic);
        assert!(head.headers.contains("www-authenticate"));
        assert!(!head.headers.contains("retry-after"));
        assert!(!head.headers.all("www-authenticate").any(|one| one.starts_with(b"Basic")));
        let mut for_browser = Refusal::new(Code::Unauthorized, "x");
        for_browser.asks_browser = true;
        let (head, _) = for_browser.render(ProviderKind::Generic);
        assert!(head.headers.all("www-authenticate").any(|one| one.starts_with(b"Basic")));
        assert!(head.headers.all("www-authenticate").any(|one| one.starts_with(b"Bearer")));
        let (head, _) = Refusal::new(Code::ShuttingDown, "x").render(ProviderKind::Generic);
        assert_eq!(head.headers.first("retry-after"), Some(b"1".as_slice()));
    }
}
