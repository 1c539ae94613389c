//! A real token store that refuses commands: each refusal in its own words, in one line of the log.

use std::fmt::Write;
use std::process::{Child, Command, Stdio};

use evertoken::testing::Line;

use super::engine::{Server, program, store};
use crate::support::binary::Binary;
use crate::support::client::{ask, get};
use crate::support::eventually;
use crate::support::peer::{Peer, answer};

/// The outcome of a write.
fn refused(server: &Server, user: &str) -> String {
    let url = server.url().replace("unix://", &format!("unix://{user}"));
    let asked = Line::open(&store(&url, None)).and_then(|mut line| line.probe("test:"));
    asked.map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn each_refusal_is_told_in_the_servers_own_words() {
    let server = Server::start(&["--port", "0", "--enable-protected-configs", "yes"]);
    let config = |key: &str, value: &str| server.tell(&["CONFIG", "SET", key, value]);
    assert_eq!(refused(&server, ""), "");

    config("maxmemory", "1");
    eventually("it is full", || refused(&server, "").starts_with("OOM command not allowed"));
    config("maxmemory", "0");

    config("min-replicas-to-write", "1");
    assert!(refused(&server, "").starts_with("NOREPLICAS Not enough good replicas"));
    config("min-replicas-to-write", "0");

    let gone = server.folder().join("gone");
    std::fs::create_dir(&gone).unwrap();
    config("dir", gone.to_str().unwrap());
    std::fs::remove_dir(&gone).unwrap();
    config("save", "3600 1");
    server.tell(&["SET", "x", "y"]);
    server.tell(&["BGSAVE"]);
    eventually("it can't save", || refused(&server, "").starts_with("MISCONF "));
    config("save", "");

    server.tell(&["ACL", "SETUSER", "half", "on", ">p", "~test:*", "+ping", "+hget"]);
    let words = refused(&server, "half:p@");
    assert!(words.starts_with("NOPERM ") && words.contains("eval"), "{words}");
    let words = refused(&server, "half:wrong@");
    assert!(words.starts_with("it refuses the user or password: WRONGPASS "), "{words}");

    config("requirepass", "p");
    assert!(refused(&server, "").starts_with("NOAUTH Authentication required"));
    server.tell_as("p", &["CONFIG", "SET", "requirepass", ""]);

    config("maxclients", "1");
    let _first = Line::open(&store(&server.url(), None)).unwrap();
    // It closes the connection with these words, which may be before the question is written.
    let said = || refused(&server, "").starts_with("ERR max number of clients reached");
    eventually("it has room for no other", said);
}

#[test]
fn a_replica_and_one_that_lost_its_master_are_told_apart() {
    let server = Server::start(&["--port", "0"]);
    server.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    let words = refused(&server, "");
    assert_eq!(words, "READONLY You can't write against a read only replica.");
    server.tell(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    let words = refused(&server, "");
    assert!(words.starts_with("MASTERDOWN Link with MASTER is down"), "{words}");
}

#[test]
fn a_cluster_is_told_as_one() {
    let server = Server::start(&["--port", "0", "--cluster-enabled", "yes", "--cluster-port", "1"]);
    let words = refused(&server, "");
    assert!(words.starts_with("CLUSTERDOWN Hash slot not served"), "{words}");
}

/// Runs a script without an end. Dropping it ends both.
struct Busy<'a>(&'a Server, Child);

impl<'a> Busy<'a> {
    fn keep(server: &'a Server) -> Self {
        server.tell(&["CONFIG", "SET", "lua-time-limit", "1"]);
        let mut command = Command::new(program("valkey-cli", "redis-cli"));
        command.arg("-s").arg(server.socket()).args(["EVAL", "while true do end", "0"]);
        Self(server, command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.tell(&["SCRIPT", "KILL"]);
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

#[test]
fn a_busy_server_is_told_as_one_and_a_silent_one_too() {
    let server = Server::start(&["--port", "0", "--enable-debug-command", "yes"]);
    let busy = Busy::keep(&server);
    eventually("it is busy", || refused(&server, "").starts_with("BUSY "));
    drop(busy);
    eventually("it is not", || refused(&server, "").is_empty());
    let mut command = Command::new(program("valkey-cli", "redis-cli"));
    command.arg("-s").arg(server.socket()).args(["DEBUG", "SLEEP", "5"]).stdout(Stdio::null());
    let mut asleep = command.spawn().unwrap();
    eventually("it sleeps", || refused(&server, "") == "it does not answer in time");
    asleep.wait().unwrap();
}

/// Three providers on a server that turns into a replica while their tokens are due again and again.
#[test]
fn a_store_that_refuses_writes_is_one_line_and_its_end_another() {
    let _alone = super::alone();
    let server = Server::start(&["--port", "0"]);
    let provider = Peer::telling_the_credential();
    let issuer = Peer::answering(|_| {
        answer(200, r#"{"access_token":"access-1","expires_in":2,"refresh_token":"refresh-1"}"#)
    });
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!(
        "settings: {{port: 0, state_dir: \"{}\", token_store: \"{}\"}}\nproviders:\n",
        folder.path().join("state").display(),
        server.url()
    );
    for name in ["one", "two", "three"] {
        let _ = write!(
            text,
            "  - name: {name}\n    type: anthropic\n    base_url: \"{}\"\n    auto_refresh_config: \
             {{token_url: \"{}/token\", client_id_env: ID, refresh_token_env: SEED}}\n",
            provider.url(),
            issuer.url()
        );
    }
    std::fs::write(folder.path().join("providers.yaml"), text).unwrap();
    let binary = Binary::start(folder.path(), &["run"], &[("ID", "id"), ("SEED", "seed")]);
    let address = binary.address();
    let ready = || ask(address, get("/-/ready")).status == 200;
    eventually("all have a token", ready);
    server.tell(&["REPLICAOF", "127.0.0.1", "1"]);
    let words = "READONLY You can't write against a read only replica.";
    let status = || ask(address, get("/-/status")).body;
    eventually("it is said of each", || status().matches(words).count() >= 3);
    let refusal = || ask(address, get("/to/one/x"));
    eventually("a token ends", || refusal().status == 503);
    assert!(refusal().body.contains(words), "{}", refusal().body);
    eventually("each has tried often", || server.refusals("READONLY") > 30);
    let about = |part: &str| {
        let lines = binary.lines();
        lines.into_iter().filter(|line| line.contains(part)).collect::<Vec<_>>()
    };
    assert_eq!(about("READONLY").len(), 1, "{:#?}", about("READONLY"));
    server.tell(&["REPLICAOF", "NO", "ONE"]);
    eventually("all have a token again", ready);
    binary.wait_for("can be used again, after");
    assert_eq!(about("can be used again").len(), 1);
    assert!(!status().contains("READONLY"));
}
