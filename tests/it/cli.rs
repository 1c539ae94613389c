//! The real binary: exit codes, messages, the fixed log lines, signals.

use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::binary::{Binary, command, run, text};
use crate::support::client::{ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

const VARIABLES: [(&str, &str); 4] = [
    ("HOME", "/nonexistent"),
    ("CLAUDE_CLIENT_ID", "abc12345-client"),
    ("CLAUDE_CLIENT_SECRET", "client-secret-value"),
    ("CLAUDE_REFRESH_TOKEN", "refresh-token-value"),
];

/// A folder with a configuration before `token_url`.
fn folder(token_url: &str, settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: \"{}/state\"{settings}}}
providers:
  - name: \"Claude Code Official\"
    type: \"anthropic\"
    base_url: \"http://127.0.0.1:9\"
    auth_type: \"auth_token\"
    auto_refresh_config:
      enabled: true
      token_url: \"{token_url}\"
      client_id_env: \"CLAUDE_CLIENT_ID\"
      client_secret_env: \"CLAUDE_CLIENT_SECRET\"
      refresh_token_env: \"CLAUDE_REFRESH_TOKEN\"
",
        folder.path().display()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    folder
}

fn granting() -> Peer {
    Peer::answering(|_| {
        answer(
            200,
            r#"{"access_token":"access-token-value","expires_in":3600,"refresh_token":"next-token-value"}"#,
        )
    })
}

/// The line without its timestamp.
fn bare(line: &str) -> &str {
    &line[line.find('[').unwrap_or(0)..]
}

/// 218,547 lines in three seconds were seen after one signal, and none at a second start within the hour.
#[test]
fn a_missing_variable_is_said_once_for_each_order_and_at_each_start() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let variables: Vec<_> =
        VARIABLES.into_iter().filter(|(name, _)| *name != "CLAUDE_CLIENT_ID").collect();
    for _ in 0..2 {
        let binary = Binary::start(folder.path(), &["run"], &variables);
        let said = || {
            let lines = binary.lines();
            let of = |line: &&String| {
                bare(line).starts_with("[ERROR] Missing environment variable: 'CLAUDE_CLIENT_ID'")
            };
            lines.iter().filter(of).count()
        };
        let failures = || {
            let status = ask(binary.address(), get("/-/status")).json();
            status["providers"][0]["refresh"]["failures"].as_u64()
        };
        eventually("the start says it", || said() == 1);
        assert_eq!(failures(), Some(1), "the status has it by then");
        for orders in 1..=3 {
            binary.signal(Signal::USR1);
            eventually("an order says it", || said() > orders);
            assert_eq!((failures(), said()), (Some(orders as u64 + 1), orders + 1));
        }
    }
    let state = folder.path().join("state");
    let kept: Vec<_> =
        std::fs::read_dir(state).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(kept, ["claude-code-official.lock"], "nothing is stored");
}

#[test]
fn the_problem_is_all_that_is_missing_and_not_the_first_of_it_alone() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let file = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    let secret = "client_secret_env: \"CLAUDE_CLIENT_SECRET\"";
    std::fs::write(&file, config.replace(secret, "client_secret_file: \"/none\"")).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[("CLAUDE_REFRESH_TOKEN", "seed")]);
    binary.wait_for("Missing environment variable");
    let provider = &ask(binary.address(), get("/-/status")).json()["providers"][0];
    let words = provider["problem"].as_str().unwrap();
    assert!(words.starts_with("Missing environment variable: 'CLAUDE_CLIENT_ID'; "), "{words}");
    assert!(words.contains("; Missing secret file: '/none' ("), "{words}");
}

#[test]
fn all_missing_variables_are_named_in_one_line_without_a_time_for_the_next_try() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let words = "Missing environment variable: 'CLAUDE_CLIENT_ID', 'CLAUDE_CLIENT_SECRET' and 'CLAUDE_REFRESH_TOKEN'";
    let binary = Binary::start(folder.path(), &["run"], &[]);
    let line = binary.wait_for("Missing environment variable");
    assert_eq!(
        bare(&line),
        format!(
            "[ERROR] {words} (provider: Claude Code Official; tried again once nothing is missing)"
        )
    );
    let address = binary.address();
    let status = || ask(address, get("/-/status")).json()["providers"][0]["refresh"].clone();
    assert_eq!(status()["last_error"], words);
    assert_eq!(status()["next_attempt_at"], serde_json::Value::Null);
    let refused = ask(address, post("/v1/messages", "{}"));
    assert!(refused.body.contains("'CLAUDE_CLIENT_SECRET' and"), "{}", refused.body);
    assert!(!refused.body.contains("next try"), "{}", refused.body);
    let status = run(folder.path(), &["status", "--url", &format!("http://{address}")], &[]);
    let told = text(&status.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(words) && !told.to_lowercase().contains("next try"), "{told}");
    drop(binary);

    let refresh = run(folder.path(), &["refresh"], &[]);
    let told = text(&refresh.stderr);
    assert!(told.contains(&format!("{words} (provider: Claude Code Official)")), "{told}");
    assert_eq!(told.matches("Missing").count(), 1, "{told}");
    assert!(issuer.seen().is_empty());
}

#[test]
fn a_missing_variable_is_said_at_the_start_though_the_stored_token_serves() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    binary.wait_for("Successfully refreshed");
    drop(binary);
    let variables: Vec<_> =
        VARIABLES.into_iter().filter(|(name, _)| *name != "CLAUDE_CLIENT_SECRET").collect();
    let binary = Binary::start(folder.path(), &["run"], &variables);
    let said = binary.wait_for("Missing environment variable");
    assert_eq!(
        bare(&said),
        "[ERROR] Missing environment variable: 'CLAUDE_CLIENT_SECRET' (provider: Claude Code Official; the \
         stored token serves until it ends)"
    );
    let status = ask(binary.address(), get("/-/status")).json();
    assert_eq!(status["providers"][0]["state"], "ready");
}

/// The log said it once at the start, and for the 8 hours of the stored token everything else looked healthy.
#[test]
fn a_missing_variable_is_a_warning_for_as_long_as_the_stored_token_serves() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    binary.wait_for("Successfully refreshed");
    let status = ask(binary.address(), get("/-/status")).json();
    assert_eq!(status["providers"][0]["warning"], serde_json::Value::Null);
    drop(binary);
    let variables: Vec<_> =
        VARIABLES.into_iter().filter(|(name, _)| *name != "CLAUDE_CLIENT_SECRET").collect();
    let binary = Binary::start(folder.path(), &["run"], &variables);
    let address = binary.address();
    let warning = "Missing environment variable: 'CLAUDE_CLIENT_SECRET': the next refresh will fail (provider: \
                   Claude Code Official); set it where evertoken is started, and restart";
    let status = ask(address, get("/-/status")).json();
    assert_eq!(status["providers"][0]["warning"], warning);
    assert_eq!(status["providers"][0]["state"], "ready");
    let ready = ask(address, get("/-/ready"));
    assert_eq!((ready.status, &ready.json()["warnings"]), (200, &serde_json::json!([warning])));
    assert!(ask(address, get("/-/")).body.contains("the next refresh will fail"));
    let told = run(folder.path(), &["status", "--url", &format!("http://{address}")], &[]);
    let told = text(&told.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains(warning), "{told}");
    // Once a refresh has failed for it, it is the problem; who asks for readiness is told as before.
    let order = "POST /-/refresh/claude-code-official HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    ask(address, order);
    let status = ask(address, get("/-/status")).json()["providers"][0].clone();
    assert_eq!(status["problem"], "Missing environment variable: 'CLAUDE_CLIENT_SECRET'");
    assert_eq!(status["warning"], serde_json::Value::Null);
    let ready = ask(address, get("/-/ready"));
    assert_eq!((ready.status, &ready.json()["warnings"]), (200, &serde_json::json!([warning])));
}

#[test]
fn the_fixed_log_lines_of_a_success() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    let started = binary.wait_for("Starting token refresh");
    let line = "[INFO] Starting token refresh for provider: Claude Code Official";
    assert!(bare(&started).starts_with(line), "{started}");
    assert!(started.starts_with("20") && started.contains("Z ["), "a UTC timestamp: {started}");
    let done = binary.wait_for("Successfully refreshed");
    let line = "[INFO] Successfully refreshed token for provider using client_id: abc12...";
    assert!(bare(&done).starts_with(line), "{done}");
}

#[test]
fn the_fixed_log_line_of_a_missing_variable() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let variables = VARIABLES.map(|(name, value)| match name {
        "CLAUDE_CLIENT_ID" => (name, ""),
        _ => (name, value),
    });
    let binary = Binary::start(folder.path(), &["run"], &variables);
    let line = binary.wait_for("Missing environment variable");
    let expected = "[ERROR] Missing environment variable: 'CLAUDE_CLIENT_ID'";
    assert!(bare(&line).starts_with(expected), "{line}");
    assert!(issuer.seen().is_empty());
}

#[test]
fn the_fixed_log_lines_of_failures() {
    // A failure without an error code may pass; the issuer's own word for it may not.
    let cases = [
        (401, "", "401 Unauthorized", ["next try in 0.", "next try in 1."]),
        (404, "", "404 Not Found", ["next try in 0.", "next try in 1."]),
        (
            401,
            r#"{"error":"invalid_client"}"#,
            "401 Unauthorized (invalid_client)",
            ["next try in 3599.", "next try in 3600."],
        ),
    ];
    for (status, body, words, next) in cases {
        let issuer = Peer::answering(move |_| answer(status, body));
        let folder = folder(&issuer.url(), "");
        let binary = Binary::start(folder.path(), &[], &VARIABLES);
        let line = binary.wait_for("Failed to refresh");
        let expected = format!("[ERROR] Failed to refresh token: {words}");
        assert!(bare(&line).starts_with(&expected), "{line}");
        assert!(next.iter().any(|next| line.contains(next)), "{line}");
    }
}

#[test]
fn a_single_refresh_that_fails_promises_no_next_try() {
    for body in ["", r#"{"error":"invalid_client"}"#, r#"{"error":"invalid_grant"}"#] {
        let issuer = Peer::answering(move |_| answer(401, body));
        let folder = folder(&issuer.url(), "");
        // The second one finds what the first one stored.
        for _ in 0..2 {
            let once = run(folder.path(), &["refresh"], &VARIABLES);
            let told = text(&once.stderr);
            assert_eq!(once.status.code(), Some(1), "{told}");
            assert!(told.contains("Failed to refresh token: 401 Unauthorized"), "{told}");
            assert!(told.contains("(provider: Claude Code Official)"), "{told}");
            assert!(!told.contains("next try"), "{told}");
        }
    }
}

#[test]
fn a_refresh_token_that_ends_soon_is_said_once_within_a_week_and_once_within_a_day() {
    let lifetimes = std::sync::Mutex::new([900_000, 500_000, 500_000, 80_000].into_iter());
    let issuer = Peer::answering(move |_| {
        let lifetime = lifetimes.lock().unwrap().next().unwrap_or(80_000);
        let body = format!(
            r#"{{"access_token":"a","expires_in":3600,"refresh_token_expires_in":{lifetime}}}"#
        );
        answer(200, &body)
    });
    let folder = folder(&issuer.url(), "");
    let binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    binary.wait_for("Successfully refreshed");
    let forced = "POST /-/refresh/claude-code-official HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    // An order that comes while a refresh runs joins it.
    eventually("five refreshes", || {
        ask(binary.address(), forced);
        issuer.seen().len() >= 5
    });
    let warned = || {
        let lines = binary.lines();
        let warned = lines.iter().filter(|line| line.contains("The refresh token of provider"));
        warned.map(|line| bare(line).to_owned()).collect::<Vec<_>>()
    };
    eventually("two warnings", || warned().len() >= 2);
    let warned = warned();
    let start = "[WARN] The refresh token of provider Claude Code Official ends at 20";
    assert!(warned.iter().all(|line| line.starts_with(start)), "{warned:?}");
    assert!(warned[0].contains("in 6 days") && warned[1].contains("in 23 hours"), "{warned:?}");
    assert!(warned[1].ends_with("; log in again before requests fail"), "{warned:?}");
    assert_eq!(warned.len(), 2);
}

#[test]
fn usage_is_2_and_help_is_0() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["--nope"][..], &["serve"], &["check", "--listen", "a:1"]] {
        let output = run(folder.path(), arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("try '--help'"));
    }
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "-h"],
        &["refresh", "--help"],
        &["reload", "--help"],
        &["status", "--help"],
        &["status", "--url", "http://127.0.0.1:1", "--help"],
        &["login", "--help"],
        &["logout", "--help"],
        &["--version"],
    ] {
        let output = run(folder.path(), arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let told = text(&output.stdout);
        let usage = format!("Usage: evertoken {}", arguments[0].trim_start_matches("--help"));
        let is_help = arguments.last() != Some(&"--version");
        assert!(told.contains(if is_help { usage.trim_end() } else { "evertoken" }), "{told}");
    }
}

/// It asked the usual address, and told of whatever evertoken was there.
#[test]
fn the_status_by_a_file_that_does_not_exist_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    for (quiet, told) in [(&[][..], "no.yaml: can't be read: No such file"), (&["--quiet"], "")] {
        let arguments = [&["status", "--config", "no.yaml"], quiet].concat();
        let output = run(folder.path(), &arguments, &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.starts_with(told) && said.is_empty() == told.is_empty(), "{said}");
    }
}

/// `evertoken key NAME > /dev/full` ended with 0: the key was lost, and nobody was told.
#[test]
fn output_that_could_not_be_printed_was_a_success() {
    let peer = Peer::answering(|_| answer(200, "fine"));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}\nproviders: [{{name: P, type: generic, base_url: '{}', auto_refresh_config: \
         {{enabled: true, token_command: [/bin/echo, token]}}}}]\n",
        peer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[]);
    let url = format!("http://{}", binary.address());
    for arguments in [
        &["--help"][..],
        &["usage", "--help"],
        &["--version"],
        &["key", "ci"],
        &["usage"],
        &["usage", "--json"],
        &["check"],
        &["check", "--route", "m"],
        &["token"],
        &["status", "--url", &url],
        &["status", "--url", &url, "--json"],
        &["status", "--url", &url, "--watch"],
    ] {
        let print_to = |out: Stdio| {
            let output = command(folder.path(), arguments, &[]).stdout(out).output().unwrap();
            (output.status.code(), text(&output.stderr))
        };
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (code, told) = print_to(full.into());
        let last = told.lines().last().unwrap_or_default();
        assert_eq!(code, Some(1), "{arguments:?}: {told}");
        assert!(last.contains("can't be printed: No space left"), "{arguments:?}: {told}");
        // A reader that went away wants no more, and no message.
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let (code, told) = print_to(closed.into());
        assert_eq!(code, Some(1), "{arguments:?}: {told}");
        assert!(!told.contains("printed"), "{arguments:?}: {told}");
    }
    // A failure before that keeps its exit code.
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let wrong = ["check", "--config", "none.yaml"];
    let output = command(folder.path(), &wrong, &[]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_wrong_configuration_is_78_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let none = run(folder.path(), &["run"], &[]);
    assert_eq!(none.status.code(), Some(78));
    assert!(text(&none.stderr).starts_with("providers.yaml: can't be read"));
    let config = "settings: {prot: 1, state_dir: /tmp/x}\nproviders:\n  - name: a\n    type: b\n    base_url: c\n    auth_type: none\n";
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    for command in ["run", "check", "refresh"] {
        let output = run(folder.path(), &[command], &[]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let told = text(&output.stderr);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 3, "{told}");
        assert_eq!(
            lines[0],
            "providers.yaml:1:12: unknown key 'prot' in settings, did you mean 'port'?"
        );
        assert!(lines[1].starts_with("providers.yaml:4:11: 'type' must be one of"));
        assert!(lines[2].starts_with("providers.yaml:5:15: 'base_url' must be"));
    }
}

#[test]
fn an_address_in_use_is_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder("http://127.0.0.1:9", "");
    let output = run(folder.path(), &["run", "--listen", &address], &VARIABLES);
    assert_eq!(output.status.code(), Some(69), "{}", text(&output.stderr));
    let told = text(&output.stderr);
    let owner = format!(
        ", process {}; --listen HOST:PORT or settings.port takes another",
        std::process::id()
    );
    assert!(told.contains("the port is in use by ") && told.contains(&owner), "{told}");
    let output = run(folder.path(), &["run", "--listen", "0.0.0.0:0"], &VARIABLES);
    assert_eq!(output.status.code(), Some(78), "an open address needs auth");
}

#[test]
fn check_tells_what_is_missing_and_spends_no_token() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let fine = run(folder.path(), &["check"], &VARIABLES);
    assert_eq!(fine.status.code(), Some(0), "{}", text(&fine.stderr));
    let missing = run(folder.path(), &["check"], &[]);
    assert_eq!(missing.status.code(), Some(78));
    assert_eq!(text(&missing.stderr).matches("Missing environment variable").count(), 3);
    let online = run(folder.path(), &["check", "--online"], &VARIABLES);
    // The token endpoint answers; the provider at port 9 does not.
    assert_eq!(online.status.code(), Some(78));
    assert!(text(&online.stdout).contains("token_url"), "{}", text(&online.stdout));
    assert!(text(&online.stderr).contains("no connection"), "{}", text(&online.stderr));
    assert!(
        issuer.seen().iter().all(|seen| seen.line.starts_with("HEAD ") && seen.body.is_empty())
    );
}

#[test]
fn check_tells_of_a_broken_file_what_the_environment_lacks_too() {
    let folder = folder("https://issuer.example/token", ", state_dirr: x");
    let output = run(folder.path(), &["check"], &[]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(told.contains("unknown key 'state_dirr'"), "{told}");
    assert_eq!(told.matches("Missing environment variable").count(), 3, "{told}");
}

#[test]
fn check_finds_a_proxy_that_run_would_refuse() {
    let folder = tempfile::tempdir().unwrap();
    let config = "settings: {port: 0, state_dir: x}\nproviders:\n  - {name: a, type: generic, base_url: 'http://127.0.0.1:9', auth_type: none, proxy: 'http://['}\n";
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    for command in ["check", "run"] {
        let output = run(folder.path(), &[command], &[]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        assert!(text(&output.stderr).contains("provider a: the proxy URL"), "{command}");
    }
}

#[test]
fn secrets_are_taken_from_the_service_managers_folder() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let file = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&file).unwrap();
    let config = config
        .replace("client_id_env: \"CLAUDE_CLIENT_ID\"", "client_id_file: id")
        .replace("client_secret_env: \"CLAUDE_CLIENT_SECRET\"", "client_secret_file: secret")
        .replace("refresh_token_env: \"CLAUDE_REFRESH_TOKEN\"", "refresh_token_file: ./token");
    std::fs::write(&file, config).unwrap();
    let credentials = folder.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("id"), "id-of-the-service\n").unwrap();
    std::fs::write(credentials.join("secret"), "secret-of-the-service\n").unwrap();
    std::fs::write(folder.path().join("token"), "token-beside-the-file\n").unwrap();
    let without = run(folder.path(), &["check"], &[]);
    assert_eq!(without.status.code(), Some(78));
    assert!(text(&without.stderr).contains("Missing secret file: 'id'"), "{without:?}");
    let variables = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    let output = run(folder.path(), &["refresh"], &variables);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let sent = String::from_utf8(issuer.seen()[0].body.clone()).unwrap();
    for part in ["id-of-the-service", "secret-of-the-service", "token-beside-the-file"] {
        assert!(sent.contains(part), "{sent}");
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_is_found_by_check() {
    let folder = folder("http://127.0.0.1:9", "");
    std::fs::write(folder.path().join("state"), "").unwrap();
    let output = run(folder.path(), &["check"], &VARIABLES);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).contains("can't be written"));
}

#[test]
fn refresh_stores_a_token_that_run_then_uses() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let output = run(folder.path(), &["refresh", "--provider", "claude-code-official"], &VARIABLES);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(issuer.seen().len(), 1);
    let mut binary = Binary::start(folder.path(), &[], &VARIABLES);
    binary.wait_for("Using the stored token");
    assert_eq!(ask(binary.address(), get("/-/ready")).status, 200);
    assert_eq!(issuer.seen().len(), 1);
    binary.signal(Signal::USR1);
    eventually("SIGUSR1 refreshes", || issuer.seen().len() == 2);
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    let unknown = run(folder.path(), &["refresh", "--provider", "nobody"], &VARIABLES);
    assert_eq!(unknown.status.code(), Some(2));
    let told = text(&unknown.stderr);
    let words = "There is no provider 'nobody'; there are: claude-code-official";
    assert!(told.contains(words), "{told}");
    let failing = Peer::answering(|_| answer(500, ""));
    let other = self::folder(&failing.url(), "");
    assert_eq!(run(other.path(), &["refresh"], &VARIABLES).status.code(), Some(1));
}

#[test]
fn sigterm_and_sigint_end_with_0_and_a_second_one_at_once() {
    let issuer = granting();
    for signal in [Signal::TERM, Signal::INT] {
        let folder = folder(&issuer.url(), "");
        let mut binary = Binary::start(folder.path(), &[], &VARIABLES);
        binary.address();
        binary.signal(signal);
        assert_eq!(binary.code(), Some(0));
        binary.wait_for("Stopped");
    }
    // A request that never ends keeps the first signal waiting; the second does not wait.
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let provider = Peer::start(move |mut talk| {
        talk.request();
        let _ = released.recv();
    });
    let folder = folder(&issuer.url(), "");
    let path = folder.path().join("providers.yaml");
    let config =
        std::fs::read_to_string(&path).unwrap().replace("http://127.0.0.1:9", &provider.url());
    std::fs::write(&path, config).unwrap();
    let mut binary = Binary::start(folder.path(), &[], &VARIABLES);
    let mut client = crate::support::client::Client::connect(binary.address());
    client.send(get("/"));
    eventually("the request is upstream", || provider.seen().len() == 1);
    binary.signal(Signal::TERM);
    binary.wait_for("Stopping;");
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    drop(release);
}

#[test]
fn sighup_reads_the_configuration_again_and_a_broken_one_changes_nothing() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let file = folder.path().join("providers.yaml");
    let binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    let address = binary.address();
    binary.wait_for("Successfully refreshed");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("token_url", "tokn_url")).unwrap();
    binary.signal(Signal::HUP);
    binary.wait_for("did you mean 'token_url'?");
    let refused = binary.wait_for("The configuration was not reloaded; the one from 20");
    assert!(refused.ends_with("Z stays in use"), "{refused}");
    assert_eq!(ask(address, get("/-/ready")).status, 200);
    std::fs::write(&file, text).unwrap();
    binary.signal(Signal::HUP);
    binary.wait_for("Reloaded the configuration: 0 providers added, 0 changed, 1 kept, 0 removed");
}

/// One that may open 40 descriptors, and has its token.
fn with_40_descriptors(folder: &Path) -> Binary {
    let script = format!("ulimit -n 40; exec {} run", env!("CARGO_BIN_EXE_evertoken"));
    let binary = Binary::start_shell(folder, &script, &VARIABLES);
    binary.wait_for("Successfully refreshed");
    binary
}

#[test]
fn exhausted_descriptors_are_survived() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let binary = with_40_descriptors(folder.path());
    let address = binary.address();
    let held: Vec<_> = (0..80).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    binary.wait_for("No connection can be accepted");
    drop(held);
    assert_eq!(ask(address, get("/-/ready")).status, 200);
}

/// Seen: Linux refuses to wait for a connection without a descriptor for it, so that the client who had waited
/// longest was sent away for nobody, one every 50 ms.
#[cfg(target_os = "linux")]
#[test]
fn the_last_descriptor_was_taken_from_its_client_though_nobody_else_came() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let binary = with_40_descriptors(folder.path());
    let address = binary.address();
    // Higher ones were open before the limit.
    let has_place = |number: u32| {
        std::fs::symlink_metadata(format!("/proc/{}/fd/{number}", binary.id())).is_err()
    };
    let mut clients = Vec::new();
    while (0..40).any(has_place) {
        let mut client = crate::support::client::Client::connect(address);
        client.send(get("/-/ready"));
        assert_eq!(client.answer().status, 200);
        clients.push(client);
    }
    assert!(clients.len() > 5, "{}", clients.len());
    for client in &mut clients {
        client.send(get("/-/ready"));
        assert_eq!(client.answer().status, 200);
    }
    let told = binary.lines();
    assert!(!told.iter().any(|line| line.contains("can be accepted")), "{told:?}");
}

#[test]
fn under_umask_000_what_is_in_the_state_folder_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("claude-code-official.lock"), "").unwrap();
    let script = format!("umask 000; exec {} refresh", env!("CARGO_BIN_EXE_evertoken"));
    let mut binary = Binary::start_shell(folder.path(), &script, &VARIABLES);
    assert_eq!(binary.code(), Some(0), "{:?}", binary.lines());
    let entries: Vec<_> = std::fs::read_dir(&state).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 2, "{entries:?}");
    for entry in entries {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{entry:?}");
    }
}

fn pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Seen: nothing was said, and SIGTERM was not heard while the file was waited for.
#[test]
fn a_pipe_in_the_place_of_a_file_is_an_error_and_not_waited_for() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let config = folder.path().join("providers.yaml");
    let text = std::fs::read_to_string(&config).unwrap();
    let fifo = folder.path().join("fifo");
    pipe(&fifo);
    for arguments in [&["run", "--config", "fifo"][..], &["check", "--config", "fifo"]] {
        let output = run(folder.path(), arguments, &VARIABLES);
        assert_eq!(output.status.code(), Some(78));
        let told = text_of(&output);
        assert!(told.contains("fifo: can't be read: it is a pipe, no regular file; "), "{told}");
    }
    let with_secret = text.replace(
        "refresh_token_env: \"CLAUDE_REFRESH_TOKEN\"",
        &format!("refresh_token_file: \"{}\"", fifo.display()),
    );
    std::fs::write(&config, with_secret).unwrap();
    let told = text_of(&run(folder.path(), &["refresh"], &VARIABLES));
    assert!(told.contains("Missing secret file: '"), "{told}");
    assert!(told.contains("it is a pipe, no regular file"), "{told}");
    // The file of a running one becomes a pipe.
    std::fs::write(&config, &text).unwrap();
    let mut binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    binary.wait_for("Successfully refreshed");
    std::fs::remove_file(&config).unwrap();
    pipe(&config);
    binary.signal(Signal::HUP);
    binary.wait_for("can't be read: it is a pipe, no regular file");
    binary.wait_for("The configuration was not reloaded");
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// A limit of the size of files ended the process with SIGXFSZ.
#[test]
fn a_limit_of_the_size_of_files_ends_nothing_and_costs_no_token() {
    let issuer = granting();
    let folder = folder(&issuer.url(), "");
    let script = format!("ulimit -f 0; exec {} run", env!("CARGO_BIN_EXE_evertoken"));
    let binary = Binary::start_shell(folder.path(), &script, &VARIABLES);
    binary.wait_for("can't be written");
    binary.wait_for("Successfully refreshed");
    let ready = ask(binary.address(), get("/-/ready"));
    assert!(ready.status == 200 && ready.body.contains("File too large"), "{ready:?}");
}
