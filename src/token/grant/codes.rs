//! The meanings of issuers' error codes, in RFC 6749 §5.2 and beyond. Pure.

use crate::token::grant::failure::Class;

/// The fault that an error code names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The refresh token, or the login behind it, has ended.
    TokenDead,
    /// The client's id, secret or permissions.
    Client,
    /// The form of the request: its format or its set of parameters.
    Form,
    /// The scope or audience.
    Scope,
    /// The account, or a rule of its organisation.
    Account,
    /// Too many requests.
    Throttled,
    /// A fault of the issuer.
    Issuer,
    /// An unknown code, or none.
    Unknown,
}

/// Added to a code whose description says that the refresh token is invalid.
pub(crate) const DEAD_BY_DESCRIPTION: &str = "refresh_token_invalid";
/// The code of an answer that says in its description that another request with the refresh token is under way.
pub(crate) const IN_PROGRESS: &str = "request_in_progress";

/// A grant type that the issuer does not support: the same request in another format fails too.
const GRANT_TYPE: [&str; 2] = ["unsupported_grant_type", "invalid_grant_type"];

/// The known codes.
const KNOWN: [(Meaning, &[&str]); 8] = [
    (
        Meaning::TokenDead,
        &[
            "invalid_grant",
            "invalid_token",
            "expired_token",
            // Zoho
            "invalid_code",
            // Slack
            "invalid_auth",
            // Google: the organisation wants a login again
            "invalid_rapt",
            // OpenID Connect, Microsoft Entra: a person has to act
            "interaction_required",
            "login_required",
            "consent_required",
            "account_selection_required",
            // Facebook's number for an invalid token
            "oauthexception.190",
        ],
    ),
    (
        Meaning::Client,
        &[
            "invalid_client",
            "unauthorized_client",
            "invalid_client_id",
            "invalid_client_secret",
            "invalid_client_credentials",
            "bad_client_id",
            "bad_client_secret",
            "client_not_found",
            "deleted_client",
            "disabled_client",
            // GitHub
            "incorrect_client_credentials",
            "application_suspended",
            "device_flow_disabled",
            // Salesforce
            "app_not_found",
            "app_not_enabled",
            "oauth_app_blocked",
            "invalid_app_access",
        ],
    ),
    (Meaning::Form, &GRANT_TYPE),
    (
        Meaning::Form,
        &[
            "invalid_request",
            "invalid_request_error",
            "malformed_request",
            "invalid_parameter",
            "missing_parameter",
            "missing_required_parameter",
            "unsupported_media_type",
            "invalid_content_type",
            "invalid_json",
        ],
    ),
    (Meaning::Scope, &["invalid_scope", "invalid_target", "invalid_resource", "missing_scope"]),
    (
        Meaning::Account,
        &[
            "access_denied", "account_inactive", "account_disabled", "account_suspended",
            "inactive_user", "inactive_org", "user_disabled", "user_not_found", "org_internal",
            "admin_policy_enforced",
        ],
    ),
    (
        Meaning::Throttled,
        &[
            "slow_down", "rate_limit_error", "rate_limit_exceeded", "rate_limited", "ratelimited",
            "too_many_requests", IN_PROGRESS,
            // Microsoft Entra, after `invalid_grant`: the same request came too often within minutes
            "aadsts50196",
        ],
    ),
    (
        Meaning::Issuer,
        &[
            "temporarily_unavailable", "server_error", "overloaded_error", "api_error",
            "internal_error", "internal_failure", "fatal_error", "service_unavailable",
            "request_timeout",
        ],
    ),
];

/// Beginnings and endings of codes for an ended token or session: `token_expired`, `app_session_terminated`.
const OVER_STARTS: [&str; 5] = ["token_", "session_", "app_session_", "auth_session_", "grant_"];
const OVER_ENDS: [&str; 10] = [
    "_expired", "_revoked", "_invalid", "_invalidated", "_terminated", "_reused", "_already_used",
    "_inactive", "_not_found", "_not_active",
];

impl Meaning {
    /// The meaning of a code in the form of [`crate::token::grant::What::Status`]: `invalid_grant`, or
    /// `invalid_grant/invalid_rapt`.
    pub(crate) fn of(code: &str) -> Self {
        let code = code.to_ascii_lowercase();
        let mut parts = code.split('/').map(Self::of_part);
        let first = parts.next().unwrap_or(Self::Unknown);
        let precise = parts.find(|part| matches!(part, Self::TokenDead | Self::Throttled));
        precise.unwrap_or(first)
    }

    fn of_part(code: &str) -> Self {
        let known = KNOWN.iter().find(|(_, codes)| codes.contains(&code));
        let is_over = || {
            OVER_STARTS.iter().any(|start| code.starts_with(start))
                && OVER_ENDS.iter().any(|end| code.ends_with(end))
        };
        match known {
            Some((meaning, _)) => *meaning,
            // `bad_refresh_token`, `invalid_refresh_token`, `refresh_token_reused`, …
            None if code.contains("refresh_token") || is_over() => Self::TokenDead,
            None => Self::Unknown,
        }
    }

    /// The class of a failure with this meaning, from an answer with this `status`.
    pub(crate) fn class(self, status: u16, code: Option<&str>) -> Class {
        match self {
            Self::TokenDead => Class::TokenDead,
            Self::Client | Self::Scope | Self::Account => Class::Permanent,
            // The same request gets the same answer until somebody changes the configuration.
            Self::Form if status == 400 || code.is_some_and(is_grant_type) => Class::Permanent,
            // A firewall's page, a captive portal or an unknown code may pass.
            Self::Form | Self::Throttled | Self::Issuer | Self::Unknown => Class::Transient,
        }
    }
}

/// The code without the issuer's own one behind it: `invalid_grant` of `invalid_grant/AADSTS700082`.
pub(crate) fn without_detail(code: &str) -> &str {
    code.split_once('/').map_or(code, |(code, _)| code)
}

/// True if `code` says that the issuer does not support the grant type.
fn is_grant_type(code: &str) -> bool {
    GRANT_TYPE.contains(&without_detail(code).to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_real_issuers() {
        use Meaning::{Account, Client, Form, Issuer, Scope, Throttled, TokenDead, Unknown};
        let cases = [
            ("invalid_grant", TokenDead),
            ("INVALID_GRANT", TokenDead),
            ("invalid_grant/AADSTS700082", TokenDead),
            ("invalid_grant/invalid_rapt", TokenDead),
            ("invalid_grant/AADSTS50196", Throttled),
            ("refresh_token_reused", TokenDead),
            ("refresh_token_expired", TokenDead),
            ("refresh_token_invalidated", TokenDead),
            ("refresh_token_already_used", TokenDead),
            ("bad_refresh_token", TokenDead),
            ("invalid_refresh_token", TokenDead),
            ("INVALID_REFRESH_TOKEN", TokenDead),
            ("BAD_REFRESH_TOKEN", TokenDead),
            ("token_expired", TokenDead),
            ("TOKEN_EXPIRED", TokenDead),
            ("token_revoked", TokenDead),
            ("app_session_terminated", TokenDead),
            ("session_expired", TokenDead),
            ("session_not_found", TokenDead),
            ("invalid_code", TokenDead),
            ("OAuthException.190", TokenDead),
            ("OAuthException.1", Unknown),
            ("interaction_required", TokenDead),
            ("unauthorized_client", Client),
            ("unauthorized_client/refresh_token_invalid", TokenDead),
            ("invalid_client/AADSTS7000222", Client),
            ("incorrect_client_credentials", Client),
            ("unsupported_grant_type", Form),
            ("app_not_found", Client),
            ("invalid_scope", Scope),
            ("inactive_user", Account),
            ("access_denied", Account),
            ("slow_down", Throttled),
            ("ratelimited", Throttled),
            (IN_PROGRESS, Throttled),
            ("temporarily_unavailable", Issuer),
            ("invalid_request", Form),
            ("invalid_request/AADSTS900144", Form),
            ("invalid_request/refresh_token_invalid", TokenDead),
            ("invalid_request_error", Form),
            ("token_endpoint_busy", Unknown),
            ("forbidden", Unknown),
            ("unnamed", Unknown),
            ("", Unknown),
        ];
        for (code, meaning) in cases {
            assert_eq!(Meaning::of(code), meaning, "{code}");
        }
    }

    #[test]
    fn a_request_of_the_wrong_form_is_no_dead_token() {
        let cases = [
            (400, "invalid_request", Class::Permanent),
            (400, "invalid_request/AADSTS900144", Class::Permanent),
            (400, "invalid_request_error", Class::Permanent),
            (400, "invalid_request/refresh_token_invalid", Class::TokenDead),
            (500, "invalid_request", Class::Transient),
            (429, "invalid_request_error", Class::Transient),
            (401, "unsupported_grant_type", Class::Permanent),
            (200, "UNSUPPORTED_GRANT_TYPE", Class::Permanent),
        ];
        for (status, code, class) in cases {
            assert_eq!(Meaning::of(code).class(status, Some(code)), class, "{status} {code}");
        }
    }
}
