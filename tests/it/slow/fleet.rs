//! Several hosts on a real token store: seeds that differ during a rolling change, a chain that is lost, and
//! orders that come on all of them at once.

use std::process::Command;

use evertoken::testing::{Clock, Moment};

use crate::support::binary::Binary;
use crate::support::client::{Answer, ask, get, post};
use crate::support::eventually;
use crate::support::issuer::StrictIssuer;
use crate::support::peer::{self, Peer};
use crate::support::proxy::TestProxy;

use super::engine::Server;

const NEW_CHAIN: &str = "access-s2-";

/// The shared state of a test's hosts.
struct Fleet {
    server: Server,
    provider: Peer,
    issuer: StrictIssuer,
}

/// One host: the real binary in a folder of its own.
struct Host {
    binary: Binary,
    folder: tempfile::TempDir,
}

impl Fleet {
    fn new(lifetime_secs: u64, seeds: &[&str]) -> Self {
        let issuer = StrictIssuer::start(lifetime_secs);
        for seed in seeds {
            issuer.knows(seed);
        }
        let (server, provider) = (Server::start(&["--port", "0"]), Peer::telling_the_credential());
        Self { server, provider, issuer }
    }

    fn host(&self, seed: &str) -> Host {
        self.host_in(tempfile::tempdir().unwrap(), seed)
    }

    fn host_in(&self, folder: tempfile::TempDir, seed: &str) -> Host {
        let text = format!(
            "settings: {{port: 0, state_dir: \"{}\", token_store: \"{}\"}}\nproviders:\n  - name: P\n    \
             type: anthropic\n    base_url: \"{}\"\n    auto_refresh_config: {{token_url: \"{}\", \
             client_id_env: ID, refresh_token_env: SEED}}\n",
            folder.path().join("state").display(),
            self.server.url(),
            self.provider.url(),
            self.issuer.url()
        );
        std::fs::write(folder.path().join("providers.yaml"), text).unwrap();
        let binary = Binary::start(folder.path(), &["run"], &[("ID", "id"), ("SEED", seed)]);
        Host { binary, folder }
    }

    /// Stops a host and starts it again with another seed.
    fn restart(&self, host: Host, seed: &str) -> Host {
        let Host { mut binary, folder } = host;
        binary.signal(rustix::process::Signal::TERM);
        assert_eq!(binary.code(), Some(0));
        drop(binary);
        self.host_in(folder, seed)
    }
}

impl Host {
    fn ask(&self) -> Answer {
        ask(self.binary.address(), get("/x"))
    }

    fn about(&self, part: &str) -> Vec<String> {
        self.binary.lines().into_iter().filter(|line| line.contains(part)).collect()
    }
}

/// Seen: they refreshed against each other every 5 s.
#[test]
fn during_a_rolling_change_of_the_seed_all_use_the_chain_of_the_new_one() {
    let _alone = super::alone();
    let fleet = Fleet::new(2, &["s1", "s2"]);
    let (one, other) = (fleet.host("s1"), fleet.host("s1"));
    eventually("both serve", || [&one, &other].iter().all(|host| host.ask().status == 200));
    let other = fleet.restart(other, "s2");
    eventually("both use the new chain", || {
        [&one, &other].iter().all(|host| host.ask().body.contains(NEW_CHAIN))
    });
    one.binary.wait_for("was superseded by a newer one");
    // A third that is started with the old seed finds the chain in the store.
    let late = fleet.host("s1");
    eventually("it uses the new chain", || late.ask().body.contains(NEW_CHAIN));
    let refreshes = || fleet.issuer.presented().len();
    let before = refreshes();
    eventually("there were more refreshes", || refreshes() > before + 4);
    let presented = fleet.issuer.presented();
    assert_eq!(presented.iter().filter(|one| *one == "s1").count(), 1, "{presented:?}");
    let began = presented.iter().position(|one| one == "s2").unwrap();
    let of_old = presented[began..].iter().filter(|one| one.contains("s1")).count();
    assert_eq!(of_old, 0, "{presented:?}");
    assert_eq!(fleet.issuer.revoked(), [""; 0]);
    for host in [&one, &late] {
        assert_eq!(host.about("was superseded").len(), 1, "{:#?}", host.binary.lines());
    }
    assert_eq!(other.about("was superseded").len(), 0);
    // The change reaches the others too.
    let one = fleet.restart(one, "s2");
    eventually("it serves", || one.ask().body.contains(NEW_CHAIN));
    assert_eq!(fleet.issuer.presented().iter().filter(|one| *one == "s2").count(), 1);
}

/// Seen: the others logged nothing, showed no error, and held each request for 10 s.
#[test]
fn that_the_chain_is_lost_is_known_on_every_host_at_once() {
    let fleet = Fleet::new(2, &["s1"]);
    let hosts = [fleet.host("s1"), fleet.host("s1")];
    eventually("both serve", || hosts.iter().all(|host| host.ask().status == 200));
    fleet.issuer.revoke_all();
    let why = "Failed to refresh token: 400 Bad Request (invalid_grant)";
    for host in &hosts {
        host.binary.wait_for(why);
    }
    let late = fleet.host("s1");
    let asked = || fleet.issuer.presented().len();
    eventually("the tokens end", || hosts.iter().all(|host| host.ask().status != 200));
    late.binary.wait_for(why);
    let before = asked();
    for host in hosts.iter().chain([&late]) {
        let refusal = host.ask();
        assert!(refusal.body.contains(why), "{}", refusal.body);
        let status = ask(host.binary.address(), get("/-/status")).json();
        let refresh = &status["providers"][0]["refresh"];
        assert!(refresh["last_error"].as_str().unwrap().contains(why), "{refresh}");
        assert_eq!(refresh["trouble"], "token_dead");
    }
    assert_eq!(asked(), before, "the refresh token and the seed were tried once by all together");
}

#[test]
fn orders_that_come_on_all_hosts_at_once_are_one_refresh_each_at_most() {
    let fleet = Fleet::new(3600, &["s1"]);
    let hosts = [fleet.host("s1"), fleet.host("s1"), fleet.host("s1")];
    eventually("all serve", || hosts.iter().all(|host| host.ask().status == 200));
    for host in &hosts {
        host.binary.signal(rustix::process::Signal::USR1);
    }
    eventually("the newest token is on all", || {
        let newest = format!("Bearer access-s1-{}", fleet.issuer.presented().len());
        !newest.ends_with("-1") && hosts.iter().all(|host| host.ask().body == newest)
    });
    for host in &hosts {
        let answer = ask(host.binary.address(), post("/-/refresh/p", ""));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let asked = fleet.issuer.presented().len();
    assert!((3..=7).contains(&asked), "{:?}", fleet.issuer.presented());
    assert_eq!(fleet.issuer.revoked(), [""; 0]);
}

/// A clock that differs from the system's.
fn skewed(ms: i64) -> Clock {
    let system = Clock::system();
    Clock::from_fn(move || {
        let now = system.now();
        Moment { wall: now.wall.plus_millis(ms), ..now }
    })
}

/// Seen: tokens were sent that another host knew to be over.
#[test]
fn hosts_whose_clocks_differ_agree_when_a_token_ends() {
    let fleet = Fleet::new(600, &["the-seed"]);
    let start = |skew_ms: i64| {
        TestProxy::builder()
            .refreshed("P", &fleet.provider.url(), &fleet.issuer.url(), "")
            .settings(&format!("token_store: \"{}\"", fleet.server.url()))
            .clock(skewed(skew_ms))
            .start()
    };
    let status = |host: &TestProxy| host.ask(get("/-/status")).json();
    for skew_ms in [-400_000, -6_000, 4_000, 6_000, 400_000] {
        let host = start(skew_ms);
        eventually("it serves", || host.ask(get("/x")).status == 200);
        eventually("the clocks are compared", || {
            status(&host)["token_store"]["clock_offset_ms"].is_i64()
        });
        let status = status(&host);
        let offset_ms = status["token_store"]["clock_offset_ms"].as_i64().unwrap();
        assert!((offset_ms + skew_ms).abs() < 1_000, "{status}");
        let warning = status["token_store"]["warning"].as_str();
        assert_eq!(warning.is_some(), skew_ms.abs() > 5_000, "{status}");
        let left_secs = status["providers"][0]["token"]["expires_in_seconds"].as_i64().unwrap();
        assert!((500..=600).contains(&left_secs), "{skew_ms}: {left_secs}");
    }
    assert_eq!(fleet.issuer.presented().len(), 1, "nobody took the token of another for over");
}

#[test]
fn check_compares_clocks() {
    let server = Server::start(&["--port", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "settings: {{state_dir: \"{}/state\", token_store: \"{}\"}}\nproviders:\n  - {{name: P, type: generic, \
         base_url: \"http://127.0.0.1:9\", enabled: false, auth_type: none}}\n",
        folder.path().display(),
        server.url()
    );
    std::fs::write(folder.path().join("providers.yaml"), text).unwrap();
    for (offset, is_told) in [("+8s", true), ("-8s", true), ("+3s", false)] {
        let mut command = Command::new("faketime");
        command.args(["-f", offset, env!("CARGO_BIN_EXE_evertoken"), "check", "--online"]);
        let done = command.current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8([&done.stdout[..], &done.stderr[..]].concat()).unwrap();
        assert_eq!(said.contains(" that of the token store unix://"), is_told, "{offset}: {said}");
        assert_eq!(done.status.code(), Some(if is_told { 78 } else { 0 }), "{said}");
    }
}

/// Five hosts behind one token store show the same tokens, and the store may lose its data.
#[test]
fn each_host_shows_the_tokens_of_all() {
    let server = Server::start(&["--port", "0"]);
    let message = "{\"model\":\"m\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}";
    let provider = Peer::answering(move |_| {
        let typed = "\r\ncontent-type: application/json\r\n";
        peer::answer(200, message).replacen("\r\n", typed, 1)
    });
    let start = || {
        TestProxy::builder()
            .provider("P", "anthropic", &provider.url(), "auth_value: fixed")
            .settings(&format!("token_store: \"{}\"", server.url()))
            .start()
    };
    let hosts: Vec<TestProxy> = (0..5).map(|_| start()).collect();
    let ask = || {
        for host in &hosts {
            assert_eq!(host.ask(post("/v1/messages", "{}")).status, 200);
        }
    };
    let shows = |host: &TestProxy, requests: u64| {
        let usage = &host.ask(get("/-/status")).json()["usage"]["today"];
        usage["requests"] == requests && usage["input"] == 3 * requests
    };
    ask();
    eventually("all show five", || hosts.iter().all(|host| shows(host, 5)));
    server.tell(&["FLUSHALL"]);
    ask();
    eventually("all show ten", || hosts.iter().all(|host| shows(host, 10)));
    // A host that starts later learns of them, and one that starts again keeps its own.
    let late = start();
    eventually("the late one shows ten", || shows(&late, 10));
    let folders: Vec<_> = hosts.into_iter().map(TestProxy::into_folder).collect();
    drop(late);
    server.tell(&["FLUSHALL"]);
    for folder in folders {
        let again = TestProxy::builder().folder(folder);
        let again = again.provider("P", "anthropic", &provider.url(), "auth_value: fixed").start();
        assert!(shows(&again, 10), "it keeps what it knew of the others");
    }
}
