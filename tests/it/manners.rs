//! The life of a token with every kind of issuer that the sandbox knows: get, refresh, rotate, fail for a while, be
//! refused, restart, lose an answer, be revoked, recover. What `providers.yaml` says is read from the tables of the docs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use evertoken::testing::{Clock, Moment, Timestamp};
use sandbox::issuer::CLIENT_ID;
use sandbox::manners::{Format, KINDS, Manners, Template, UsedToken};
use sandbox::{Options, Sandbox};
use serde_json::Value;

use crate::support::binary::Binary;
use crate::support::client::{Answer, ask, get, post};
use crate::support::eventually;
use crate::support::peer::{Peer, Seen};
use crate::support::proxy::{Builder, TestProxy};

const DOCUMENTS: [&str; 2] = ["docs/token-refresh.md", "docs/token-refresh.zh-CN.md"];
const LOST: &str = "the answer to the last refresh was probably lost; log in again";
/// A refresher's real sleep; by the clock of these tests it may be hours.
const SLEEP: Duration = Duration::from_millis(3);
/// The wait after a permanent failure unless something changes. No kind's tokens end about then, when a request would
/// wait for the next try.
const RETRY_INTERVAL_SECONDS: u64 = 7_200;
const MESSAGE: &str = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;

/// A row of a document's table: what to write for a kind of issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    kind: String,
    /// Lines of `auto_refresh_config`.
    refresh: Vec<String>,
    /// Lines of the provider.
    provider: Vec<String>,
}

/// The rows of the table that ends with a column of kinds.
fn rows(document: &str) -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').collect();
        let [_, refresh, provider, _, _, kind] = cells[..] else { return None };
        let kind = code(kind).pop().filter(|kind| KINDS.iter().any(|(known, _)| known == kind))?;
        Some(Row { kind, refresh: code(refresh), provider: code(provider) })
    });
    rows.collect()
}

/// The texts in backticks.
fn code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn both_documents_have_a_row_for_every_kind_and_say_the_same() {
    let [english, chinese] = DOCUMENTS.map(rows);
    let mut kinds: Vec<_> = english.iter().map(|row| row.kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, KINDS.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
    assert_eq!(english, chinese);
}

/// A sandbox with the manners of one kind, evertoken before it, and a clock that the test moves.
struct World {
    row: Row,
    manners: Manners,
    now_ms: Arc<AtomicU64>,
    sandbox: Sandbox,
    /// Between evertoken and the token endpoint; it can lose an answer.
    relay: Peer,
    loses: Arc<AtomicBool>,
    seed: String,
    /// One more line of `auto_refresh_config`.
    more: &'static str,
    proxy: Option<TestProxy>,
}

impl World {
    fn new(row: Row, more: &'static str) -> Self {
        let mut manners = Manners::find(&row.kind).unwrap();
        if manners.tokens.session_seconds.is_some() {
            // So that the test lives to see its end.
            manners.tokens.session_seconds = Some(manners.tokens.lifetime_seconds * 30);
        }
        let start = u64::try_from(Clock::system().wall().as_millis()).unwrap();
        let now_ms = Arc::new(AtomicU64::new(start));
        let of_sandbox = now_ms.clone();
        let options = Options {
            manners: Some(manners.clone()),
            clock: Some(Arc::new(move || of_sandbox.load(Ordering::SeqCst))),
            event_delay: Duration::ZERO,
            ..Options::default()
        };
        let sandbox = Sandbox::start(options).unwrap();
        let loses = Arc::new(AtomicBool::new(false));
        let (of_relay, issuer) = (loses.clone(), sandbox.address());
        let relay = Peer::start(move |mut talk| {
            let Some(seen) = talk.request() else { return };
            let answer = forward(&seen, TcpStream::connect(issuer).unwrap());
            if !of_relay.swap(false, Ordering::SeqCst) {
                talk.send(answer);
            }
        });
        let seed = sandbox.login();
        let mut world =
            Self { row, manners, now_ms, sandbox, relay, loses, seed, more, proxy: None };
        world.start(None);
        world
    }

    /// The configuration for this kind, with the addresses of this test.
    fn described(&self) -> Builder {
        let own = format!("token_url: \"{}/oauth/token\"", self.relay.url());
        let has_secret = !self.row.refresh.iter().any(|line| line == "client_auth: \"none\"");
        let mut lines = vec!["auto_refresh_config:".to_owned()];
        let written = self.row.refresh.iter().map(String::as_str);
        let written = written.map(|line| if line.starts_with("token_url:") { &own } else { line });
        let fixed = ["client_id_env: CLIENT_ID", "refresh_token_env: REFRESH_TOKEN"];
        let secret = has_secret.then_some("client_secret_env: CLIENT_SECRET");
        let login = format!("authorization_url: \"{}/oauth/authorize\"", self.sandbox.url());
        let retry = format!("retry_interval: {RETRY_INTERVAL_SECONDS}");
        let all = written.chain(fixed).chain(secret).chain([self.more, &login, &retry]);
        lines.extend(all.filter(|line| !line.is_empty()).map(|line| format!("  {line}")));
        lines.extend(self.row.provider.iter().cloned());
        TestProxy::builder()
            .provider("P", "anthropic", &self.sandbox.url(), &lines.join("\n"))
            .variable("CLIENT_ID", CLIENT_ID)
            .variable("CLIENT_SECRET", &self.sandbox.client_secret())
            .variable("REFRESH_TOKEN", &self.seed)
    }

    fn start(&mut self, folder: Option<tempfile::TempDir>) {
        let now_ms = self.now_ms.clone();
        let origin = now_ms.load(Ordering::SeqCst);
        let clock = Clock::from_fn(move || {
            let now = now_ms.load(Ordering::SeqCst);
            let wall = Timestamp::from_millis(i64::try_from(now).unwrap());
            Moment { wall, steady_ms: now - origin }
        });
        let timer = |allowed: Duration| crossbeam_channel::after(allowed.min(SLEEP));
        let mut described = self.described().clock(clock).timer(timer);
        if let Some(folder) = folder {
            described = described.folder(folder);
        }
        self.proxy = Some(described.start());
    }

    fn proxy(&self) -> &TestProxy {
        self.proxy.as_ref().unwrap()
    }

    fn restart(&mut self) {
        let folder = self.proxy.take().unwrap().into_folder();
        self.start(Some(folder));
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn move_to(&self, at_ms: u64) {
        self.now_ms.fetch_max(at_ms, Ordering::SeqCst);
    }

    fn ask(&self) -> Answer {
        self.proxy().ask(post("/v1/messages", MESSAGE))
    }

    #[track_caller]
    fn serves(&self, what: &str) {
        let answer = self.ask();
        assert_eq!(answer.status, 200, "{what}: {}: {}", answer.body, self.status());
        assert!(answer.body.contains("You said: hello"), "{what}: {}", answer.body);
    }

    fn status(&self) -> Value {
        self.proxy().ask(get("/-/status")).json()["providers"][0].clone()
    }

    /// A time that `/-/status` tells, in milliseconds; 0 where it tells none.
    fn time(&self, of: &str, name: &str) -> u64 {
        let told = self.status()[of][name].as_str().and_then(Timestamp::parse_rfc3339);
        told.map_or(0, |at| u64::try_from(at.as_millis()).unwrap())
    }

    fn refreshes(&self) -> u64 {
        self.status()["refresh"]["successes"].as_u64().unwrap()
    }

    /// Orders a refresh, and waits for its end.
    fn order(&self) -> Answer {
        self.proxy().ask(post("/-/refresh/p", ""))
    }

    /// Lets the time pass until the next refresh is due, and it to happen, while a client goes on.
    #[track_caller]
    fn refresh_when_due(&self) {
        let before = self.refreshes();
        self.move_to(self.time("token", "refresh_due_at") + 1);
        eventually("the refresh that was due", || {
            self.serves("while it is refreshed");
            self.refreshes() > before
        });
        self.serves("once it is refreshed");
    }
}

/// The bytes that the server at `stream` answers to a request.
fn forward(seen: &Seen, mut stream: TcpStream) -> Vec<u8> {
    let mut head = format!("{}\r\nconnection: close\r\n", seen.line);
    for (name, value) in seen.fields.iter().filter(|(name, _)| name != "connection") {
        head.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all(&[head.as_bytes(), b"\r\n", &seen.body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

/// No client sees a 401, and the API sees no bad token, through many lifetimes.
fn gets_refreshes_and_rotates(world: &World) {
    world.serves("the first token");
    for _ in 0..4 {
        world.refresh_when_due();
    }
    assert!(world.sandbox.counts().granted >= 5);
    assert_eq!((world.sandbox.counts().reused, world.sandbox.counts().overlapped), (0, 0));
    if !world.manners.rotation.ends_access_token {
        assert_eq!(world.sandbox.requests().1, 0, "requests with a bad token");
    }
}

/// Sees to a token that outlasts what comes next.
fn has_a_fresh_token(world: &World) {
    let left = world.time("token", "expires_at").saturating_sub(world.now_ms());
    if left < world.manners.tokens.lifetime_seconds * 900 {
        world.move_to(world.time("token", "expires_at") + 1_100);
        eventually("a fresh token", || world.time("token", "expires_at") > world.now_ms());
        world.serves("with a fresh token");
    }
}

/// A transient failure costs nothing while the token lasts, and does not count as the end.
fn survives_what_passes(world: &World) {
    let answers = &world.manners.answers;
    let passing = [&answers.rate_limit, &answers.server_error].into_iter().chain(&answers.pages);
    for template in passing {
        has_a_fresh_token(world);
        world.sandbox.answer_at_token(template);
        let answer = world.order();
        assert_ne!(answer.status, 200, "{template:?}");
        let next = world.time("refresh", "next_attempt_at");
        let waits = next - world.now_ms();
        assert!(
            next > 0 && waits < RETRY_INTERVAL_SECONDS * 500,
            "{template:?}: {}",
            world.status()
        );
        world.serves("while the issuer is unwell");
        assert_eq!(world.order().status, 200, "{template:?}: {}", world.status());
    }
}

/// The API refuses the token before its end: one refresh, and the client sees nothing of it.
fn replaces_a_refused_token(world: &World) {
    // A token that was got a moment ago is not replaced at once.
    world.move_to(world.now_ms() + 30_000);
    world.sandbox.revoke_access_tokens();
    let Some(stale) = &world.manners.api.stale_token else { return };
    if stale.status == 200 {
        // Nobody can tell it from an answer; whoever reads it orders a refresh.
        assert!(world.ask().body.contains("token_expired"));
        assert_eq!(world.order().status, 200);
    }
    let before = world.refreshes();
    world.serves("after the API refused the token");
    assert!(world.refreshes() - before <= 1);
}

/// A 403 that is about something else is passed on as it is.
fn passes_on_what_is_forbidden(world: &World) {
    let forbidden = world.manners.api.forbidden.as_ref().filter(|template| template.status == 403);
    let Some(template) = forbidden else { return };
    let before = world.refreshes();
    world.sandbox.answer_at_provider(template);
    let answer = world.ask();
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.code().is_empty(), "it is the provider's own: {}", answer.body);
    assert_eq!(world.refreshes(), before);
}

fn keeps_its_token_over_a_restart(world: &mut World) {
    let before = world.sandbox.counts();
    world.restart();
    world.serves("after a restart");
    assert_eq!(world.sandbox.counts(), before, "without a token request");
}

/// The issuer does its work, and its answer is lost.
fn loses_an_answer(world: &mut World) {
    let rotation = world.manners.rotation.clone();
    let is_harmless = !rotation.rotates
        || rotation.used_token == UsedToken::Works
        || rotation.overlap_seconds > 0;
    let before = world.sandbox.counts();
    world.loses.store(true, Ordering::SeqCst);
    world.move_to(world.time("token", "refresh_due_at") + 1);
    eventually("the answer is lost", || !world.loses.load(Ordering::SeqCst));
    if is_harmless {
        let refreshes = world.refreshes();
        eventually("the next try", || {
            world.move_to(world.now_ms() + 20);
            world.refreshes() > refreshes
        });
        world.serves("after a lost answer");
        assert_eq!(world.sandbox.counts().reused, before.reused);
        return;
    }
    eventually("it is said that the answer was lost", || {
        world.move_to(world.now_ms() + 20);
        world.proxy().ask(get("/-/ready")).body.contains(LOST)
            || world.status().to_string().contains(LOST)
    });
    // The chain's token once more, and the seed of the configuration, which differs from it.
    let again = world.sandbox.counts().reused - before.reused;
    assert!((1..=2).contains(&again), "{again}");
    let is_good_still = rotation.used_token == UsedToken::IsRefused && !rotation.ends_access_token;
    if is_good_still {
        world.serves("with the token there is, while it lasts");
    }
    world.move_to(world.time("token", "expires_at") + 1);
    needs_a_login(world);
    // A login with the provider's own tool: its refresh token goes into the variable.
    world.seed = world.sandbox.login();
    world.restart();
    world.serves("with a new refresh token");
    assert_eq!(world.sandbox.counts().reused, before.reused + again);
}

/// The chain has ended: nobody gets through, and everybody is told what to do.
#[track_caller]
fn needs_a_login(world: &World) {
    let answer = world.ask();
    assert!(matches!(answer.status, 403 | 503), "{}: {}", answer.status, answer.body);
    assert!(matches!(answer.code(), "login_needed" | "token_unavailable"), "{}", answer.body);
    assert!(answer.body.contains("log in again"), "{}", answer.body);
    let status = world.status().to_string().to_lowercase();
    assert!(status.contains("evertoken login --provider p"), "{status}");
}

/// The issuer ends the login, or the session comes to its end; then somebody logs in anew.
fn is_revoked_and_logs_in(world: &mut World) {
    if world.manners.tokens.session_seconds.is_some() {
        eventually("the session ends", || {
            let due = world.time("token", "refresh_due_at").max(world.now_ms());
            let failures = || world.status()["refresh"]["consecutive_failures"].as_u64();
            // Looked at before the refresh may begin.
            let before = world.refreshes();
            world.move_to(due + 1);
            eventually("a refresh", || world.refreshes() > before || failures() > Some(0));
            failures() > Some(0)
        });
    } else {
        world.sandbox.revoke_logins();
        assert_ne!(world.order().status, 200);
    }
    // The refresh token of the configuration is tried in the chain's place before that is said.
    eventually("it is said", || world.status().to_string().to_lowercase().contains("log in again"));
    // Past the try that follows the end of a repeated token.
    world.move_to(world.time("token", "expires_at") + 2_000);
    needs_a_login(world);
    log_in(world);
    world.serves("after a login");
    world.refresh_when_due();
}

fn log_in(world: &mut World) {
    let described = world.described();
    let folder = world.proxy.take().unwrap().into_folder();
    std::fs::write(folder.path().join("providers.yaml"), described.text(folder.path())).unwrap();
    let secret = world.sandbox.client_secret();
    let variables = [
        ("HOME", "/nonexistent"),
        ("CLIENT_ID", CLIENT_ID),
        ("CLIENT_SECRET", &secret),
        ("REFRESH_TOKEN", &world.seed),
    ];
    let arguments = ["login", "--provider", "p", "--no-browser"];
    let (mut login, _stdin) = Binary::start_talking(folder.path(), &arguments, &variables);
    let consent = visit(login.wait_for("  http").trim());
    assert_eq!(consent.status, 302, "{}", consent.body);
    let page = visit(consent.field("location").unwrap());
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(login.code(), Some(0), "{:#?}", login.lines());
    world.start(Some(folder));
}

/// A browser's answer from `url`.
fn visit(url: &str) -> Answer {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    ask(authority.parse().unwrap(), get(&format!("/{path}")))
}

/// Wrong secrets are told apart from dead refresh tokens, in the issuer's own words.
fn says_that_the_client_is_wrong(world: &World) {
    let template = &world.manners.answers.wrong_client;
    has_a_fresh_token(world);
    world.sandbox.answer_at_token(template);
    assert_ne!(world.order().status, 200);
    let words = error_code(template);
    let status = world.status().to_string();
    assert!(status.contains(&words), "'{words}' in {status}");
    assert!(!status.to_lowercase().contains("log in again"), "{status}");
    world.serves("while the client is refused");
    assert_eq!(world.order().status, 200, "an order tries at once");
}

/// The error code in the body.
fn error_code(template: &Template) -> String {
    let body = template.body.as_ref().unwrap();
    let error = &body["error"];
    error.as_str().or_else(|| error["code"].as_str()).unwrap().to_owned()
}

fn lives(row: Row, more: &'static str) {
    let mut world = World::new(row, more);
    gets_refreshes_and_rotates(&world);
    survives_what_passes(&world);
    says_that_the_client_is_wrong(&world);
    replaces_a_refused_token(&world);
    passes_on_what_is_forbidden(&world);
    keeps_its_token_over_a_restart(&mut world);
    loses_an_answer(&mut world);
    is_revoked_and_logs_in(&mut world);
}

#[test]
fn the_life_of_a_token_with_every_kind_of_issuer() {
    let mut lives_to_live: Vec<(Row, &'static str)> = Vec::new();
    for row in rows(DOCUMENTS[0]) {
        if Manners::find(&row.kind).unwrap().answers.format == Format::ByAccept {
            lives_to_live.push((row.clone(), "headers: { accept: \"*/*\" }"));
        }
        lives_to_live.push((row, ""));
    }
    assert!(
        lives_to_live.len() > KINDS.len(),
        "a form is answered to those who do not ask for JSON"
    );
    let threads: Vec<_> = lives_to_live
        .into_iter()
        .map(|(row, more)| {
            let name = format!("{} {more}", row.kind);
            let body = move || lives(row, more);
            (name.clone(), std::thread::Builder::new().name(name).spawn(body).unwrap())
        })
        .collect();
    let failed: Vec<_> = threads
        .into_iter()
        .filter_map(|(name, thread)| thread.join().err().map(|_| name))
        .collect();
    assert_eq!(failed, [""; 0]);
}
