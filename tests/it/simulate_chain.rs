//! A whole proxy and its issuer through random orders, reloads, restarts, refusals and disks that fail: providers that
//! share one chain of refresh tokens, and one beside them with a chain of its own.
//!
//! The judge is an issuer that revokes a family of refresh tokens when one of them comes twice. Time stands still but
//! where a step moves it, so every token request has a cause that can be counted.
//!
//! `EVERTOKEN_SIM_SEED=n` runs one seed, `EVERTOKEN_SIM_SEEDS=n` the first n.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evertoken::testing::TICK_MS;
use evertoken::testing::{Clock, Moment, Timestamp};
use evertoken::testing::{slug_in_path, slug_of_name};
use fastrand::Rng;

use crate::support::client::{Answer, Client, get, post};
use crate::support::issuer::StrictIssuer;
use crate::support::peer::{Peer, Seen, answer};
use crate::support::proxy::{Builder, TestProxy};
use crate::support::{eventually, unwritable};

const SEEDS: u64 = 24;
const STEPS: usize = 12;
/// The number of parallel runs.
const THREADS: u64 = 4;
const LIFETIME_SECS: u64 = 3600;
/// The real time between a refresher's looks at the clock.
const SLEEP: Duration = Duration::from_millis(5);
/// The most providers that share the chain.
const SHARING_MAX: usize = 3;
/// The possible names.
const NAMES: [&str; 5] = ["A", "克劳德官方", "Claude 官方", "Claude 备用", "Zweiter"];
/// The provider with a chain of its own.
const OTHER: &str = "Other";
/// The two chains, by the refresh tokens that they begin with.
const CHAINS: [&str; 2] = ["the-seed", "other-seed"];

/// The possible steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A refresh is ordered for one of the sharing providers.
    Order,
    /// A refresh of all chains is ordered, as by SIGUSR1.
    OrderAll,
    /// The provider refuses the token in hand.
    Refuse,
    /// All tokens end.
    Expire,
    Restart,
    /// Another process takes this one's place, and calls a provider differently; for a while both run.
    Overlap,
    /// A reload changes a header.
    Header,
    Rename,
    Add,
    Remove,
    Reorder,
    /// A provider is disabled, or enabled again.
    Disable,
    /// Refreshing is turned off for a provider, or on again.
    TurnOff,
    /// A variable goes missing, or comes back.
    Lack,
    /// The state folder can't be written any more, or can again.
    Block,
    /// The state folder can be written again just before the proxy is stopped.
    UnblockAndRestart,
    /// The state files can't be read any more, or can again.
    HideFiles,
}

const ALL: [Step; 17] = [
    Step::Order,
    Step::OrderAll,
    Step::Refuse,
    Step::Expire,
    Step::Restart,
    Step::Overlap,
    Step::Header,
    Step::Rename,
    Step::Add,
    Step::Remove,
    Step::Reorder,
    Step::Disable,
    Step::TurnOff,
    Step::Lack,
    Step::Block,
    Step::UnblockAndRestart,
    Step::HideFiles,
];

/// A provider that shares the chain.
#[derive(Clone, Debug)]
struct Entry {
    name: &'static str,
    header: u32,
    enabled: bool,
    refreshes: bool,
}

impl Entry {
    fn new(name: &'static str) -> Self {
        Self { name, header: 0, enabled: true, refreshes: true }
    }

    fn is_active(&self) -> bool {
        self.enabled && self.refreshes
    }
}

/// One run.
struct World {
    rng: Rng,
    seed: u64,
    told: String,
    now_ms: Arc<AtomicU64>,
    started_ms: u64,
    issuer: StrictIssuer,
    provider: Peer,
    /// Up to which number the tokens of each chain are refused.
    dead: Arc<[AtomicU64; 2]>,
    proxy: Option<TestProxy>,
    /// The folder of the state, with stand-ins for unusable files.
    base: tempfile::TempDir,
    entries: Vec<Entry>,
    lacks_secret: bool,
    is_blocked: bool,
    /// The number of tokens at that time.
    issued_before_block: u64,
    hidden: Vec<PathBuf>,
    /// The proxy was started while the state files could not be read, and has no token since.
    knows_nothing: bool,
    /// The number of tries, of both chains together, that have an explanation.
    explained: u64,
}

#[expect(clippy::print_stderr, reason = "a failing seed is shown with its steps")]
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("EVERTOKEN_SIM_SEED={} fails after:\n{}", self.seed, self.told);
        }
    }
}

/// `Bearer access-<seed>-<number>`: the chain and the number.
fn token_of(seen: &Seen) -> Option<(usize, u64)> {
    let token = seen.field("authorization")?.strip_prefix("Bearer access-")?;
    let (chain, number) = token.rsplit_once('-')?;
    Some((CHAINS.iter().position(|own| *own == chain)?, number.parse().ok()?))
}

fn path_of(name: &str) -> String {
    slug_in_path(&slug_of_name(name))
}

impl World {
    fn new(seed: u64) -> Self {
        let dead: Arc<[AtomicU64; 2]> = Arc::default();
        let of_peer = dead.clone();
        let provider = Peer::answering(move |seen| match token_of(seen) {
            Some((chain, number)) if number > of_peer[chain].load(Ordering::SeqCst) => {
                answer(200, "fine")
            }
            _ => answer(401, "refused"),
        });
        let issuer = StrictIssuer::start(LIFETIME_SECS);
        issuer.knows(CHAINS[1]);
        let started_ms = u64::try_from(Clock::system().wall().as_millis()).unwrap();
        let mut world = Self {
            rng: Rng::with_seed(seed),
            seed,
            told: String::new(),
            now_ms: Arc::new(AtomicU64::new(started_ms)),
            started_ms,
            issuer,
            provider,
            dead,
            proxy: None,
            base: tempfile::tempdir().unwrap(),
            entries: NAMES.map(Entry::new)[..2].to_vec(),
            lacks_secret: false,
            is_blocked: false,
            issued_before_block: 0,
            hidden: Vec::new(),
            knows_nothing: false,
            explained: 2,
        };
        std::fs::create_dir(world.disk()).unwrap();
        world.unblock();
        world.rng.shuffle(&mut world.entries);
        world.start();
        world.check();
        world
    }

    fn state(&self) -> PathBuf {
        self.base.path().join("state")
    }

    /// The folder that `state` is a link to while it is well.
    fn disk(&self) -> PathBuf {
        self.base.path().join("disk")
    }

    fn described(&self) -> Builder {
        let place = format!("state_dir: \"{}\"", self.state().display());
        let start = TestProxy::builder().settings(&place).variable("OTHER_TOKEN", CHAINS[1]);
        let secret = if self.lacks_secret { "NOT_SET" } else { "CLIENT_SECRET" };
        let refresh = |enabled: bool, seed: &str, secret: &str| {
            format!(
                "auto_refresh_config:\n  enabled: {enabled}\n  token_url: \"{}\"\n  client_id_env: CLIENT_ID\n  \
                 client_secret_env: {secret}\n  refresh_token_env: {seed}",
                self.issuer.url()
            )
        };
        let with_entries = self.entries.iter().fold(start, |builder, entry| {
            let refresh = refresh(entry.refreshes, "REFRESH_TOKEN", secret);
            let lines = format!(
                "enabled: {}\nheaders: {{ x-own: \"{}\" }}\n{refresh}",
                entry.enabled, entry.header
            );
            builder.provider(entry.name, "anthropic", &self.provider.url(), &lines)
        });
        let own = refresh(true, "OTHER_TOKEN", "CLIENT_SECRET");
        with_entries.provider(OTHER, "anthropic", &self.provider.url(), &own)
    }

    fn start(&mut self) {
        let (now_ms, started_ms) = (self.now_ms.clone(), self.started_ms);
        let clock = Clock::from_fn(move || {
            let now = now_ms.load(Ordering::SeqCst);
            let wall = Timestamp::from_millis(i64::try_from(now).unwrap());
            Moment { wall, steady_ms: now - started_ms }
        });
        let timer = |allowed: Duration| crossbeam_channel::after(allowed.min(SLEEP));
        self.proxy = Some(self.described().clock(clock).timer(timer).start());
    }

    fn restart(&mut self) {
        self.knows_nothing = !self.hidden.is_empty();
        // A missing secret is looked for, and a token that expired meanwhile is refreshed.
        self.explained += 2;
        self.proxy.take().unwrap().stop();
        self.start();
    }

    fn overlap(&mut self) {
        let before = (self.proxy.take().unwrap(), self.active());
        let index = self.rng.usize(..self.entries.len());
        self.entries[index].name = self.unused_name();
        self.explained += 2;
        self.start();
        for _ in 0..self.rng.u32(1..4) {
            let of_now = self.active();
            let mut both = [(self.proxy.as_ref(), of_now), (Some(&before.0), before.1)];
            self.rng.shuffle(&mut both);
            let mut ordered = 0;
            for (proxy, name) in both {
                let Some((proxy, name)) = proxy.zip(name) else { continue };
                let status = proxy.ask(post(&format!("/-/refresh/{}", path_of(name)), "")).status;
                assert_eq!(status == 200, self.can_refresh(), "{name}: {status}");
                ordered += 1;
            }
            self.explained += ordered;
        }
        // It looks for what it lacks, as at its start.
        self.explained += 2;
        drop(before);
    }

    fn proxy(&self) -> &TestProxy {
        self.proxy.as_ref().unwrap()
    }

    fn ask_of(&self, name: &str) -> Answer {
        self.proxy().ask(get(&format!("/to/{}/x", path_of(name))))
    }

    fn order_of(&mut self, name: &str) -> Answer {
        self.explained += 1;
        self.proxy().ask(post(&format!("/-/refresh/{}", path_of(name)), ""))
    }

    /// The time goes on, and with it refreshes may come due.
    fn pass(&mut self, millis: u64) {
        self.explained += 2;
        self.now_ms.fetch_add(millis, Ordering::SeqCst);
    }

    fn issued(&self, chain: usize) -> u64 {
        let is_of_chain = |token: &&String| token.contains(CHAINS[chain]);
        u64::try_from(self.issuer.presented().iter().filter(is_of_chain).count()).unwrap()
    }

    fn can_refresh(&self) -> bool {
        !self.lacks_secret && self.hidden.is_empty()
    }

    fn has_token(&self) -> bool {
        !self.knows_nothing && self.issued(0) > self.dead[0].load(Ordering::SeqCst)
    }

    /// True if the provider must answer each request to `entry`.
    fn serves(&self, entry: &Entry) -> bool {
        let is_disk_well = !self.is_blocked && self.hidden.is_empty();
        match (entry.enabled, entry.refreshes) {
            (false, _) => false,
            (true, true) => self.can_refresh() || self.has_token(),
            (true, false) => is_disk_well && self.has_token(),
        }
    }

    /// True if the refresher holds unwritten changes, and so stays while no provider uses it.
    fn has_unsaved(&self) -> bool {
        self.is_blocked && self.issued(0) > self.issued_before_block
    }

    fn any(&mut self, fits: impl Fn(&Entry) -> bool) -> Option<usize> {
        let fitting = (0..self.entries.len()).filter(|index| fits(&self.entries[*index]));
        let fitting: Vec<usize> = fitting.collect();
        self.rng.choice(fitting)
    }

    fn active(&mut self) -> Option<&'static str> {
        let index = self.any(Entry::is_active)?;
        Some(self.entries[index].name)
    }

    fn unused_name(&mut self) -> &'static str {
        let is_free = |name: &&&str| self.entries.iter().all(|entry| entry.name != **name);
        let free: Vec<&'static str> = NAMES.iter().filter(is_free).copied().collect();
        self.rng.choice(free).unwrap()
    }

    /// Makes the proxy use the world's configuration since `change`, while requests are in flight.
    fn reload(&mut self, change: impl FnOnce(&mut Self)) {
        let mut under_way = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.is_active() && self.serves(entry)) {
            let mut client = Client::connect(self.proxy().address);
            let path = path_of(entry.name);
            client.send(format!(
                "POST /to/{path}/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                 Expect: 100-continue\r\n\r\n"
            ));
            assert_eq!(client.head().status, 100, "it is let in");
            under_way.push(client);
        }
        let lacked_secret = self.lacks_secret;
        change(self);
        // A secret that is or was missing is looked for once.
        self.explained += u64::from(self.lacks_secret || lacked_secret);
        let answer = self.proxy().reload(&self.described());
        assert_eq!(answer.status, 200, "{}", answer.body);
        for mut client in under_way {
            client.send("later");
            let answer = client.answer();
            assert_eq!(answer.status, 200, "under way: {}", answer.body);
        }
    }

    /// Does `step`; false where it can't happen now.
    fn act(&mut self, step: Step) -> bool {
        let is_disk_well = !self.is_blocked && self.hidden.is_empty();
        match step {
            Step::Order => return self.order(),
            Step::OrderAll => {
                self.explained += 2;
                self.proxy().refresh_all();
                // Later orders are heard after it.
                self.order();
                self.order_of(OTHER);
            }
            Step::Refuse => return self.refuse(),
            Step::Expire => {
                for (chain, dead) in self.dead.iter().enumerate() {
                    dead.store(self.issued(chain), Ordering::SeqCst);
                }
                self.pass(LIFETIME_SECS * 1000 + 1);
            }
            // Unwritten changes are lost with the process.
            Step::Restart if self.is_blocked => return false,
            Step::Restart => self.restart(),
            Step::Overlap if !is_disk_well => return false,
            Step::Overlap => self.overlap(),
            Step::Header => {
                let index = self.rng.usize(..self.entries.len());
                self.reload(|world| world.entries[index].header += 1);
            }
            Step::Reorder => self.reload(|world| world.rng.shuffle(&mut world.entries)),
            Step::Block => return self.block_or_unblock(),
            Step::UnblockAndRestart if !self.is_blocked => return false,
            Step::UnblockAndRestart => {
                self.unblock();
                self.restart();
            }
            Step::HideFiles => return self.hide_or_show(),
            // Only its name tells the owner of an unreadable file.
            _ if !self.hidden.is_empty() => return false,
            Step::Lack => self.reload(|world| world.lacks_secret ^= true),
            Step::TurnOff if !is_disk_well => return false,
            Step::Rename | Step::Add | Step::Remove | Step::Disable | Step::TurnOff => {
                return self.change_providers(step);
            }
        }
        true
    }

    fn change_providers(&mut self, step: Step) -> bool {
        let index = self.rng.usize(..self.entries.len());
        match step {
            Step::Add if self.entries.len() == SHARING_MAX => return false,
            Step::Remove if self.entries.len() == 1 => return false,
            // The folder in the place of the one that fails is empty: who begins there begins with the seed.
            Step::Remove | Step::Disable if self.is_blocked && !self.has_unsaved() => return false,
            _ => {}
        }
        let name = self.unused_name();
        self.reload(|world| match step {
            Step::Rename => world.entries[index].name = name,
            Step::Add => world.entries.insert(index, Entry::new(name)),
            Step::Remove => drop(world.entries.remove(index)),
            Step::Disable => world.entries[index].enabled ^= true,
            _ => world.entries[index].refreshes ^= true,
        });
        true
    }

    fn order(&mut self) -> bool {
        let Some(name) = self.active() else { return false };
        let answer = self.order_of(name);
        assert_eq!(answer.status == 200, self.can_refresh(), "the order was answered: {answer:?}");
        true
    }

    fn refuse(&mut self) -> bool {
        let Some(name) = self.active().filter(|_| self.can_refresh()) else { return false };
        // A token that replaced a refused one is not replaced again so soon, one that was ordered is; and no refresh
        // is under way.
        assert_eq!(self.order_of(name).status, 200);
        self.dead[0].store(self.issued(0), Ordering::SeqCst);
        self.explained += 1;
        let answer = self.ask_of(name);
        assert_eq!(answer.status, 200, "after a refusal: {}", answer.body);
        true
    }

    fn block_or_unblock(&mut self) -> bool {
        if !self.hidden.is_empty() {
            return false;
        }
        if self.is_blocked {
            self.unblock();
            self.pass(TICK_MS + 1);
            let before = self.issued(0);
            let newest = format!("\"refresh-{}-{before}\"", CHAINS[0]);
            eventually("what could not be written is written", || {
                self.issued(0) > before || self.stored(&newest)
            });
        } else {
            // The refresher's work after a reload is done first; and a provider continues with the tokens in memory.
            if !self.order() {
                return false;
            }
            let link = self.base.path().join("link");
            unwritable(&link);
            std::fs::rename(link, self.state()).unwrap();
            self.is_blocked = true;
            self.issued_before_block = self.issued(0);
        }
        true
    }

    fn unblock(&mut self) {
        self.point_at(&self.state(), &self.disk());
        self.is_blocked = false;
    }

    /// Replaces `path` by a link to `target` in one step, so that nobody ever finds it missing.
    fn point_at(&self, path: &Path, target: &Path) {
        let link = self.base.path().join("link");
        symlink(target, &link).unwrap();
        std::fs::rename(link, path).unwrap();
    }

    /// True if a state file contains `text`.
    fn stored(&self, text: &str) -> bool {
        let holds = |path: &PathBuf| {
            std::fs::read_to_string(path).is_ok_and(|stored| stored.contains(text))
        };
        files(&self.disk()).iter().any(holds)
    }

    fn hide_or_show(&mut self) -> bool {
        if self.is_blocked {
            return false;
        }
        let aside = self.base.path().join("aside");
        if self.hidden.is_empty() {
            // A refresher's work after a reload, such as moving its file or keeping still, is done first.
            if !self.order() {
                return false;
            }
            std::fs::create_dir(&aside).unwrap();
            self.hidden = files(&self.disk());
            let nowhere = aside.join("nowhere");
            for path in &self.hidden {
                std::fs::hard_link(path, aside.join(path.file_name().unwrap())).unwrap();
                let target = self.rng.choice([path, &aside, &nowhere]).unwrap();
                self.point_at(path, target);
            }
            return true;
        }
        for path in std::mem::take(&mut self.hidden) {
            assert!(path.is_symlink(), "{} was written over", path.display());
            std::fs::rename(aside.join(path.file_name().unwrap()), path).unwrap();
        }
        std::fs::remove_dir(aside).unwrap();
        self.knows_nothing = false;
        // They are tried again within half a minute.
        self.pass(TICK_MS + 1);
        let served: Vec<&str> =
            self.entries.iter().filter(|one| self.serves(one)).map(|one| one.name).collect();
        for name in served.into_iter().chain([OTHER]) {
            eventually("its state file is read again", || self.ask_of(name).status == 200);
        }
        true
    }

    /// The invariants after each step.
    fn check(&self) {
        for entry in self.entries.iter().filter(|entry| self.serves(entry)) {
            if !entry.refreshes {
                // The issuer counts a token before it is stored. Another provider may have it refreshed; or the refresher
                // has yet to hear that refreshing was turned off, and the time has passed meanwhile.
                eventually("the newest token is stored", || self.ask_of(entry.name).status == 200);
            }
            let answer = self.ask_of(entry.name);
            assert_eq!(answer.status, 200, "{entry:?}: {}", answer.body);
        }
        if self.hidden.is_empty() {
            let answer = self.ask_of(OTHER);
            assert_eq!(answer.status, 200, "{OTHER}: {}", answer.body);
        }
        assert_eq!(self.issuer.revoked(), [""; 0]);
        let mut presented = self.issuer.presented();
        let sent = presented.len();
        presented.sort();
        presented.dedup();
        assert_eq!(presented.len(), sent, "a refresh token was presented twice");
        let failures = self.failures();
        let tries = u64::try_from(sent).unwrap() + failures;
        assert!(
            tries <= self.explained,
            "{tries} tries ({failures} failed), and {} explained",
            self.explained
        );
    }

    /// The failed tries of the shared chain that its refresher counts.
    fn failures(&self) -> u64 {
        let status = self.proxy().ask(get("/-/status")).json();
        let rows = status["providers"].as_array().unwrap().iter();
        rows.filter_map(|row| row["refresh"]["failures"].as_u64()).max().unwrap_or(0)
    }

    fn run(&mut self) {
        let mut done = 0;
        while done < STEPS {
            let step = self.rng.choice(ALL).unwrap();
            let known = self.told.len();
            let _ = writeln!(self.told, "  {step:?}");
            if !self.act(step) {
                self.told.truncate(known);
                continue;
            }
            let _ = writeln!(self.told, "    {}", self.summary());
            self.check();
            done += 1;
        }
    }

    fn summary(&self) -> String {
        let entry = |entry: &Entry| {
            let of = |is: bool, told: &'static str| if is { "" } else { told };
            format!(
                "{}{}{}",
                entry.name,
                of(entry.enabled, " disabled"),
                of(entry.refreshes, " off")
            )
        };
        let entries: Vec<String> = self.entries.iter().map(entry).collect();
        format!(
            "{}; lacks a secret: {}, blocked: {}, hidden: {}, tokens {} of which {} are over",
            entries.join(", "),
            self.lacks_secret,
            self.is_blocked,
            !self.hidden.is_empty(),
            self.issued(0),
            self.dead[0].load(Ordering::SeqCst)
        )
    }
}

/// The state files in `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a failing seed is run again by its number")]
fn no_step_spends_a_refresh_token_twice_or_leaves_a_provider_without_token() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seeds = match number("EVERTOKEN_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("EVERTOKEN_SIM_SEEDS").unwrap_or(SEEDS),
    };
    // Most of the time they wait.
    std::thread::scope(|scope| {
        for part in 0..THREADS {
            let own = seeds.clone().filter(move |seed| seed % THREADS == part);
            scope.spawn(move || own.for_each(|seed| World::new(seed).run()));
        }
    });
}
