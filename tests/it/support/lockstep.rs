//! Real refreshers of several hosts, led step by step in virtual time: each thread stops before every question
//! to the token store, before and after every token request, and when it goes to sleep, and goes on when it is
//! told. So one seed is one course of events, and a pause or a kill can fall between any two steps.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use evertoken::testing::Headers;
use evertoken::testing::Health;
use evertoken::testing::Mark;
use evertoken::testing::Saved;
use evertoken::testing::Secret;
use evertoken::testing::StateFile;
use evertoken::testing::StoreAddress;
use evertoken::testing::Supervisor;
use evertoken::testing::groups;
use evertoken::testing::{Clock, Moment, Timestamp};
use evertoken::testing::{Engine, Names, StoreEntry, StoreError, Written};
use evertoken::testing::{Environment, refresher_setup};
use evertoken::testing::{Failure, Reached};
use evertoken::testing::{Fallback, SharedStore};
use evertoken::testing::{Held, SharedChain};
use evertoken::testing::{IssuerLink, Refresher, Setup, TokenAnswer};
use evertoken::testing::{Posting, TokenStore};
use fastrand::Rng;

use super::PATIENCE;
use super::engine::ModelEngine;
use super::proxy::TestProxy;

/// The next step of a thread.
#[derive(Debug)]
pub(crate) enum Step {
    /// Ask the token store something.
    Ask,
    /// Send a token request with this refresh token, and wait for so many milliseconds.
    Send(String, u64),
    /// Take the answer.
    Receive,
    /// Sleep for so many milliseconds, or until the sender is dropped.
    Sleep(u64, Sender<Instant>),
}

/// The issuer's reaction to a token request: an answer, or none.
pub(crate) type Outcome = Result<(u16, String), ()>;

enum Go {
    On,
    Die,
}

/// The gate at which one host's thread stops.
#[derive(Clone)]
struct Gate {
    host: usize,
    steps: Sender<(usize, Step)>,
    go: Receiver<Go>,
}

impl Gate {
    fn stop(&self, step: Step) {
        // Without a leader there is nothing to stop for.
        let _ = self.steps.send((self.host, step));
        if !matches!(self.go.recv(), Ok(Go::On)) {
            // Killed: what the thread has is dropped, and no line of its code runs any more.
            resume_unwind(Box::new("killed"));
        }
    }
}

/// The token store as the hosts reach it.
pub(crate) struct Store {
    /// Its rules and what it has.
    pub(crate) engine: ModelEngine<Secret>,
    /// It does not answer.
    pub(crate) is_away: bool,
    /// It refuses writes.
    pub(crate) is_read_only: bool,
    /// Its next request gets no answer.
    pub(crate) loses_answer: bool,
    /// The lead of its clock.
    pub(crate) skew_ms: i64,
    now_ms: Arc<AtomicU64>,
}

impl Store {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn seen(&self) -> StoreEntry {
        StoreEntry {
            mark: self.engine.mark,
            record: self.engine.record.clone(),
            fence: self.engine.fence.unwrap_or(0),
            is_held: self.engine.holder(self.now_ms()).is_some(),
        }
    }

    fn answer<T>(
        &mut self,
        is_write: bool,
        what: impl FnOnce(&mut Self) -> T,
    ) -> Result<T, StoreError> {
        if self.is_away {
            return Err(StoreError::NoAnswer);
        }
        if is_write && self.is_read_only {
            let words = "READONLY You can't write against a read only replica.";
            return Err(StoreError::Refused(words.to_owned()));
        }
        let answer = what(self);
        if std::mem::take(&mut self.loses_answer) {
            return Err(StoreError::NoAnswer);
        }
        Ok(answer)
    }
}

/// One host's way to the store.
struct Line(Gate, Arc<Mutex<Store>>);

impl Line {
    fn ask<T>(&self, is_write: bool, what: impl FnOnce(&mut Store) -> T) -> Result<T, StoreError> {
        self.0.stop(Step::Ask);
        self.1.lock().unwrap().answer(is_write, what)
    }
}

impl Engine for Line {
    fn look(&mut self, _: &Names) -> Result<StoreEntry, StoreError> {
        self.ask(false, |store| store.seen())
    }

    fn take(
        &mut self,
        _: &Names,
        holder: &str,
        length_ms: u64,
        fence_above: u64,
    ) -> Result<Option<StoreEntry>, StoreError> {
        self.ask(true, |store| {
            let now_ms = store.now_ms();
            store.engine.take(holder, length_ms, fence_above, now_ms)?;
            Some(store.seen())
        })
    }

    fn write(
        &mut self,
        _: &Names,
        mark: Mark,
        record: &Secret,
        holder: &str,
        lengths_ms: (u64, u64),
    ) -> Result<Written, StoreError> {
        self.ask(true, |store| {
            let now_ms = store.now_ms();
            let written = store.engine.write(mark, record.clone(), holder, lengths_ms, now_ms);
            written.map_or_else(|| Written::Refused(store.seen()), Written::Done)
        })
    }

    fn release(&mut self, _: &Names, holder: &str) -> Result<(), StoreError> {
        self.ask(true, |store| {
            let now_ms = store.now_ms();
            store.engine.release(holder, now_ms);
        })
    }

    fn time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        self.ask(false, |store| Some(moment(store.now_ms(), store.skew_ms).wall))
    }
}

/// The time at `true_ms` by a wall clock that is `skew_ms` ahead.
fn moment(true_ms: u64, skew_ms: i64) -> Moment {
    let wall = Timestamp::from_secs(1_800_000_000).plus_millis(i64::try_from(true_ms).unwrap());
    Moment { wall: wall.plus_millis(skew_ms), steady_ms: true_ms }
}

/// One host's keeper's knowledge.
#[derive(Default)]
struct Keeper {
    polled_ms: Option<u64>,
    mark: Option<Mark>,
}

/// The obstacle that a host's thread waits for.
pub(crate) enum At {
    /// To be told to go on with this.
    Stopped(Step),
    /// The end of its sleep, or an event.
    Asleep(Sender<Instant>),
    /// It does not run.
    Down,
}

/// One host.
pub(crate) struct Host {
    /// The obstacle that its thread waits for.
    pub(crate) at: At,
    /// From when on its thread can be told to go on.
    pub(crate) ready_ms: u64,
    /// Until when the whole host stands still.
    pub(crate) paused_until_ms: u64,
    /// The refresh token that its configuration names.
    pub(crate) seed: Option<String>,
    /// Its name in the store.
    pub(crate) holder: String,
    folder: tempfile::TempDir,
    skew_ms: Arc<AtomicI64>,
    outcome: Arc<Mutex<Option<Outcome>>>,
    go: Sender<Go>,
    store: Arc<TokenStore>,
    held: Option<Arc<Held>>,
    refresher: Option<Refresher>,
    keeper: Keeper,
    starts: u64,
}

/// All hosts and what they share.
pub(crate) struct Fleet {
    /// The true time, in milliseconds.
    pub(crate) true_ms: u64,
    /// Theirs.
    pub(crate) hosts: Vec<Host>,
    /// The shared store.
    pub(crate) store: Arc<Mutex<Store>>,
    /// The source of all randomness.
    pub(crate) rng: Rng,
    /// The configuration of all, but for the seed.
    text: String,
    now_ms: Arc<AtomicU64>,
    steps: Receiver<(usize, Step)>,
    to_leader: Sender<(usize, Step)>,
}

/// The time between a keeper's looks at the store.
const POLL_MS: u64 = 500;
/// A step of a host comes at most so much later than the one before.
const LATENCY_MAX_MS: u64 = 20;

fn shared_store() -> SharedStore {
    SharedStore {
        place: StoreAddress::parse("redis://model").unwrap(),
        prefix: "e:".to_owned(),
        key: None,
        ca_pem: None,
        fallback: Fallback::Wait,
    }
}

/// A folder in which files that are written very often are quick to write.
fn folder() -> tempfile::TempDir {
    let quick = PathBuf::from("/dev/shm");
    let made = if quick.is_dir() { tempfile::tempdir_in(quick) } else { tempfile::tempdir() };
    made.expect("a folder")
}

impl Fleet {
    /// `count` hosts that do not run yet, with this refresh lead and retry interval in seconds.
    pub(crate) fn new(count: usize, lead_secs: u64, retry_secs: u64, seed: u64) -> Self {
        let now_ms: Arc<AtomicU64> = Arc::default();
        let (to_leader, steps) = unbounded();
        let store = Store {
            engine: ModelEngine::empty(),
            is_away: false,
            is_read_only: false,
            loses_answer: false,
            skew_ms: 0,
            now_ms: now_ms.clone(),
        };
        let host = |index| Host {
            at: At::Down,
            ready_ms: 0,
            paused_until_ms: 0,
            seed: Some("s0".to_owned()),
            holder: format!("host{index}"),
            folder: folder(),
            skew_ms: Arc::default(),
            outcome: Arc::default(),
            go: bounded(0).0,
            store: Arc::new(TokenStore::default()),
            held: None,
            refresher: None,
            keeper: Keeper::default(),
            starts: 0,
        };
        let text = format!("refresh_before_expiry: {lead_secs}\nretry_interval: {retry_secs}");
        Self {
            true_ms: 0,
            hosts: (0..count).map(host).collect(),
            store: Arc::new(Mutex::new(store)),
            rng: Rng::with_seed(seed),
            text,
            now_ms,
            steps,
            to_leader,
        }
    }

    /// The time as `host` sees it.
    pub(crate) fn now(&self, host: usize) -> Moment {
        moment(self.true_ms, self.hosts[host].skew_ms.load(Ordering::SeqCst))
    }

    /// Sets the lead of the wall clock of `host`.
    pub(crate) fn set_skew(&self, host: usize, ms: i64) {
        self.hosts[host].skew_ms.store(ms, Ordering::SeqCst);
    }

    /// Moves the true time forward to `ms`.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.true_ms = self.true_ms.max(ms);
        self.now_ms.store(self.true_ms, Ordering::SeqCst);
    }

    /// The latest posting of `host`.
    pub(crate) fn posting(&self, host: usize) -> Arc<Posting> {
        self.hosts[host].store.read(0)
    }

    /// The content of the state file of `host`.
    pub(crate) fn stored(&self, host: usize) -> Option<Saved> {
        self.state(host).load().ok().flatten()
    }

    /// Takes the state file of `host` away.
    pub(crate) fn lose_state(&self, host: usize) {
        let _ = std::fs::remove_file(self.state(host).path());
    }

    fn state(&self, host: usize) -> StateFile {
        StateFile::new(self.hosts[host].folder.path(), "p")
    }

    /// True if `host` believes that it holds the lease.
    pub(crate) fn has_lease(&self, host: usize) -> bool {
        self.hosts[host].held.as_ref().is_some_and(|held| held.lease().is_some())
    }

    fn setup(&mut self, host: usize, gate: Gate) -> Setup {
        let own = &mut self.hosts[host];
        let mut builder = TestProxy::builder()
            .refreshed("P", "http://127.0.0.1:1", "http://127.0.0.1:1", &self.text);
        if let Some(seed) = &own.seed {
            builder = builder.variable("REFRESH_TOKEN", seed);
        } else {
            builder = builder.without_variable("REFRESH_TOKEN");
        }
        let config = builder.config(own.folder.path());
        let skew_ms = own.skew_ms.clone();
        let now_ms = self.now_ms.clone();
        let clock = Clock::from_fn(move || {
            moment(now_ms.load(Ordering::SeqCst), skew_ms.load(Ordering::SeqCst))
        });
        let mut environment = Environment {
            clock: clock.clone(),
            rng: self.rng.fork(),
            timer: crossbeam_channel::after,
            supervisor: Supervisor::nobody(),
        };
        let group = groups(&config.providers).remove(0);
        let setup =
            refresher_setup(0, &group, "p", &config, &own.store, &mut environment, &|_| 0).unwrap();
        own.starts += 1;
        own.holder = format!("host{host}-{}", own.starts);
        let (line, store) = (gate.clone(), self.store.clone());
        let connect =
            Arc::new(move || Ok(Box::new(Line(line.clone(), store.clone())) as Box<dyn Engine>));
        let shared = shared_store();
        let mut chain = SharedChain::over(connect, &shared, "p", own.holder.clone(), clock);
        own.held = Some(chain.attend(&Arc::new(Health::new(&shared))));
        own.keeper = Keeper::default();
        let (asleep, sending, outcome) = (gate.clone(), gate, own.outcome.clone());
        Setup {
            // A thread for each call to the disk would double the time that this takes.
            watches_disk: false,
            chain: Some(chain),
            timer: Box::new(move |allowed| {
                let (timer, fired) = bounded(1);
                asleep.stop(Step::Sleep(millis(allowed), timer));
                fired
            }),
            link: IssuerLink {
                send: Box::new(move |request, allowed, _| {
                    let body = request.body.expose();
                    let token = body.split('&').find_map(|one| one.strip_prefix("refresh_token="));
                    let allowed_ms = millis(allowed.whole);
                    sending.stop(Step::Send(token.unwrap_or_default().to_owned(), allowed_ms));
                    sending.stop(Step::Receive);
                    match outcome.lock().unwrap().take() {
                        Some(Ok((status, body))) => Ok(TokenAnswer {
                            status,
                            headers: Headers::new(),
                            body: body.into_bytes(),
                            said: None,
                        }),
                        _ => Err(Failure::no_answer(Reached::Perhaps, "no answer")),
                    }
                }),
                reach: None,
            },
            ..setup
        }
    }

    /// Starts `host`, which finds what its state folder has.
    pub(crate) fn start(&mut self, host: usize) {
        let (go, told) = bounded(0);
        let gate = Gate { host, steps: self.to_leader.clone(), go: told };
        self.hosts[host].go = go;
        let setup = self.setup(host, gate);
        self.hosts[host].refresher = Some(Refresher::start(setup, None).expect("a thread"));
        self.hosts[host].paused_until_ms = 0;
        self.follow(host);
    }

    /// Ends `host` at once, wherever its thread is.
    pub(crate) fn kill(&mut self, host: usize) {
        let own = &mut self.hosts[host];
        let at = std::mem::replace(&mut own.at, At::Down);
        if matches!(at, At::Stopped(_)) {
            own.go.send(Go::Die).expect("its thread waits");
        }
        own.go = bounded(0).0;
        // A thread that sleeps has nothing under way, and is told to end.
        (own.refresher, own.held) = (None, None);
        drop(at);
    }

    /// Waits for the next step of `host`, which runs.
    fn follow(&mut self, host: usize) {
        loop {
            let (who, step) = self.steps.recv_timeout(PATIENCE).expect("the host goes on");
            assert_eq!(who, host, "nobody else runs");
            let own = &mut self.hosts[host];
            own.ready_ms = self.true_ms + self.rng.u64(0..LATENCY_MAX_MS);
            let Step::Sleep(ms, timer) = step else {
                own.at = At::Stopped(step);
                return;
            };
            let unheard = own.refresher.as_ref().map_or(0, |refresher| refresher.inbox().unheard());
            own.go.send(Go::On).expect("its thread waits");
            if unheard == 0 {
                own.ready_ms = self.true_ms + ms.max(1);
                own.at = At::Asleep(timer);
                return;
            }
        }
    }

    /// Lets the thread of `host` continue; returns the step that it was about to take.
    pub(crate) fn go_on(&mut self, host: usize) {
        match std::mem::replace(&mut self.hosts[host].at, At::Down) {
            At::Down => return,
            At::Asleep(timer) => drop(timer),
            At::Stopped(_) => self.hosts[host].go.send(Go::On).expect("its thread waits"),
        }
        self.follow(host);
    }

    /// Sends the refresher of `host` a message by `tell`: it hears it at once if it sleeps.
    pub(crate) fn tell<T>(&mut self, host: usize, tell: impl FnOnce(&Refresher) -> T) -> Option<T> {
        let own = &mut self.hosts[host];
        let told = tell(own.refresher.as_ref()?);
        if matches!(own.at, At::Asleep(..)) {
            // Its timer goes on for as long as it runs: it wakes for one reason.
            let asleep = std::mem::replace(&mut own.at, At::Down);
            self.follow(host);
            drop(asleep);
        }
        Some(told)
    }

    /// The issuer's reaction to the request of `host`, and the time when it arrives.
    pub(crate) fn answer(&mut self, host: usize, outcome: Outcome, comes_ms: u64) {
        *self.hosts[host].outcome.lock().unwrap() = Some(outcome);
        self.hosts[host].ready_ms = comes_ms;
    }

    /// The host that has something to do next, and when.
    pub(crate) fn next(&self) -> Option<(usize, u64)> {
        let due = |(index, host): (usize, &Host)| {
            let poll_ms = host.keeper.polled_ms.map_or(0, |polled| polled + POLL_MS);
            let ready_ms = host.ready_ms.min(poll_ms).max(host.paused_until_ms);
            (index, ready_ms.max(self.true_ms))
        };
        let running = self.hosts.iter().enumerate();
        running.filter(|(_, host)| !matches!(host.at, At::Down)).map(due).min_by_key(|(_, ms)| *ms)
    }

    /// The work of the keeper of `host`: it renews the lease, and passes news on.
    pub(crate) fn keep(&mut self, host: usize) {
        let (true_ms, now) = (self.true_ms, self.now(host));
        let own = &mut self.hosts[host];
        let is_due = own.keeper.polled_ms.is_none_or(|polled| polled + POLL_MS <= true_ms);
        let mut store = self.store.lock().unwrap();
        if store.is_away {
            own.keeper = Keeper { polled_ms: Some(true_ms), mark: None };
            return;
        }
        if let Some((held, lease)) = own.held.as_ref().and_then(|held| Some((held, held.lease()?)))
            && lease.is_to_be_renewed(now)
            && !store.is_read_only
        {
            let is_ours = store.engine.renew(&own.holder, lease.length_ms, true_ms);
            held.renewed(lease, now, is_ours);
        }
        if !is_due {
            return;
        }
        own.keeper.polled_ms = Some(true_ms);
        let mark = store.engine.mark;
        drop(store);
        let own = &mut self.hosts[host];
        let is_news = own.keeper.mark.replace(mark) != Some(mark)
            || own.held.as_ref().is_some_and(|held| held.knows_newer_than(mark));
        if is_news {
            self.tell(host, |refresher| refresher.inbox().news());
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
