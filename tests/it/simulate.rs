//! The token machine against a model issuer, in virtual time: 256 seeds of faults, kills and clocks.
//!
//! `EVERTOKEN_SIM_SEED=n` runs one seed.

use std::collections::{HashMap, HashSet};

use evertoken::clock::{Due, Moment, Timestamp};
use evertoken::secret::Secret;
use evertoken::token::grant::{Class, Failure, Grant, Reached, What};
use evertoken::token::lifecycle::{Lifecycle, Policy, Presented, SUCCESS_GAP_MS, Step};
use evertoken::token::saved::Saved;
use fastrand::Rng;

const SEEDS: u64 = 256;
const STEPS: usize = 400;
const RETRY_INTERVAL_MS: u64 = 600_000;
/// Virtual time within which a machine recovers once faults have stopped.
const RECOVERY_MAX_MS: u64 = 2 * RETRY_INTERVAL_MS + 700_000;

/// An issuer with rotation and reuse detection. It counts in true time.
struct Issuer {
    current: String,
    previous: HashSet<String>,
    revoked: bool,
    issued: u64,
    expiries: HashMap<String, u64>,
}

/// What came of a request at the issuer, before anything happens to the answer.
enum Issued {
    Granted(Grant),
    Refused,
}

impl Issuer {
    fn answer(&mut self, presented: &str, lifetime_ms: u64, now_ms: u64) -> Issued {
        if self.revoked || presented != self.current {
            // A token used twice revokes its family.
            self.revoked |= self.previous.contains(presented);
            return Issued::Refused;
        }
        self.issued += 1;
        let next = format!("refresh-{}", self.issued);
        self.previous.insert(std::mem::replace(&mut self.current, next.clone()));
        let access = format!("access-{}", self.issued);
        self.expiries.insert(access.clone(), now_ms + lifetime_ms);
        Issued::Granted(Grant {
            access_token: Secret::new(access),
            refresh_token: Some(Secret::new(next)),
            lifetime_ms: i64::try_from(lifetime_ms).unwrap(),
            refresh_in_ms: None,
            scope: None,
            refresh_token_lifetime_ms: None,
            warning: None,
        })
    }
}

/// One run: the machine, its disk, its issuer, and the two clocks over true time.
struct World {
    seed: u64,
    rng: Rng,
    issuer: Issuer,
    machine: Lifecycle,
    disk: Option<Saved>,
    unsaved: Option<Saved>,
    true_ms: u64,
    wall_offset_ms: i64,
    asleep_ms: u64,
    faults: bool,
    last_success: Option<(Moment, u64)>,
    last_generation: u64,
    /// Answers that the issuer gave and nobody kept: what a broken chain is explained by.
    lost: u64,
    refreshes: u64,
}

fn policy() -> Policy {
    Policy {
        refresh_before_ms: 300_000,
        retry_interval_ms: RETRY_INTERVAL_MS,
        seed: Some(Secret::new("seed")),
        without_refresh_token: false,
        scope: None,
        client_hash: "client".into(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let issuer = Issuer {
            current: "seed".into(),
            previous: HashSet::new(),
            revoked: false,
            issued: 0,
            expiries: HashMap::new(),
        };
        let start = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 0 };
        Self {
            seed,
            rng: Rng::with_seed(seed),
            issuer,
            machine: Lifecycle::new(policy(), None, start),
            disk: None,
            unsaved: None,
            true_ms: 0,
            wall_offset_ms: 0,
            asleep_ms: 0,
            faults: true,
            last_success: None,
            last_generation: 0,
            lost: 0,
            refreshes: 0,
        }
    }

    fn now(&self) -> Moment {
        let true_ms = i64::try_from(self.true_ms).unwrap();
        Moment {
            wall: Timestamp::from_secs(1_800_000_000).plus_millis(true_ms + self.wall_offset_ms),
            steady_ms: self.true_ms - self.asleep_ms,
        }
    }

    fn one_in(&mut self, chance: u32) -> bool {
        self.faults && self.rng.u32(0..chance) == 0
    }

    /// Writes to the disk, unless that fails for now.
    fn save(&mut self, saved: Saved, may_fail: bool) {
        if may_fail && self.one_in(15) {
            self.unsaved = Some(saved);
        } else {
            self.unsaved = None;
            self.disk = Some(saved);
        }
    }

    /// Somebody logs in, with another process that may or may not see the seed: a new family.
    fn log_in(&mut self) {
        let number = self.issuer.issued + 1;
        let refresh = Secret::new(format!("login-{number}"));
        refresh.expose().clone_into(&mut self.issuer.current);
        self.issuer.previous.clear();
        self.issuer.revoked = false;
        let lifetime_ms = 600_000;
        let Issued::Granted(grant) =
            self.issuer.answer(refresh.expose(), lifetime_ms, self.true_ms)
        else {
            panic!("seed {}: the login is refused", self.seed)
        };
        let seed = self.rng.bool().then(|| Secret::new("seed"));
        let now = self.now();
        let policy = Policy { seed, ..policy() };
        let mut machine = Lifecycle::new(policy, self.disk.clone(), now);
        let chain = grant.refresh_token.clone().unwrap();
        self.disk = Some(machine.logged_in(&grant, &chain, now, now, &mut self.rng.fork()));
        // Nothing that went missing before matters any more.
        self.lost = 0;
    }

    /// What a refresher does at each look, under the lock, and before it writes what it could not write.
    fn take_up_login(&mut self) -> bool {
        let stored = self.disk.clone().filter(|stored| self.machine.is_other_login(stored));
        let Some(stored) = stored else { return false };
        self.unsaved = None;
        self.machine.take_up(stored, self.now());
        true
    }

    fn restart(&mut self) {
        self.take_up_login();
        // At an end in order what was not written yet is written; a kill loses it.
        if let Some(saved) = self.unsaved.take() {
            if self.rng.bool() {
                self.disk = Some(saved);
            } else {
                self.lost += 1;
            }
        }
        self.machine = Lifecycle::new(policy(), self.disk.clone(), self.now());
        self.last_success = None;
        self.last_generation = 0;
    }

    fn refresh(&mut self) {
        if self.take_up_login() && self.machine.next(self.now()) != Step::Refresh {
            return;
        }
        self.refreshes += 1;
        let presented = self.machine.presented();
        let now = self.now();
        if let Some(marked) = self.machine.begin(&presented, now) {
            self.save(marked, true);
        }
        if self.one_in(40) {
            // Killed before the request was sent.
            return self.restart();
        }
        let Presented::Token(token) = &presented else {
            panic!("seed {}: nothing to present", self.seed)
        };
        if let Some(failure) = self.fault_before() {
            return self.failed(&presented, &failure);
        }
        let sent = self.now();
        let lifetime_ms = [1_000, 4_000, 30_000, 600_000, 3_600_000][self.rng.usize(0..5)];
        let issued = self.issuer.answer(token.expose(), lifetime_ms, self.true_ms);
        self.true_ms += self.rng.u64(0..900);
        match issued {
            Issued::Refused => {
                let dead = failure(Class::TokenDead, Reached::No, None);
                self.failed(&presented, &dead);
            }
            Issued::Granted(_) if self.one_in(500) => {
                self.lost += 1;
                self.failed(&presented, &failure(Class::Transient, Reached::Perhaps, None));
            }
            Issued::Granted(_) if self.one_in(500) => {
                // Killed after the issuer rotated and before its answer was stored.
                self.lost += 1;
                self.restart();
            }
            Issued::Granted(grant) => self.granted(&presented, &grant, sent),
        }
    }

    fn granted(&mut self, presented: &Presented, grant: &Grant, sent: Moment) {
        let now = self.now();
        let mut rng = self.rng.fork();
        let saved = self.machine.granted(presented, grant, sent, now, &mut rng);
        self.save(saved, true);
        let lifetime_ms = u64::try_from(grant.lifetime_ms).unwrap();
        if let Some((last, lifetime)) = self.last_success
            && lifetime >= SUCCESS_GAP_MS
        {
            let left = Due::after(last, SUCCESS_GAP_MS).left_ms(now);
            assert!(left == 0, "seed {}: two successes, the second {left} ms too soon", self.seed);
        }
        self.last_success = Some((now, lifetime_ms));
    }

    fn failed(&mut self, presented: &Presented, failed: &Failure) {
        let now = self.now();
        let mut rng = self.rng.fork();
        let (after, saved) = self.machine.failed(presented, failed, now, &mut rng);
        let wait = after.next_attempt.left_ms(now);
        assert!(wait <= 3_600_000, "seed {}: a wait of {wait} ms", self.seed);
        if failed.class == Class::Transient {
            assert!(wait >= failed.retry_after_ms.unwrap_or(0), "seed {}", self.seed);
        }
        if let Some(saved) = saved {
            self.save(saved, true);
        }
    }

    /// What may go wrong before the issuer acts.
    fn fault_before(&mut self) -> Option<Failure> {
        if !self.one_in(4) {
            return None;
        }
        Some(match self.rng.u32(0..4) {
            0 => failure(Class::Transient, Reached::No, None),
            1 => failure(Class::Transient, Reached::No, Some(self.rng.u64(0..120_000))),
            2 => failure(Class::Transient, Reached::Perhaps, None),
            _ => failure(Class::Permanent, Reached::No, None),
        })
    }

    /// Time passes, and the world does what it does.
    fn pass(&mut self, wanted_ms: u64) {
        let tick = wanted_ms.min(30_000);
        self.true_ms += tick;
        self.take_up_login();
        if let Some(saved) = self.unsaved.clone() {
            self.save(saved, true);
        }
        // A machine that sleeps while its wall clock is stepped back can't know better; a seed has the
        // one or the other.
        if self.seed.is_multiple_of(2) && self.one_in(50) {
            let asleep = self.rng.u64(0..7_200_000);
            self.true_ms += asleep;
            self.asleep_ms += asleep;
        }
        if !self.seed.is_multiple_of(2) && self.one_in(60) {
            self.wall_offset_ms += self.rng.i64(-3_600_000..3_600_000);
        }
        if self.one_in(40) {
            self.restart();
        }
        if self.one_in(20) {
            self.machine.force();
        }
        if self.one_in(20) {
            let generation = self.rng.u64(0..4);
            self.machine.rejected(generation, self.now());
        }
        if self.one_in(100) {
            self.log_in();
        }
    }

    fn check(&mut self) {
        let now = self.now();
        let Some(token) = self.machine.token() else { return };
        assert!(token.generation >= self.last_generation, "seed {}: generations fall", self.seed);
        self.last_generation = token.generation;
        // A clock stepped while the process was down can't be seen by anyone; a stored token is
        // then judged by a wrong clock. Everything else must hold exactly.
        if !token.expires.reached(now) && (token.source == "refresh") {
            let expiry = self.issuer.expiries[token.secret.expose()];
            assert!(self.true_ms < expiry, "seed {}: an expired token is handed out", self.seed);
        }
    }

    fn step(&mut self) {
        let now = self.now();
        self.machine.observe(now);
        match self.machine.next(now) {
            Step::Refresh => self.refresh(),
            Step::Wait(ms) | Step::WaitForClock(ms) => self.pass(ms.max(1)),
        }
        self.check();
    }

    fn has_valid_token(&self) -> bool {
        let now = self.now();
        self.machine.token().is_some_and(|token| !token.expires.reached(now))
    }
}

fn failure(class: Class, reached: Reached, retry_after_ms: Option<u64>) -> Failure {
    Failure { class, reached, retry_after_ms, what: What::Status(503, None) }
}

/// Runs one seed; whether its chain survived.
fn run(seed: u64) -> bool {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.faults = false;
    let begun = world.true_ms;
    let broken = |world: &World| world.issuer.revoked || world.issuer.issued == 0;
    while !world.has_valid_token() && world.true_ms - begun < RECOVERY_MAX_MS {
        world.step();
    }
    let survived = world.has_valid_token();
    assert!(survived || world.lost > 0, "seed {seed}: no recovery, and no answer was lost");
    assert!(survived || broken(&world), "seed {seed}: no recovery from a chain that is whole");
    // A machine that has given up does not storm.
    assert!(world.refreshes < u64::try_from(STEPS).unwrap() * 2, "seed {seed}: a storm");
    survived
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a failing seed is run again by its number")]
fn no_seed_breaks_a_rule() {
    if let Some(seed) = std::env::var("EVERTOKEN_SIM_SEED").ok().and_then(|seed| seed.parse().ok())
    {
        run(seed);
        return;
    }
    let survived = (0..SEEDS).filter(|seed| run(*seed)).count();
    // Lost answers do happen in there; most seeds have none.
    assert!(survived > 60, "only {survived} of {SEEDS} chains survived");
}
