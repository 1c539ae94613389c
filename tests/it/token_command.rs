//! `token_command` from outside: the token of a real program in requests, and what happens when the program misbehaves.

use std::path::Path;

use rustix::process::{Pid, Signal};

use crate::support::binary::{Binary, run, text};
use crate::support::client::{get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::{Builder, TestProxy};

/// Writes a script that counts its runs in the file `runs` beside it.
fn script(folder: &Path, body: &str) -> String {
    let path = folder.join("get-token");
    let runs = folder.join("runs");
    let text = format!("#!/bin/sh\necho run >> {}\n{body}\n", runs.display());
    crate::support::write_program(&path, &text);
    path.to_str().unwrap().to_owned()
}

fn runs(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count()
}

/// A script that numbers its tokens, which live for `seconds`.
fn numbering(folder: &Path, seconds: u64) -> String {
    let runs = folder.join("runs");
    let body = format!(
        "printf '{{\"access_token\":\"access-%s\",\"expires_in\":{seconds}}}' \"$(wc -l < {} | tr -d ' ')\"",
        runs.display()
    );
    script(folder, &body)
}

fn described(name: &str, url: &str, command: &str, more: &str) -> Builder {
    let lines = format!("auto_refresh_config:\n  token_command: [\"{command}\"]\n{more}");
    TestProxy::builder()
        .variable("PATH", "/usr/local/bin:/usr/bin:/bin")
        .provider(name, "generic", url, &lines)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// True if the process runs.
fn lives(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

/// The id in `file`, once it is there.
fn process_in(file: &Path) -> Pid {
    let mut found = None;
    eventually("the process says its id", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        found = text.strip_suffix('\n').and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_commands_token_is_used_renewed_and_never_stored() {
    let (tools, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let command = numbering(tools.path(), 3600);
    let builder = || described("P", &provider.url(), &command, "");
    let proxy = builder().start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    assert_eq!(proxy.ask(post("/-/refresh/p", "")).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-2");
    let status = proxy.ask(get("/-/status")).json();
    let shown = &status["providers"][0];
    assert_eq!((&shown["state"], &shown["refresh"]["successes"]), (&"ready".into(), &2.into()));
    assert_eq!(proxy.ask(get("/-/ready")).status, 200);
    let metrics = proxy.ask(get("/-/metrics")).body;
    assert!(
        metrics.contains("evertoken_refreshes_total{outcome=\"success\",provider=\"P\"} 2"),
        "{metrics}"
    );
    assert_eq!(names_in(proxy.folder()), [""; 0], "nothing is stored, not even a lock");
    let proxy = builder().folder(proxy.into_folder()).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-3", "it runs at each start");
}

#[test]
fn a_rejected_token_has_the_command_run_again() {
    let tools = tempfile::tempdir().unwrap();
    let command = numbering(tools.path(), 3600);
    let provider = Peer::answering(|seen| match seen.field("authorization") {
        Some("Bearer access-1") => answer(401, "no"),
        other => answer(200, other.unwrap_or("none")),
    });
    let proxy = described("P", &provider.url(), &command, "").start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-2");
    assert_eq!(runs(tools.path()), 2);
}

/// The state file of an earlier configuration has another account's token, which must neither be sent nor be lost.
#[test]
fn the_state_file_of_another_way_to_a_token_is_left_alone() {
    let (tools, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let command = numbering(tools.path(), 3600);
    let issuer = Peer::answering(|_| {
        answer(200, r#"{"access_token":"of-issuer","expires_in":3600,"refresh_token":"r"}"#)
    });
    let refreshed = || {
        TestProxy::builder().variable("PATH", "/usr/bin:/bin").refreshed(
            "P",
            &provider.url(),
            &issuer.url(),
            "",
        )
    };
    let commanded = || described("P", &provider.url(), &command, "");
    let proxy = refreshed().start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer of-issuer");
    let stored = std::fs::read(proxy.folder().join("p.json")).unwrap();
    // In the running process, and after a restart.
    assert_eq!(proxy.reload(&commanded()).status, 200);
    eventually("the command's token is used", || proxy.ask(get("/x")).body == "Bearer access-1");
    let proxy = commanded().folder(proxy.into_folder()).start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-2");
    assert_eq!(std::fs::read(proxy.folder().join("p.json")).unwrap(), stored);
    assert_eq!(proxy.reload(&refreshed()).status, 200);
    eventually("the stored token is used", || proxy.ask(get("/x")).body == "Bearer of-issuer");
    assert_eq!(issuer.seen().len(), 1, "it was still good");
    let names = names_in(proxy.folder());
    assert!(!names.iter().any(|name| name.starts_with("p-2")), "{names:?}");
}

/// `gcloud … --account`, say: while the new one fails, the other account's token must not be sent.
#[test]
fn another_command_of_a_reload_went_on_with_the_token_of_the_one_before() {
    let (tools, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let command = numbering(tools.path(), 3600);
    let with = |more: &str| described("P", &provider.url(), &command, more);
    let proxy = with("  token_command_env: {ACCOUNT: a}").start();
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    assert_eq!(proxy.reload(&with("  token_command_env: {ACCOUNT: b}")).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-2");
    // Other keys do not make another account.
    let later = "  token_command_env: {ACCOUNT: b}\n  refresh_before_expiry: 60";
    assert_eq!(proxy.reload(&with(later)).status, 200);
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-2");
    let other = tempfile::tempdir().unwrap();
    let failing = script(other.path(), "exit 3");
    assert_eq!(proxy.reload(&described("P", &provider.url(), &failing, "")).status, 200);
    let answer = proxy.ask(get("/x"));
    assert_eq!(answer.status, 503, "{}", answer.body);
}

#[test]
fn a_reload_ends_a_command_that_it_replaces_and_a_stop_waits_for_none() {
    let (tools, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let other = tempfile::tempdir().unwrap();
    let good = numbering(other.path(), 3600);
    let pid = tools.path().join("pid");
    let hanging = script(
        tools.path(),
        &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", pid.display()),
    );
    let hangs = || described("P", &provider.url(), &hanging, "");
    let mut proxy = hangs().start();
    let first = process_in(&pid);
    std::fs::remove_file(&pid).unwrap();
    assert_eq!(proxy.reload(&described("P", &provider.url(), &good, "")).status, 200);
    eventually("the command of before is gone", || !lives(first));
    assert_eq!(proxy.ask(get("/x")).body, "Bearer access-1");
    // A provider that goes takes its command with it.
    assert_eq!(proxy.reload(&hangs()).status, 200);
    let second = process_in(&pid);
    std::fs::remove_file(&pid).unwrap();
    let gone = TestProxy::builder().provider("Q", "generic", &provider.url(), "auth_value: x");
    assert_eq!(proxy.reload(&gone).status, 200);
    eventually("its command is gone", || !lives(second));
    assert_eq!(proxy.reload(&hangs()).status, 200);
    let third = process_in(&pid);
    proxy.stop();
    assert!(!lives(third), "no command outlives a stop");
}

/// The settings of a proxy with the binary, before a provider.
fn write_config(folder: &Path, url: &str, command: &str, more: &str) {
    let config = format!(
        "settings: {{port: 0, state_dir: state}}\nproviders:\n  - name: P\n    type: generic\n    base_url: {url}\n    \
         auto_refresh_config:\n      token_command: {command}\n{more}"
    );
    std::fs::write(folder.join("providers.yaml"), config).unwrap();
}

const PATH: (&str, &str) = ("PATH", "/usr/local/bin:/usr/bin:/bin");

#[test]
fn a_second_signal_leaves_no_command_behind() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let command = script(
        folder.path(),
        &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", pid.display()),
    );
    // The first signal waits for this request, which is never answered.
    let provider = Peer::start(|mut talk| {
        talk.request();
        let _ = talk.request();
    });
    let other =
        format!("  - {{name: Q, type: generic, base_url: '{}', auth_value: x}}\n", provider.url());
    write_config(folder.path(), "http://127.0.0.1:9", "[./get-token]", &other);
    assert!(Path::new(&command).exists());
    let mut binary = Binary::start(folder.path(), &["run"], &[PATH]);
    let mut client = crate::support::client::Client::connect(binary.address());
    client.send(get("/to/q/x"));
    eventually("the request is under way", || provider.seen().len() == 1);
    let process = process_in(&pid);
    binary.signal(Signal::TERM);
    binary.wait_for("Stopping; requests in flight are finished first");
    binary.signal(Signal::TERM);
    binary.wait_for("Stopping at once");
    assert_eq!(binary.code(), Some(0));
    eventually("its command is gone", || !lives(process));
}

#[test]
fn a_check_says_the_command_without_running_it() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "echo t0ken");
    let check = |command: &str, arguments: &[&str]| {
        write_config(folder.path(), "http://127.0.0.1:9", command, "");
        let output = run(folder.path(), &[&["check"], arguments].concat(), &[PATH]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, told) = check("[./get-token, --now]", &[]);
    assert_eq!(code, Some(0), "{told}");
    let expected = format!(
        "P: the token_command {}/./get-token (a check does not run it)",
        folder.path().canonicalize().unwrap().display()
    );
    assert!(told.contains(&expected), "{told}");
    let (_, told) = check("[./get-token]", &["--online"]);
    assert!(!told.contains("token_url"), "{told}");
    assert_eq!(runs(folder.path()), 0, "it was not run");
    for (command, part) in [
        (
            "[nosuchprogram]",
            "P: the token_command can't be run: there is no program 'nosuchprogram' in PATH (/usr/local/bin:",
        ),
        ("['./get-token --now']", "there is no file "),
        ("['get-token --now']", "write each word of the command as an element of its own"),
        ("[./providers.yaml]", "may not be executed by this user"),
        ("./get-token --now", "'token_command' must be a list"),
    ] {
        let (code, told) = check(command, &[]);
        assert_eq!(code, Some(78), "{told}");
        assert!(told.contains(part), "{command}: {told}");
    }
}

#[test]
fn a_refresh_by_hand_runs_the_command_and_says_why_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "echo \"logged out of $0; token=hunter2\" >&2; echo t0ken; exit $FAIL");
    write_config(
        folder.path(),
        "http://127.0.0.1:9",
        "[./get-token]\n      token_command_env: {FAIL: null}",
        "",
    );
    let refresh = |fail: &str| {
        let output = run(folder.path(), &["refresh"], &[PATH, ("FAIL", fail)]);
        (output.status.code(), text(&output.stderr))
    };
    let (code, told) = refresh("0");
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("Successfully refreshed token for provider using token_command: ./get-token (provider: P, valid for 3600 s)"),
        "{told}"
    );
    let (code, told) = refresh("4");
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("[ERROR] Failed to refresh token: the token_command ended with exit code 4: logged out of "),
        "{told}"
    );
    assert!(told.contains("token=***") && !told.contains("hunter2"), "{told}");
    assert_eq!(runs(folder.path()), 2);
    assert!(!folder.path().join("state/p.json").exists());
}

/// The system forgot the exit code: "the `token_command` ended in an unknown way".
#[test]
fn a_parent_that_ignores_the_ends_of_children_costs_no_token() {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "echo t0ken");
    write_config(folder.path(), "http://127.0.0.1:9", "[./get-token]", "");
    let output = std::process::Command::new("env")
        .args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_evertoken"), "refresh"])
        .current_dir(folder.path())
        .env_clear()
        .envs([PATH])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn a_login_to_a_command_asked_for_an_authorization_url() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), "http://127.0.0.1:9", "[./get-token]", "");
    let output = run(folder.path(), &["login", "--provider", "P"], &[PATH]);
    assert_eq!(output.status.code(), Some(78));
    let told = text(&output.stderr);
    assert!(
        told.contains("Provider P needs no login: its token_command brings its tokens"),
        "{told}"
    );
}

#[test]
fn a_signal_during_a_refresh_by_hand_ends_the_command_too() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    script(
        folder.path(),
        &format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", pid.display()),
    );
    write_config(folder.path(), "http://127.0.0.1:9", "[./get-token]", "");
    let mut binary = Binary::start(folder.path(), &["refresh"], &[PATH]);
    let process = process_in(&pid);
    binary.signal(Signal::INT);
    assert_eq!(binary.code(), None, "by the signal");
    eventually("its command is gone", || !lives(process));
}

/// Such as a program that nobody has logged in to, and that ends with 0 all the same.
#[test]
fn a_command_that_prints_no_token_hid_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), "http://127.0.0.1:9", "[./get-token]", "");
    let refresh = |body: &str| {
        script(folder.path(), body);
        let output = run(folder.path(), &["refresh"], &[PATH]);
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let told = refresh("echo 'run tool login; token=hunter2' >&2");
    assert!(
        told.contains("printed no token: its output is empty: run tool login; token=***"),
        "{told}"
    );
    let told =
        refresh("echo '{\"error\":\"invalid_grant\",\"error_description\":\"for hunter2\"}'");
    assert!(told.contains("printed no token: its JSON holds an error (invalid_grant)"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

/// A failing command keeps the old token in use, and is tried again by itself.
#[test]
fn a_command_that_fails_for_a_while_is_run_again() {
    let (tools, provider) = (tempfile::tempdir().unwrap(), Peer::telling_the_credential());
    let ready = tools.path().join("ready");
    let command = script(
        tools.path(),
        &format!("test -e {} || {{ echo 'not yet' >&2; exit 9; }}; echo t0ken", ready.display()),
    );
    let proxy = described("P", &provider.url(), &command, "").start();
    let told = "the token_command ended with exit code 9: not yet";
    eventually("it has failed", || proxy.ask(get("/-/ready")).body.contains(told));
    let page = proxy.ask(get("/-/")).body;
    assert!(page.contains("Run the token_command by hand"), "{page}");
    std::fs::write(&ready, "").unwrap();
    eventually("it is tried again", || proxy.ask(get("/x")).body == "Bearer t0ken");
}
