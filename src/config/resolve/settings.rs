//! The `settings` section.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use crate::config::raw::Section;
use crate::config::resolve::sources::Sources;
use crate::config::resolve::{egress, origins, token_store};
use crate::config::{
    Limits, Missing, SecretLookup, SelectionStrategy, ServerKind, Settings, is_loopback_host,
    listen_host,
};
use crate::secret::Secret;

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
const UNUSED_AUTH: [&str; 1] = ["exempt_paths"];

/// Reads `settings` of the document; every key has a default.
pub(super) fn read(root: &Section<'_>, sources: &Sources<'_>) -> Settings {
    let section = root.section("settings");
    let host = section.text("host").unwrap_or_else(|| "127.0.0.1".to_owned());
    let server = section
        .choice("server", &[("builtin", ServerKind::Builtin), ("tiny_http", ServerKind::TinyHttp)]);
    let auth = section.section("auth");
    let inbound_keys = read_auth(&auth, sources);
    // If `auth` can't be read, that is the only mistake.
    let has_keys = inbound_keys.is_some() || auth.is_unreadable() || !auth.is_flag("enabled");
    check_host(&section, &host, server, has_keys);
    let allowed_hosts = section.texts("allowed_hosts");
    let settings = Settings {
        host,
        port: u16::try_from(section.integer("port", 8080, 0, 65_535)).unwrap_or(0),
        log_level: read_log_level(&section),
        server,
        state_dir: read_state_dir(&section, sources),
        limits: read_limits(&section),
        failure_cooldown: seconds(&section, "failure_cooldown", 180, 0),
        shutdown_grace: seconds(&section, "shutdown_grace", 30, 0),
        inbound_keys,
        allowed_hosts: allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        allowed_origins: origins::read(&section),
        token_store: token_store::read(&section, sources),
        egress: egress::read_shared(&section, sources),
        selection_strategy: section.choice(
            "selection_strategy",
            &[
                ("priority", SelectionStrategy::Priority),
                ("round_robin", SelectionStrategy::RoundRobin),
                ("random", SelectionStrategy::Random),
            ],
        ),
    };
    section.finish(&UNUSED);
    settings
}

fn seconds(section: &Section<'_>, key: &'static str, default: u64, least: u64) -> Duration {
    section.seconds(key, default, least, SECONDS_MAX)
}

fn check_host(section: &Section<'_>, host: &str, server: ServerKind, has_keys: bool) {
    if let Some(problem) = listen_host::problem(host) {
        section.error("host", problem);
    } else if !is_loopback_host(host) {
        if !has_keys {
            section.error("host", "a 'host' that is not a loopback address needs auth.enabled");
        }
        if server == ServerKind::TinyHttp {
            section.error("server", "\"tiny_http\" is for loopback addresses only");
        }
    }
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

fn read_state_dir(section: &Section<'_>, sources: &Sources<'_>) -> PathBuf {
    let written = sources.plain_path(section, "state_dir");
    if let Some(path) = written.filter(|path| !path.as_os_str().is_empty()) {
        return whole_path("'state_dir'", &path, section, sources);
    }
    if let Some(path) = default_state_dir(sources) {
        return whole_path("the state folder", &path, section, sources);
    }
    section.error(
        "state_dir",
        "neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set; say with \
         settings.state_dir where tokens are kept",
    );
    PathBuf::new()
}

/// The absolute path. Tokens in a relative folder are not found if evertoken starts in another folder.
fn whole_path(what: &str, path: &Path, section: &Section<'_>, sources: &Sources<'_>) -> PathBuf {
    let whole = sources.whole(path);
    if whole != path {
        let message = format!(
            "{what} is relative: it is {} here, and another folder where evertoken is started elsewhere; \
             write it absolute",
            whole.display()
        );
        section.warn("state_dir", message);
    }
    whole
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

/// The keys that let a client in; None if `auth` is off. A file with a key must never run open, so a missing key is
/// an error here, unlike a provider's.
fn read_auth(section: &Section<'_>, sources: &Sources<'_>) -> Option<Vec<Secret>> {
    let written = section.text("api_key");
    let is_empty = written.as_ref().is_some_and(|key| key.trim().is_empty());
    let literal = written.filter(|key| !key.is_empty());
    let has_literal = literal.is_some();
    let named = sources.secret(section, "api_key_env", "api_key_file", false);
    let has_source = named.is_some();
    let enabled = section.flag("enabled", has_literal || has_source);
    if has_literal && has_source {
        section.error("api_key", "give one of api_key, api_key_env and api_key_file");
    }
    if has_literal {
        sources.warn_if_exposed(section, "api_key", "api_key_env");
    }
    let place = match (&literal, &named) {
        (Some(_), _) => "api_key",
        (None, Some(named)) => named.key,
        (None, None) => "enabled",
    };
    check_switch(section, enabled, place);
    if !enabled {
        section.finish(&UNUSED_AUTH);
        return None;
    }
    let found = match (literal, named) {
        (Some(key), _) => Ok(Secret::new(key)),
        (None, Some(named)) => named.found,
        (None, None) if is_empty => {
            section.error("api_key", "auth is enabled, but there is no key: 'api_key' is empty");
            section.finish(&UNUSED_AUTH);
            return Some(Vec::new());
        }
        (None, None) => default_key(sources),
    };
    let keys = found.map_or_else(
        |missing| {
            let message = format!("auth is enabled, but there is no key: {missing}");
            section.error_of_unset(place, message, &missing.variables());
            Vec::new()
        },
        |text| {
            let keys = keys_in(&text);
            if keys.is_empty() {
                section.error(place, "auth is enabled, but there is no key: it is blank");
            }
            keys
        },
    );
    section.finish(&UNUSED_AUTH);
    Some(keys)
}

/// Warns if the key at `place` is not required of clients, or is required without an `enabled`: a file with a key
/// never runs open by an oversight.
fn check_switch(section: &Section<'_>, enabled: bool, place: &str) {
    let message = match (section.has("enabled"), enabled, place) {
        (_, _, "enabled") => return,
        // The example names the variable's usual name.
        (true, true, _) | (true, false, "api_key_env") => return,
        (_, false, _) => "'enabled' is false, so no client needs this key",
        (false, true, _) => {
            "'enabled' is left out, and taken for true because of this key; write 'enabled: true'"
        }
    };
    section.warn(place, message);
}

/// The keys in the default variable, if `auth` names none.
fn default_key(sources: &Sources<'_>) -> SecretLookup {
    const VARIABLE: &str = "EVERTOKEN_API_KEY";
    let missing = || Missing::Variable(VARIABLE.to_owned());
    sources.variable(VARIABLE).map(Secret::new).ok_or_else(missing)
}

/// One key per line.
fn keys_in(text: &Secret) -> Vec<Secret> {
    let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(Secret::new).collect()
}

/// The default folder for tokens.
fn default_state_dir(sources: &Sources<'_>) -> Option<PathBuf> {
    if let Some(given) = sources.variable("STATE_DIRECTORY") {
        // systemd lists several folders with colons between them.
        return given.split(':').next().map(PathBuf::from);
    }
    if let Some(xdg) = sources.variable("XDG_STATE_HOME") {
        return Some(PathBuf::from(xdg).join("evertoken"));
    }
    if sources.is_root {
        return Some(PathBuf::from("/var/lib/evertoken"));
    }
    sources.variable("HOME").map(|home| PathBuf::from(home).join(".local/state/evertoken"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{document, fine, refused, sources, told};

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
                "f:1:32: 'selection_strategy' must be one of \"priority\", \"round_robin\", \"random\", not \"best\"",
            ),
            (
                "selection_strategy: roundrobin",
                "f:1:32: 'selection_strategy' must be one of \"priority\", \"round_robin\", \"random\", not \
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

    #[test]
    fn keys_of_clients() {
        let keys =
            |settings: &str| fine(&document(settings, "auth_type: none")).settings.inbound_keys;
        let two = Some(vec![Secret::new("one"), Secret::new("two")]);
        assert_eq!(keys("auth: {enabled: true, api_key_env: KEYS}"), two);
        assert_eq!(keys("auth: {enabled: true, api_key: one}"), Some(vec![Secret::new("one")]));
        assert_eq!(keys("auth: {enabled: false, api_key_env: KEYS}"), None);
        assert!(keys("host: 0.0.0.0, auth: {enabled: true, api_key_env: KEYS}").is_some());
    }

    #[test]
    fn an_empty_key_is_named_and_not_a_variable_that_nobody_wrote() {
        for key in ["''", "' '"] {
            let text =
                document(&format!("auth: {{enabled: true, api_key: {key}}}"), "auth_type: none");
            let told = told(&text);
            assert_eq!(told.len(), 1, "{told:?}");
            let end = "auth is enabled, but there is no key: ";
            assert!(told[0].contains(end) && !told[0].contains("EVERTOKEN_API_KEY"), "{told:?}");
        }
        let told = told(&document("auth: {enabled: true, api_key: ''}", "auth_type: none"));
        assert!(told[0].ends_with("'api_key' is empty"), "{told:?}");
    }

    #[test]
    fn a_key_that_the_switch_does_not_go_with_is_said() {
        let off = |place: u32| {
            format!("f:1:{place}: warning: 'enabled' is false, so no client needs this key")
        };
        let empty = |key: &str, place: u32| {
            format!("f:1:{place}: warning: '{key}' is empty, which is as if it were left out")
        };
        let implied = |place: u32| {
            format!(
                "f:1:{place}: warning: 'enabled' is left out, and taken for true because of this key; write \
                 'enabled: true'"
            )
        };
        let cases = [
            ("enabled: false, api_key: one", None, vec![off(44)]),
            ("enabled: false, api_key_file: /token", None, vec![off(49)]),
            // The example has this: it names the variable that would count.
            ("enabled: false, api_key_env: KEYS", None, vec![]),
            ("enabled: false, api_key: ''", None, vec![]),
            ("enabled: false", None, vec![]),
            // A file that names a key, in any of the three ways, must never run open.
            ("api_key_env: KEYS", Some(2), vec![implied(32)]),
            ("api_key_file: /token", Some(1), vec![implied(33)]),
            ("api_key: one", Some(1), vec![implied(28)]),
            ("api_key_env: ''", None, vec![empty("api_key_env", 32)]),
            ("api_key_file: ''", None, vec![empty("api_key_file", 33)]),
            ("api_key: ''", None, vec![]),
            ("enabled: true, api_key: one", Some(1), vec![]),
            ("enabled: true, api_key_env: KEYS", Some(2), vec![]),
        ];
        for (auth, keys, expected) in cases {
            let text = document(&format!("auth: {{{auth}}}"), "auth_type: none");
            assert_eq!(told(&text), expected, "{auth}");
            let (config, _) = resolve(&text, "f", &sources()).unwrap();
            let found = config.settings.inbound_keys.map(|keys| keys.len());
            assert_eq!(found, keys, "{auth}");
        }
    }

    #[test]
    fn where_tokens_are_kept() {
        let dir = |variables: &[(&str, &str)], is_root| {
            let variables: Vec<(String, String)> =
                variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let environment = move |name: &str| {
                variables.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone())
            };
            let sources = Sources { environment: &environment, is_root, ..sources() };
            let resolved = resolve(&document("", "auth_type: none"), "f", &sources);
            resolved.ok().map(|(config, _)| config.settings.state_dir)
        };
        let is = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/h");
        assert_eq!(
            dir(&[("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x"), home], true),
            is("/s")
        );
        assert_eq!(dir(&[("XDG_STATE_HOME", "/x"), home], true), is("/x/evertoken"));
        assert_eq!(dir(&[home], true), is("/var/lib/evertoken"));
        assert_eq!(dir(&[home], false), is("/h/.local/state/evertoken"));
        assert_eq!(dir(&[], false), None);
    }

    /// Tokens that a login in one folder stored were not found from another folder.
    #[test]
    fn a_relative_state_folder_is_told_with_its_whole_path() {
        let found = |settings: &str, working_folder| {
            let sources = Sources { working_folder, ..sources() };
            let text = document(settings, "auth_type: none");
            let (config, warnings) = resolve(&text, "f", &sources).unwrap();
            let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
            (config.settings.state_dir.display().to_string(), warnings)
        };
        let here = Some(Path::new("/w"));
        for (written, whole) in [("state", "/w/state"), ("./a/./b", "/w/a/b"), ("../s", "/w/../s")]
        {
            let (path, warnings) = found(&format!("state_dir: {written}"), here);
            assert_eq!(path, whole);
            assert_eq!(
                warnings,
                [format!(
                    "f:1:23: warning: 'state_dir' is relative: it is {whole} here, and another folder where \
                     evertoken is started elsewhere; write it absolute"
                )]
            );
        }
        for (settings, path) in [
            ("state_dir: /s", "/s"),
            ("state_dir: ~/s", "/home/u/s"),
            ("port: 1", "/home/u/.local/state/evertoken"),
        ] {
            assert_eq!(found(settings, here), (path.to_owned(), vec![]));
        }
        assert_eq!(found("state_dir: state", None), ("state".to_owned(), vec![]));
    }
}
