//! The section of a key that stands in another section, usually because its line is indented wrongly. Pure.

/// Keys of `auto_refresh_config` that a `credentials_file` makes unnecessary, without those that other sections have.
pub(crate) const REFRESH_KEYS: [&str; 32] = [
    "token_url", "client_id_env", "client_id_file", "client_secret_env", "client_secret_file",
    "refresh_token_env", "refresh_token_file", "grant_type", "client_auth", "request_format",
    "scope", "extra_params", "refresh_before_expiry", "retry_interval", "authorization_url",
    "device_authorization_url", "redirect_uri", "issuer", "revocation_url", "assertion",
    "client_assertion", "subject_token_env", "subject_token_file", "subject_token_type",
    "audience", "resource", "requested_token_type", "token_command", "token_command_env",
    "client_cert_file", "client_key_file", "token_request",
];

/// Keys by section, without those that several sections have.
pub(crate) const HOMES: [(&str, &[&str]); 6] = [
    (
        "settings",
        &[
            "host", "port", "listen", "log_level", "server", "state_dir", "max_connections",
            "max_body_bytes", "replay_body_bytes", "failure_cooldown", "shutdown_grace", "auth",
            "allowed_hosts", "allowed_origins", "selection_strategy", "token_endpoint", "tls",
            "token_store", "tls_roots", "usage", "save_interval",
        ],
    ),
    ("auth", &["api_key", "api_key_env", "api_key_file", "keys"]),
    ("timeouts", &["connect", "response", "idle", "client_head", "client_idle"]),
    (
        "a provider",
        &[
            "type", "base_url", "auth_type", "auth_value", "auth_value_env", "auth_value_file",
            "auth_header", "auth_prefix", "query", "client_cert", "weight", "websocket",
        ],
    ),
    ("auto_refresh_config", &REFRESH_KEYS),
    ("auto_refresh_config", &["credentials_file", "credentials_fields"]),
];

/// The section that has `key`, if it is not `section`.
pub(super) fn home_of(key: &str, section: &str) -> Option<&'static str> {
    let (home, _) = HOMES.iter().find(|(_, keys)| keys.contains(&key))?;
    (*home != section).then_some(home)
}
