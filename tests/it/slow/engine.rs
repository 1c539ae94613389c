//! The token store on a real server (`redis-server` or `valkey-server`): its scripts against the model that
//! the simulation uses, and each way to reach it. Only with the feature `redis`.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use evertoken::testing::Clock;
use evertoken::testing::Grant;
use evertoken::testing::Mark;
use evertoken::testing::Secret;
use evertoken::testing::StoreAddress;
use evertoken::testing::Supervisor;
use evertoken::testing::Tally;
use evertoken::testing::TokenStore;
use evertoken::testing::groups;
use evertoken::testing::{Config, Setup};
use evertoken::testing::{Engine, Line, Names, News, Written};
use evertoken::testing::{Environment, refresher_setup};
use evertoken::testing::{Fallback, SharedStore};
use evertoken::testing::{log_out, store_login};
use fastrand::Rng;

use crate::support::client::{Client, get};
use crate::support::engine::ModelEngine;
use crate::support::eventually;
use crate::support::peer::{Peer, answer};
use crate::support::proxy::TestProxy;

/// Longer than the test: no lease runs out by itself, so that the time plays no part.
const LONG_MS: u64 = 3_600_000;
const OPERATIONS: usize = 3_000;

/// A running server. Dropping it kills it.
pub(super) struct Server {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn program(valkey: &str, redis: &str) -> String {
    let is_there =
        |name: &&str| Command::new(name).arg("--version").stdout(Stdio::null()).status().is_ok();
    [valkey, redis].iter().find(|name| is_there(name)).expect("redis-server").to_string()
}

impl Server {
    /// Starts one with a socket in its folder, and `arguments` more.
    pub(super) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(program("valkey-server", "redis-server"));
        command.args(["--save", "", "--appendonly", "no", "--unixsocket", "socket"]);
        command.args(arguments).current_dir(folder.path()).stdout(Stdio::null());
        let server = Self { child: command.spawn().unwrap(), folder };
        eventually("the server answers", || UnixStream::connect(server.socket()).is_ok());
        server
    }

    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("socket")
    }

    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn tell(&self, words: &[&str]) {
        self.tell_as("", words);
    }

    /// The number of commands that it refused with this code.
    pub(super) fn refusals(&self, code: &str) -> u64 {
        let mut command = Command::new(program("valkey-cli", "redis-cli"));
        command.arg("-s").arg(self.socket()).args(["INFO", "errorstats"]);
        let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let count = told.split(&format!("errorstat_{code}:count=")).nth(1);
        count.map_or(0, |count| count.lines().next().unwrap().trim().parse().unwrap())
    }

    /// Tells it something with a password.
    pub(super) fn tell_as(&self, password: &str, words: &[&str]) {
        let mut command = Command::new(program("valkey-cli", "redis-cli"));
        command.arg("-s").arg(self.socket());
        if !password.is_empty() {
            command.env("REDISCLI_AUTH", password);
        }
        assert!(command.args(words).stdout(Stdio::null()).status().unwrap().success());
    }
}

/// Ports of `address` that were free a moment ago: a server can't be handed a listening socket. An address
/// that nobody else uses keeps them free.
fn free_ports<const COUNT: usize>(address: &str) -> [u16; COUNT] {
    let bound = [(); COUNT].map(|()| TcpListener::bind((address, 0)).unwrap());
    bound.map(|listener| listener.local_addr().unwrap().port())
}

pub(super) fn store(url: &str, key: Option<&str>) -> SharedStore {
    SharedStore {
        place: StoreAddress::parse(url).unwrap(),
        prefix: "test:".to_owned(),
        key: key.map(Secret::new),
        ca_pem: None,
        fallback: Fallback::Wait,
    }
}

fn ping(store: &SharedStore) -> Result<String, String> {
    Line::open(store).and_then(|mut line| line.ping()).map_err(|error| error.to_string())
}

#[test]
fn the_scripts_do_what_the_model_does() {
    let server = Server::start(&["--port", "0"]);
    let mut line = Line::open(&store(&server.url(), Some(&"k".repeat(32)))).unwrap();
    let names = Names::new("test:", "p");
    let mut model = ModelEngine::<Secret>::empty();
    let mut rng = Rng::with_seed(7);
    let (mut taken, mut refused) = (0, 0);
    for number in 0..OPERATIONS {
        let holder = ["a", "b", "c"][rng.usize(0..3)];
        match rng.u32(0..100) {
            0..30 => {
                let least = rng.u64(0..5);
                let real = line.take(&names, holder, LONG_MS, least).unwrap();
                let expected = model.take(holder, LONG_MS, least, 0);
                assert_eq!(real.map(|seen| seen.fence), expected, "{number}");
                taken += u32::from(expected.is_some());
            }
            30..65 => {
                let near = |rng: &mut Rng, around: u64| (around + rng.u64(0..4)).saturating_sub(1);
                let mark = Mark {
                    fence: near(&mut rng, model.fence.unwrap_or(0)),
                    generation: near(&mut rng, model.mark.generation),
                };
                let record = Secret::new(format!("record {number}"));
                let times = (LONG_MS, LONG_MS);
                let real = line.write(&names, mark, &record, holder, times).unwrap();
                if let Some(ours) = model.write(mark, record, holder, times, 0) {
                    assert_eq!(real, Written::Done(ours), "{number}");
                } else {
                    assert!(matches!(real, Written::Refused(_)), "{number}: {real:?}");
                    refused += 1;
                }
            }
            65..75 => {
                let real = line.renew(&names, holder, LONG_MS).unwrap();
                assert_eq!(real, model.renew(holder, LONG_MS, 0), "{number}");
            }
            75..98 => {
                line.release(&names, holder).unwrap();
                model.release(holder, 0);
            }
            98 => {
                // The lease runs out.
                server.tell(&["DEL", "test:lease:p"]);
                let held = model.holder(0).unwrap_or_default().to_owned();
                model.release(&held, 0);
            }
            _ => {
                server.tell(&["FLUSHALL"]);
                model = ModelEngine::empty();
            }
        }
        let seen = line.look(&names).unwrap();
        assert_eq!(seen.fence, model.fence.unwrap_or(0), "{number}");
        assert_eq!((seen.mark, seen.record), (model.mark, model.record.clone()), "{number}");
        assert_eq!(seen.is_held, model.holder(0).is_some(), "{number}");
    }
    assert!(taken > 100 && refused > 100, "{taken} leases, {refused} refused writes");
}

/// Seen in the simulation: a holder was halted until its lease had run out, another host took the lease, saw the
/// marker and gave it back, and the answer to the refresh was refused for its number: the chain was lost.
#[test]
fn the_sum_of_a_host_takes_the_place_of_its_runs_in_the_store() {
    let server = Server::start(&["--port", "0"]);
    let mut line = Line::open(&store(&server.url(), None)).unwrap();
    let mut write = |writer: &str, version, known| {
        let text = format!("{writer} at {version}");
        let tally = Tally { name: "day".into(), version, text, kept_ms: 60_000 };
        let told = line.exchange("test:", writer, &tally, known).unwrap();
        let texts = told.texts.map(|texts| {
            let mut texts: Vec<_> = texts.into_iter().map(|(_, text)| text).collect();
            texts.sort();
            texts.join(", ")
        });
        (told.sum, texts)
    };
    let told = |sum, texts: &str| (sum, Some(texts.to_owned()));
    assert_eq!(write("a-1-x", 0, 0), (0, None));
    assert_eq!(write("a-1-x", 2, 0), told(2, "a-1-x at 2"));
    assert_eq!(write("a-2-y", 3, 5), (5, None), "the sum is known");
    assert_eq!(write("a-2-y", 1, 5), (5, None), "an older text changes nothing");
    assert_eq!(write("aa-1-x", 7, 0), told(12, "a-1-x at 2, a-2-y at 3, aa-1-x at 7"));
    assert_eq!(write("a-3-z", 1, 13), (13, None));
    assert_eq!(write("a-2-sum", 6, 0), told(14, "a-2-sum at 6, a-3-z at 1, aa-1-x at 7"));
    // One that comes late changes nothing.
    assert_eq!(write("a-1-x", 9, 14), (14, None));
    assert_eq!(write("a-1-sum", 9, 14), (14, None));
    assert_eq!(write("a-3-z", 2, 15), (15, None));
    assert_eq!(write("a-3-sum", 8, 0), told(15, "a-3-sum at 8, aa-1-x at 7"));
    assert_eq!(write("a-3-sum", 0, 15), (15, None), "an empty text reads only");
}

#[test]
fn an_answer_is_not_lost_for_a_lease_that_another_took_and_gave_back() {
    let server = Server::start(&["--port", "0"]);
    let mut line = Line::open(&store(&server.url(), None)).unwrap();
    let names = Names::new("test:", "p");
    let mark = |fence, generation| Mark { fence, generation };
    let times = (LONG_MS, LONG_MS);
    let write = |line: &mut Line, mark, holder: &str| {
        let record = Secret::new(format!("{mark:?} of {holder}"));
        line.write(&names, mark, &record, holder, times).unwrap()
    };
    assert_eq!(line.take(&names, "a", LONG_MS, 0).unwrap(), None, "those who know more come first");
    server.tell(&["DEL", "test:lease:p"]);
    assert_eq!(line.take(&names, "a", LONG_MS, 0).unwrap().unwrap().fence, 1);
    assert_eq!(write(&mut line, mark(1, 1), "a"), Written::Done(true), "the marker");
    server.tell(&["DEL", "test:lease:p"]);
    assert_eq!(line.take(&names, "b", LONG_MS, 0).unwrap().unwrap().fence, 2);
    assert_eq!(write(&mut line, mark(1, 2), "a"), Written::Done(false), "the answer");
    let late = write(&mut line, mark(2, 2), "b");
    assert!(
        matches!(late, Written::Refused(seen) if seen.mark == mark(1, 2)),
        "by what was before"
    );
    assert_eq!(write(&mut line, mark(2, 3), "b"), Written::Done(true), "and goes on from there");
    assert!(matches!(write(&mut line, mark(1, 4), "a"), Written::Refused(_)), "that was that");
    assert_eq!(line.look(&names).unwrap().fence, 2);
}

#[test]
fn what_is_published_is_heard() {
    let server = Server::start(&["--port", "0"]);
    let store = store(&server.url(), None);
    let mut other = Line::open(&store).unwrap();
    let mut subscription = other.listen("test:").unwrap();
    let mut line = Line::open(&store).unwrap();
    let names = Names::new("test:", "p");
    for _ in 0..5 {
        assert_eq!(subscription.hear(Duration::from_millis(1)).unwrap(), None);
    }
    subscription.ping().unwrap();
    let mark = Mark { fence: 1, generation: 1 };
    line.write(&names, mark, &Secret::new("{}"), "a", (LONG_MS, LONG_MS)).unwrap();
    line.cool_down(&names, (70_000, 7), "me").unwrap();
    let mut heard = Vec::new();
    eventually("both are heard", || {
        heard.extend(subscription.hear(Duration::from_millis(10)).unwrap());
        heard.len() == 2
    });
    assert_eq!(heard[0], News::Record("p".into()));
    let rest = |model: Option<&str>, ms, number| {
        let (slug, model, from) = ("p".to_owned(), model.map(str::to_owned), "me".to_owned());
        News::Rest { slug, model, ms, number: Some(number), from }
    };
    assert_eq!(heard[1], rest(None, 70_000, 7));
    line.rest(&names, "m 1", (60_000, 8), "me").unwrap();
    line.rest(&names, "m 1", (5, 9), "me").unwrap();
    eventually("both rests are heard", || {
        heard.extend(subscription.hear(Duration::from_millis(10)).unwrap());
        heard.len() == 4
    });
    assert_eq!(heard[2..], [rest(Some("m 1"), 60_000, 8), rest(Some("m 1"), 5, 9)]);
    let resting = line.resting_models(&names).unwrap();
    assert_eq!((resting.len(), resting[0].0.as_str()), (1, "m 1"));
    assert!(resting[0].1 > 50_000, "the shorter one left the longer as it was");
    // A shorter one leaves the longer as it is.
    line.cool_down(&names, (5, 10), "me").unwrap();
    assert!(line.cooldown_left_ms(&names).unwrap() > 60_000);
    assert_eq!((line.cooldown_number(&names).unwrap(), resting[0].2), (Some(7), Some(8)));
    // An end that is told late leaves a newer one as it is.
    line.end_rest(&names, None, &[6, 10], "me").unwrap();
    line.end_rest(&names, Some("m 1"), &[7], "me").unwrap();
    assert!(line.cooldown_left_ms(&names).unwrap() > 60_000);
    assert_eq!(line.resting_models(&names).unwrap().len(), 1);
    line.end_rest(&names, None, &[6, 7], "me").unwrap();
    line.end_rest(&names, Some("m 1"), &[8], "me").unwrap();
    assert_eq!(
        (line.cooldown_left_ms(&names).unwrap(), line.cooldown_number(&names).unwrap()),
        (0, None)
    );
    assert_eq!(line.resting_models(&names).unwrap(), []);
    server.tell(&["SHUTDOWN", "NOSAVE"]);
    eventually("the end is noticed", || subscription.hear(Duration::from_millis(10)).is_err());
    assert!(line.look(&names).is_err());
}

/// As by a proxy in between that cuts silent connections.
#[test]
fn a_connection_that_was_cut_is_made_anew_without_a_word() {
    let server = Server::start(&["--port", "0"]);
    let names = Names::new("test:", "p");
    let mut line = Line::open(&store(&server.url(), None)).unwrap();
    for _ in 0..3 {
        line.look(&names).unwrap();
        server.tell(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    line.take(&names, "a", LONG_MS, 0).unwrap();
}

#[test]
fn a_record_under_another_key_is_never_taken_for_none() {
    let server = Server::start(&["--port", "0"]);
    let names = Names::new("test:", "p");
    let key = "k".repeat(32);
    let mut line = Line::open(&store(&server.url(), Some(&key))).unwrap();
    let mark = Mark { fence: 1, generation: 1 };
    line.write(&names, mark, &Secret::new("{}"), "a", (LONG_MS, LONG_MS)).unwrap();
    for other in [None, Some("l".repeat(32))] {
        let mut line = Line::open(&store(&server.url(), other.as_deref())).unwrap();
        assert!(line.look(&names).is_err());
        let late = line.write(&names, mark, &Secret::new("{}"), "b", (LONG_MS, LONG_MS));
        assert!(late.is_err(), "{late:?}");
    }
}

#[test]
fn passwords() {
    let server = Server::start(&["--port", "0", "--requirepass", "p@ss"]);
    let with = |user: &str| server.url().replace("unix://", &format!("unix://{user}@"));
    assert!(ping(&store(&with(":p%40ss"), None)).unwrap().contains(' '));
    assert!(ping(&store(&with("default:p%40ss"), None)).is_ok());
    let wrong = ping(&store(&with(":other"), None)).unwrap_err();
    assert!(wrong.contains("refuses the user or password"), "{wrong}");
    assert!(!wrong.contains("other"), "{wrong}");
    assert!(ping(&store(&server.url(), None)).is_err());
}

#[test]
fn a_user_with_the_rights_that_the_documents_name() {
    let server = Server::start(&["--port", "0"]);
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/several-hosts.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let line = guide.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
    let rights: Vec<_> = line.split(' ').collect();
    assert!(rights.contains(&"+time"));
    // A user with the rights that older documents named keeps working, and newer servers tell the time in INFO.
    let before: Vec<_> = rights.iter().copied().filter(|right| *right != "+time").collect();
    server.tell(&before);
    let url = server.url().replace("unix://", "unix://evertoken:PASSWORD@");
    let mut line = Line::open(&store(&url, None)).unwrap();
    assert!(line.time().unwrap().is_some());
    server.tell(&["ACL", "SETUSER", "evertoken", "-info"]);
    assert_eq!(line.time().unwrap(), None, "and without that right they are not compared");
    server.tell(&rights);
    server.tell(&["ACL", "SETUSER", "default", "off"]);
    let url = server.url().replace("unix://", "unix://evertoken:PASSWORD@");
    let own = SharedStore { prefix: "evertoken:".to_owned(), ..store(&(url + "?db=1"), None) };
    ping(&own).unwrap();
    Line::open(&own).unwrap().probe("evertoken:").unwrap();
    let (mut line, mut other) = (Line::open(&own).unwrap(), Line::open(&own).unwrap());
    let mut subscription = other.listen("evertoken:").unwrap();
    let names = Names::new("evertoken:", "p");
    assert_eq!(line.take(&names, "a", LONG_MS, 0).unwrap(), None, "those who know more come first");
    let mark = Mark { fence: 1, generation: 1 };
    let written = line.write(&names, mark, &Secret::new("{}"), "a", (LONG_MS, LONG_MS)).unwrap();
    assert_eq!(written, Written::Done(false));
    line.renew(&names, "a", LONG_MS).unwrap();
    line.release(&names, "a").unwrap();
    line.look(&names).unwrap();
    line.mark(&names).unwrap();
    line.cool_down(&names, (1_000, 1), "me").unwrap();
    subscription.ping().unwrap();
    eventually("it hears", || subscription.hear(Duration::from_millis(10)).unwrap().is_some());
    assert!(line.time().unwrap().is_some());
    // Seen: the sum of a host takes the place of its runs by HDEL, a right that was missing here.
    for (writer, version) in [("a-1-x", 1), ("a-1-sum", 2)] {
        let tally = Tally { name: "day".into(), version, text: writer.to_owned(), kept_ms: 60_000 };
        let told = line.exchange("evertoken:", writer, &tally, 0).unwrap();
        assert_eq!(told.sum, version);
    }
    let elsewhere = Names::new("other:", "p");
    assert!(line.look(&elsewhere).is_err(), "and has no right to anything else");
}

#[test]
fn tls_with_a_root_of_our_own() {
    const ADDRESS: &str = "127.77.0.1";
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec![ADDRESS.to_owned()]).unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = write("cert", &made.cert.pem());
    let key = write("key", &made.signing_key.serialize_pem());
    let [port] = free_ports(ADDRESS).map(|port| port.to_string());
    let arguments = [
        ["--bind", ADDRESS],
        ["--port", "0"],
        ["--tls-port", &port],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &certificate],
        ["--tls-auth-clients", "no"],
    ];
    let _server = Server::start(arguments.as_flattened());
    let mut own = store(&format!("rediss://{ADDRESS}:{port}"), None);
    assert!(ping(&own).unwrap_err().contains("certificate"), "an unknown root");
    own.ca_pem = Some(made.cert.pem());
    ping(&own).unwrap();
}

#[test]
fn sentinels_lead_to_the_master() {
    const ADDRESS: &str = "127.77.0.2";
    let [port, sentinel, nobody] = free_ports(ADDRESS).map(|port| port.to_string());
    let _master = Server::start(&["--bind", ADDRESS, "--port", &port, "--requirepass", "p"]);
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "bind {ADDRESS}\nport {sentinel}\nsentinel monitor main {ADDRESS} {port} 1\n\
         sentinel auth-pass main p\n"
    );
    std::fs::write(folder.path().join("sentinel.conf"), config).unwrap();
    let mut command = Command::new(program("valkey-server", "redis-server"));
    command.args(["sentinel.conf", "--sentinel"]).current_dir(folder.path());
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let _sentinel = Server { child, folder };
    // The first of them does not answer.
    let url =
        |name: &str| format!("redis+sentinel://:p@{ADDRESS}:{nobody},{ADDRESS}:{sentinel}/{name}");
    let own = store(&url("main"), None);
    eventually("the master is found", || ping(&own).is_ok());
    let unknown = ping(&store(&url("other"), None)).unwrap_err();
    assert!(unknown.contains("knows no master of this name"), "{unknown}");
}

#[test]
fn who_waits_on_one_host_is_served_by_the_refresh_of_another() {
    let server = Server::start(&["--port", "0"]);
    let provider = Peer::telling_the_credential();
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let issuer = Peer::start(move |mut talk| {
        talk.request();
        let _ = released.recv();
        let body = r#"{"access_token":"access-1","expires_in":3600,"refresh_token":"refresh-1"}"#;
        talk.send(answer(200, body));
    });
    let start = |name: &str| {
        TestProxy::builder()
            .variable("CLIENT_ID", name)
            .refreshed("P", &provider.url(), &format!("{}/token", issuer.url()), "")
            .settings(&format!("token_store: \"{}\"", server.url()))
            .start()
    };
    let hosts = [start("host-0"), start("host-1")];
    eventually("one of them refreshes", || issuer.seen().len() == 1);
    let first = String::from_utf8(issuer.seen()[0].body.clone()).unwrap();
    let other = &hosts[usize::from(first.contains("host-0"))];
    let mut client = Client::connect(other.address);
    client.send("POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    drop(release);
    // Without the news it would wait for the whole time that a refresh may take, longer than this reads.
    assert_eq!(client.answer().status, 200);
    for host in &hosts {
        assert_eq!(host.ask(get("/x")).body, "Bearer access-1");
    }
}

#[test]
fn what_another_host_got_is_in_the_own_state_folder_too() {
    let (server, emptied) = (Server::start(&["--port", "0"]), Server::start(&["--port", "0"]));
    let provider =
        Peer::answering(|seen| answer(200, seen.field("authorization").unwrap_or("none")));
    let issuer = Peer::answering(|_| {
        answer(200, r#"{"access_token":"access-1","expires_in":3600,"refresh_token":"refresh-1"}"#)
    });
    let builder = |server: &Server| {
        TestProxy::builder()
            .refreshed("P", &provider.url(), &format!("{}/token", issuer.url()), "")
            .settings(&format!("token_store: \"{}\"", server.url()))
    };
    let hosts = [builder(&server).start(), builder(&server).start()];
    let source = |host: &TestProxy| {
        host.ask(get("/-/status")).json()["providers"][0]["token"]["source"].clone()
    };
    eventually("both have the token", || hosts.iter().all(|host| source(host).is_string()));
    let [first, second] = hosts;
    let (own, other) = if source(&first) == "refresh" { (first, second) } else { (second, first) };
    assert_eq!((source(&own), source(&other)), ("refresh".into(), "token_store".into()));
    // The host that refreshed it is gone for good, and so is the server's knowledge.
    drop((own, server));
    let folder = other.into_folder();
    let alone = builder(&emptied).folder(folder).start();
    assert_eq!(alone.ask(get("/x")).body, "Bearer access-1");
    assert_eq!(source(&alone), "state_file");
    assert_eq!(issuer.seen().len(), 1, "no refresh token was spent");
}

#[test]
fn a_token_that_is_refused_on_all_hosts_at_once_is_refreshed_once() {
    let server = Server::start(&["--port", "0"]);
    let provider = Peer::answering(|seen| match seen.field("authorization") {
        Some("Bearer access-1") => answer(401, "expired"),
        Some(token) => answer(200, token),
        None => answer(400, ""),
    });
    let count = std::sync::atomic::AtomicU64::new(0);
    let issuer = Peer::answering(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        let grant = format!(
            r#"{{"access_token":"access-{number}","expires_in":3600,"refresh_token":"refresh-{number}"}}"#
        );
        answer(200, &grant)
    });
    let hosts = [(); 3].map(|()| {
        TestProxy::builder()
            .refreshed("P", &provider.url(), &format!("{}/token", issuer.url()), "")
            .settings(&format!("token_store: \"{}\"", server.url()))
            .start()
    });
    for host in &hosts {
        eventually("it has the token", || host.ask(get("/-/ready")).status == 200);
    }
    let mut clients: Vec<_> =
        hosts.iter().flat_map(|host| [(); 5].map(|()| Client::connect(host.address))).collect();
    for client in &mut clients {
        client.send(get("/x"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().body, "Bearer access-2");
    }
    assert_eq!(issuer.seen().len(), 2);
    // An order is followed by the host that it was given to, however young the token is.
    for (number, host) in hosts.iter().enumerate() {
        let ordered =
            host.ask("POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        // One that comes while the token of the host before is taken up may join that refresh.
        let asked = issuer.seen().len();
        assert_eq!(ordered.status, 200);
        assert!((3..=3 + number).contains(&asked), "{asked}");
    }
}

/// 43 leases a second were taken.
#[test]
fn no_lease_is_taken_where_a_variable_is_missing() {
    let server = Server::start(&["--port", "0"]);
    let shared = store(&server.url(), None);
    let proxy = TestProxy::builder()
        .refreshed("P", "http://127.0.0.1:9", "http://127.0.0.1:9/token", "")
        .without_variable("CLIENT_ID")
        .settings(&format!(
            "token_store: \"{}\", token_store_prefix: \"{}\"",
            server.url(),
            shared.prefix
        ))
        .start();
    let failures = || {
        proxy.ask(get("/-/status")).json()["providers"][0]["refresh"]["failures"].as_u64().unwrap()
    };
    eventually("the start has tried", || failures() == 1);
    for orders in 1..=3 {
        proxy.ask("POST /-/refresh/p HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(failures(), orders + 1);
    }
    let mut line = Line::open(&shared).unwrap();
    let mut taken = None;
    eventually("the lease can be taken", || {
        taken = line.take(&Names::new(&shared.prefix, "p"), "test", LONG_MS, 0).unwrap();
        taken.is_some()
    });
    assert_eq!(taken.unwrap().fence, 1, "nobody had it before");
}

#[test]
fn a_login_and_a_logout_on_one_host_reach_the_others() {
    let server = Server::start(&["--port", "0"]);
    let provider = Peer::telling_the_credential();
    let issuer = Peer::answering(|_| {
        answer(200, r#"{"access_token":"access-1","expires_in":3600,"refresh_token":"refresh-1"}"#)
    });
    let described = || {
        TestProxy::builder()
            .refreshed("P", &provider.url(), &format!("{}/token", issuer.url()), "")
            .settings(&format!("token_store: \"{}\"", server.url()))
    };
    let hosts = [described().start(), described().start()];
    for host in &hosts {
        assert_eq!(host.ask(get("/x")).body, "Bearer access-1");
    }
    // `evertoken login` on a third, which knows nothing yet.
    let folder = tempfile::tempdir().unwrap();
    let setup = of_command(&described().config(folder.path()), u64::MAX);
    let now = setup.clock.now();
    let grant = Grant {
        access_token: Secret::new("access-2"),
        refresh_token: None,
        lifetime_ms: 3_600_000,
        refresh_in_ms: None,
        earliest_refresh_in_ms: None,
        has_ended: false,
        scope: None,
        refresh_token_lifetime_ms: None,
        odd_refresh_end: None,
        warning: None,
    };
    store_login(&setup, &grant, &Secret::new("refresh-2"), now).unwrap();
    for host in &hosts {
        eventually("the login's token", || host.ask(get("/x")).body == "Bearer access-2");
        let stored = std::fs::read_to_string(host.folder().join("p.json")).unwrap();
        assert!(stored.contains("refresh-2"), "each has a copy");
    }
    let asked: Vec<_> = issuer.seen().into_iter().map(|seen| seen.body).collect();
    let asked: Vec<_> = asked.iter().map(|body| String::from_utf8_lossy(body)).collect();
    assert_eq!(asked.len(), 1, "and nothing was refreshed: {asked:?}");

    // `evertoken logout` on a fourth.
    let folder = tempfile::tempdir().unwrap();
    let setup = of_command(&described().config(folder.path()), u64::MAX);
    let mut revoked = Vec::new();
    log_out(&setup, |tokens| revoked.clone_from(&tokens.refresh)).unwrap();
    assert_eq!(revoked, [Secret::new("refresh-2")], "the token in the store");
    for host in &hosts {
        eventually("the tokens are dropped", || host.ask(get("/x")).status == 403);
        let stored = std::fs::read_to_string(host.folder().join("p.json")).unwrap();
        assert!(!stored.contains("refresh-") && !stored.contains("access-"), "{stored}");
    }
    assert_eq!(issuer.seen().len(), 1, "the configured refresh token is not tried");
    // Another logout finds nothing to do, and lets go of the lease: the next command need not wait for its end.
    assert_eq!(log_out(&setup, |_| ()).unwrap(), None);
    let mut setup = of_command(&described().config(folder.path()), u64::MAX - 1);
    setup.timer = Box::new(|_| panic!("the lease is held"));
    store_login(&setup, &grant, &Secret::new("refresh-3"), setup.clock.now()).unwrap();
}

/// The chain of the first provider, as a command on a host of its own sees it, with a seed that no proxy of a
/// test has.
fn of_command(config: &Config, seed: u64) -> Setup {
    let mut environment = Environment {
        clock: Clock::system(),
        rng: Rng::with_seed(seed),
        timer: crossbeam_channel::after,
        supervisor: Supervisor::nobody(),
    };
    let store = Arc::new(TokenStore::default());
    let group = &groups(&config.providers)[0];
    refresher_setup(0, group, "p", config, &store, &mut environment, &|_| 0).unwrap()
}

#[test]
fn check_says_whether_it_answers() {
    let server = Server::start(&["--port", "0"]);
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &Path| {
        let text = format!(
            "settings: {{state_dir: \"{}/state\", token_store: \"unix://{}\"}}\nproviders: []\n",
            folder.path().display(),
            path.display()
        );
        let text = text.replace(
            "providers: []",
            "providers:\n  - {name: P, type: generic, base_url: \"http://127.0.0.1:9\", enabled: false, auth_type: none}",
        );
        std::fs::write(folder.path().join("providers.yaml"), text).unwrap();
        let done = crate::support::binary::run(folder.path(), &["check", "--online"], &[]);
        let said = [&done.stdout[..], &done.stderr[..]].concat();
        (done.status.code(), crate::support::binary::text(&said))
    };
    let (code, said) = write(&server.socket());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Tokens are shared through unix://"), "{said}");
    assert!(said.contains(": answers ("), "{said}");
    let (code, said) = write(Path::new("/nonexistent"));
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("token_store unix:///nonexistent?db=0: "), "{said}");
}
