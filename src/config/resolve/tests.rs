//! Problems of the whole file and of providers, defaults, and both sides of every limit. Settings, logins and the
//! token store have their tests beside their code.

use std::io;
use std::path::Path;
use std::time::Duration;

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::config::request_fields::FieldValue;
use crate::config::{AuthType, ClientAuth, GrantType, ListenAddress, RequestFormat, ServerKind};
use crate::secret::Secret;
use crate::signing::tests::{P256, RSA};

pub(super) const PEM: &str = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";

fn environment(name: &str) -> Option<String> {
    Some(
        match name {
            "HOME" => "/home/u",
            "ID" => "the-id",
            "SECRET" => "the-secret",
            "TOKEN" => "the-token\n",
            "QUOTED" => "\"the-token\"",
            "BLANKS" => " the-token \n",
            "MARKED" => "\u{feff}the-token",
            "KEYS" => "one\n\n two\n",
            "EMPTY" => " ",
            "LONG" => "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
            _ => return None,
        }
        .to_owned(),
    )
}

fn files(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("/token") => Ok("from-file\n".to_owned()),
        Some("/empty") => Ok("\n".to_owned()),
        Some("/marked") => Ok("\u{feff}from-file\r\n".to_owned()),
        Some("/quoted") => Ok("'from-file'\n".to_owned()),
        Some("/blanks") => Ok("from-file \n".to_owned()),
        Some("/pem") => Ok(PEM.to_owned()),
        Some("/rsa" | "/open") => Ok(RSA.to_owned()),
        Some("/p256") => Ok(P256.to_owned()),
        Some("/account") => Ok(json!({
            "type": "service_account", "private_key_id": "k1", "private_key": RSA, "client_email": "a@p.test",
            "token_uri": "https://oauth2.test/token",
        })
        .to_string()),
        Some(path) if path.starts_with("/keys/") => {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
            std::fs::read_to_string(format!("{folder}{path}"))
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

pub(super) fn sources() -> Sources<'static> {
    Sources {
        environment: &environment,
        files: &files,
        now: crate::clock::Timestamp::from_secs(1_800_000_000),
        file_modes: &|path| Some(if path == Path::new("/open") { 0o100_640 } else { 0o100_600 }),
        file_mode: Some(0o100_600),
        is_root: false,
        working_folder: None,
    }
}

/// The document with `settings` and one provider with the additional lines `provider`.
pub(super) fn document(settings: &str, provider: &str) -> String {
    format!(
        "settings: {{{settings}}}\nproviders:\n  - name: P\n    type: generic\n    base_url: https://x\n{}",
        provider.lines().map(|line| format!("    {line}\n")).collect::<String>()
    )
}

fn with_refresh(extra: &str) -> String {
    let lines = "token_url: https://i/t\nclient_id_env: ID\nrefresh_token_env: TOKEN\n";
    let all: String =
        lines.lines().chain(extra.lines()).map(|line| format!("  {line}\n")).collect();
    document("", &format!("auto_refresh_config:\n{all}"))
}

/// The document with an `auto_refresh_config` of these lines.
pub(super) fn with_config(lines: &str) -> String {
    let all: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    document("", &format!("auto_refresh_config:\n{all}"))
}

/// The document with a refresh without a seed, and `extra` lines.
pub(super) fn with_login(extra: &str) -> String {
    let lines = "token_url: https://i/t\nclient_id_env: ID\n";
    let all: String =
        lines.lines().chain(extra.lines()).map(|line| format!("  {line}\n")).collect();
    document("", &format!("auto_refresh_config:\n{all}"))
}

pub(super) fn lacks(config: &Config) -> Vec<String> {
    missing_secrets(config).iter().map(|(name, what)| format!("{name}: {what}")).collect()
}

#[track_caller]
pub(super) fn fine(text: &str) -> Config {
    let resolved = resolve(text, "f", &sources());
    let (config, warnings) = resolved.unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
    assert_eq!(warnings, [], "{text}");
    config
}

pub(super) fn told(text: &str) -> Vec<String> {
    match resolve(text, "f", &sources()) {
        Ok((_, problems)) | Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
pub(super) fn refused(text: &str, message: &str) {
    assert!(resolve(text, "f", &sources()).is_err(), "{text}");
    assert_eq!(told(text), [message], "{text}");
}

pub(super) fn refresh(config: &Config) -> &crate::config::AutoRefresh {
    match &config.providers[0].credential {
        Credential::Refreshed(refresh) => refresh,
        other => panic!("{other:?}"),
    }
}

#[test]
fn defaults() {
    let config =
        fine("providers: [{name: P, type: generic, base_url: 'http://x/v1/', auth_type: none}]");
    let settings = &config.settings;
    assert_eq!(settings.listen, [ListenAddress::Tcp { host: "127.0.0.1".into(), port: 8080 }]);
    assert_eq!(settings.log_level, log::LevelFilter::Info);
    assert_eq!(settings.server, ServerKind::Builtin);
    assert_eq!(settings.state_dir, PathBuf::from("/home/u/.local/state/evertoken"));
    assert_eq!(settings.limits.max_connections, 512);
    assert_eq!(settings.limits.max_connections_per_address, 256);
    assert_eq!(settings.limits.max_body_bytes, 33_554_432);
    assert_eq!(settings.limits.replay_body_bytes, 8_388_608);
    let seconds = |duration: Duration| duration.as_secs();
    assert_eq!(seconds(settings.limits.connect), 10);
    assert_eq!(seconds(settings.limits.response), 600);
    assert_eq!(seconds(settings.limits.idle), 300);
    assert_eq!(seconds(settings.limits.client_head), 15);
    assert_eq!(seconds(settings.limits.client_idle), 75);
    assert_eq!(seconds(settings.failure_cooldown), 180);
    assert_eq!(seconds(settings.shutdown_grace), 30);
    assert_eq!(seconds(settings.save_interval), 10);
    assert!(settings.inbound_keys.is_none());
    assert_eq!(config.providers[0].base_url, "http://x/v1");
    assert_eq!(config.providers[0].slug, "p");
}

#[test]
fn refresh_defaults_and_choices() {
    let config = fine(&with_refresh(""));
    let plain = refresh(&config);
    assert_eq!(config.providers[0].auth_type, AuthType::AuthToken);
    assert_eq!(plain.client_id, Ok("the-id".to_owned()));
    assert_eq!(plain.seed, Some(Ok(Secret::new("the-token"))));
    assert_eq!(plain.client_auth, ClientAuth::None);
    assert_eq!(plain.request_format, RequestFormat::Form);
    assert_eq!(plain.refresh_before_expiry, Duration::from_mins(5));
    assert_eq!(plain.retry_interval, Duration::from_hours(1));
    let config = fine(&with_refresh("client_secret_env: SECRET\nrequest_format: json\n"));
    assert_eq!(refresh(&config).client_auth, ClientAuth::SecretPost);
    assert_eq!(refresh(&config).request_format, RequestFormat::Json);
    let text = "auto_refresh_config:\n  token_url: http://127.0.0.1:1/t\n  client_id_env: ID\n  \
                client_secret_env: SECRET\n  grant_type: client_credentials\n  extra_params: {a: b, n: 1}\n";
    let config = fine(&document("", text));
    assert_eq!(refresh(&config).grant_type, GrantType::ClientCredentials);
    assert_eq!(refresh(&config).seed, None);
    assert_eq!(refresh(&config).extra_params[1], ("n".to_owned(), "1".to_owned()));
}

#[test]
fn secrets_that_are_not_there_are_missing_and_no_error() {
    let config = fine(&document("", "auth_value_env: NONE"));
    assert!(matches!(&config.providers[0].credential, Credential::Missing(_)));
    assert_eq!(lacks(&config), ["P: Missing environment variable: 'NONE'"]);
    let config = fine(&document("", "auth_value_env: EMPTY"));
    assert_eq!(lacks(&config), ["P: Missing environment variable: 'EMPTY'"]);
    let config = fine(&document("", "auth_value_file: /none"));
    assert_eq!(lacks(&config), ["P: Missing secret file: '/none' (entity not found)"]);
    let config = fine(&document("", "auth_value_file: /empty"));
    assert_eq!(lacks(&config), ["P: Missing secret file: '/empty' (it is empty)"]);
    let text = with_refresh("client_secret_env: NONE").replace("TOKEN", "NO_TOKEN");
    let missing = lacks(&fine(&text));
    assert_eq!(
        missing,
        ["P: Missing environment variable: 'NONE'"],
        "a stored chain may be enough"
    );
    let config = fine(&document("", "auth_value_file: /token"));
    let Credential::Watched(file) = &config.providers[0].credential else { panic!("{config:?}") };
    assert_eq!((&file.form, &file.missing), (&crate::config::FileFormat::Text, &None));
}

#[test]
fn byte_order_marks_are_no_part_of_a_secret() {
    for key in ["refresh_token_env: MARKED", "refresh_token_file: /marked"] {
        let config = fine(&with_login(key));
        let expected = if key.ends_with("MARKED") { "the-token" } else { "from-file" };
        assert_eq!(refresh(&config).seed, Some(Ok(Secret::new(expected))), "{key}");
    }
}

#[test]
fn quotes_and_blanks_around_a_secret_are_warned_of_without_showing_it() {
    let quotes = "stands in quotes, which are sent with it; a shell takes them away, docker's --env-file does not";
    let cases = [
        (
            "refresh_token_env: QUOTED",
            format!("f:9:26: warning: the value of the variable 'QUOTED' {quotes}"),
        ),
        (
            "refresh_token_env: BLANKS",
            "f:9:26: warning: the value of the variable 'BLANKS' has spaces around it, which are left out"
                .to_owned(),
        ),
        ("refresh_token_file: /quoted", format!("f:9:27: warning: the secret in /quoted {quotes}")),
        (
            "refresh_token_file: /blanks",
            "f:9:27: warning: the secret in /blanks has spaces around it, which are sent with it"
                .to_owned(),
        ),
    ];
    for (key, message) in cases {
        assert!(resolve(&with_login(key), "f", &sources()).is_ok(), "{key}");
        assert_eq!(told(&with_login(key)), [message], "{key}");
    }
    // A header field can't contain a blank at all: that is one mistake, not two.
    let text = document("", "auth_value_file: /blanks");
    let message = "the credential holds a blank or another byte that no header field may hold";
    assert_eq!(told(&text), [format!("f:6:22: {message}")]);
}

#[test]
fn an_empty_name_of_a_secret_is_as_if_left_out_and_said() {
    let text = with_refresh("client_secret_env: ''");
    let warning = "f:10:26: warning: 'client_secret_env' is empty, which is as if it were left out";
    assert_eq!(told(&text), [warning]);
    let (config, _) = resolve(&text, "f", &sources()).unwrap();
    assert_eq!(
        (&refresh(&config).client_secret, &refresh(&config).client_auth),
        (&None, &ClientAuth::None)
    );
    let text = with_refresh("client_secret_file: ''");
    assert_eq!(told(&text), [warning.replace("_env", "_file").replace("10:26", "10:27")]);
    let text = with_refresh("").replace("client_id_env: ID", "client_id_env: ''");
    refused(&text, "f:8:22: 'client_id_env' is empty, and there has to be one");
    let text = with_refresh("").replace("refresh_token_env: TOKEN", "refresh_token_env: ''");
    refused(&text, "f:9:26: 'refresh_token_env' is empty, and there has to be one");
}

#[test]
fn refreshing_that_is_turned_off_leaves_the_stored_token() {
    let off = |more: &str| {
        let lines = "auto_refresh_config:\n  enabled: false\n  token_url: https://i/t\n  client_id_env: NO_ID\n  \
                     client_secret_env: NO_SECRET\n  refresh_token_env: TOKEN\n";
        document("state_dir: /s", &format!("{lines}{more}"))
    };
    let form = |seed: Option<&str>| {
        let seed = seed.map(Secret::new);
        crate::config::FileFormat::Stored { seed, client: None }
    };
    let credential = |text: &str| {
        let config = fine(text);
        assert_eq!(lacks(&config), [""; 0], "variables are not asked for: {text}");
        config.providers[0].credential.clone()
    };
    let stored = |seed| {
        Credential::Watched(crate::config::WatchedFile {
            path: "/s/p.json".into(),
            form: form(seed),
            missing: None,
        })
    };
    assert_eq!(credential(&off("")), stored(Some("the-token")));
    assert_eq!(credential(&off("").replace("TOKEN", "NO_TOKEN")), stored(None));
    assert_eq!(
        credential(&document("state_dir: /s", "auto_refresh_config: {enabled: false}")),
        stored(None)
    );
    // The guide shows a fixed credential beside disabled refreshing.
    assert_eq!(credential(&off("auth_value: v")), Credential::Static(Secret::new("v")));
    assert_eq!(credential(&off("auth_value: passthrough")), Credential::Passthrough);
    assert_eq!(credential(&off("auth_value_env: ID")), Credential::Static(Secret::new("the-id")));
    assert_eq!(credential(&off("auth_type: none")), Credential::None);
    // A token that another program keeps is not stored by evertoken.
    let owned = "auto_refresh_config: {enabled: false, credentials_file: /token}";
    let config = fine(&document("", owned));
    assert_eq!(config.providers[0].credential, Credential::Missing(Missing::Credential));
}

#[test]
fn a_path_that_begins_with_the_home_folder() {
    let files = |path: &Path| Ok(format!("{}\n{PEM}", path.display()));
    let with_home = Sources { files: &files, ..sources() };
    let config = |text: &str| {
        resolve(text, "f", &with_home).unwrap_or_else(|all| panic!("{text}\n{all:?}")).0
    };
    let found = config(&document("state_dir: ~/state", "auth_type: none\nca_file: ~/ca.pem"));
    assert_eq!(found.settings.state_dir, Path::new("/home/u/state"));
    let roots = found.providers[0].egress.extra_roots_pem.as_deref().unwrap_or_default();
    assert!(roots.starts_with("/home/u/ca.pem\n"), "{roots}");
    let keys = "client_secret_file: ~/cs\nrefresh_token_file: ~//rt\nclient_id_file: ~/id";
    let found = config(&with_login(keys).replace("      client_id_env: ID\n", ""));
    let files = &refresh(&found).files;
    let paths =
        [&files.client_id, &files.client_secret, &files.seed].map(|path| path.clone().unwrap());
    assert_eq!(paths, ["/home/u/id", "/home/u/cs", "/home/u/rt"].map(PathBuf::from));
    let watched = |lines: &str| match &config(&document("", lines)).providers[0].credential {
        Credential::Watched(file) => file.path.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        watched("auto_refresh_config: {credentials_file: ~/.claude/c.json}"),
        Path::new("/home/u/.claude/c.json")
    );
    let plain = Sources { files: &|path| Ok(path.display().to_string()), ..sources() };
    let text = document("", "auth_value_file: ~/key");
    let Credential::Watched(file) =
        resolve(&text, "f", &plain).unwrap().0.providers[0].credential.clone()
    else {
        panic!("it is watched")
    };
    assert_eq!(file.path, Path::new("/home/u/key"));
    let nowhere = Sources { environment: &|_| None, ..sources() };
    let told = |text: &str, sources: &Sources<'_>| {
        let problems = resolve(text, "f", sources).unwrap_err();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&document("state_dir: ~/state", "auth_type: none"), &nowhere),
        [
            "f:1:23: 'state_dir' begins with the home folder, but HOME is not set; write the whole path"
        ]
    );
    assert_eq!(
        told(&document("", "auth_value_file: ~other/key"), &sources()),
        [
            "f:6:22: 'auth_value_file' must be a path; '~/' is the home folder, '~name' is not known here"
        ]
    );
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest_known_one() {
    let text = with_refresh("").replace("token_url", "tokn_url");
    assert_eq!(
        told(&text),
        ["f:7:7: unknown key 'tokn_url' in auto_refresh_config, did you mean 'token_url'?"]
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "settings: {port: 70000, hots: a}\nproviders:\n  - name: P\n    type: x\n    base_url: ftp://y\n";
    let problems = told(text);
    assert_eq!(
        problems,
        [
            "f:1:18: 'port' must be a whole number from 0 to 65535, not 70000",
            "f:1:25: unknown key 'hots' in settings, did you mean 'host'?",
            "f:4:11: 'type' must be one of \"anthropic\", \"openai\", \"generic\", not \"x\"",
            "f:5:15: 'base_url' must be an http or https URL, not \"ftp://y\"",
        ]
    );
}

#[test]
fn what_is_wrong_with_a_provider() {
    let cases = [
        (
            "auth_value: a\nauth_value_env: ID",
            "f:6:17: give one of auth_value, auth_value_env and auth_value_file",
        ),
        (
            "auth_type: magic\nauth_value: a",
            "f:6:16: 'auth_type' must be one of \"auth_token\", \"api_key\", \"none\", not \"magic\"",
        ),
        (
            "auth_type: apikey\nauth_value: a",
            "f:6:16: 'auth_type' must be one of \"auth_token\", \"api_key\", \"none\", not \"apikey\"; did you mean \
             \"api_key\"?",
        ),
        ("auth_type: none\nheaders: {Host: a}", "f:7:15: 'Host' is set by evertoken itself"),
        (
            "auth_type: none\nheaders:\n  a: b\n  Host: a",
            "f:9:7: 'Host' is set by evertoken itself",
        ),
        ("auth_type: none\nheaders: {'a b': a}", "f:7:15: 'a b' is not a valid header field name"),
        ("auth_type: none\nheaders: {a: [b]}", "f:7:15: 'a' in headers must be a text, not a list"),
        (
            "auth_type: none\nheaders: {a: \"b\\nc\"}",
            "f:7:15: the value of 'a' holds a control character",
        ),
        (
            "auth_type: none\nheaders: [a]",
            "f:7:14: 'headers' must hold names and texts, not a list",
        ),
        (
            "auth_type: none\nproxy: ftp://x",
            "f:7:12: 'proxy' must be an http://… or socks5://… URL, \"env\" or \"none\"",
        ),
        (
            "auth_type: none\nca_file: /none",
            "f:7:14: 'ca_file' can't be used: '/none': entity not found",
        ),
        (
            "auth_type: none\nca_file: none.pem",
            "f:7:14: 'ca_file' can't be used: 'none.pem': entity not found; a path that does not begin with / \
             starts at the folder that evertoken is started in",
        ),
        (
            "auth_type: none\nca_file: /token",
            "f:7:14: 'ca_file' can't be used: '/token': there is no PEM certificate in it",
        ),
        (
            "auth_type: none\nty\u{200b}pe: x",
            "f:7:5: unknown key 'ty\\u{200b}pe' in a provider, did you mean 'type'?; it holds a character that \
             can't be seen (U+200B): type the key anew",
        ),
        (
            "auth_type: none\nauto_refresh: {token_url: x}",
            "f:7:5: unknown key 'auto_refresh' in a provider, did you mean 'auto_refresh_config'?",
        ),
        (
            "auth_type: none\nenabled: 1",
            "f:7:14: 'enabled' must be true or false, not 1; did you mean true?",
        ),
        (
            "auth_type: none\nbase_urll: x",
            "f:7:5: unknown key 'base_urll' in a provider, did you mean 'base_url'?",
        ),
    ];
    for (provider, message) in cases {
        refused(&document("", provider), message);
    }
    refused(
        &document("", "auth_value: 'two words'"),
        "f:6:17: the credential holds a blank or another byte that no header field may hold",
    );
    let cases = [
        ("x", "not \"x\""),
        ("api.x.com", "not \"api.x.com\"; did you mean \"https://api.x.com\"?"),
        ("file:///x", "not \"file:///x\""),
    ];
    for (url, end) in cases {
        let text = document("", "auth_type: none").replace("https://x", &format!("'{url}'"));
        refused(&text, &format!("f:5:15: 'base_url' must be an http or https URL, {end}"));
    }
    let text = document("", "auth_type: none").replace("https://x", "https://x/?a");
    refused(
        &text,
        "f:5:15: 'base_url' must end with its path, without '?' or '#'; parameters belong under 'query'",
    );
}

#[test]
fn a_value_where_the_name_of_its_variable_belongs_names_the_key() {
    let text = with_refresh("retry_interval: 60").replace("client_id_env: ID", "client_id: abc");
    assert!(text.contains("client_id: abc"), "{text}");
    let told = told(&text);
    assert!(told[0].ends_with("did you mean 'client_id_env'?") && told.len() == 1, "{told:?}");
}

#[test]
fn numbers_with_a_unit_say_which_one_counts() {
    for (settings, end) in [
        ("max_body_bytes: 32MB", "; it counts bytes: write the number alone"),
        ("shutdown_grace: 2h", "; it counts seconds: write 7200"),
        ("timeouts: {idle: 5m}", "; it counts seconds: write 300"),
        ("shutdown_grace: 30 seconds", "; it counts seconds: write 30"),
        ("port: 80s", "not \"80s\""),
        ("max_connections: 5m", "not \"5m\""),
        ("shutdown_grace: soon", "not \"soon\""),
    ] {
        let told = told(&document(settings, "auth_type: none"));
        assert!(told.len() == 1 && told[0].ends_with(end), "{settings}: {told:?}");
    }
}

#[test]
fn a_provider_without_its_dash_is_told_of_it() {
    let provider = "type: generic\n    base_url: https://x\n    auth_type: none\n";
    for (start, place) in
        [("    name: P", "2:5"), ("  p:\n    name: P", "2:3"), ("  {a: 1}", "2:3")]
    {
        let more = if start.ends_with('}') { "" } else { provider };
        let told = told(&format!("providers:\n{start}\n    {more}"));
        let message =
            "'providers' must be a list, not keys and values; begin each provider with '- '";
        assert_eq!(told, [format!("f:{place}: {message}")]);
    }
}

#[test]
fn one_mistake_is_reported_once() {
    let ends = "type: generic\n    base_url: https://x\n    auth_type: none\n";
    let cases = [
        (
            "providers: a\nmodel_routes: {'*': [{provider: P}]}\n",
            "f:1:12: 'providers' must be a list, not a text",
        ),
        ("providers: []\n", "f:1:12: there is no provider in 'providers'"),
        ("providers: [5]\n", "f:1:13: a provider must hold keys and values, not a number"),
        (
            "providers:\n  - \n  - {name: P, type: generic, base_url: 'http://x', auth_type: none}\n",
            "f:2:4: a provider must hold keys and values, not nothing",
        ),
        ("[1]\n", "f:1:1: the file must hold keys and values, not a list"),
        (
            "provider:\n  - {name: P}\n",
            "f:1:1: unknown key 'provider' in the file, did you mean 'providers'?",
        ),
        (
            "settings: {host: 0.0.0.0, auth: 5}\nproviders: [{name: P, type: generic, base_url: 'http://x', auth_type: none}]\n",
            "f:1:33: auth must hold keys and values, not a number",
        ),
        (
            "settings: {host: 0.0.0.0, auth: {enabled: on}}\nproviders: [{name: P, type: generic, base_url: 'http://x', auth_type: none}]\n",
            "f:1:43: 'enabled' must be true or false, not \"on\"; did you mean true?",
        ),
        (
            &format!("providers:\n  - nam: P\n    {ends}"),
            "f:2:5: unknown key 'nam' in a provider, did you mean 'name'?",
        ),
        (
            &format!("providers:\n  - name: [P]\n    {ends}"),
            "f:2:11: 'name' must be a text in quotes",
        ),
        (
            &format!("providers:\n  - name: P\n    {}", ends.replace("https://x", "5")),
            "f:4:15: 'base_url' must be a text in quotes",
        ),
        (
            &format!(
                "providers:\n  - name: P\n    {}",
                ends.replace("auth_type: none", "auth_value: 5")
            ),
            "f:5:17: 'auth_value' must be a text in quotes",
        ),
        (
            &format!(
                "providers:\n  - name: P\n    {}",
                ends.replace("auth_type: none", "auth_value_env: [a]")
            ),
            "f:5:21: 'auth_value_env' must be a text in quotes",
        ),
        (
            &format!(
                "providers:\n  - name: P\n    {}",
                ends.replace("auth_type: none", "auto_refresh_config: true")
            ),
            "f:5:26: auto_refresh_config must hold keys and values, not true or false",
        ),
        (
            &format!(
                "providers:\n  - name: P\n    {ends}model_routes: {{'*': [{{provider: 5}}]}}\n"
            ),
            "f:6:33: 'provider' must be a text in quotes",
        ),
        (
            &format!(
                "providers:\n  - name: Claude\n    {ends}model_routes: {{'*': [{{provider: Claud}}]}}\n"
            ),
            "f:6:33: there is no provider 'Claud', did you mean 'Claude'?",
        ),
        (
            &format!("providers:\n  - name: P\n    name: Q\n    {ends}"),
            "f:3:5: providers[0]: the key 'name' stands here a second time; remove one of the two, or put the \
             dash before it that begins the next entry",
        ),
    ];
    for (text, message) in cases {
        refused(text, message);
    }
    let keys = [
        ("token_url: 5", "f:7:18: 'token_url' must be a text in quotes"),
        ("client_id_env: 5", "f:8:22: 'client_id_env' must be a text in quotes"),
        ("refresh_token_env: 5", "f:9:26: 'refresh_token_env' must be a text in quotes"),
    ];
    for (line, message) in keys {
        let text = with_refresh("");
        let key = line.split(' ').next().unwrap();
        let changed: String = text
            .lines()
            .map(
                |one| {
                    if one.contains(key) { format!("      {line}\n") } else { format!("{one}\n") }
                },
            )
            .collect();
        refused(&changed, message);
    }
}

#[test]
fn values_of_headers_and_parameters_stay_as_they_are_written() {
    let written =
        ["1.10", "0x10", "1e3", "no", "2026-01-01", ".5", "+1", "010", "true", "1.0", "12:30"];
    let flow: Vec<_> =
        written.iter().enumerate().map(|(at, text)| format!("h{at}: {text}")).collect();
    let map = format!("{{{}}}", flow.join(", "));
    let config = fine(&document("", &format!("auth_type: none\nheaders: {map}")));
    let values = |pairs: &[(String, String)]| {
        pairs.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let fields: Vec<_> = written.iter().map(|text| FieldValue::Text((*text).to_owned())).collect();
    let read: Vec<_> = config.providers[0].headers.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(read, fields);
    let config = fine(&with_refresh(&format!("headers: {map}\nextra_params: {map}")));
    assert_eq!(values(&refresh(&config).headers), written);
    assert_eq!(values(&refresh(&config).extra_params), written);
    // The same for patterns of models.
    let routes = "model_routes: {4.10: [{provider: P}]}\n";
    let config = fine(&format!("{}{routes}", document("", "auth_type: none")));
    assert_eq!(config.model_routes[0].pattern, "4.10");
}

#[test]
fn anchors_at_the_root_and_merge_keys() {
    let text = "\
x-common: &common
  type: generic
  base_url: https://x
oauth: &oauth {token_url: https://i/t, client_id_env: ID}
anchors:
  - &headers {a: '1'}
more:
  none: &none
    auth_type: none
providers:
  - {name: A, <<: *common, auth_type: none, headers: *headers}
  - {name: B, <<: [*common, *none]}
  - name: C
    <<: *common
    auto_refresh_config: {<<: *oauth, refresh_token_env: TOKEN}
";
    let config = fine(text);
    let field = ("a".to_owned(), FieldValue::Text("1".to_owned()));
    assert_eq!(config.providers[0].headers, [field]);
    assert_eq!(config.providers[1].auth_type, AuthType::None);
    assert!(matches!(config.providers[2].credential, Credential::Refreshed(_)));
    // A mistake is reported at its place, and once for each place.
    refused(
        &text.replace("client_id_env: ID", "client_id_env: 5"),
        "f:4:55: 'client_id_env' must be a text in quotes",
    );
    let cases = [
        ("more: {a: 1}\n", "f:1:1: unknown key 'more' in the file"),
        (
            "setings: &a {port: 1}\n",
            "f:1:1: unknown key 'setings' in the file, did you mean 'settings'?",
        ),
    ];
    for (start, message) in cases {
        refused(
            &format!("{start}{}", document("", "auth_type: none").replace("settings: {}\n", "")),
            message,
        );
    }
    let bad = text.replace("<<: *oauth", "<<: oauth");
    assert!(told(&bad)[0].contains(":15:31: '<<' takes keys from a mapping"), "{:?}", told(&bad));
    assert_eq!(told(&bad).len(), 1);
    // Inside a provider, an unknown key stays an error.
    refused(
        &document("", "auth_type: none\nx-note: a"),
        "f:7:5: unknown key 'x-note' in a provider",
    );
}

#[test]
fn what_is_wrong_with_a_refresh() {
    let cases = [
        (
            "client_auth: client_secret_basic",
            "f:10:20: this 'client_auth' needs a client_secret_env or client_secret_file",
        ),
        (
            "retry_interval: 0",
            "f:10:23: 'retry_interval' must be a whole number from 1 to 2592000, not 0",
        ),
        (
            "request_format: xml",
            "f:10:23: 'request_format' must be one of \"form\", \"json\", not \"xml\"",
        ),
        (
            "grant_type: refreshtoken",
            "f:10:19: 'grant_type' must be one of \"refresh_token\", \"client_credentials\", \"jwt_bearer\", \"token_exchange\", not \"refreshtoken\"; did you \
             mean \"refresh_token\"?",
        ),
        (
            "grant_type: urn:ietf:params:oauth:grant-type:jwt-bearer",
            "f:10:19: 'grant_type' must be one of \"refresh_token\", \"client_credentials\", \"jwt_bearer\", \"token_exchange\", not a text of \
             43 characters",
        ),
        ("extra_params: {scope: a}", "f:10:22: 'scope' has a key of its own"),
        (
            "refresh_token_file: /token",
            "f:10:27: give 'refresh_token_env' or 'refresh_token_file', not both",
        ),
        (
            "client_secret_env: sk-not-a-name",
            "f:10:26: 'client_secret_env' wants the name of a variable, not its value",
        ),
        ("scope: [a]", "f:10:14: 'scope' must be a text in quotes"),
    ];
    for (extra, message) in cases {
        refused(&with_refresh(extra), message);
    }
    let text = with_refresh("").replace("https://i/t", "http://i.example/t");
    let message = "'token_url' must be https, since secrets are sent there; http is for loopback addresses alone";
    refused(&text, &format!("f:7:18: {message}"));
    for loopback in ["http://localhost:1/t", "http://127.0.0.1/t", "http://[::1]:9/t"] {
        fine(&with_refresh("").replace("https://i/t", loopback));
    }
    let text = with_refresh("grant_type: client_credentials\nclient_secret_env: SECRET");
    refused(&text, "f:10:19: client_credentials uses no refresh token");
}

#[test]
fn names_of_credentials_and_paths() {
    let environment = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some("/run/credentials/evertoken.service".to_owned()),
        other => environment(other),
    };
    let found = |path: &str, with_folder: bool| {
        let text = document("", &format!("auth_value_file: {path}"));
        let plain = sources();
        let files = |path: &Path| Ok(path.display().to_string());
        let sources = if with_folder {
            Sources { environment: &environment, files: &files, ..plain }
        } else {
            Sources { files: &files, ..plain }
        };
        match resolve(&text, "f", &sources).unwrap().0.providers[0].credential.clone() {
            Credential::Watched(file) => file.path.display().to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (path, with, without) in [
        ("token", "/run/credentials/evertoken.service/token", "token"),
        ("a/token", "/run/credentials/evertoken.service/a/token", "a/token"),
        ("./token", "./token", "./token"),
        ("../token", "../token", "../token"),
        ("/token", "/token", "/token"),
    ] {
        assert_eq!((found(path, true).as_str(), found(path, false).as_str()), (with, without));
    }
    // Every key that ends in `_file`; a missing file is named with its full path.
    let keys = "client_secret_file: cs\nrefresh_token_file: rt\nclient_id_file: id";
    let text = with_login(keys).replace("      client_id_env: ID\n", "");
    let sources = Sources { environment: &environment, ..sources() };
    let config = resolve(&text, "f", &sources).unwrap().0;
    let missing = lacks(&config);
    assert_eq!(missing.len(), 2, "{missing:?}");
    let seed = refresh(&config).seed.as_ref().and_then(|seed| seed.as_ref().err()).unwrap();
    assert!(seed.to_string().contains("'/run/credentials/evertoken.service/rt'"), "{seed}");
    assert!(missing[0].contains("'/run/credentials/evertoken.service/id'"), "{missing:?}");
    let files = &refresh(&config).files;
    let folder = Path::new("/run/credentials/evertoken.service");
    assert_eq!(files.client_secret.as_deref(), Some(&*folder.join("cs")));
    assert_eq!(files.seed.as_deref(), Some(&*folder.join("rt")));
}

#[test]
fn what_is_disabled_may_be_unfinished_but_not_wrong() {
    let off = |more: &str| {
        document("", &format!("auth_value: v\nauto_refresh_config: {{enabled: false{more}}}"))
    };
    assert!(matches!(fine(&off("")).providers[0].credential, Credential::Static(_)));
    refused(
        &off(", tokn_url: x"),
        "f:7:43: unknown key 'tokn_url' in auto_refresh_config, did you mean 'token_url'?",
    );
    assert!(resolve(&off(", token_url: 'http://i.example'"), "f", &sources()).is_err());
    let two = format!(
        "{}  - {{name: Q, type: generic, base_url: 'http://x', enabled: false}}\n",
        document("", "auth_type: none")
    );
    fine(&two);
    // Without a credential it starts, with a warning.
    let config = fine(&two.replace("enabled: false", "enabled: true"));
    let missing = lacks(&config);
    assert!(missing[0].starts_with("Q: There is no credential: give"), "{missing:?}");
}

#[test]
fn a_file_that_begins_with_a_byte_order_mark() {
    let text = format!("\u{feff}{}", document("", "auth_type: none").replace('\n', "\r\n"));
    fine(&text);
    refused(
        &text.replace("settings: {}", "settings: {prot: 1}"),
        "f:1:12: unknown key 'prot' in settings, did you mean 'port'?",
    );
}

#[test]
fn a_broken_file_is_inspected_for_what_the_environment_lacks() {
    let text = with_refresh("").replace("client_id_env: ID", "client_id_env: NONE");
    let (config, problems) = inspect(&format!("x: 1\n{text}"), "f", &sources());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(lacks(&config.unwrap()), ["P: Missing environment variable: 'NONE'"],);
    // A value instead of the name was already reported.
    let text = with_refresh("").replace("client_id_env: ID", "client_id_env: 'a value'");
    let (config, problems) = inspect(&text, "f", &sources());
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(lacks(&config.unwrap()), [""; 0]);
}

#[test]
fn names_and_slugs() {
    let providers = |names: &[&str]| {
        let all: Vec<String> = names
            .iter()
            .map(|name| {
                format!("{{name: '{name}', type: generic, base_url: 'http://x', auth_type: none}}")
            })
            .collect();
        format!("providers: [{}]", all.join(", "))
    };
    let config = fine(&providers(&["Claude Code  Official!", "Ä b-c"]));
    assert_eq!(config.providers[0].slug, "claude-code-official");
    assert_eq!(config.providers[1].slug, "ä-b-c");
    assert!(
        told(&providers(&["a", "a"]))[0]
            .ends_with("there is another provider called 'a'; give one of them another name")
    );
    assert!(
        told(&providers(&["A b", "a-B"]))[0].ends_with(
            "this provider and 'A b' have the same slug 'a-b'; choose another with 'slug'"
        )
    );
    assert!(
        told(&providers(&["!"]))[0]
            .ends_with("the name '!' has no letter and no digit; choose a 'slug' for it")
    );
    let long = "官".repeat(67);
    let why = "no slug can be made of this name: it has 201 bytes, and at most 200 can be used; \
               choose one with 'slug'";
    assert!(told(&providers(&[&long]))[0].ends_with(why));
    assert!(told("providers: []")[0].ends_with("there is no provider in 'providers'"));
    assert!(told("")[0].contains("there are no 'providers'"));
    assert!(told("a: [")[0].starts_with("f:"), "{:?}", told("a: ["));
}

#[test]
fn providers_in_any_script_start() {
    let one = |name: &str, more: &str| {
        format!("{{name: '{name}', type: generic, base_url: 'http://x', auth_type: none{more}}}")
    };
    let slugs = |providers: &[String]| {
        let config = fine(&format!("providers: [{}]", providers.join(", ")));
        config.providers.into_iter().map(|provider| provider.slug).collect::<Vec<_>>()
    };
    assert_eq!(slugs(&[one("克劳德官方", "")]), ["克劳德官方"]);
    let two = [one("Claude 官方", ""), one("Claude 备用", "")];
    assert_eq!(slugs(&two), ["claude-官方", "claude-备用"]);
    assert_eq!(slugs(&[one("🚀", ", slug: rocket")]), ["rocket"]);
    let same = [one("A b", ""), one("a-B", ", slug: other")];
    assert_eq!(slugs(&same), ["a-b", "other"]);
    // A disabled provider conflicts with nobody, before or after the other.
    let off = one("A", ", enabled: false");
    assert_eq!(slugs(&[off.clone(), one("A", ""), off.clone()]), ["a", "a", "a"]);
    let text = format!("providers: [{}, {}]", off, one("A", ""));
    let config = fine(&format!("{text}\nmodel_routes: {{'*': [{{provider: A}}]}}"));
    assert_eq!(config.model_routes[0].candidates[0].provider, 1, "the enabled one is meant");
}

/// A route, a `bearer_provider` and `logout --provider` took the other provider.
#[test]
fn the_name_of_a_provider_lost_to_the_slug_of_another() {
    let one = |name: &str, more: &str| {
        format!("{{name: {name}, type: generic, base_url: 'https://x', auth_value: {name}{more}}}")
    };
    let [backup, main, off] = [
        one("Backup", ", slug: main"),
        one("main", ", slug: primary"),
        one("main", ", slug: old, enabled: false"),
    ];
    let bearer = "{name: Third, type: generic, base_url: 'https://x', auto_refresh_config: {token_url: 'https://i/t', \
                  token_request: {bearer_provider: main}}}";
    let routes = "model_routes: {'*': [{provider: main}]}";
    for (providers, index, warns) in [
        ([&backup, &main], 1, true),
        ([&main, &backup], 0, true),
        // A disabled provider conflicts with nobody.
        ([&off, &backup], 1, false),
        ([&off, &main], 1, false),
    ] {
        let [first, second] = providers;
        let text = format!("providers: [{first}, {second}, {bearer}]\n{routes}\n");
        let (config, warnings) = resolve(&text, "f", &sources()).unwrap();
        assert_eq!(find_provider(&config.providers, "main"), Some(index), "{text}");
        assert_eq!(config.model_routes[0].candidates[0].provider, index, "{text}");
        let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), usize::from(warns), "{told:?}");
        let words = "warning: the slug 'main' of this provider is the name of another one";
        assert!(told.iter().all(|line| line.contains(words)), "{told:?}");
    }
    let (config, _) = resolve(&format!("providers: [{off}]"), "f", &sources()).unwrap();
    assert_eq!(find_provider(&config.providers, "old"), Some(0));
    assert_eq!(find_provider(&config.providers, "main"), Some(0));
}

/// A record of an earlier version stays that of its chain, but for tokens that are asked for anew with such parameters.
#[test]
fn what_each_request_asks_for_tells_tokens_apart_and_a_refresh_token_keeps_its_chain() {
    let hash = |lines: &str| {
        let config =
            fine(&with_config(&format!("token_url: https://i/t\nclient_id_env: ID\n{lines}")));
        refresh(&config).client_hash().unwrap()
    };
    let asked = ["scope: a", "scope: b", "extra_params: {b: c}", "extra_params: {b: d}"];
    let plain = Secret::new("https://i/t\nthe-id").hash();
    for more in ["", asked[0], asked[2]] {
        assert_eq!(hash(&format!("refresh_token_env: TOKEN\n{more}")), plain, "{more}");
    }
    for (way, plain) in [
        ("grant_type: client_credentials\nclient_secret_env: SECRET", Some(plain)),
        ("grant_type: token_exchange\nsubject_token_env: TOKEN", None),
    ] {
        let mut hashes = vec![hash(way)];
        assert!(plain.is_none_or(|plain| plain == hashes[0]));
        hashes.extend(asked.map(|more| hash(&format!("{way}\n{more}"))));
        hashes.push(hash(&format!("{way}\n{}\n{}", asked[0], asked[2])));
        for (index, one) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(one), "{way}: {index}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_slug() {
    let cases = [
        (
            "slug: a/b",
            "f:6:11: 'slug' can't be 'a/b': it may hold letters, digits, '-' and '_', and not '/'",
        ),
        ("slug: ..", "f:6:11: 'slug' can't be '..': it must begin with a letter or a digit"),
        ("slug: ''", "f:6:11: 'slug' can't be '': it must begin with a letter or a digit"),
        (
            "slug: Official",
            "f:6:11: 'slug' can't be 'Official': it must be in lower case: 'official'",
        ),
    ];
    for (line, message) in cases {
        refused(&document("", &format!("{line}\nauth_type: none")), message);
    }
    let text = format!(
        "{}  - {{name: Q, slug: p, type: generic, base_url: 'http://x', auth_type: none}}\n",
        document("", "auth_type: none")
    );
    refused(
        &text,
        "f:7:21: this provider and 'P' have the same slug 'p'; choose another with 'slug'",
    );
}

#[test]
fn routes() {
    let text = format!(
        "{}model_routes:\n  '*x*': [{{provider: P, model: passthrough, priority: 2}}, {{provider: p, model: m}}]\n",
        document("", "auth_type: none")
    );
    let config = fine(&text);
    let candidates = &config.model_routes[0].candidates;
    assert_eq!(candidates[0].model.as_deref(), Some("m"));
    assert_eq!((candidates[1].model.as_deref(), candidates[1].priority), (None, 2));
    refused(&text.replace("provider: P", "provider: Q"), "f:8:22: there is no provider 'Q'");
    // A file with a pattern that matches nothing starts as before, but says so.
    for (pattern, part) in [
        ("gpt-?", "warning: the pattern 'gpt-?' matches no model: '*' is the only wildcard"),
        ("gpt-[45]", "warning: '[' in the pattern 'gpt-[45]' stands for itself"),
    ] {
        let told = told(&text.replace("*x*", pattern));
        assert!(told.len() == 1 && told[0] == format!("f:8:3: {}", &told[0][7..]), "{told:?}");
        assert!(told[0].contains(part), "{told:?}");
    }
    assert_eq!(told(&text.replace("*x*", "claude-sonnet-4-5[1m]")), [""; 0]);
}

#[test]
fn the_original_family_of_files_starts_with_warnings() {
    let settings = "reload: true, sticky_provider_duration: 3, failover_http_codes: [500], log_color: true, \
                    testing: {a: 1}, oauth: {b: 2}, timeouts: {streaming: 5, caching: 1}, auth: {exempt_paths: [a]}";
    let text = document(settings, "auth_type: none\nstreaming_mode: auto");
    let (_, warnings) = resolve(&text, "f", &sources()).unwrap();
    assert_eq!(warnings.len(), 10, "{warnings:?}");
    assert!(warnings.iter().all(|one| one.is_warning));
    assert_eq!(
        warnings[0].to_string(),
        "f:1:12: warning: 'reload' in settings is not used by evertoken"
    );
}

#[test]
fn secrets_in_a_file_that_others_can_read() {
    let text = document("auth: {enabled: true, api_key: k}", "auth_value: v");
    let exposed = Sources { file_mode: Some(0o100_644), ..sources() };
    let (_, warnings) = resolve(&text, "f", &exposed).unwrap();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].message.contains("can be read by group or others"));
    fine(&text);
    fine(&document("", "auth_value: passthrough"));
}

#[test]
fn numbers_on_both_sides_of_their_limits() {
    let cases: [(&str, u64, u64); 11] = [
        ("port: N", 0, 65_535),
        ("max_connections: N", 1, 65_535),
        ("max_connections_per_address: N", 1, 65_535),
        ("max_body_bytes: N", 0, 17_179_869_184),
        ("replay_body_bytes: N", 0, 1_073_741_824),
        ("failure_cooldown: N", 0, 86_400),
        ("shutdown_grace: N", 0, 86_400),
        ("save_interval: N", 1, 86_400),
        ("timeouts: {connect: N}", 1, 86_400),
        ("timeouts: {client_head: N}", 1, 86_400),
        ("timeouts: {client_idle: N}", 1, 86_400),
    ];
    for (pattern, least, most) in cases {
        let text =
            |number: u64| document(&pattern.replace('N', &number.to_string()), "auth_type: none");
        fine(&text(least));
        fine(&text(most));
        assert!(resolve(&text(most + 1), "f", &sources()).is_err(), "{pattern}");
        if least > 0 {
            assert!(resolve(&text(least - 1), "f", &sources()).is_err(), "{pattern}");
        }
    }
}

#[test]
fn a_provider_has_its_own_timeouts_before_those_of_all() {
    let with = |of_all: &str, own: &str| {
        document(
            &format!("timeouts: {{{of_all}}}"),
            &format!("auth_type: none\ntimeouts: {{{own}}}"),
        )
    };
    let seconds = |text: &str| {
        let timeouts = fine(text).providers[0].timeouts;
        [timeouts.connect, timeouts.response, timeouts.idle].map(|one| one.as_secs())
    };
    assert_eq!(seconds(&with("", "")), [10, 600, 300]);
    assert_eq!(seconds(&with("connect: 2, response: 3, idle: 4", "")), [2, 3, 4]);
    assert_eq!(
        seconds(&with("connect: 2, response: 3", "response: 86400, idle: 1")),
        [2, 86400, 1]
    );
    for (own, expected) in [
        ("response: 0", "f:7:26: 'response' must be a whole number from 1 to 86400, not 0"),
        ("idle: 86401", "f:7:22: 'idle' must be a whole number from 1 to 86400, not 86401"),
        ("idl: 1", "f:7:16: unknown key 'idl' in timeouts, did you mean 'idle'?"),
        (
            "client_idle: 5",
            "f:7:29: 'client_idle' is about clients, whichever provider they ask: it goes into settings.timeouts",
        ),
    ] {
        assert_eq!(told(&with("", own)), [expected]);
    }
}

#[test]
fn weights_are_whole_shares() {
    let with = |strategy: &str, weight: &str| {
        document(
            &format!("selection_strategy: {strategy}"),
            &format!("auth_type: none\nweight: {weight}"),
        )
    };
    for weight in [1, 1000] {
        assert_eq!(fine(&with("sticky", &weight.to_string())).providers[0].weight, weight);
    }
    assert_eq!(fine(&document("", "auth_type: none")).providers[0].weight, 1);
    for wrong in ["0", "-1", "1.5", "1001", "99999999999999999999", "heavy", "[1]"] {
        let found = told(&with("random", wrong));
        let shown = if wrong == "heavy" { "\"heavy\"" } else { wrong };
        let shown = if wrong == "[1]" { "a list" } else { shown };
        let expected =
            format!("f:7:13: 'weight' must be a whole number from 1 to 1000, not {shown}");
        assert_eq!(found, [expected]);
    }
    let hint = "f:7:13: 'weight' must be a whole number from 1 to 1000, not \"2\"; write it without quotes";
    assert_eq!(told(&with("random", "\"2\"")), [hint]);
    // A share of what nobody shares.
    let (_, warnings) = resolve(&with("priority", "2"), "f", &sources()).unwrap();
    assert_eq!(
        warnings[0].to_string(),
        "f:7:13: warning: 'weight' has no effect while settings.selection_strategy is \"priority\": set that to \
         \"sticky\", \"round_robin\" or \"random\""
    );
    // It belongs to a provider, and not to its place in a route.
    let routes = "model_routes: {'*': [{provider: P, weight: 2}]}\n";
    let found = told(&format!("{}{routes}", document("", "auth_type: none")));
    assert!(
        found[0].contains("unknown key 'weight'") && found[0].contains("a provider"),
        "{found:?}"
    );
}

#[test]
fn a_credential_that_goes_over_the_network_as_it_is_is_said() {
    let warning = "f:5:15: warning: 'base_url' is http and leads to another machine, so the credential goes \
                   over the network unencrypted; use https where that machine can";
    let cases = [
        ("http://api.x.com/v1", "auth_value: k", true),
        ("http://10.0.0.7:4000", "auth_value: k", true),
        ("http://[fd00::1]/", "auth_value_env: ID", true),
        ("http://localhost.x.com", "auth_value: passthrough", true),
        (
            "http://x",
            "auto_refresh_config: {token_url: https://i/t, client_id_env: ID, refresh_token_env: TOKEN}",
            true,
        ),
        ("https://api.x.com", "auth_value: k", false),
        ("http://127.0.0.1:4000", "auth_value: k", false),
        ("http://127.8.8.8", "auth_value: k", false),
        ("http://[::1]:4000", "auth_value: k", false),
        ("http://LocalHost:4000", "auth_value: k", false),
        // No credential is sent there.
        ("http://x", "auth_type: none", false),
        ("http://x", "enabled: true", false),
        ("http://x", "auth_value: k\nenabled: false", false),
    ];
    for (url, lines, is_said) in cases {
        let text = document("", lines).replace("https://x\n", &format!("{url}\n"));
        let expected = if is_said { vec![warning] } else { vec![] };
        let mut told = told(&text);
        told.retain(|one| !one.contains("no provider is enabled"));
        assert_eq!(told, expected, "{url} {lines}");
    }
}

#[test]
fn the_example_is_valid_and_its_first_provider_is_the_guides() {
    let text = include_str!("../../../providers.yaml.example");
    let config = fine(text);
    let provider = &config.providers[0];
    assert_eq!(provider.name, "Claude Code Official");
    assert_eq!(provider.base_url, "https://api.anthropic.com");
    let refresh = refresh(&config);
    assert_eq!(refresh.token_url, "https://api.anthropic.com/oauth/token");
    assert_eq!(refresh.client_id, Err(Missing::Variable("CLAUDE_CLIENT_ID".into())));
    assert_eq!(refresh.client_secret, Some(Err(Missing::Variable("CLAUDE_CLIENT_SECRET".into()))));
    assert_eq!(refresh.seed, Some(Err(Missing::Variable("CLAUDE_REFRESH_TOKEN".into()))));
}

#[test]
fn the_example_documents_every_key() {
    // The parser itself knows the keys, because it reads each of them by name.
    let sources = [
        include_str!("settings.rs"),
        include_str!("provider.rs"),
        include_str!("request_fields.rs"),
        include_str!("auto_refresh.rs"),
        include_str!("egress.rs"),
        include_str!("login_endpoints.rs"),
        include_str!("origins.rs"),
        include_str!("token_fields.rs"),
        include_str!("../resolve.rs"),
    ];
    let text = include_str!("../../../providers.yaml.example");
    let mut keys = 0;
    for source in sources {
        for call in [
            "text(\"",
            "endpoint(\"",
            "flag(\"",
            "integer(\"",
            "choice(\"",
            "texts(\"",
            "text_map(\"",
            "section(\"",
            "sections(\"",
            "lists(\"",
            "path(section, \"",
            "path(&section, sources, \"",
            "secret(section, \"",
            "secret(&section, \"",
        ] {
            for part in source.split(call).skip(1) {
                let key = part.split('"').next().unwrap();
                assert!(
                    text.contains(&format!("{key}:")),
                    "{key} is not in providers.yaml.example"
                );
                keys += 1;
            }
        }
    }
    for key in crate::config::token_fields::TOKEN_FIELDS {
        assert!(
            text.contains(&format!("      #   {key}:")),
            "{key} is not in providers.yaml.example"
        );
    }
    assert!(keys > 15, "the search found only {keys} keys");
}

#[test]
fn the_recipes_for_files_of_other_programs_are_valid() {
    let page = include_str!("../../../docs/several-accounts.md");
    let rows =
        page.lines().filter(|line| line.starts_with('|') && line.contains("credentials_file:"));
    let mut count = 0;
    for row in rows {
        let keys =
            row.split('`').skip(1).step_by(2).filter(|code| code.starts_with("credentials_"));
        let lines: String = keys.map(|key| format!("  {key}\n")).collect();
        let files = |_: &Path| Ok("{}".to_owned());
        let sources = Sources { files: &files, ..sources() };
        let text = document("", &format!("auto_refresh_config:\n{lines}"));
        let (config, warnings) = resolve(&text, "f", &sources).unwrap();
        let Credential::Watched(file) = &config.providers[0].credential else { panic!("{row}") };
        assert!(file.path.starts_with("/home/u"), "{row}");
        assert_eq!(warnings, [], "{row}");
        count += 1;
    }
    assert!(count >= 4, "{count}");
}

#[test]
fn keys_are_known_where_a_hint_says_that_they_belong() {
    use crate::config::raw::homes::HOMES;

    let written = |section: &str, key: &str| match section {
        "settings" => document(&format!("{key}: null"), "auth_type: none"),
        "auth" => document(&format!("auth: {{{key}: null}}"), "auth_type: none"),
        "timeouts" => document(&format!("timeouts: {{{key}: null}}"), "auth_type: none"),
        "a provider" => document("", &format!("auth_type: none\n{key}: null")),
        _ => with_refresh(&format!("{key}: null")),
    };
    for (section, keys) in HOMES {
        for key in keys {
            let text = written(section, key);
            let (_, problems) = inspect(&text, "f", &sources());
            let unknown = problems.iter().find(|one| one.message.contains("unknown key"));
            assert_eq!(unknown, None, "{key} in {section}");
        }
    }
}
