//! Our own descriptors or threads run out: no provider is to blame, and the stop stays orderly.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::support::binary::Binary;
use crate::support::client::{Client, ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

/// A user whose threads nobody else counts.
const LONELY: u32 = 61_234;
const MESSAGE: &str = r#"{"model":"m","messages":[]}"#;
const VARIABLES: [(&str, &str); 4] =
    [("ID", "i"), ("SECRET", "s"), ("TOKEN", "t"), ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")];

fn issuer() -> Peer {
    Peer::answering(|_| {
        answer(200, r#"{"access_token":"a","refresh_token":"r","expires_in":3600}"#)
    })
}

/// A folder with two providers of one API, the second for the case that the first fails.
fn folder(providers: [&str; 2], issuer: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let mut text = format!(
        "settings: {{port: 0, shutdown_grace: 5, state_dir: \"{}\"}}\nproviders:\n",
        state.display()
    );
    for (name, url) in ["A", "B"].into_iter().zip(providers) {
        let entry = format!(
            "  - name: {name}\n    type: anthropic\n    base_url: \"{url}\"\n    auto_refresh_config:\n      \
             enabled: true\n      token_url: \"{issuer}/{name}\"\n      client_id_env: ID\n      \
             client_secret_env: SECRET\n      refresh_token_env: TOKEN\n"
        );
        text.push_str(&entry);
    }
    std::fs::write(folder.path().join("providers.yaml"), text).unwrap();
    folder
}

/// Sets a limit of a running process, as its own user, who may lower it.
fn limit(binary: &Binary, user: u32, what: &str, most: u64) {
    let set = Command::new("setpriv")
        .args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"])
        .args(["prlimit", "--pid", &binary.id().to_string()])
        .arg(format!("--{what}={most}:"))
        .status();
    assert!(set.unwrap().success());
}

/// Lets it open nothing more: its first three are never closed, so no number is free under this limit,
/// whichever others it closes meanwhile.
fn close_door(binary: &Binary) {
    limit(binary, 0, "nofile", 3);
}

fn saying(body: &'static str) -> Peer {
    Peer::answering(move |_| answer(200, body))
}

/// Waits until both providers have a token; a connection with its worker.
fn ready(binary: &Binary) -> Client {
    let address = binary.address();
    eventually("both have a token", || ask(address, get("/-/ready")).status == 200);
    let mut client = Client::connect(address);
    client.send(get("/-/healthy"));
    assert_eq!(client.answer().status, 200);
    client
}

/// Sends a request that is refused for want of something of ours.
#[track_caller]
fn refused(client: &mut Client, why: &str) {
    client.send(post("/v1/messages", MESSAGE));
    let refused = client.answer();
    assert_eq!((refused.status, refused.code()), (503, "overloaded"), "{refused:?}");
    assert!(refused.field("retry-after").is_some());
    assert!(refused.body.contains(why), "{}", refused.body);
}

/// Starts it as a user that has no other process.
fn start_lonely(folder: &Path) -> Binary {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::create_dir(folder.join("state")).unwrap();
    chown(folder.join("state"), Some(LONELY), Some(LONELY)).unwrap();
    // The binary may lie where nobody can go.
    crate::support::copy_program(env!("CARGO_BIN_EXE_evertoken"), &folder.join("evertoken"));
    let script =
        format!("exec setpriv --reuid={LONELY} --regid={LONELY} --clear-groups ./evertoken run");
    Binary::start_shell(folder, &script, &VARIABLES)
}

#[track_caller]
fn nobody_is_blamed(binary: &Binary) {
    for part in ["passed over", "Failed to refresh", "waiting since"] {
        assert!(!binary.lines().iter().any(|line| line.contains(part)), "{:#?}", binary.lines());
    }
    let status = ask(binary.address(), get("/-/status")).json();
    for provider in status["providers"].as_array().unwrap() {
        assert_eq!(
            (&provider["cooldown_until"], &provider["state"]),
            (&().into(), &"ready".into())
        );
        assert_eq!(provider["refresh"]["failures"], 0);
        assert_eq!(provider["requests"]["errors"], 0);
    }
}

#[test]
fn without_a_descriptor_requests_get_503_and_no_provider_is_passed_over() {
    let (issuer, one, two) = (issuer(), saying("one"), saying("two"));
    let folder = folder([&one.url(), &two.url()], &issuer.url());
    let mut binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    let mut client = ready(&binary);
    // All that is open stays, and nothing more can be.
    close_door(&binary);
    for _ in 0..5 {
        refused(&mut client, "evertoken has no descriptors left");
    }
    binary.wait_for("no descriptors left");
    let said = binary.lines().iter().filter(|line| line.contains("no descriptors left")).count();
    assert_eq!(said, 1, "{:#?}", binary.lines());
    limit(&binary, 0, "nofile", 1024);
    assert_eq!(ask(binary.address(), post("/v1/messages", MESSAGE)).body, "one");
    nobody_is_blamed(&binary);
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
}

#[test]
fn without_a_thread_requests_get_503_and_a_stop_is_orderly() {
    let (issuer, one, two) = (issuer(), saying("one"), saying("two"));
    // A name has to be looked up, on a thread.
    let named = |peer: &Peer| peer.url().replace("127.0.0.1", "localhost");
    let folder = folder([&named(&one), &named(&two)], &issuer.url());
    let mut binary = start_lonely(folder.path());
    let mut client = ready(&binary);
    // Even if some of its threads end meanwhile, it may start no other.
    limit(&binary, LONELY, "nproc", 1);
    for _ in 0..5 {
        refused(&mut client, "the system gives evertoken no more threads");
    }
    // New connections find no worker.
    let mut newcomers = Vec::new();
    eventually("there is no worker left", || {
        let mut newcomer = Client::connect(binary.address());
        newcomer.send(get("/-/"));
        let code = newcomer.answer().code().to_owned();
        newcomers.push(newcomer);
        code == "overloaded"
    });
    drop(newcomers);
    limit(&binary, LONELY, "nproc", 1024);
    client.send(post("/v1/messages", MESSAGE));
    assert_eq!(client.answer().body, "one");
    nobody_is_blamed(&binary);
    limit(&binary, LONELY, "nproc", 1);
    binary.signal(Signal::HUP);
    binary.wait_for(
        "The configuration can't be reloaded now: the system gives evertoken no more threads",
    );
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0), "{:#?}", binary.lines());
    binary.wait_for("Stopped");
}

#[test]
fn without_a_descriptor_a_refresh_waits_and_its_backoff_does_not_grow() {
    let (issuer, one, two) = (issuer(), saying("one"), saying("two"));
    let folder = folder([&one.url(), &two.url()], &issuer.url());
    let mut binary = Binary::start(folder.path(), &["run"], &VARIABLES);
    drop(ready(&binary));
    close_door(&binary);
    binary.signal(Signal::USR1);
    binary.wait_for("evertoken has no descriptors left");
    limit(&binary, 0, "nofile", 1024);
    eventually("the next order is obeyed", || {
        ask(binary.address(), post("/-/refresh/a", "")).status == 200
            && ask(binary.address(), post("/-/refresh/b", "")).status == 200
    });
    eventually("all is well", || {
        let status = ask(binary.address(), get("/-/status")).json();
        status["providers"].as_array().unwrap().iter().all(|one| one["problem"].is_null())
    });
    nobody_is_blamed(&binary);
    binary.signal(Signal::TERM);
    assert_eq!(binary.code(), Some(0));
}

#[test]
fn a_reload_that_hangs_is_left_behind_by_a_stop() {
    let (issuer, one, two) = (issuer(), saying("one"), saying("two"));
    let folder = folder([&one.url(), &two.url()], &issuer.url());
    // A file that the new configuration names takes a minute to open.
    let (config, secret) = (folder.path().join("providers.yaml"), folder.path().join("secret"));
    std::fs::write(&secret, "s").unwrap();
    let script = format!(
        "exec strace -f -qq -o /dev/null -P {} -e inject=openat:delay_enter=60000000 {} run",
        secret.display(),
        env!("CARGO_BIN_EXE_evertoken")
    );
    let binary = Binary::start_shell(folder.path(), &script, &VARIABLES);
    let address = binary.address();
    eventually("both have a token", || ask(address, get("/-/ready")).status == 200);
    let id = binary.traced();
    let text = std::fs::read_to_string(&config).unwrap();
    let named = format!("client_secret_file: \"{}\"", secret.display());
    std::fs::write(&config, text.replace("client_secret_env: SECRET", &named)).unwrap();
    kill_process(id, Signal::HUP).unwrap();
    // Other signals are heard meanwhile, and requests served.
    kill_process(id, Signal::USR1).unwrap();
    binary.wait_for("Refreshing every provider");
    assert_eq!(ask(address, post("/v1/messages", MESSAGE)).body, "one");
    kill_process(id, Signal::TERM).unwrap();
    binary.wait_for("Stopped");
    // Its own end comes, and strace alone still holds the thread that it delays.
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero()));
    eventually("the main thread has ended", || stat().is_ok_and(|stat| stat.contains(") Z ")));
    assert!(!binary.lines().iter().any(|line| line.contains("eloaded the configuration")));
}
