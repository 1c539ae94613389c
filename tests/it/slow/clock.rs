//! The real clock, as `faketime` has it jump under the running binary.

use std::path::PathBuf;

use crate::support::binary::Binary;
use crate::support::client::{ask, get};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

/// The library that `faketime` preloads.
fn library() -> PathBuf {
    let mut folders =
        std::fs::read_dir("/usr/lib").expect("a folder").map(|entry| entry.unwrap().path());
    let found = folders.find_map(|folder| {
        let library = folder.join("faketime/libfaketime.so.1");
        library.exists().then_some(library)
    });
    found.expect("faketime is installed")
}

/// A binary before one peer, issuer and provider at once, whose clock is moved by `step`.
struct Shifted {
    binary: Binary,
    peer: Peer,
    folder: tempfile::TempDir,
}

impl Shifted {
    fn start(clock: &str) -> Self {
        let peer = Peer::answering(|seen| {
            let grant = r#"{"access_token":"a","expires_in":3600}"#;
            answer(200, if seen.line.contains("/token") { grant } else { "fine" })
        });
        let folder = tempfile::tempdir().unwrap();
        let url = peer.url();
        let config = format!(
            "settings: {{port: 0, state_dir: \"{}\"}}\nproviders: [{{name: P, type: anthropic, \
             base_url: \"{url}\", auto_refresh_config: {{enabled: true, token_url: \"{url}/token\", \
             client_id_env: V, refresh_token_env: V, client_auth: none}}}}]\n",
            folder.path().join("state").display()
        );
        std::fs::write(folder.path().join("providers.yaml"), config).unwrap();
        std::fs::write(folder.path().join("clock"), clock).unwrap();
        let library = library();
        let clock_file = folder.path().join("clock");
        let variables = [
            ("V", "value"),
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", clock_file.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let binary = Binary::start(folder.path(), &["run"], &variables);
        Self { binary, peer, folder }
    }

    fn step(&self, clock: &str) {
        // Renamed, so that it is never read half written.
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("clock"));
        std::fs::write(&new, clock).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn refreshes(&self) -> usize {
        self.peer.seen().iter().filter(|seen| seen.line.contains("/token")).count()
    }

    #[track_caller]
    fn works(&self) {
        assert_eq!(ask(self.binary.address(), get("/v1/messages")).body, "fine");
    }
}

#[test]
fn steps_of_hours_in_both_directions() {
    let shifted = Shifted::start("+0");
    shifted.binary.wait_for("Successfully refreshed");
    shifted.works();
    assert_eq!(shifted.refreshes(), 1);
    // Forward, as after a suspend: the token has expired, which the next request notices.
    shifted.step("+2h");
    shifted.works();
    assert_eq!(shifted.refreshes(), 2);
    // Back: the token is not held for valid any longer than it is, nor for unborn.
    shifted.step("-6h");
    for _ in 0..20 {
        shifted.works();
    }
    assert_eq!(shifted.refreshes(), 2);
    shifted.step("+0");
    shifted.works();
}

#[test]
fn connections_that_were_kept_before_a_suspend_are_not_used_after_it() {
    let shifted = Shifted::start("+0");
    shifted.works();
    shifted.works();
    // Less than the token lives.
    shifted.step("+10m");
    shifted.works();
    let seen = shifted.peer.seen();
    let requests = seen.iter().filter(|seen| !seen.line.contains("/token"));
    let connections: Vec<_> = requests.map(|seen| seen.connection).collect();
    assert_eq!(connections.len(), 3);
    assert_eq!(connections[0], connections[1]);
    assert_ne!(connections[1], connections[2]);
}

#[test]
fn a_clock_without_a_battery_is_waited_for() {
    let shifted = Shifted::start("@1970-01-02 00:00:00");
    shifted.binary.wait_for("The wall clock shows 1970-01-0");
    assert_eq!(shifted.refreshes(), 0);
    shifted.step("+0");
    eventually("it refreshes once the clock is set", || shifted.refreshes() == 1);
    shifted.works();
}
