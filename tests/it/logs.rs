//! The log of the real binary: a line a request, JSON, `--quiet`, the journal's manners.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Binary, command, run, text};
use crate::support::client::{Client, ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

/// A folder with a configuration for one provider at `url`.
fn folder(url: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: '{}/state'}}
providers:
  - {{name: The Provider, type: anthropic, base_url: '{url}', auth_value_env: KEY}}
",
        folder.path().display()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    folder
}

const VARIABLES: [(&str, &str); 1] = [("KEY", "static-credential-9a9a")];

fn provider() -> Peer {
    Peer::answering(|_| answer(200, "fourteen bytes"))
}

/// Starts the binary with `arguments`, has one request forwarded and one refused.
fn used(folder: &tempfile::TempDir, arguments: &[&str]) -> Binary {
    let binary = Binary::start(folder.path(), arguments, &VARIABLES);
    let address = binary.address();
    assert_eq!(ask(address, post("/v1/messages?key=secret-8d8d", "seventeen bytes..")).status, 200);
    assert_eq!(ask(address, get("/to/nobody/x")).status, 404);
    binary
}

/// The first line that holds `part`, as JSON.
fn object(binary: &Binary, part: &str) -> Value {
    serde_json::from_str(&binary.wait_for(part)).unwrap()
}

#[test]
fn a_line_a_request() {
    let provider = provider();
    let folder = folder(&provider.url());
    let binary = used(&folder, &["run"]);
    let line = binary.wait_for("POST /v1/messages");
    let (start, rest) = line.split_once(", head after ").unwrap();
    let expected = "[INFO] POST /v1/messages -> 200 from The Provider, 17 B in, 14 B out";
    assert!(start.ends_with(expected), "{line}");
    assert!(rest.ends_with(" s in all"), "{line}");
    let refused = binary.wait_for("GET /to/nobody/x -> 404, 0 B in, ");
    assert!(refused.contains("[INFO]"), "{refused}");
    // Supervisors would fill the log with these.
    assert_eq!(ask(binary.address(), get("/-/healthy")).status, 200);
    assert_eq!(ask(binary.address(), get("/after")).status, 200);
    binary.wait_for("GET /after -> 200");
    assert!(!binary.lines().iter().any(|line| line.contains("/-/healthy")));
}

#[test]
fn json_is_one_object_a_line_with_the_request_as_fields() {
    let provider = provider();
    let folder = folder(&provider.url());
    let mut binary = used(&folder, &["run", "--log-format", "json"]);
    let forwarded = object(&binary, "POST /v1/messages");
    for (field, expected) in [
        ("level", "INFO".into()),
        ("method", "POST".into()),
        ("path", "/v1/messages".into()),
        ("provider", "The Provider".into()),
        ("status", 200.into()),
        ("received_bytes", 17.into()),
        ("sent_bytes", 14.into()),
        ("attempts", 1.into()),
        ("cut", Value::Null),
    ] {
        assert_eq!(forwarded[field], expected, "{field} of {forwarded}");
    }
    assert!(forwarded["duration_seconds"].is_f64() && forwarded["time"].is_string());
    assert!(forwarded["time_to_first_byte_seconds"].is_f64(), "{forwarded}");
    let refused = object(&binary, "GET /to/nobody/x");
    assert_eq!((&refused["status"], &refused["provider"]), (&404.into(), &Value::Null));
    assert_eq!(refused["attempts"], 0);
    binary.signal(rustix::process::Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    binary.wait_for("Stopped");
    for line in binary.lines() {
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(value["message"].is_string() && value["level"].is_string(), "{line}");
        assert!(!line.contains("secret-8d8d") && !line.contains("9a9a"), "{line}");
    }
}

#[test]
fn the_fixed_lines_keep_their_words_in_json() {
    let issuer = Peer::answering(|_| answer(401, ""));
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}
providers:
  - name: Claude Code Official
    type: anthropic
    base_url: http://127.0.0.1:9
    auto_refresh_config: {{token_url: '{}', client_id_env: ID, refresh_token_env: SEED}}
  - name: Other
    type: anthropic
    base_url: http://127.0.0.1:9
    auto_refresh_config: {{token_url: '{0}', client_id_env: NOT_THERE, refresh_token_env: SEED}}
",
        issuer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    let variables = [("ID", "abcdefgh"), ("SEED", "seed-refresh-token-51bd")];
    let binary = Binary::start(folder.path(), &["--log-format=json"], &variables);
    let official = "Claude Code Official";
    for (level, words, provider) in [
        ("INFO", "Starting token refresh for provider: Claude Code Official", official),
        ("ERROR", "Failed to refresh token: 401 Unauthorized", official),
        ("ERROR", "Missing environment variable: 'NOT_THERE'", "Other"),
    ] {
        let line = object(&binary, words);
        assert_eq!((&line["level"], &line["provider"]), (&level.into(), &provider.into()));
        assert!(line["message"].as_str().unwrap().starts_with(words), "{line}");
    }
}

#[test]
fn what_keeps_the_log_from_beginning_is_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["run", "--log-format", "json"], &[]);
    assert_eq!(output.status.code(), Some(78));
    let value: Value = serde_json::from_str(text(&output.stderr).trim_end()).unwrap();
    assert_eq!(value["level"], "ERROR");
    assert!(value["message"].as_str().unwrap().starts_with("providers.yaml: can't be read"));
}

#[test]
fn quiet_is_warnings_and_errors_and_rust_log_wins() {
    let provider = provider();
    let folder = folder(&provider.url());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = port.local_addr().unwrap().to_string();
    // The address is in use: an error comes, and what would have come before it does not.
    let output = run(folder.path(), &["run", "--quiet", "--listen", &listen], &VARIABLES);
    assert_eq!(output.status.code(), Some(69));
    let told = text(&output.stderr);
    assert!(told.lines().count() == 1 && told.contains("[ERROR] can't listen on"), "{told}");
    drop(port);
    let variables = [VARIABLES[0], ("RUST_LOG", "info")];
    let binary = Binary::start(folder.path(), &["-q"], &variables);
    binary.wait_for("[INFO] Listening on");
    let quiet = run(folder.path(), &["refresh", "--quiet"], &VARIABLES);
    assert!(!text(&quiet.stderr).contains("[INFO]"));
}

/// Starts the binary from a shell that sets `$JOURNAL_STREAM` to `stream`, a shell word.
fn in_journal(folder: &tempfile::TempDir, stream: &str, arguments: &str) -> Binary {
    let binary = env!("CARGO_BIN_EXE_evertoken");
    let script = format!(
        "PATH=/usr/bin:/bin; export JOURNAL_STREAM={stream}; exec {binary} run {arguments}"
    );
    Binary::start_shell(folder.path(), &script, &VARIABLES)
}

#[test]
fn in_the_journal_there_is_a_priority_and_no_timestamp() {
    const OWN: &str = "\"$(stat -L -c %d:%i /proc/self/fd/2)\"";
    let provider = provider();
    let folder = folder(&provider.url());
    let binary = in_journal(&folder, OWN, "");
    let line = binary.wait_for("Listening on");
    assert!(line.starts_with("<6>[INFO] Listening on http://127.0.0.1:"), "{line}");
    let binary = in_journal(&folder, OWN, "--log-format json");
    let line = binary.wait_for("Listening on");
    let value: Value = serde_json::from_str(line.strip_prefix("<6>").unwrap()).unwrap();
    assert!(value["message"].as_str().unwrap().starts_with("Listening on"));
    let binary = in_journal(&folder, OWN, "--config none.yaml");
    assert!(binary.wait_for("can't be read").starts_with("<3>none.yaml: can't be read"));
}

#[test]
fn a_journal_stream_that_is_not_our_stderr_changes_nothing() {
    let provider = provider();
    let folder = folder(&provider.url());
    for stream in ["8:12345", "''", "rubbish"] {
        let line = in_journal(&folder, stream, "").wait_for("Listening on");
        assert!(line.starts_with("20") && line.contains("Z [INFO] Listening on"), "{line}");
    }
}

/// A child that is ended with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads lines of `stderr` until one holds `part`.
fn read_until(stderr: &mut impl std::io::BufRead, part: &str) -> String {
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "no line with '{part}'");
    }
    line
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_no_request_and_no_stop() {
    let provider = provider();
    let folder = folder(&provider.url());
    let mut command = command(folder.path(), &["run"], &VARIABLES);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut child = Killed(child);
    let mut stderr = std::io::BufReader::new(child.0.stderr.take().unwrap());
    let line = read_until(&mut stderr, "Listening on http://");
    let address = line.trim().split("http://").nth(1).unwrap().parse().unwrap();
    // More than the pipe and the backlog take.
    let path = format!("/{}", "x".repeat(8_000));
    for _ in 0..100 {
        assert_eq!(ask(address, get(&path)).status, 200);
    }
    // A line is written, or dropped, at a moment after its answer.
    let dropped = || {
        let metrics = ask(address, get("/-/metrics")).body;
        let mut lines = metrics.lines();
        let number = lines.find_map(|line| line.strip_prefix("evertoken_log_lines_dropped_total "));
        number.unwrap().parse::<u64>().unwrap()
    };
    eventually("lines were dropped", || dropped() >= 20);
    let before = dropped();
    let said = read_until(&mut stderr, "log lines were dropped");
    let number = said.split("[WARN] ").nth(1).and_then(|rest| rest.split(' ').next());
    let number: u64 = number.and_then(|number| number.parse().ok()).unwrap();
    // Pages have no line.
    assert!((before..=100).contains(&number), "{before}: {said}");
    eventually("the metric has what the line says", || dropped() == number);
    assert!(said.ends_with(" log lines were dropped, since stderr took no more\n"), "{said}");
    for _ in 0..100 {
        assert_eq!(ask(address, get(&path)).status, 200);
    }
    let id = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let mut status = None;
    eventually("the process ends", || {
        status = child.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn every_line_is_there_after_a_stop() {
    let provider = provider();
    let folder = folder(&provider.url());
    let mut binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    let address = binary.address();
    let mut client = Client::connect(address);
    for index in 0..50 {
        client.send(get(&format!("/number-{index}-")));
        assert_eq!(client.answer().status, 200);
    }
    binary.signal(rustix::process::Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    let lines = binary.lines();
    let numbers: Vec<String> = lines
        .iter()
        .filter_map(|line| Some(line.split("/number-").nth(1)?.split('-').next()?.to_owned()))
        .collect();
    assert_eq!(numbers, (0..50).map(|index| index.to_string()).collect::<Vec<_>>());
    assert!(lines.last().unwrap().ends_with("Stopped"));
}

#[test]
fn a_warning_of_the_configuration_was_called_one_twice() {
    let folder = tempfile::tempdir().unwrap();
    let provider = |name: &str| {
        format!(
            "  - {{name: {name}, type: openai, base_url: 'http://127.0.0.1:9', auth_type: none, streaming_mode: x}}\n"
        )
    };
    let write = |providers: &str| {
        let config = format!("settings: {{port: 0, state_dir: state}}\nproviders:\n{providers}");
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    };
    write(&provider("A"));
    let binary = Binary::start(folder.path(), &["run"], &[]);
    binary.address();
    let line = binary.wait_for("providers.yaml:3:78: 'streaming_mode' in a provider is not used");
    assert!(line.contains("[WARN] ") && !line.contains("warning"), "{line}");
    write(&(provider("A") + &provider("B")));
    binary.signal(Signal::HUP);
    let line = binary.wait_for("providers.yaml:4:78: 'streaming_mode' in a provider is not used");
    assert!(line.contains("[WARN] ") && !line.contains("warning"), "{line}");
    binary.wait_for("Reloaded the configuration: 1 provider added, 0 changed, 1 kept, 0 removed");
}

#[test]
fn the_name_of_a_key_was_in_no_line_and_no_metric() {
    let provider = provider();
    let folder = folder(&provider.url());
    let path = folder.path().join("providers.yaml");
    let config = std::fs::read_to_string(&path).unwrap();
    let auth = "auth: {enabled: true, api_key_env: PLAIN, keys: [{name: ci, key_env: CI}]}, port";
    std::fs::write(&path, config.replace("port", auth)).unwrap();
    let variables = [
        ("KEY", "static-credential-9a9a"),
        ("PLAIN", "plain-7b7b\nfriend: friend-6c6c"),
        ("CI", "listed-5d5d"),
    ];
    let mut binary = Binary::start(folder.path(), &["run", "--log-format", "json"], &variables);
    let address = binary.address();
    for (key, name, status) in [
        ("plain-7b7b", Some("default"), 200),
        ("friend-6c6c", Some("friend"), 200),
        ("listed-5d5d", Some("ci"), 200),
        ("wrong-4e4e", None, 401),
    ] {
        let shown = name.unwrap_or("none");
        assert_eq!(ask(address, get(&format!("/for/{shown}?key={key}"))).status, status);
        let line = object(&binary, &format!("GET /for/{shown}"));
        assert_eq!(line["key"], Value::from(name), "{line}");
        let said = name.map_or(String::from(", 0 B in"), |name| format!(", key {name}, 0 B in"));
        assert!(line["message"].as_str().unwrap().contains(&said), "{line}");
    }
    let refused = ask(address, get("/to/nobody/x?key=listed-5d5d"));
    assert_eq!(refused.status, 404);
    binary.wait_for("GET /to/nobody/x");
    let metrics = ask(address, get("/-/metrics?key=plain-7b7b")).body;
    for line in [
        "evertoken_key_requests_total{code=\"200\",key=\"ci\"} 1\n",
        "evertoken_key_requests_total{code=\"404\",key=\"ci\"} 1\n",
        "evertoken_key_requests_total{code=\"200\",key=\"friend\"} 1\n",
        "evertoken_key_requests_total{code=\"200\",key=\"default\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    binary.signal(rustix::process::Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    for line in binary.lines() {
        assert!(!["7b7b", "6c6c", "5d5d", "4e4e"].iter().any(|key| line.contains(key)), "{line}");
    }
}
