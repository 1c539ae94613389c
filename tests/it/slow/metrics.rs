//! The metrics and the alert rules under Prometheus' own tool, `promtool`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::binary::text;
use crate::support::client::{Client, get, post};
use crate::support::eventually;
use crate::support::own_tls::Pair;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

/// Every metric of docs/reference.md: name, type and labels.
const METRICS: [(&str, &str, &[&str]); 30] = [
    ("evertoken_build_info", "gauge", &["version"]),
    ("evertoken_requests_total", "counter", &["code", "provider"]),
    ("evertoken_key_requests_total", "counter", &["code", "key"]),
    ("evertoken_requests_in_flight", "gauge", &[]),
    ("evertoken_request_duration_seconds", "histogram", &["provider"]),
    ("evertoken_time_to_first_byte_seconds", "histogram", &["provider"]),
    ("evertoken_upstream_errors_total", "counter", &["kind", "provider"]),
    ("evertoken_refreshes_total", "counter", &["outcome", "provider"]),
    ("evertoken_tokens_handed_out_total", "counter", &["provider"]),
    ("evertoken_token_expiry_timestamp_seconds", "gauge", &["provider"]),
    ("evertoken_provider_ready", "gauge", &["provider"]),
    ("evertoken_quota_remaining_ratio", "gauge", &["provider", "window"]),
    ("evertoken_quota_reset_timestamp_seconds", "gauge", &["provider", "window"]),
    ("evertoken_connections", "gauge", &[]),
    ("evertoken_listener_connections", "gauge", &["listener"]),
    ("evertoken_listener_accepted_total", "counter", &["listener"]),
    ("evertoken_listener_bytes_total", "counter", &["direction", "listener"]),
    ("evertoken_listener_failed_handshakes_total", "counter", &["listener"]),
    ("evertoken_certificate_begin_timestamp_seconds", "gauge", &["listener"]),
    ("evertoken_certificate_expiry_timestamp_seconds", "gauge", &["listener"]),
    ("evertoken_certificate_files_usable", "gauge", &["listener"]),
    ("evertoken_websockets", "gauge", &["provider"]),
    ("evertoken_websocket_duration_seconds", "histogram", &["provider"]),
    ("evertoken_websocket_bytes_total", "counter", &["direction", "provider"]),
    ("evertoken_log_lines_dropped_total", "counter", &[]),
    ("evertoken_refresh_token_expiry_timestamp_seconds", "gauge", &["provider"]),
    ("evertoken_usage_tokens_total", "counter", &["key", "kind", "model", "provider"]),
    ("evertoken_usage_unknown_answers_total", "counter", &["key", "model", "provider"]),
    ("evertoken_config_last_reload_successful", "gauge", &[]),
    ("evertoken_config_last_reload_success_timestamp_seconds", "gauge", &[]),
];

/// Runs it in the root of the project, where `tests/install/promtool` puts it, unless it is installed.
fn promtool(arguments: &[&str], input: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = root.join("target/promtool/promtool");
    let program = if own.exists() { own } else { "promtool".into() };
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there: CONTRIBUTING.md says where from");
    // It closes its end where it reads none.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

const GRANT: &str = r#"{"access_token":"t","expires_in":9,"refresh_token_expires_in":99999}"#;

/// A scrape in which everything has happened, under a name that has to be escaped.
fn scrape() -> String {
    let issuer = Peer::answering(|seen| {
        let fails = seen.line.contains("/fails");
        answer(if fails { 400 } else { 200 }, GRANT)
    });
    let provider = Peer::answering(|seen| {
        let limits = "HTTP/1.1 200 OK\r\nx-ratelimit-limit-tokens: 9\r\nx-ratelimit-remaining-tokens: 3\r\n\
                      x-ratelimit-reset-tokens: 1h\r\ncontent-length: 4\r\n\r\nfine";
        if seen.line.contains("fails") { answer(503, "fine") } else { limits.to_owned() }
    });
    let folder = tempfile::tempdir().unwrap();
    Pair::new().write(folder.path());
    let (at, path) = (folder.path().display().to_string(), folder.path().join("socket"));
    let proxy = TestProxy::builder()
        .settings(&format!(
            "auth: {{enabled: true, api_key: k}}, listen: ['127.0.0.1:0', 'unix:{at}/socket'], \
             tls: {{cert_file: '{at}/cert.pem', key_file: '{at}/key.pem'}}"
        ))
        .refreshed("A \\\"quoted\\\" \\\\ 名", &provider.url(), &issuer.url(), "")
        .refreshed("Failing", &provider.url(), &format!("{}/fails", issuer.url()), "")
        .start();
    // Over the unix socket, which is without TLS.
    let ask = |request: String| {
        let mut client = Client::connect_unix(&path);
        client.send(request);
        client.answer()
    };
    eventually("both have tried", || {
        let status = ask(get("/-/status?key=k")).json();
        status["providers"][0]["refresh"]["successes"] == 1
            && status["providers"][1]["refresh"]["failures"] != 0
    });
    assert_eq!(ask(get("/v1/messages?key=k")).status, 200);
    assert_eq!(ask(get("/v1/messages?fails&key=k")).status, 503);
    assert_eq!(ask(post("/v1/messages?key=k", "{}")).status, 200);
    assert_eq!(ask(post("/-/healthy?key=k", "")).status, 405);
    let mut scraped = String::new();
    // A request is counted a moment after its client has the last byte of the answer.
    eventually("all is counted", || {
        scraped = ask(get("/-/metrics?key=k")).body;
        METRICS.iter().all(|(name, ..)| sample(&scraped, name).is_some())
    });
    drop(proxy);
    scraped
}

/// The first sample of the metric `name`.
fn sample<'a>(scraped: &'a str, name: &str) -> Option<&'a str> {
    scraped.lines().find(|line| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        rest.starts_with([' ', '{']) || rest.starts_with("_count")
    })
}

#[test]
fn each_metric_is_there_and_prometheus_takes_them_all() {
    let scraped = scrape();
    assert_eq!(promtool(&["check", "metrics"], &scraped), "", "{scraped}");
    for (name, kind, labels) in METRICS {
        assert!(scraped.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {scraped}");
        assert!(scraped.contains(&format!("# HELP {name} ")), "{name}");
        let sample = sample(&scraped, name).expect("it was waited for");
        for label in labels {
            assert!(sample.contains(&format!("{label}=\"")), "{label}: {sample}");
        }
        assert_eq!(sample.matches("=\"").count(), labels.len(), "{sample}");
    }
    let named = scraped.lines().filter(|line| line.starts_with("# TYPE"));
    assert_eq!(named.count(), METRICS.len(), "there is no other: {scraped}");
}

#[test]
fn alert_rules_are_valid_and_raised_when_they_should_be() {
    assert!(promtool(&["check", "rules", "contrib/alerts.yaml"], "").contains("11 rules found"));
    promtool(&["test", "rules", "tests/data/alerts.test.yaml"], "");
}
