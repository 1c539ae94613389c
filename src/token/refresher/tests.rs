//! The longest sleep of a refresher: the test holds the clock and the timer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, select, unbounded};
use fastrand::Rng;
use log::{LevelFilter, Log, Metadata, Record};

use super::*;
use crate::atomic::AtomicU64;
use crate::clock::{Clock, Moment, Timestamp};
use crate::config::{
    AutoRefresh, ClientAuth, GrantType, LoginEndpoints, SecretFiles, TokenExchange, Unwritten,
};
use crate::http::message::Headers;
use crate::record::{Marker, Saved, SavedAccess};
use crate::secret::Secret;
use crate::token::grant;
use crate::token::grant::{Failure, Reached, TokenRequest};
use crate::token::places::Seeker;
use crate::token::refresher::setup::LOCK_RETRY_MS;
use crate::token::sender::{Allowed, IssuerLink, Reach, Send, TokenAnswer};
use crate::token::state_file::StateFile;
use crate::token::store::TokenStore;
use crate::token::waiting::SAID_AFTER_MS;

const PATIENCE: Duration = Duration::from_secs(20);

/// A refresher before an issuer that gives these answers in turn, and the last of them again and again.
struct Asleep {
    elapsed_ms: Arc<AtomicU64>,
    sleeps: Receiver<(Duration, Sender<Instant>)>,
    timer: Option<Sender<Instant>>,
    store: Arc<TokenStore>,
    asked: Arc<AtomicUsize>,
    refresher: Refresher,
    folder: tempfile::TempDir,
    clock: Clock,
    going_to_sleep: Sender<(Duration, Sender<Instant>)>,
}

/// A refresher's setup in `folder`.
fn setup(
    folder: &Path,
    config: AutoRefresh,
    (clock, store): (&Clock, &Arc<TokenStore>),
    asleep: &Sender<(Duration, Sender<Instant>)>,
    send: Send,
) -> Setup {
    let asleep = asleep.clone();
    let timer = move |allowed: Duration| {
        let (timer, fired) = bounded(1);
        let _ = asleep.send((allowed, timer));
        fired
    };
    Setup {
        provider: 0,
        name: "P".into(),
        config,
        state: StateFile::new(folder, "p"),
        seeker: Seeker::default(),
        chain: None,
        store: store.clone(),
        clock: clock.clone(),
        timer: Box::new(timer),
        link: IssuerLink { send, reach: None },
        rng: Rng::with_seed(1),
        watches_disk: false,
    }
}

impl Asleep {
    fn before(retry_interval_ms: u64, answers: &[(u16, &str)]) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), retry_interval_ms, answers)
    }

    fn in_folder(
        folder: tempfile::TempDir,
        retry_interval_ms: u64,
        answers: &[(u16, &str)],
    ) -> Self {
        let answers: Vec<_> =
            answers.iter().map(|(status, body)| (*status, body.as_bytes().to_vec())).collect();
        let asked = AtomicUsize::new(0);
        Self::asking(folder, retry_interval_ms, move || {
            let next = asked.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
            answers[next].clone()
        })
    }

    fn asking(
        folder: tempfile::TempDir,
        retry_interval_ms: u64,
        issuer: impl Fn() -> (u16, Vec<u8>) + std::marker::Send + 'static,
    ) -> Self {
        let config = AutoRefresh {
            retry_interval: Duration::from_millis(retry_interval_ms),
            ..grant::tests::config()
        };
        Self::with(folder, config, move |_| issuer())
    }

    /// An issuer that sees what it is sent.
    fn with(
        folder: tempfile::TempDir,
        config: AutoRefresh,
        issuer: impl Fn(&TokenRequest) -> (u16, Vec<u8>) + std::marker::Send + 'static,
    ) -> Self {
        Self::publishing("P", Arc::default(), folder, config, issuer)
    }

    /// A refresher that is called `name` and publishes in `store`.
    fn publishing(
        name: &str,
        store: Arc<TokenStore>,
        folder: tempfile::TempDir,
        config: AutoRefresh,
        issuer: impl Fn(&TokenRequest) -> (u16, Vec<u8>) + std::marker::Send + 'static,
    ) -> Self {
        let elapsed_ms: Arc<AtomicU64> = Arc::default();
        let elapsed = elapsed_ms.clone();
        let clock = Clock::from_fn(move || {
            let steady_ms = elapsed.load(Ordering::SeqCst);
            let wall = Timestamp::from_secs(1_800_000_000);
            Moment { wall: wall.plus_millis(i64::try_from(steady_ms).unwrap()), steady_ms }
        });
        let (asleep, sleeps) = unbounded();
        let asked: Arc<AtomicUsize> = Arc::default();
        let requests = asked.clone();
        let send: Send = Box::new(move |request, _, _| {
            requests.fetch_add(1, Ordering::SeqCst);
            let (status, body) = issuer(request);
            Ok(TokenAnswer { status, headers: Headers::new(), body, said: None })
        });
        let setup = setup(folder.path(), config, (&clock, &store), &asleep, send);
        let setup = Setup { name: name.to_owned(), ..setup };
        let refresher = Refresher::start(setup, None).unwrap();
        let (timer, going_to_sleep) = (None, asleep);
        Self { elapsed_ms, sleeps, timer, store, asked, refresher, folder, clock, going_to_sleep }
    }

    /// Lets the time pass and the timer fire. Returns the length of the refresher's next sleep, in milliseconds.
    ///
    /// A process that another test has just forked holds our locks too, until it runs its own program: such a wait is
    /// skipped.
    fn sleeps_after(&mut self, passed_ms: u64) -> u64 {
        let mut sleeps_ms = self.sleeps_or_waits_for_lock_after(passed_ms);
        // After a failure it is the backoff.
        while sleeps_ms == LOCK_RETRY_MS && self.store.read(0).refresh.failures == 0 {
            sleeps_ms = self.sleeps_or_waits_for_lock_after(0);
        }
        sleeps_ms
    }

    /// Waits until the issuer is asked, and skips waits for a lock.
    fn until_asked(&self, asked: &Receiver<()>) {
        loop {
            select! {
                recv(asked) -> _ => return,
                // It fires, since it is dropped.
                recv(self.sleeps) -> sleep => drop(sleep.unwrap()),
                default(PATIENCE) => panic!("the issuer is not asked"),
            }
        }
    }

    fn sleeps_or_waits_for_lock_after(&mut self, passed_ms: u64) -> u64 {
        self.elapsed_ms.fetch_add(passed_ms, Ordering::SeqCst);
        drop(self.timer.take());
        let (allowed, timer) = self.sleeps.recv_timeout(PATIENCE).unwrap();
        self.timer = Some(timer);
        u64::try_from(allowed.as_millis()).unwrap()
    }
}

/// The old account's token was sent until its end, whether or not its chain had been refused.
#[test]
fn a_new_refresh_token_in_its_file_is_tried_though_the_old_token_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one").unwrap();
    let config = AutoRefresh {
        seed: Some(Ok(Secret::new("one"))),
        files: SecretFiles { seed: Some(path.clone()), ..SecretFiles::default() },
        ..grant::tests::config()
    };
    let mut asleep = Asleep::with(folder, config, |request| {
        let account = if request.body.expose().contains("=two") { "two" } else { "one" };
        let grant = format!(
            r#"{{"access_token":"{account}","refresh_token":"{account}-1","expires_in":36000}}"#
        );
        (200, grant.into_bytes())
    });
    asleep.sleeps_after(0);
    std::fs::write(&path, "two").unwrap();
    asleep.sleeps_after(TICK_MS);
    let token = asleep.store.read(0).token.clone().unwrap();
    assert_eq!(token.secret, Secret::new("two"));
    assert_eq!(asleep.asked.load(Ordering::SeqCst), 2);
    asleep.sleeps_after(TICK_MS);
    assert_eq!(asleep.asked.load(Ordering::SeqCst), 2, "once");
}

#[test]
fn a_secret_file_that_goes_while_the_token_is_good_is_told_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "s").unwrap();
    let config = AutoRefresh {
        client_secret: Some(Ok(Secret::new("s"))),
        files: SecretFiles { client_secret: Some(path.clone()), ..SecretFiles::default() },
        ..grant::tests::config()
    };
    let grant = br#"{"access_token":"a","refresh_token":"r","expires_in":36000}"#;
    let mut asleep = Asleep::with(folder, config, |_| (200, grant.to_vec()));
    asleep.sleeps_after(0);
    let told = |asleep: &Asleep| asleep.store.read(0).missing.clone();
    assert_eq!(told(&asleep), None);
    std::fs::remove_file(&path).unwrap();
    asleep.sleeps_after(TICK_MS);
    let missing = told(&asleep).unwrap().to_string();
    assert!(missing.contains("secret' (No such file"), "{missing}");
    assert_eq!(asleep.store.read(0).refresh.last_error, None);
    std::fs::write(&path, "s").unwrap();
    asleep.sleeps_after(TICK_MS);
    assert_eq!(told(&asleep), None);
}

const REFUSED: (u16, &str) = (400, r#"{"error":"invalid_grant"}"#);
const HOUR_MS: u64 = 3_600_000;

#[test]
fn with_a_token_it_sleeps_until_the_token_is_due_but_no_longer_than_30_s() {
    for (due_in, sleeps_ms) in [("29.999", 29_999), ("30", 30_000), ("30.001", 30_000)] {
        let grant = format!(r#"{{"access_token":"a","expires_in":3600,"refresh_in":{due_in}}}"#);
        let mut asleep = Asleep::before(HOUR_MS, &[(200, &grant)]);
        assert_eq!(asleep.sleeps_after(0), sleeps_ms, "due in {due_in} s");
    }
}

#[test]
fn without_a_token_it_sleeps_until_the_next_try_but_no_longer_than_5_s() {
    for (retry_ms, sleeps_ms) in [(4_999, 4_999), (5_000, 5_000), (5_001, 5_000)] {
        let mut asleep = Asleep::before(retry_ms, &[REFUSED]);
        assert_eq!(asleep.sleeps_after(0), sleeps_ms, "the next try in {retry_ms} ms");
    }
}

#[test]
fn a_token_that_has_expired_is_none_and_what_is_due_every_30_s_is_not_put_off() {
    let grant = r#"{"access_token":"a","expires_in":60,"refresh_in":20}"#;
    let mut asleep = Asleep::before(HOUR_MS, &[(200, grant), REFUSED]);
    assert_eq!(asleep.sleeps_after(0), 20_000);
    // The refresh fails; the token is good for 40 s more, and the work of every 30 s is due in ten.
    assert_eq!(asleep.sleeps_after(20_000), 10_000);
    assert_eq!(asleep.sleeps_after(10_000), 30_000);
    assert_eq!(asleep.sleeps_after(29_999), 1);
    assert_eq!(asleep.sleeps_after(1), 5_000, "60 s are over");
    assert_eq!(asleep.sleeps_after(27_000), 3_000);
    assert_eq!(asleep.sleeps_after(3_000), 5_000);
}

#[test]
fn a_lock_that_another_process_holds_for_10_s_is_said_until_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = StateFile::new(folder.path(), "p").try_lock().unwrap();
    let grant = r#"{"access_token":"a","expires_in":3600,"refresh_in":60}"#;
    let mut asleep = Asleep::in_folder(folder, HOUR_MS, &[(200, grant)]);
    assert_eq!(asleep.sleeps_or_waits_for_lock_after(0), 250);
    assert_eq!(asleep.sleeps_or_waits_for_lock_after(9_999), 250);
    assert_eq!(asleep.store.read(0).waiting, None);
    assert_eq!(asleep.sleeps_or_waits_for_lock_after(1), 250);
    let waiting = asleep.store.read(0).waiting.clone().unwrap();
    assert!(waiting.what.starts_with("another process, "), "{waiting}");
    assert!(waiting.what.ends_with("p.lock"), "{waiting}");
    assert_eq!(waiting.since, Timestamp::from_secs(1_800_000_000));
    drop(theirs);
    assert_eq!(asleep.sleeps_after(250), 19_750, "up to what is due every 30 s");
    let posting = asleep.store.read(0);
    assert!(posting.waiting.is_none() && posting.token.is_some());
}

/// The name of the provider whose log lines are watched.
const WATCHED: &str = "Watched Alone";

/// Notes each log line about [`WATCHED`], with the posting at that moment.
#[derive(Default)]
struct Watch {
    store: Arc<TokenStore>,
    seen: Mutex<Vec<(String, Arc<Posting>)>>,
}

impl Watch {
    /// The posting at the time of the line that contains `words`.
    fn posting_at(&self, words: &str) -> Arc<Posting> {
        let seen = self.seen.lock().unwrap();
        let line = seen.iter().find(|(line, _)| line.contains(words));
        line.unwrap_or_else(|| panic!("no line contains {words}")).1.clone()
    }
}

impl Log for Watch {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        if line.contains(WATCHED) {
            self.seen.lock().unwrap().push((line, self.store.read(0)));
        }
    }

    fn flush(&self) {}
}

/// A status that was asked for once the log told of a wait had nothing of it.
#[test]
fn what_the_log_tells_is_in_the_status_by_then() {
    let watch: &Watch = Box::leak(Box::default());
    log::set_logger(watch).unwrap();
    log::set_max_level(LevelFilter::Info);
    let folder = tempfile::tempdir().unwrap();
    let theirs = StateFile::new(folder.path(), "p").try_lock().unwrap();
    let config = AutoRefresh { retry_interval: Duration::from_hours(1), ..grant::tests::config() };
    let refused = |_: &TokenRequest| (REFUSED.0, REFUSED.1.as_bytes().to_vec());
    let mut asleep = Asleep::publishing(WATCHED, watch.store.clone(), folder, config, refused);
    asleep.sleeps_or_waits_for_lock_after(0);
    asleep.sleeps_or_waits_for_lock_after(SAID_AFTER_MS);
    assert!(watch.posting_at("is waiting since").waiting.is_some());
    drop(theirs);
    asleep.sleeps_after(LOCK_RETRY_MS);
    assert_eq!(watch.posting_at("is over after").waiting, None);
    let failed = watch.posting_at("Failed to refresh").refresh.clone();
    assert!(failed.last_error.is_some());
    assert_eq!((failed.failures, failed.history.iter().len()), (1, 1));
}

/// A busy issuer whose answers nobody waits for. Returns the time until the next try, once the wait is a minute or
/// more.
fn in_a_long_wait() -> (Asleep, u64) {
    let mut asleep = Asleep::before(HOUR_MS, &[(503, "")]);
    let next_in = |asleep: &Asleep| {
        let now = asleep.elapsed_ms.load(Ordering::SeqCst);
        let next = asleep.store.read(0).refresh.next_attempt_at.unwrap();
        let start = Timestamp::from_secs(1_800_000_000);
        u64::try_from(next.millis_since(start)).unwrap() - now
    };
    asleep.sleeps_after(0);
    for _ in 0..5_000 {
        let left = next_in(&asleep);
        if left > 60_000 {
            return (asleep, left);
        }
        asleep.sleeps_after(left.min(5_000));
    }
    panic!("no wait is long");
}

/// 83 seconds without a token were seen after an outage of 4.6.
#[test]
fn a_request_in_the_middle_of_a_long_wait_brings_the_next_try_forward() {
    let (asleep, left) = in_a_long_wait();
    assert!(left > 60_000);
    let failures = asleep.store.read(0).refresh.failures;
    asleep.elapsed_ms.fetch_add(20_000, Ordering::SeqCst);
    let inbox = asleep.refresher.inbox();
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err(), "it was heard");
    // The try follows at once; its request is read after it.
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err());
    assert_eq!(asleep.store.read(0).refresh.failures, failures + 1);
}

#[test]
fn requests_that_are_given_to_others_are_told_once_until_they_are_heard() {
    let (asleep, _) = in_a_long_wait();
    let inbox = asleep.refresher.inbox();
    let failures = asleep.store.read(0).refresh.failures;
    asleep.elapsed_ms.fetch_add(20_000, Ordering::SeqCst);
    (0..1_000).for_each(|_| inbox.passed_over());
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err());
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err());
    assert_eq!(asleep.store.read(0).refresh.failures, failures + 1);
    // The event is read once, and then sent again.
    asleep.elapsed_ms.fetch_add(10_000, Ordering::SeqCst);
    inbox.passed_over();
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err());
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err());
    assert_eq!(asleep.store.read(0).refresh.failures, failures + 2);
}

#[test]
fn who_comes_again_and_again_does_not_keep_a_refresher_from_looking() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let mut asleep = Asleep::in_folder(folder, HOUR_MS, &[REFUSED]);
    asleep.sleeps_after(0);
    let login = Saved {
        revision: 1,
        login_hash: Some("h".into()),
        refresh_token: Some(Secret::new("new")),
        ..Saved::default()
    };
    StateFile::new(&path, "p").replace(&login).unwrap();
    let inbox = asleep.refresher.inbox();
    let failures = asleep.store.read(0).refresh.failures;
    for _ in 0..7 {
        asleep.elapsed_ms.fetch_add(1_000, Ordering::SeqCst);
        assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err());
    }
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err());
    assert!(asleep.store.read(0).refresh.failures > failures, "the login was tried");
}

/// As after a computer's sleep, or where the processor is busy: it refreshed a token that no provider used any more.
#[test]
fn what_a_refresher_is_told_comes_before_what_has_come_due_meanwhile() {
    let answer = br#"{"access_token":"a","refresh_token":"r","expires_in":3600}"#;
    for round in 0..16 {
        let folder = tempfile::tempdir().unwrap();
        let (elapsed_ms, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let (elapsed, requests) = (elapsed_ms.clone(), asked.clone());
        let clock = Clock::from_fn(move || {
            let steady_ms = elapsed.load(Ordering::SeqCst);
            let wall = Timestamp::from_secs(1_800_000_000);
            Moment { wall: wall.plus_millis(i64::try_from(steady_ms).unwrap()), steady_ms }
        });
        let send: Send = Box::new(move |_, _, _| {
            requests.fetch_add(1, Ordering::SeqCst);
            Ok(TokenAnswer {
                status: 200,
                headers: Headers::new(),
                body: answer.to_vec(),
                said: None,
            })
        });
        let (inbox, orders) = inbox();
        let sleeps = AtomicUsize::new(0);
        // While it falls asleep it is told to keep still, and the token ends.
        let timer = move |_| {
            elapsed_ms.fetch_add(3_600_000, Ordering::SeqCst);
            let is_first = sleeps.fetch_add(1, Ordering::SeqCst) == 0;
            inbox.tell(if is_first { Event::Retire } else { Event::Stop });
            bounded(0).1
        };
        let store = Arc::new(TokenStore::default());
        let setup =
            setup(folder.path(), grant::tests::config(), (&clock, &store), &unbounded().0, send);
        Actor::new(Setup { timer: Box::new(timer), ..setup }, orders, Purpose::Serve).run();
        assert_eq!(asked.load(Ordering::SeqCst), 1, "{round}");
    }
}

/// Each try marked its refresh token on disk and took the mark back: without a network, up to 17,000 writes a day.
#[test]
fn tries_that_reach_no_issuer_write_to_the_disk_once_and_the_next_one_is_marked_again() {
    let asleep = Asleep::before(HOUR_MS, &[(503, "")]);
    let path = asleep.folder.path().join("p.json");
    let unreachable = || Failure::no_answer(Reached::No, "no connection".to_owned());
    let is_away = Arc::new(AtomicBool::new(true));
    let (away, away_too, marked) = (is_away.clone(), is_away.clone(), path.clone());
    let (tell, told) = unbounded();
    let send: Send = Box::new(move |_, _, _| {
        let is_marked = std::fs::read_to_string(&marked).unwrap().contains("\"pending\"");
        tell.send(is_marked).unwrap();
        if away.load(Ordering::SeqCst) {
            return Err(unreachable());
        }
        let body = br#"{"access_token":"a","refresh_token":"r","expires_in":3600}"#.to_vec();
        Ok(TokenAnswer { status: 200, headers: Headers::new(), body, said: None })
    });
    let reach: Reach =
        Box::new(
            move |_, _| {
                if away_too.load(Ordering::SeqCst) { Err(unreachable()) } else { Ok(()) }
            },
        );
    let (clock, store) = (&asleep.clock, &asleep.store);
    let setup = setup(
        asleep.folder.path(),
        grant::tests::config(),
        (clock, store),
        &asleep.going_to_sleep,
        send,
    );
    let link = IssuerLink { reach: Some(reach), ..setup.link };
    asleep.refresher.change(Change {
        setup: Setup { link, ..setup },
        keeps_chain: true,
        leaving: bounded(1).0,
    });
    let inbox = asleep.refresher.inbox();
    let order = || assert!(inbox.force().recv_timeout(PATIENCE).is_err(), "it is answered");
    order();
    let (first, failures) = (std::fs::read(&path).unwrap(), store.read(0).refresh.failures);
    for _ in 0..3 {
        order();
    }
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert_eq!(store.read(0).refresh.failures, failures + 3, "each was a try");
    is_away.store(false, Ordering::SeqCst);
    order();
    assert_eq!(store.read(0).trouble(), None);
    assert_eq!(told.try_iter().last(), Some(true), "it was marked before it was sent");
}

/// The time for a request while the token in hand has 5 s left.
fn allowed_with_5_s_left(config: AutoRefresh) -> Allowed {
    let folder = tempfile::tempdir().unwrap();
    let wall = Timestamp::from_secs(1_800_000_000);
    let clock = Clock::from_fn(move || Moment { wall, steady_ms: 0 });
    let (tell, told) = unbounded();
    let send: Send = Box::new(move |_, allowed, _| {
        tell.send(allowed).unwrap();
        let body = br#"{"access_token":"a","refresh_token":"r","expires_in":5}"#.to_vec();
        Ok(TokenAnswer { status: 200, headers: Headers::new(), body, said: None })
    });
    let (asleep, _sleeps) = unbounded();
    let setup = setup(folder.path(), config, (&clock, &Arc::default()), &asleep, send);
    let refresher = Refresher::start(setup, None).unwrap();
    // The first may join the refresh without a token.
    for _ in 0..2 {
        assert!(refresher.inbox().force().recv_timeout(PATIENCE).is_err(), "it is answered");
    }
    told.try_iter().last().unwrap()
}

/// The issuer rotated and answered after 2 s: the used refresh token was presented again, and the issuer revoked the login.
#[test]
fn the_answer_to_a_refresh_token_is_awaited_for_as_long_as_any() {
    let [try_s, whole_s] = [2, 30].map(Duration::from_secs);
    let config = grant::tests::config;
    let refresh = allowed_with_5_s_left(config());
    assert_eq!(refresh, Allowed { connecting: try_s, whole: whole_s });
    let grant_type = GrantType::ClientCredentials;
    let other = allowed_with_5_s_left(AutoRefresh { grant_type, ..config() });
    assert_eq!(other, Allowed { connecting: try_s, whole: try_s });
}

/// The used refresh token was presented again, and its successor was in an answer that nobody kept.
#[test]
fn an_answer_without_an_access_token_loses_no_refresh_token() {
    let (tell, told) = unbounded();
    let folder = tempfile::tempdir().unwrap();
    let mut asleep = Asleep::with(folder, grant::tests::config(), move |request| {
        let body = request.body.expose().to_owned();
        let is_first = body.contains("refresh_token=seed&");
        tell.send(body).unwrap();
        let answer = if is_first {
            r#"{"refresh_token":"r2","token":"x"}"#
        } else {
            r#"{"access_token":"a","expires_in":3600}"#
        };
        (200, answer.as_bytes().to_vec())
    });
    let wait_ms = asleep.sleeps_after(0);
    let stored = StateFile::new(asleep.folder.path(), "p").load().unwrap().unwrap();
    assert_eq!((stored.refresh_token, stored.pending), (Some(Secret::new("r2")), None));
    asleep.sleeps_after(wait_ms);
    assert!(asleep.store.read(0).token.is_some());
    let presented: Vec<_> = told.try_iter().collect();
    assert_eq!(presented.len(), 2);
    assert!(presented[1].contains("refresh_token=r2&"), "{presented:?}");
}

/// The marker of a lost answer went at the first try, and each try wrote to the disk.
#[test]
fn tries_without_an_issuers_metadata_leave_the_marker_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFile::new(folder.path(), "p");
    let at = Timestamp::from_secs(1_800_000_000);
    let (token, config) = (Secret::new("stored"), of_issuer_alone());
    let seed_hash = config.seed.clone().and_then(Result::ok).map(|seed| seed.hash());
    let stored = Saved {
        revision: 7,
        saved_at: at,
        seed_hash: seed_hash.clone(),
        configured_seed: seed_hash,
        client: config.client_hash(),
        pending: Some(Marker { refresh_token_hash: token.hash(), at }),
        refresh_token: Some(token),
        ..Saved::default()
    };
    state.replace(&stored).unwrap();
    let before = std::fs::read_to_string(state.path()).unwrap();
    let asleep = Asleep::with(folder, config, |_| (404, Vec::new()));
    for _ in 0..3 {
        let order = asleep.refresher.inbox().force();
        assert!(order.recv_timeout(PATIENCE).is_err(), "it is answered");
    }
    let refresh = asleep.store.read(0).refresh.clone();
    assert!(refresh.failures >= 3, "each was a try");
    assert!(refresh.last_error.unwrap().whole.contains("has no metadata"));
    assert_eq!(std::fs::read_to_string(state.path()).unwrap(), before);
    assert_eq!(state.load().unwrap(), Some(stored));
}

#[test]
fn a_refusal_that_quotes_the_token_to_exchange_is_told_without_it() {
    // {"exp":1700000000}
    const ENDED: &str = "aa.eyJleHAiOjE3MDAwMDAwMDB9.cc";
    let exchange = TokenExchange {
        subject_token: Ok(Secret::new(ENDED)),
        subject_token_file: None,
        subject_token_type: String::new(),
        parameters: Vec::new(),
    };
    let grant_type = GrantType::TokenExchange(Box::new(exchange));
    let config =
        AutoRefresh { grant_type, client_auth: ClientAuth::None, ..grant::tests::config() };
    let refused = |_: &TokenRequest| (400, format!(r#"{{"error":"{ENDED}"}}"#).into_bytes());
    let mut asleep = Asleep::with(tempfile::tempdir().unwrap(), config, refused);
    asleep.sleeps_after(0);
    let told = asleep.store.read(0).refresh.last_error.clone().unwrap().whole;
    assert!(told.contains("400 Bad Request; the subject token ended at"), "{told}");
    assert!(!told.contains(ENDED), "{told}");
}

#[test]
fn orders_that_come_while_a_refresh_runs_join_it() {
    let (release, released) = bounded::<()>(0);
    let (ask, asked) = unbounded();
    let asleep = Asleep::asking(tempfile::tempdir().unwrap(), HOUR_MS, move || {
        ask.send(()).unwrap();
        // A test that fails does not hang.
        let _ = released.recv_timeout(PATIENCE);
        (200, br#"{"access_token":"a","expires_in":3600}"#.to_vec())
    });
    let inbox = asleep.refresher.inbox();
    let joins = |count: usize| {
        asked.recv_timeout(PATIENCE).unwrap();
        let orders: Vec<_> = (0..count).map(|_| inbox.force()).collect();
        release.send(()).unwrap();
        for order in orders {
            assert!(order.recv_timeout(PATIENCE).is_err(), "it is answered");
        }
    };
    joins(5);
    // An order that comes after it is a refresh of its own.
    let after = inbox.force();
    joins(3);
    assert!(after.recv_timeout(PATIENCE).is_err());
    assert!(inbox.wait_for_token().recv_timeout(PATIENCE).is_err(), "all was heard");
    assert_eq!((asked.try_iter().count(), asleep.store.read(0).refresh.successes), (0, 2));
}

/// It joined the refresh that ran before, with the configuration that was wrong, and was answered with its failure.
#[test]
fn an_order_that_comes_after_a_reload_does_not_join_a_refresh_from_before_it() {
    let (release, released) = bounded::<()>(0);
    let (ask, asked) = unbounded();
    let (ask_again, released_again) = (ask.clone(), released.clone());
    let asleep = Asleep::asking(tempfile::tempdir().unwrap(), HOUR_MS, move || {
        ask.send(()).unwrap();
        let _ = released.recv_timeout(PATIENCE);
        (401, br#"{"error":"invalid_client"}"#.to_vec())
    });
    let send: Send = Box::new(move |_, _, _| {
        ask_again.send(()).unwrap();
        let _ = released_again.recv_timeout(PATIENCE);
        let body = br#"{"access_token":"a","expires_in":3600}"#.to_vec();
        Ok(TokenAnswer { status: 200, headers: Headers::new(), body, said: None })
    });
    asleep.until_asked(&asked);
    let config = AutoRefresh { scope: Some("more".into()), ..grant::tests::config() };
    let folder = asleep.folder.path();
    let setup = setup(folder, config, (&asleep.clock, &asleep.store), &asleep.going_to_sleep, send);
    let change = Change { setup, keeps_chain: true, leaving: bounded(1).0 };
    asleep.refresher.change(change);
    let order = asleep.refresher.inbox().force();
    release.send(()).unwrap();
    asleep.until_asked(&asked);
    assert_eq!(order.try_recv(), Err(TryRecvError::Empty), "it is not answered yet");
    release.send(()).unwrap();
    assert_eq!(order.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert_eq!(asleep.store.read(0).trouble(), None);
}

#[test]
fn a_state_file_that_can_not_be_read_is_tried_again_and_no_seed_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    let path = StateFile::new(folder.path(), "p").path();
    std::fs::create_dir(&path).unwrap();
    let grant = r#"{"access_token":"a","expires_in":3600,"refresh_token":"r"}"#;
    let mut asleep = Asleep::in_folder(folder, HOUR_MS, &[(200, grant)]);
    for (passed_ms, sleeps_ms) in [(0, 1_000), (1_000, 2_000), (2_000, 4_000), (4_000, 8_000)] {
        assert_eq!(asleep.sleeps_after(passed_ms), sleeps_ms);
        let posting = asleep.store.read(0);
        let waiting = posting.waiting.as_ref().unwrap().to_string();
        assert!(
            waiting.contains("p.json, which can't be read (it is a folder, no regular file)"),
            "{waiting}"
        );
        assert!(posting.token.is_none() && !posting.refreshing);
        assert_eq!(posting.refresh.failures, 0);
    }
    assert_eq!(asleep.asked.load(Ordering::SeqCst), 0, "nothing was sent");
    std::fs::remove_dir(&path).unwrap();
    asleep.sleeps_after(8_000);
    let posting = asleep.store.read(0);
    assert!(posting.waiting.is_none() && posting.token.is_some());
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"r\""));
}

#[test]
fn a_good_token_serves_while_the_state_file_can_not_be_read_and_nothing_is_written() {
    let grant = r#"{"access_token":"a","expires_in":3600,"refresh_in":20,"refresh_token":"r"}"#;
    let mut asleep = Asleep::before(HOUR_MS, &[(200, grant)]);
    assert_eq!(asleep.sleeps_after(0), 20_000);
    let path = StateFile::new(asleep.folder.path(), "p").path();
    let kept = std::fs::read(&path).unwrap();
    let aside = asleep.folder.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    assert_eq!(asleep.sleeps_after(20_000), 1_000, "the refresh is due and waits");
    let posting = asleep.store.read(0);
    assert!(posting.waiting.is_some() && posting.token.is_some());
    assert_eq!(asleep.asked.load(Ordering::SeqCst), 1);
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), kept);
    asleep.sleeps_after(1_000);
    assert_eq!(asleep.asked.load(Ordering::SeqCst), 2);
    assert!(asleep.store.read(0).waiting.is_none());
}

#[test]
fn what_is_stored_counts_once_it_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFile::new(folder.path(), "p");
    let at = Timestamp::from_secs(1_800_000_000);
    let stored = Saved {
        revision: 7,
        saved_at: at,
        seed_hash: grant::tests::config().seed.and_then(Result::ok).map(|seed| seed.hash()),
        refresh_token: Some(Secret::new("stored")),
        access: Some(SavedAccess {
            token: Secret::new("good"),
            obtained_at: at,
            expires_at: at.plus_millis(3_600_000),
            refresh_at: at.plus_millis(3_000_000),
            rejections: 0,
        }),
        ..Saved::default()
    };
    state.replace(&stored).unwrap();
    let aside = folder.path().join("aside");
    std::fs::rename(state.path(), &aside).unwrap();
    std::os::unix::fs::symlink(state.path(), state.path()).unwrap();
    let mut asleep = Asleep::in_folder(folder, HOUR_MS, &[REFUSED]);
    assert_eq!(asleep.sleeps_after(0), 1_000);
    std::fs::rename(&aside, state.path()).unwrap();
    asleep.sleeps_after(1_000);
    let posting = asleep.store.read(0);
    assert_eq!(posting.token.as_ref().unwrap().secret, Secret::new("good"));
    assert_eq!((asleep.asked.load(Ordering::SeqCst), &posting.waiting), (0, &None));
    assert_eq!(state.load().unwrap(), Some(stored));
}

/// A configuration whose token endpoint is in the metadata of its issuer.
fn of_issuer_alone() -> AutoRefresh {
    AutoRefresh {
        token_url: String::new(),
        unwritten: Unwritten { token_url: true, client_auth: false },
        login: LoginEndpoints { issuer: Some("https://i".into()), ..LoginEndpoints::default() },
        ..grant::tests::config()
    }
}

/// An issuer's metadata is fetched once a day; while it can't be read, the kept copy serves.
#[test]
fn metadata_is_read_anew_after_a_day_and_the_old_copy_serves_until_then() {
    let is_up = Arc::new(AtomicBool::new(true));
    let of_issuer = is_up.clone();
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let config = of_issuer_alone();
    let folder = tempfile::tempdir().unwrap();
    let mut asleep = Asleep::with(folder, config, move |request| {
        if request.method == "GET" {
            let count = count.fetch_add(1, Ordering::SeqCst);
            let body =
                format!(r#"{{"issuer":"https://i","token_endpoint":"https://i/token-{count}"}}"#);
            let status = if of_issuer.load(Ordering::SeqCst) { 200 } else { 404 };
            return (status, body.into_bytes());
        }
        let grant = format!(
            r#"{{"access_token":"{}","refresh_token":"r","expires_in":36000}}"#,
            request.url.trim_start_matches("https://i/")
        );
        (200, grant.into_bytes())
    });
    let token = |asleep: &Asleep| asleep.store.read(0).token.clone().unwrap().secret;
    asleep.sleeps_after(0);
    assert_eq!(token(&asleep), Secret::new("token-0"));
    let hours = |hours: u64| hours * 3_600_000;
    let asked = || asked.load(Ordering::SeqCst);
    asleep.sleeps_after(hours(10));
    assert_eq!(asked(), 1, "less than a day");
    asleep.sleeps_after(hours(15));
    assert_eq!((asked(), token(&asleep)), (2, Secret::new("token-1")));
    is_up.store(false, Ordering::SeqCst);
    asleep.sleeps_after(hours(25));
    // Both addresses of an issuer without a path.
    assert_eq!((asked(), token(&asleep)), (4, Secret::new("token-1")));
    is_up.store(true, Ordering::SeqCst);
    asleep.sleeps_after(hours(10));
    assert_eq!((asked(), token(&asleep)), (5, Secret::new("token-4")));
}

/// What `obtain_once` finds: the token in use afterwards, and the number of requests, for a stored token that ends
/// after `left_ms` (None: none is stored) and an issuer that answers so.
fn obtained(left_ms: Option<i64>, answer: (u16, &'static str)) -> (Option<String>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFile::new(folder.path(), "p");
    let now = Timestamp::from_secs(1_800_000_000);
    if let Some(left_ms) = left_ms {
        let stored = Saved {
            revision: 7,
            saved_at: now,
            seed_hash: grant::tests::config().seed.and_then(Result::ok).map(|seed| seed.hash()),
            refresh_token: Some(Secret::new("stored")),
            access: Some(SavedAccess {
                token: Secret::new("old"),
                obtained_at: now.plus_millis(left_ms - 3_600_000),
                expires_at: now.plus_millis(left_ms),
                refresh_at: now.plus_millis(left_ms - 300_000),
                rejections: 0,
            }),
            ..Saved::default()
        };
        state.replace(&stored).unwrap();
    }
    let clock = Clock::from_fn(move || Moment { wall: now, steady_ms: 0 });
    let store = Arc::new(TokenStore::default());
    let asked = Arc::new(AtomicUsize::new(0));
    let requests = asked.clone();
    let send: Send = Box::new(move |_, _, _| {
        requests.fetch_add(1, Ordering::SeqCst);
        let body = answer.1.as_bytes().to_vec();
        Ok(TokenAnswer { status: answer.0, headers: Headers::new(), body, said: None })
    });
    let asleep = unbounded().0;
    obtain_once(setup(folder.path(), grant::tests::config(), (&clock, &store), &asleep, send));
    let posting = store.read(0);
    let token = posting.valid_token(clock.now()).map(|token| token.secret.expose().to_owned());
    (token, asked.load(Ordering::SeqCst))
}

#[test]
fn a_command_refreshes_only_what_is_about_to_end() {
    const NEW: (u16, &str) = (200, r#"{"access_token":"new","expires_in":3600}"#);
    const AWAY: (u16, &str) = (503, "");
    let (old, new) = (Some("old".to_owned()), Some("new".to_owned()));
    for (left_ms, answer, expected) in [
        (None, NEW, (new.clone(), 1)),
        (None, AWAY, (None, 1)),
        // The running refresher's lead (5 min) is not the command's.
        (Some(299_000), NEW, (old.clone(), 0)),
        (Some(60_001), NEW, (old.clone(), 0)),
        (Some(60_000), NEW, (new.clone(), 1)),
        (Some(60_000), AWAY, (old.clone(), 1)),
        // The configured refresh token is tried too.
        (Some(60_000), REFUSED, (old.clone(), 2)),
        (Some(1), AWAY, (old, 1)),
        (Some(0), NEW, (new, 1)),
        (Some(0), AWAY, (None, 1)),
        (Some(0), REFUSED, (None, 2)),
    ] {
        assert_eq!(obtained(left_ms, answer), expected, "{left_ms:?} {answer:?}");
    }
}

/// A token endpoint that moved is found though the kept copy, which still names the old one, is of today.
#[test]
fn a_token_endpoint_that_is_gone_makes_the_metadata_be_read_anew() {
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let config = of_issuer_alone();
    let mut asleep = Asleep::with(tempfile::tempdir().unwrap(), config, move |request| {
        if request.method == "GET" {
            let count = count.fetch_add(1, Ordering::SeqCst);
            let body =
                format!(r#"{{"issuer":"https://i","token_endpoint":"https://i/token-{count}"}}"#);
            return (200, body.into_bytes());
        }
        let is_there = request.url.ends_with("/token-1");
        let grant = br#"{"access_token":"a","refresh_token":"r","expires_in":36000}"#;
        if is_there { (200, grant.to_vec()) } else { (404, Vec::new()) }
    });
    let mut passed_ms = 0;
    let mut sleep_ms = asleep.sleeps_after(0);
    while asleep.store.read(0).token.is_none() && passed_ms < 3_600_000 {
        passed_ms += sleep_ms;
        assert_eq!(asked.load(Ordering::SeqCst), 1, "the copy is new: {passed_ms} ms");
        sleep_ms = asleep.sleeps_after(sleep_ms);
    }
    assert!((600_000..900_000).contains(&passed_ms), "{passed_ms}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}
