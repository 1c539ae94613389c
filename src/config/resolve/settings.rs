//! The `settings` section.

use std::time::Duration;

use log::LevelFilter;

use crate::config::raw::Section;
use crate::config::resolve::certificate_names::ClientHosts;
use crate::config::resolve::sources::Sources;
use crate::config::resolve::{
    auth, egress, inbound_key, listen, origins, state_dir, tls, token_store,
};
use crate::config::{Limits, ProviderTimeouts, SelectionStrategy, ServerKind, Settings};

/// Bounds of the numbers, each with its unit.
const CONNECTIONS_MAX: u64 = 65_535;
const BODY_MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024;
const REPLAY_BODY_MAX_BYTES: u64 = 1024 * 1024 * 1024;
const SECONDS_MAX: u64 = 24 * 3600;

/// Keys of the original family of configuration files that evertoken does not use.
const UNUSED: [&str; 20] = [
    "reload",
    "reload_includes",
    "sticky_provider_duration",
    "idle_recovery_interval",
    "client_disconnect_watchdog",
    "failover_error_types",
    "failover_http_codes",
    "unhealthy_threshold",
    "unhealthy_exception_patterns",
    "unhealthy_http_codes",
    "unhealthy_response_body_patterns",
    "unhealthy_reset_on_success",
    "unhealthy_reset_timeout",
    "log_color",
    "log_file_path",
    "app_name",
    "app_version",
    "deduplication",
    "testing",
    "oauth",
];
const UNUSED_TIMEOUTS: [&str; 4] = ["non_streaming", "streaming", "caching", "health_check"];

/// A `token_endpoint` in vain.
const NO_TAKER: &str = "'token_endpoint' is on, but nobody can get a token: add a unix socket to settings.listen \
                        (\"unix:/run/evertoken/evertoken.sock\"), or a key with 'providers' to settings.auth.keys";

/// Reads `settings` of the document; every key has a default.
pub(super) fn read(root: &Section<'_>, sources: &Sources<'_>) -> Settings {
    let section = root.section("settings");
    let server = section
        .choice("server", &[("builtin", ServerKind::Builtin), ("tiny_http", ServerKind::TinyHttp)]);
    let auth_section = section.section("auth");
    let inbound_keys = auth::read(&auth_section, sources);
    // If `auth` can't be read, that is the only mistake.
    let has_keys =
        inbound_keys.is_some() || auth_section.is_unreadable() || !auth_section.is_flag("enabled");
    let allowed_hosts = section.texts("allowed_hosts");
    let listen = listen::read(&section, server, has_keys);
    let hosts = ClientHosts {
        listen: &listen,
        allowed: &allowed_hosts,
        are_written: section.has("listen") || section.has("host"),
        has_keys: inbound_keys.is_some(),
    };
    let settings = Settings {
        tls: tls::read(&section, server, hosts, sources),
        listen,
        log_level: read_log_level(&section),
        server,
        state_dir: state_dir::read(&section, sources),
        limits: read_limits(&section),
        failure_cooldown: seconds(&section, "failure_cooldown", 180, 0),
        shutdown_grace: seconds(&section, "shutdown_grace", 30, 0),
        inbound_keys,
        allowed_hosts: allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        allowed_origins: origins::read(&section),
        usage: section.flag("usage", true),
        save_interval: seconds(&section, "save_interval", 10, 1),
        token_endpoint: section.flag("token_endpoint", false),
        token_store: token_store::read(&section, sources),
        egress: egress::read_shared(&section, sources),
        selection_strategy: section.choice(
            "selection_strategy",
            &[
                ("priority", SelectionStrategy::Priority),
                ("round_robin", SelectionStrategy::RoundRobin),
                ("random", SelectionStrategy::Random),
                ("sticky", SelectionStrategy::Sticky),
            ],
        ),
    };
    if !settings.usage {
        inbound_key::check_without_usage(&auth_section);
    }
    if settings.token_endpoint && !gives_tokens(&section, &auth_section, &settings) {
        section.warn("token_endpoint", NO_TAKER);
    }
    section.finish(&UNUSED);
    settings
}

/// True if somebody can get a token from `/-/token/<slug>`. An address or key with a mistake counts: that is told.
fn gives_tokens(section: &Section<'_>, auth: &Section<'_>, settings: &Settings) -> bool {
    let has_socket = section.texts("listen").iter().any(|address| address.starts_with("unix:"));
    let listing = inbound_key::sections(auth).into_iter().flatten();
    let has_listing =
        settings.inbound_keys.is_some() && listing.into_iter().any(|key| key.has("providers"));
    has_socket || has_listing
}

/// The time limits of requests to a provider: its own, else those for all.
pub(super) fn read_timeouts(provider: &Section<'_>, for_all: &Limits) -> ProviderTimeouts {
    let section = provider.section("timeouts");
    let own = |key, for_all: Duration| seconds(&section, key, for_all.as_secs(), 1);
    let timeouts = ProviderTimeouts {
        connect: own("connect", for_all.connect),
        response: own("response", for_all.response),
        idle: own("idle", for_all.idle),
    };
    for key in ["client_head", "client_idle"] {
        if section.has(key) {
            let message = format!(
                "'{key}' is about clients, whichever provider they ask: it goes into settings.timeouts"
            );
            section.error(key, message);
        }
    }
    section.finish(&UNUSED_TIMEOUTS);
    timeouts
}

fn seconds(section: &Section<'_>, key: &'static str, default: u64, least: u64) -> Duration {
    section.seconds(key, default, least, SECONDS_MAX)
}

fn read_log_level(section: &Section<'_>) -> LevelFilter {
    let Some(word) = section.text("log_level") else { return LevelFilter::Info };

    match word.to_ascii_uppercase().as_str() {
        "OFF" => LevelFilter::Off,
        "ERROR" | "CRITICAL" => LevelFilter::Error,
        "WARN" | "WARNING" => LevelFilter::Warn,
        "INFO" => LevelFilter::Info,
        "DEBUG" => LevelFilter::Debug,
        "TRACE" => LevelFilter::Trace,
        _ => {
            let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE", "OFF"];
            section.not_one_of("log_level", &levels);
            LevelFilter::Info
        }
    }
}

fn read_limits(section: &Section<'_>) -> Limits {
    let max_body_bytes = section.integer("max_body_bytes", 33_554_432, 0, BODY_MAX_BYTES);
    let replay_body_bytes =
        section.integer("replay_body_bytes", 8_388_608, 0, REPLAY_BODY_MAX_BYTES);
    let connections = section.integer("max_connections", 512, 1, CONNECTIONS_MAX);
    let share = (connections / 2).max(1);
    let share = section.integer("max_connections_per_address", share, 1, CONNECTIONS_MAX);
    let timeouts = section.section("timeouts");
    let limits = Limits {
        max_connections: usize::try_from(connections).unwrap_or(usize::MAX),
        max_connections_per_address: usize::try_from(share).unwrap_or(usize::MAX),
        max_body_bytes,
        replay_body_bytes,
        connect: seconds(&timeouts, "connect", 10, 1),
        response: seconds(&timeouts, "response", 600, 1),
        idle: seconds(&timeouts, "idle", 300, 1),
        client_head: seconds(&timeouts, "client_head", 15, 1),
        client_idle: seconds(&timeouts, "client_idle", 75, 1),
    };
    timeouts.finish(&UNUSED_TIMEOUTS);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::{document, fine, refused, told};

    #[test]
    fn a_token_endpoint_that_nobody_can_ask_was_taken_in_silence() {
        let with =
            |more: &str| told(&document(&format!("token_endpoint: true{more}"), "auth_type: none"));
        let listing = "[{name: a, key_env: ID, providers: [p]}]";
        for nobody in [
            "",
            ", listen: ['127.0.0.1:1']",
            ", auth: {enabled: true, api_key_env: KEYS}",
            ", auth: {keys: [{name: a, key_env: ID}]}",
        ] {
            let told = with(nobody);
            assert!(
                told[0].starts_with("f:1:28: warning: 'token_endpoint' is on, but nobody"),
                "{told:?}"
            );
            assert!(told[0].contains("unix socket to settings.listen"), "{told:?}");
            assert!(told[0].contains("'providers' to settings.auth.keys"), "{told:?}");
        }
        for somebody in [
            ", listen: ['unix:/s']".to_owned(),
            format!(", auth: {{enabled: true, keys: {listing}}}"),
        ] {
            assert_eq!(with(&somebody), [""; 0], "{somebody}");
        }
        // Each of these has a mistake of its own, or a key that counts for nothing.
        assert!(!with(", listen: ['unix:s']").iter().any(|line| line.contains("nobody can")));
        let off = with(&format!(", auth: {{enabled: false, keys: {listing}}}"));
        assert!(off.iter().any(|line| line.contains("nobody can")), "{off:?}");
        assert_eq!(told(&document("token_endpoint: false", "auth_type: none")), [""; 0]);
    }

    #[test]
    fn what_is_wrong_with_settings() {
        let cases = [
            ("host: 0.0.0.0", "f:1:18: a 'host' that is not a loopback address needs auth.enabled"),
            ("host: ''", "f:1:18: 'host' must be a name or an address"),
            ("host: 1", "f:1:18: 'host' must be a text in quotes"),
            (
                "port: '80'",
                "f:1:18: 'port' must be a whole number from 0 to 65535, not \"80\"; write it without quotes",
            ),
            ("port: -1", "f:1:18: 'port' must be a whole number from 0 to 65535, not -1"),
            ("port: 1e3", "f:1:18: 'port' must be a whole number from 0 to 65535, not 1e3"),
            (
                "port: '70000'",
                "f:1:18: 'port' must be a whole number from 0 to 65535, not \"70000\"",
            ),
            ("port: [1]", "f:1:18: 'port' must be a whole number from 0 to 65535, not a list"),
            (
                "server: nginx",
                "f:1:20: 'server' must be one of \"builtin\", \"tiny_http\", not \"nginx\"",
            ),
            (
                "server: tiny-http",
                "f:1:20: 'server' must be one of \"builtin\", \"tiny_http\", not \"tiny-http\"; did you mean \
                 \"tiny_http\"?",
            ),
            (
                "log_level: LOUD",
                "f:1:23: 'log_level' must be one of \"ERROR\", \"WARN\", \"INFO\", \"DEBUG\", \"TRACE\", \"OFF\", not \
                 \"LOUD\"",
            ),
            (
                "log_level: trce",
                "f:1:23: 'log_level' must be one of \"ERROR\", \"WARN\", \"INFO\", \"DEBUG\", \"TRACE\", \"OFF\", not \
                 \"trce\"; did you mean \"TRACE\"?",
            ),
            ("timeouts: {idle: 0}", "f:1:29: 'idle' must be a whole number from 1 to 86400, not 0"),
            ("timeouts: {idl: 1}", "f:1:23: unknown key 'idl' in timeouts, did you mean 'idle'?"),
            ("timeouts: 5", "f:1:22: timeouts must hold keys and values, not a number"),
            ("allowed_hosts: a", "f:1:27: 'allowed_hosts' must be a list of texts"),
            ("auth: {enabled: maybe}", "f:1:28: 'enabled' must be true or false, not \"maybe\""),
            (
                "auth: {enabled: no}",
                "f:1:28: 'enabled' must be true or false, not \"no\"; did you mean false?",
            ),
            (
                "auth: {enabled: 'false'}",
                "f:1:28: 'enabled' must be true or false, not \"false\"; write it without quotes",
            ),
            (
                "auth: {enabled: true}",
                "f:1:28: auth is enabled, but there is no key: Missing environment variable: 'EVERTOKEN_API_KEY'",
            ),
            (
                "auth: {enabled: true, api_key_env: NONE}",
                "f:1:47: auth is enabled, but there is no key: Missing environment variable: 'NONE'",
            ),
            (
                "auth: {enabled: true, api_key: '  '}",
                "f:1:43: auth is enabled, but there is no key: it is blank",
            ),
            (
                "auth: {enabled: true, api_key_env: KEYS, api_key: k}",
                "f:1:62: give one of api_key, api_key_env and api_key_file",
            ),
            (
                "auth: {enabled: true, api_key_file: /token, api_key: k}",
                "f:1:65: give one of api_key, api_key_env and api_key_file",
            ),
            (
                "auth: {enabled: true, api_key_env: KEYS, api_key_file: /token}",
                "f:1:67: give 'api_key_env' or 'api_key_file', not both",
            ),
            (
                "selection_strategy: best",
                "f:1:32: 'selection_strategy' must be one of \"priority\", \"round_robin\", \"random\", \"sticky\", not \"best\"",
            ),
            (
                "selection_strategy: roundrobin",
                "f:1:32: 'selection_strategy' must be one of \"priority\", \"round_robin\", \"random\", \"sticky\", not \
                 \"roundrobin\"; did you mean \"round_robin\"?",
            ),
        ];
        for (settings, message) in cases {
            refused(&document(settings, "auth_type: none"), message);
        }
    }

    #[test]
    fn tiny_http_is_for_loopback_addresses_alone() {
        let settings = "host: HOST, server: tiny_http, auth: {enabled: true, api_key: k}";
        for loopback in ["127.0.0.1", "localhost", "'::1'"] {
            let config = fine(&document(&settings.replace("HOST", loopback), "auth_type: none"));
            assert_eq!(config.settings.server, ServerKind::TinyHttp);
        }
        let text = document(&settings.replace("HOST", "0.0.0.0"), "auth_type: none");
        refused(&text, "f:1:35: \"tiny_http\" is for loopback addresses only");
    }
}
