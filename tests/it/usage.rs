//! The tokens of answers: counted by provider, model and key, whatever passes, and kept by day.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{after, never};
use evertoken::testing::{Clock, Moment, Timestamp};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::binary::{Binary, run, text};
use crate::support::client::{Client, ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, Seen};
use crate::support::proxy::{Builder, TestProxy};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// An answer with these fields.
fn typed(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\n{fields}\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn message(model: &str, input: u64, output: u64) -> String {
    format!(
        "{{\"model\":\"{model}\",\"content\":[{{\"text\":\"\\\"usage\\\":{{\\\"input_tokens\\\":9}}\"}}],\"usage\":\
         {{\"input_tokens\":{input},\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":1,\
         \"output_tokens\":{output}}}}}"
    )
}

fn message_events(input: u64, output: u64) -> String {
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"model\":\"claude\",\"usage\":\
         {{\"input_tokens\":{input},\"output_tokens\":1}}}}}}\n\nevent: content_block_delta\ndata: {{\"type\":\
         \"content_block_delta\",\"delta\":{{\"text\":\"usage\"}}}}\n\nevent: message_delta\ndata: {{\"type\":\
         \"message_delta\",\"usage\":{{\"output_tokens\":{output}}}}}\n\n"
    )
}

/// The same bytes in a gzip file of stored blocks.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut file = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01".to_vec();
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(bytes);
    file.extend([0; 8]);
    file
}

/// Answers by the path after `/v1`: each of its words is a property of the answer.
fn provider() -> Peer {
    Peer::answering_bytes(|seen: &Seen| {
        let is = |word: &str| seen.line.contains(word);
        let json = message("claude", 10, 20);
        let chat = r#"{"model":"gpt","usage":{"prompt_tokens":9,"completion_tokens":4}}"#;
        if is("error") {
            return typed(400, "content-type: application/json", b"{\"error\":{\"usage\":1}}");
        }
        if is("count_tokens") {
            return typed(200, "content-type: application/json", b"{\"input_tokens\":7}");
        }
        if is("gzip") {
            let fields = "content-type: application/json\r\ncontent-encoding: gzip";
            return typed(200, fields, &gzip(json.as_bytes()));
        }
        if is("brotli") {
            let fields = "content-type: application/json\r\ncontent-encoding: br";
            return typed(200, fields, b"\x0b\x02\x80abc\x03");
        }
        if is("untyped") {
            return typed(200, "x: y", json.as_bytes());
        }
        if is("chat") {
            return typed(200, "content-type: application/json", chat.as_bytes());
        }
        if is("stream") {
            let events = message_events(100, 50);
            return typed(200, &format!("content-type: {EVENTS}"), events.as_bytes());
        }
        typed(200, &format!("content-type: {JSON}"), json.as_bytes())
    })
}

fn builder(peer: &Peer) -> Builder {
    TestProxy::builder()
        .settings("auth: {enabled: true, api_key_env: KEYS}")
        .variable("KEYS", "alone\nci: second")
        .provider("P", "generic", &peer.url(), "auth_value: fixed")
}

/// A POST with the key `key` for the model `asked`.
fn asking(path: &str, key: &str) -> String {
    post(path, r#"{"model":"asked"}"#).replacen("\r\n", &format!("\r\nx-api-key: {key}\r\n"), 1)
}

/// The status of the answer to a POST, whose body may be any bytes.
fn status(proxy: &TestProxy, path: &str, key: &str) -> u16 {
    let mut client = Client::connect(proxy.address);
    client.send(asking(path, key));
    let head = client.head();
    let length = head.field("content-length").and_then(|length| length.parse().ok());
    client.bytes(length.expect("it has a length"));
    head.status
}

/// The metrics of this name, without their name: `{labels} number`, those that are not 0.
fn metric(proxy: &TestProxy, name: &str) -> Vec<String> {
    let text = proxy.ask(get("/-/metrics?key=alone")).body;
    let lines = text.lines().filter_map(|line| line.strip_prefix(name));
    lines.filter(|line| line.starts_with('{') && !line.ends_with(" 0")).map(str::to_owned).collect()
}

/// All tokens of these labels.
fn tokens(proxy: &TestProxy, labels: &[&str]) -> u64 {
    let lines = metric(proxy, "evertoken_usage_tokens_total");
    let wanted = lines.iter().filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

#[test]
fn tokens_are_counted_by_provider_model_and_key() {
    let peer = provider();
    let proxy = builder(&peer).start();
    let ask = |path: &str, key: &str| status(&proxy, path, key);
    assert_eq!(ask("/v1/messages", "alone"), 200);
    assert_eq!(ask("/v1/messages?gzip", "alone"), 200);
    assert_eq!(ask("/v1/messages?stream", "second"), 200);
    assert_eq!(ask("/to/p/v1/chat/completions", "second"), 200);
    let expected = [
        (vec!["model=\"claude\"", "key=\"default\"", "kind=\"input\""], 20),
        (vec!["model=\"claude\"", "key=\"default\"", "kind=\"output\""], 40),
        (vec!["model=\"claude\"", "key=\"default\"", "kind=\"cache_read\""], 2),
        (vec!["model=\"claude\"", "key=\"default\"", "kind=\"cache_write\""], 4),
        (vec!["model=\"claude\"", "key=\"ci\"", "kind=\"input\""], 100),
        (vec!["model=\"claude\"", "key=\"ci\"", "kind=\"output\""], 50),
        (vec!["model=\"gpt\"", "key=\"ci\""], 13),
        (vec!["provider=\"P\""], 20 + 40 + 2 + 4 + 150 + 13),
    ];
    for (labels, count) in expected {
        // An answer is counted after its last byte has gone out.
        eventually(&format!("{labels:?}: {count}"), || tokens(&proxy, &labels) == count);
    }
    assert_eq!(metric(&proxy, "evertoken_usage_unknown_answers_total"), [""; 0]);
}

/// It counted under an empty name.
#[test]
fn an_answer_that_names_no_model_counts_under_the_one_of_the_request() {
    let peer = Peer::answering_bytes(|_| {
        let body = b"{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}";
        typed(200, "content-type: application/json", body)
    });
    let proxy = builder(&peer).start();
    let long = format!("{{\"model\":\"long\",\"input\":\"{}\"}}", "x".repeat(10_000));
    for (path, body) in [
        ("/v1/chat/completions", "{\"model\":\"short\"}"),
        ("/v1/embeddings", &long),
        ("/openai/deployments/in-path/chat/completions", "{}"),
        ("/v1/completions", "{}"),
    ] {
        let asked = post(&format!("{path}?key=alone"), body);
        assert_eq!(proxy.ask(asked).status, 200);
    }
    for model in ["short", "long", "in-path", "unknown"] {
        let label = format!("model=\"{model}\"");
        eventually(&label, || tokens(&proxy, &[&label]) == 13);
    }
}

#[test]
fn an_answer_that_can_t_be_read_is_unknown_and_not_nothing() {
    let peer = provider();
    let proxy = builder(&peer).start();
    assert_eq!(status(&proxy, "/v1/messages?brotli", "second"), 200);
    assert_eq!(status(&proxy, "/v1/messages?untyped", "second"), 200);
    assert_eq!(status(&proxy, "/v1/messages/count_tokens", "second"), 200);
    assert_eq!(status(&proxy, "/v1/messages?error", "second"), 400);
    eventually("it is unknown", || {
        metric(&proxy, "evertoken_usage_unknown_answers_total")
            == ["{key=\"ci\",model=\"asked\",provider=\"P\"} 2"]
    });
    assert_eq!(tokens(&proxy, &[]), 0);
}

/// The sum of a count in the file of a day.
fn sum(folder: &Path, day: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(folder.join(format!("usage/{day}.json"))).unwrap();
    let content: Value = serde_json::from_str(&text).unwrap();
    let runs = content["runs"].as_array().unwrap().iter();
    let rows = runs.flat_map(|run| run["rows"].as_array().unwrap());
    rows.map(|row| row["counts"][name].as_u64().unwrap()).sum()
}

fn clock_at(text: &str) -> Clock {
    let wall = Timestamp::parse_rfc3339(text).unwrap();
    Clock::from_fn(move || Moment { wall, steady_ms: 1 })
}

#[test]
fn a_restart_and_a_second_process_continue_the_day() {
    let peer = provider();
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("state_dir: \"{}\"", folder.path().display());
    let started = || {
        let clock = clock_at("2026-12-24T23:59:59Z");
        let one = TestProxy::builder().settings(&settings).clock(clock);
        one.provider("P", "generic", &peer.url(), "auth_value: fixed").start()
    };
    let (mut one, mut other) = (started(), started());
    for proxy in [&one, &other] {
        assert_eq!(proxy.ask(post("/v1/messages", "{}")).status, 200);
    }
    one.stop();
    other.stop();
    let counts = |name: &str| sum(folder.path(), "2026-12-24", name);
    assert_eq!((counts("requests"), counts("input")), (2, 20));
    let mut again = started();
    assert_eq!(again.ask(post("/v1/messages", "{}")).status, 200);
    again.stop();
    assert_eq!((counts("requests"), counts("output")), (3, 60));
}

#[test]
fn a_stream_that_is_cut_counts_what_it_reported_before() {
    let peer = Peer::start(|mut talk| {
        talk.request();
        let events = message_events(100, 50);
        let start = events.find("event: message_delta").unwrap();
        let head = format!(
            "HTTP/1.1 200 X\r\ncontent-type: {EVENTS}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        talk.send(format!("{head}{start:x}\r\n{}\r\n", &events[..start]));
    });
    let proxy = builder(&peer).start();
    let mut client = Client::connect(proxy.address);
    client.send(asking("/v1/messages", "alone"));
    assert_eq!(client.head().status, 200);
    client.rest(&mut Vec::new());
    eventually("it is counted", || tokens(&proxy, &["kind=\"input\""]) == 100);
    assert_eq!(tokens(&proxy, &["kind=\"output\""]), 1);
    let folder = proxy.into_folder();
    let usage = std::fs::read_dir(folder.path().join("usage")).unwrap();
    let name = usage.filter_map(|one| one.unwrap().file_name().into_string().ok());
    let day = name.filter_map(|name| name.strip_suffix(".json").map(str::to_owned));
    let day = day.collect::<String>();
    assert_eq!(sum(folder.path(), &day, "cut"), 1);
}

#[test]
fn nothing_is_counted_or_written_when_usage_is_off() {
    let peer = provider();
    let proxy = builder(&peer).settings("usage: false").start();
    assert_eq!(proxy.ask(asking("/v1/messages", "alone")).status, 200);
    assert_eq!(metric(&proxy, "evertoken_usage_tokens_total"), [""; 0]);
    assert!(!proxy.into_folder().path().join("usage").exists());
}

/// Each save wears out flash memory.
#[test]
fn counts_gather_for_as_long_as_the_configuration_says() {
    const SECONDS: u64 = 86_399;
    // Only a wait of this length ends.
    let timer = |length| {
        if length == Duration::from_secs(SECONDS) { after(Duration::ZERO) } else { never() }
    };
    let peer = provider();
    let proxy = builder(&peer).settings(&format!("save_interval: {SECONDS}")).timer(timer).start();
    assert_eq!(proxy.ask(asking("/v1/messages", "alone")).status, 200);
    let folder = proxy.folder().join("usage");
    eventually("it is saved before the stop", || folder.exists());
}

#[test]
fn a_reload_turns_it_on_and_off() {
    let peer = provider();
    let plain = |usage: &str| {
        let one = TestProxy::builder().settings(&format!("usage: {usage}"));
        one.provider("P", "generic", &peer.url(), "auth_value: fixed")
    };
    let proxy = plain("false").start();
    let mut expected = 0;
    for usage in ["true", "false", "true"] {
        assert_eq!(proxy.reload(&plain(usage)).status, 200);
        assert_eq!(proxy.ask(post("/v1/messages", "{}")).status, 200);
        if usage == "true" {
            expected += 33;
            // The client has its answer a moment before it is counted.
            eventually("it is counted", || tokens(&proxy, &[]) == expected);
        }
    }
}

/// A disk that takes nothing is said once, holds up nothing, and costs no exit code.
#[test]
fn usage_that_can_t_be_saved_is_said_and_the_process_ends_well() {
    let peer = provider();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state}}\nproviders:\n  - {{name: P, type: generic, base_url: '{}', auth_type: none}}\n",
        peer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/usage"), "in the way").unwrap();
    let mut binary = Binary::start(folder.path(), &["run"], &[]);
    let address = binary.address();
    assert_eq!(ask(address, post("/v1/messages", "{}")).status, 200);
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    let line = binary.wait_for("The usage can't be saved (");
    assert!(line.contains("[WARN]"), "{line}");
    let lost = "and evertoken stops; what was not saved is lost: 1 answer with 33 tokens";
    assert!(line.ends_with(lost), "how much was lost was not said: {line}");
}

/// Another process that never lets go of the lock is as a disk that never answers.
#[test]
fn a_disk_that_hung_at_the_stop_swallowed_counts_without_saying_how_many() {
    let peer = provider();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "settings: {{port: 0, state_dir: state, shutdown_grace: 1}}\nproviders:\n  - {{name: P, type: generic, base_url: \
         '{}', auth_type: none}}\n",
        peer.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    std::fs::create_dir_all(folder.path().join("state/usage")).unwrap();
    let lock = std::fs::File::create(folder.path().join("state/usage/.lock")).unwrap();
    lock.lock().unwrap();
    let mut binary = Binary::start(folder.path(), &["run"], &[]);
    for _ in 0..2 {
        assert_eq!(ask(binary.address(), post("/v1/messages", "{}")).status, 200);
    }
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
    let line = binary.wait_for("The disk hangs, and evertoken stops");
    assert!(line.contains("[WARN]"), "{line}");
    assert!(line.ends_with("; what was not saved is lost: 2 answers with 66 tokens"), "{line}");
}

/// A folder with a configuration and the usage of two days.
fn counted() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = "settings: {state_dir: state, auth: {enabled: true, api_key_env: NOT_HERE}}\nproviders:\n  - {name: P, type: \
                  generic, base_url: 'http://127.0.0.1:9', auth_value_env: NOT_HERE_EITHER}\n";
    std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
    std::fs::create_dir_all(folder.path().join("state/usage")).unwrap();
    for (day, input) in [("2026-11-01", 1000), ("2026-11-02", 234)] {
        let text = format!(
            "{{\"version\":1,\"day\":\"{day}\",\"runs\":[{{\"run\":\"r\",\"rows\":[{{\"provider\":\"P\",\"model\":\"m\",\"key\":\"ci\",\"counts\":\
             {{\"requests\":1,\"input\":{input}}}}}]}}]}}"
        );
        let path = folder.path().join(format!("state/usage/{day}.json"));
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// The exit code, stdout and stderr of `evertoken usage`.
fn printed(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = run(folder, &[&["usage"], arguments].concat(), &[]);
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_adds_up_days_without_the_variables_of_the_service() {
    let folder = counted();
    let since = ["--since", "2026-11-01"];
    let (code, out, err) = printed(folder.path(), &since);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("\nP         m      ci          2  1,234 "), "{out}");
    let (_, out, _) = printed(folder.path(), &[&since[..], &["--by", "model", "--csv"]].concat());
    let names = "model,requests,input,cache_read,cache_write,output,unknown,cut";
    assert_eq!(out, format!("{names}\nm,2,1234,0,0,0,0,0\n"));
    let (_, out, _) = printed(folder.path(), &["--since", "2026-11-02", "--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["rows"][0]["key"], &json["total"]["input"]), (&"ci".into(), &234.into()));
    let (code, out, _) = printed(folder.path(), &["--since", "2999-01-01"]);
    assert_eq!(code, 0);
    assert!(out.contains("None were counted."), "{out}");
}

#[test]
fn the_command_says_what_is_wrong() {
    let folder = counted();
    for wrong in ["2026-13-01", "yesterday", "11/01/2026", ""] {
        let (code, _, err) = printed(folder.path(), &["--since", wrong]);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("it is not a date such as 2026-11-01"), "{err}");
    }
    let (code, _, err) = printed(folder.path(), &["--by", "color"]);
    assert_eq!(code, 2);
    assert!(err.contains("provider, model, key, day"), "{err}");
    assert_eq!(printed(folder.path(), &["--json", "--csv"]).0, 2);
    assert_eq!(printed(folder.path(), &["--config", "none.yaml"]).0, 78);
    let day = folder.path().join("state/usage/2026-11-02.json");
    std::fs::write(day, "{").unwrap();
    let (code, _, err) = printed(folder.path(), &["--since", "2026-11-01"]);
    assert_eq!(code, 1);
    assert!(err.contains("2026-11-02.json holds no counts"), "{err}");
}

#[test]
fn the_page_and_the_status_show_today_and_seven_days_by_model() {
    let peer = provider();
    let proxy =
        TestProxy::builder().provider("P", "generic", &peer.url(), "auth_value: fixed").start();
    assert!(proxy.ask(get("/-/")).body.contains("None in the last 7 days"));
    assert_eq!(proxy.ask(post("/v1/messages", "{}")).status, 200);
    let usage = || proxy.ask(get("/-/status")).json()["usage"].clone();
    eventually("it is counted", || usage()["today"]["requests"] == 1);
    let usage = usage();
    assert_eq!(usage["today"]["cache_write"], 2);
    assert_eq!(usage["last_7_days"]["requests"], 1);
    assert_eq!(
        (&usage["models"][0]["model"], &usage["models"][0]["today"]["output"]),
        (&"claude".into(), &20.into())
    );
    let page = proxy.ask(get("/-/")).body;
    assert!(
        page.contains("<th scope=\"row\">claude</th><td>13</td><td>7 %</td><td>20</td>"),
        "{page}"
    );
    let off = TestProxy::builder().settings("usage: false");
    let off = off.provider("P", "generic", &peer.url(), "auth_value: fixed").start();
    assert!(!off.ask(get("/-/")).body.contains("Tokens of answers"));
    assert!(off.ask(get("/-/status")).json()["usage"].is_null());
}
