//! Typical mistakes in `providers.yaml`, and the real binary's messages about them.

use crate::support::binary::{Binary, run, text};
use crate::support::client::ask;
use crate::support::peer::{Peer, answer};

/// Answers each request with the credential that it came with.
fn telling() -> Peer {
    Peer::telling_the_credential()
}

fn granting(token: &'static str) -> Peer {
    Peer::answering(move |_| {
        let body = format!(
            r#"{{"access_token":"{token}","expires_in":3600,"refresh_token":"next-token-value"}}"#
        );
        answer(200, &body)
    })
}

/// A folder with `providers.yaml`, in which `STATE` stands for the state folder.
fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, config);
    folder
}

fn write(folder: &tempfile::TempDir, config: &str) {
    let state = folder.path().join("state").display().to_string();
    std::fs::write(folder.path().join("providers.yaml"), config.replace("STATE", &state)).unwrap();
}

const VARIABLES: [(&str, &str); 3] =
    [("HOME", "/nonexistent"), ("ID", "abc12345-client"), ("TOKEN", "refresh-token-value")];

#[test]
fn a_configuration_in_chinese_is_served_by_name_and_by_path() {
    let (issuer, provider) = (granting("access-token-value"), telling());
    let config = format!(
        "settings: {{port: 0, state_dir: STATE}}
providers:
  - name: \"克劳德官方\"
    type: anthropic
    base_url: \"{0}\"
    auto_refresh_config: {{token_url: \"{1}\", client_id_env: ID, refresh_token_env: TOKEN}}
  - {{name: \"Claude 备用\", type: anthropic, base_url: \"{0}\", auth_value: spare}}
  - {{name: \"Claude 官方\", type: anthropic, base_url: \"{0}\", auth_value: third}}
",
        provider.url(),
        issuer.url()
    );
    let folder = folder(&config);
    let check = run(folder.path(), &["check"], &VARIABLES);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stderr));
    assert!(text(&check.stdout).contains("/to/克劳德官方/…"), "{}", text(&check.stdout));
    let refreshed = run(folder.path(), &["refresh", "--provider", "克劳德官方"], &VARIABLES);
    assert_eq!(refreshed.status.code(), Some(0), "{}", text(&refreshed.stderr));
    assert!(folder.path().join("state/克劳德官方.json").is_file());

    let binary = Binary::start(folder.path(), &[], &VARIABLES);
    let address = binary.address();
    let get =
        |target: &str| ask(address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let official = "%E5%85%8B%E5%8A%B3%E5%BE%B7%E5%AE%98%E6%96%B9";
    for slug in ["克劳德官方", official, &official.to_lowercase()] {
        let told = get(&format!("/to/{slug}/v1/x"));
        assert_eq!((told.status, told.body.contains("access-token-value")), (200, true), "{slug}");
    }
    assert!(get("/to/claude-%E5%A4%87%E7%94%A8/v1").body.contains("spare"));
    assert!(get("/to/claude-官方/v1").body.contains("third"));
    assert_eq!(get("/to/克劳德/v1").code(), "unknown_provider");
    assert!(provider.seen().iter().all(|seen| seen.line.is_ascii()), "{:?}", provider.seen());
    let metrics = get("/-/metrics").body;
    assert!(metrics.contains("evertoken_provider_ready{provider=\"克劳德官方\"} 1"), "{metrics}");
    let refreshed = ask(
        address,
        format!(
            "POST /-/refresh/{official} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        ),
    );
    assert_eq!(refreshed.status, 200, "{}", refreshed.body);
    assert_eq!(refreshed.json()["slug"], "克劳德官方");
    assert_eq!(issuer.seen().len(), 2);
    let status = run(folder.path(), &["status", "--url", &format!("http://{address}")], &VARIABLES);
    assert!(text(&status.stdout).contains("克劳德官方"), "{}", text(&status.stdout));
}

#[test]
fn what_is_open_though_it_looks_closed_is_said_by_check_and_at_the_start() {
    let folder = folder(
        "settings: {port: 0, state_dir: STATE, auth: {enabled: false, api_key: 'inbound-key-7c'}}
providers:
  - {name: Far, type: anthropic, base_url: 'http://far.invalid', auth_value: far-key-4d1f}
",
    );
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(folder.path().join("providers.yaml"), private).unwrap();
    let warnings = ["no client needs this key", "the credential goes over the network unencrypted"];
    let check = run(folder.path(), &["check"], &VARIABLES);
    let said = text(&check.stderr) + &text(&check.stdout);
    assert_eq!(check.status.code(), Some(0), "{said}");
    let binary = Binary::start(folder.path(), &[], &VARIABLES);
    binary.address();
    let logged = binary.lines().join("\n");
    for warning in warnings {
        assert!(said.contains(warning), "{said}");
        assert!(logged.contains(warning), "{logged}");
    }
    assert!(!said.contains("far-key-4d1f") && !logged.contains("far-key-4d1f"));
    assert!(!said.contains("inbound-key-7c") && !logged.contains("inbound-key-7c"));
}

#[test]
fn refreshing_that_is_turned_off_takes_down_nobody() {
    let (issuer, provider) = (granting("access-token-value"), telling());
    let config = |enabled: bool| {
        format!(
            "settings: {{port: 0, state_dir: STATE}}
providers:
  - name: Old
    type: anthropic
    base_url: \"{0}\"
    auto_refresh_config:
      enabled: {enabled}
      token_url: \"{1}\"
      client_id_env: ID
      client_secret_env: SECRET
      refresh_token_env: TOKEN
  - {{name: Never, type: anthropic, base_url: \"{0}\", auto_refresh_config: {{enabled: false}}}}
  - {{name: Bare, type: anthropic, base_url: \"{0}\"}}
  - {{name: Fixed, type: anthropic, base_url: \"{0}\", auth_value: fixed}}
",
            provider.url(),
            issuer.url()
        )
    };
    let folder = folder(&config(true));
    let variables = [VARIABLES.as_slice(), &[("SECRET", "client-secret")]].concat();
    let refreshed = run(folder.path(), &["refresh"], &variables);
    assert_eq!(refreshed.status.code(), Some(0), "{}", text(&refreshed.stderr));

    // A restart with refreshing turned off, and without its variables.
    write(&folder, &config(false));
    let state = folder.path().join("state/old.json");
    let stored = std::fs::read_to_string(&state).unwrap();
    let without = [("HOME", "/nonexistent")];
    let binary = Binary::start(folder.path(), &[], &without);
    let address = binary.address();
    let get =
        |target: &str| ask(address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert!(get("/to/old/x").body.contains("access-token-value"));
    assert!(get("/to/fixed/x").body.contains("fixed"));
    for (slug, why, code) in [
        ("never", "auto_refresh_config.enabled is false", (503, "token_unavailable")),
        ("bare", "There is no credential", (403, "login_needed")),
    ] {
        let refused = get(&format!("/to/{slug}/x"));
        assert_eq!((refused.status, refused.code()), code, "{slug}");
        assert!(refused.body.contains(why), "{slug}: {}", refused.body);
    }
    binary.wait_for("Provider Never has no credential: auto_refresh_config.enabled is false");
    binary.wait_for("There is no credential: give auto_refresh_config");
    let status = get("/-/status").json();
    assert_eq!(status["providers"][0]["state"], "ready");
    assert_eq!(status["providers"][0]["token"]["source"], "state_file");
    assert_eq!(status["providers"][0]["credential"], "stored");
    assert_eq!(status["providers"][1]["state"], "unavailable");
    assert_eq!(get("/-/ready").status, 503);
    let refresh = "POST /-/refresh/old HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let refused = ask(address, refresh);
    assert_eq!(refused.status, 404, "there is nothing to refresh");
    assert!(
        refused.body.contains("Old is not refreshed: its auto_refresh_config.enabled is false")
    );
    drop(binary);
    for command in [&["refresh", "--provider", "old"][..], &["login", "--provider", "Old"]] {
        let told = text(&run(folder.path(), command, &without).stderr);
        assert!(
            told.contains("is not refreshed: its auto_refresh_config.enabled is false"),
            "{told}"
        );
    }
    assert_eq!(std::fs::read_to_string(&state).unwrap(), stored, "it is not written");
    assert_eq!(issuer.seen().len(), 1, "nothing is asked of the issuer");

    // Once it has expired.
    let year = stored.find("\"expires_at\": \"").unwrap() + "\"expires_at\": \"".len();
    let mut expired = stored.clone();
    expired.replace_range(year..year + 4, "2020");
    std::fs::write(&state, expired).unwrap();
    let binary = Binary::start(folder.path(), &[], &without);
    let refused = ask(binary.address(), "GET /to/old/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((refused.status, refused.code()), (503, "token_unavailable"));
    assert!(refused.body.contains("the stored token expired at 2020-"), "{}", refused.body);
    assert_eq!(issuer.seen().len(), 1);
    let check = run(folder.path(), &["check"], &without);
    let told = text(&check.stderr);
    assert!(told.contains("warning: Old: the stored token expired at 2020-"), "{told}");
    assert!(told.contains("warning: Never: auto_refresh_config.enabled is false"), "{told}");
    assert!(told.contains("Bare: There is no credential"), "{told}");
    // Turned off on purpose is no mistake; a provider without anything is.
    assert_eq!(check.status.code(), Some(78));
    let bare =
        config(false).lines().filter(|line| !line.contains("Bare")).collect::<Vec<_>>().join("\n");
    write(&folder, &bare);
    assert_eq!(run(folder.path(), &["check"], &without).status.code(), Some(0));
}

#[test]
fn a_reload_turns_refreshing_off_and_on_again() {
    let (issuer, provider) = (granting("access-token-value"), telling());
    let config = |enabled: bool| {
        format!(
            "settings: {{port: 0, state_dir: STATE}}
providers:
  - name: P
    type: anthropic
    base_url: \"{}\"
    auto_refresh_config: {{enabled: {enabled}, token_url: \"{}\", client_id_env: ID, refresh_token_env: TOKEN}}
",
            provider.url(),
            issuer.url()
        )
    };
    let folder = folder(&config(true));
    let binary = Binary::start(folder.path(), &[], &VARIABLES);
    let address = binary.address();
    let get =
        |target: &str| ask(address, format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let post = |page: &str| {
        ask(
            address,
            format!("POST /-/{page} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"),
        )
    };
    assert!(get("/to/p/x").body.contains("access-token-value"));
    for (enabled, status) in [(false, 404), (true, 200), (false, 404)] {
        write(&folder, &config(enabled));
        assert_eq!(post("reload").status, 200);
        assert!(get("/to/p/x").body.contains("access-token-value"), "{enabled}");
        assert_eq!(post("refresh/p").status, status, "{enabled}");
        assert_eq!(get("/-/ready").status, 200, "{enabled}");
    }
}

#[test]
fn a_stored_token_is_found_where_its_chain_is() {
    let (issuer, provider) = (granting("access-token-value"), telling());
    let config = |one: bool, other: bool| {
        let provider = |name: &str, enabled: bool| {
            format!(
                "  - name: {name}
    type: anthropic
    base_url: \"{}\"
    auto_refresh_config: {{enabled: {enabled}, token_url: \"{}\", client_id_env: ID, refresh_token_env: TOKEN}}
",
                provider.url(),
                issuer.url()
            )
        };
        let settings = "settings: {port: 0, state_dir: STATE}\nproviders:\n";
        format!("{settings}{}{}", provider("One", one), provider("Other", other))
    };
    // Two providers with one refresh token share one chain, in one file.
    let folder = folder(&config(true, true));
    assert_eq!(run(folder.path(), &["refresh"], &VARIABLES).status.code(), Some(0));
    for (one, other) in [(false, false), (true, false), (false, true)] {
        write(&folder, &config(one, other));
        let binary = Binary::start(folder.path(), &[], &VARIABLES);
        for slug in ["one", "other"] {
            let request = format!("GET /to/{slug}/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let told = ask(binary.address(), request);
            assert!(
                told.body.contains("access-token-value"),
                "{one} {other} {slug}: {}",
                told.body
            );
        }
    }
    assert_eq!(issuer.seen().len(), 1, "the chain is known each time");
}

#[test]
fn a_variable_that_only_a_restart_can_bring_was_said_to_come_in_a_second() {
    let provider = telling();
    let config = format!(
        "settings: {{port: 0, state_dir: STATE}}
providers: [{{name: P, type: openai, base_url: \"{}\", auth_value_env: KEY}}]
",
        provider.url()
    );
    let folder = folder(&config);
    let binary = Binary::start(folder.path(), &[], &[("HOME", "/nonexistent")]);
    let refused = ask(binary.address(), "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((refused.status, refused.code()), (403, "login_needed"), "{}", refused.body);
    assert_eq!(refused.field("retry-after"), None);
    let words = "Missing environment variable: 'KEY'; set it and start evertoken again";
    assert!(refused.body.contains(words), "{}", refused.body);
    assert!(provider.seen().is_empty());
}

#[test]
fn hosts_and_base_urls_that_hold_too_much_say_what_to_write() {
    for (host, part) in [
        ("127.0.0.1:8080", "the port belongs in 'port'"),
        ("http://127.0.0.1", "write the address alone in 'host', \"127.0.0.1\""),
    ] {
        let config = format!(
            "settings:
  host: \"{host}\"
  state_dir: STATE
providers: [{{name: P, type: openai, base_url: 'https://x', auth_type: none}}]
"
        );
        let told = run(folder(&config).path(), &["check"], &VARIABLES);
        assert_eq!(told.status.code(), Some(78));
        let told = text(&told.stderr);
        assert!(told.contains("providers.yaml:2:9: ") && told.contains(part), "{told}");
        assert!(!told.contains("loopback"), "{told}");
    }
    let config = "settings: {state_dir: STATE}
providers: [{name: P, type: openai, base_url: 'https://x/v1/chat/completions', auth_type: none}]
";
    let told = run(folder(config).path(), &["check"], &VARIABLES);
    assert_eq!(told.status.code(), Some(0));
    let told = text(&told.stderr);
    let words = "names one endpoint; write \"https://x/v1\"";
    assert!(told.contains(words), "{told}");
}

#[test]
fn a_command_for_a_disabled_provider_says_that_it_is_disabled() {
    let config = "settings: {state_dir: STATE}
providers:
  - {name: P, type: openai, base_url: 'https://x', auth_type: none}
  - {name: Off, type: openai, base_url: 'https://x', auth_type: none, enabled: false}
";
    for (command, code) in [("refresh", 2), ("login", 78)] {
        let told = run(folder(config).path(), &[command, "--provider", "off"], &VARIABLES);
        assert_eq!(told.status.code(), Some(code));
        let told = text(&told.stderr);
        assert!(told.contains("Provider Off is disabled (its 'enabled' is false)"), "{told}");
    }
}
