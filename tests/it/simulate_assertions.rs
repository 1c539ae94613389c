//! The token machine with a grant that uses no refresh token, in virtual time: 128 seeds of key files that are replaced,
//! go missing or are refused, subject tokens that end, clocks, kills, orders and requests.
//!
//! `EVERTOKEN_SIM_SEED=n` runs one seed.

use evertoken::testing::Missing;
use evertoken::testing::Saved;
use evertoken::testing::Secret;
use evertoken::testing::{Class, Failure, Grant, Reached, What};
use evertoken::testing::{Instruction, Lifecycle, Policy, Presented, TICK_MS};
use evertoken::testing::{Moment, Timestamp};
use fastrand::Rng;

const SEEDS: u64 = 128;
const STEPS: usize = 300;
const RETRY_INTERVAL_MS: u64 = 3_600_000;
/// Virtual time within which a mended file, or an end of other faults, brings a token: a transient failure waits 5 min
/// at most.
const RECOVERY_MAX_MS: u64 = 300_000 + 2 * TICK_MS;

/// One run: the machine, its disk, the key that the issuer knows, and the one in the file.
struct World {
    seed: u64,
    rng: Rng,
    machine: Lifecycle,
    disk: Option<Saved>,
    known_key: u64,
    /// None while the file is missing.
    key_in_file: Option<u64>,
    true_ms: u64,
    wall_offset_ms: i64,
    issued: u64,
    /// When the newest token ends, in true time.
    expires_ms: u64,
    /// Files, clocks and processes change.
    faults: bool,
    tries: u64,
}

/// The policy with this key in the file, as the refresher makes it when it reads the file again.
fn policy(key: Option<u64>) -> Policy {
    Policy {
        refresh_before_ms: 300_000,
        retry_interval_ms: RETRY_INTERVAL_MS,
        seed: None,
        without_refresh_token: true,
        scope: None,
        client_hash: key.map_or_else(String::new, |key| format!("key-{key}")),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let start = Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 0 };
        Self {
            seed,
            rng: Rng::with_seed(seed),
            machine: Lifecycle::new(policy(Some(1)), None, start),
            disk: None,
            known_key: 1,
            key_in_file: Some(1),
            true_ms: 0,
            wall_offset_ms: 0,
            issued: 0,
            expires_ms: 0,
            faults: true,
            tries: 0,
        }
    }

    fn now(&self) -> Moment {
        let true_ms = i64::try_from(self.true_ms).unwrap();
        let wall = Timestamp::from_secs(1_800_000_000).plus_millis(true_ms + self.wall_offset_ms);
        Moment { wall, steady_ms: self.true_ms }
    }

    fn one_in(&mut self, chance: u32) -> bool {
        self.faults && self.rng.u32(0..chance) == 0
    }

    fn read_again(&mut self) {
        self.machine.set_policy(policy(self.key_in_file));
    }

    /// One try: an assertion of the key in the file, judged by the issuer.
    fn refresh(&mut self) {
        self.tries += 1;
        self.read_again();
        let presented = self.machine.presented();
        assert_eq!(presented, Presented::Nothing, "seed {}", self.seed);
        assert_eq!(self.machine.begin(&presented, self.now()), None, "no marker: nothing is spent");
        let sent = self.now();
        self.true_ms += self.rng.u64(0..900);
        // A clock that is off by more than the leeway: the issuer refuses the times.
        let is_clock_off = self.wall_offset_ms.abs() > 30_000;
        let is_faulty = is_clock_off || self.one_in(10);
        let failure = match self.key_in_file {
            None => Some(Failure::missing(Missing::File("/k".into(), "it is gone".into()))),
            Some(key) if key != self.known_key => Some(failure(Class::Permanent)),
            // Its Date, or the end of a subject token, makes it transient.
            Some(_) if is_faulty => Some(failure(Class::Transient)),
            Some(_) => None,
        };
        let (now, mut rng) = (self.now(), self.rng.fork());
        if let Some(failure) = failure {
            let (_, saved) = self.machine.failed(&presented, &failure, now, &mut rng);
            assert_eq!(
                saved, None,
                "seed {}: a failure without a refresh token is not stored",
                self.seed
            );
            return;
        }
        self.issued += 1;
        let lifetime_ms = [60_000, 600_000, 3_600_000][self.rng.usize(0..3)];
        self.expires_ms = self.true_ms + lifetime_ms;
        let grant = Grant {
            access_token: Secret::new(format!("access-{}", self.issued)),
            refresh_token: None,
            lifetime_ms: i64::try_from(lifetime_ms).unwrap(),
            refresh_in_ms: None,
            earliest_refresh_in_ms: None,
            has_ended: false,
            scope: None,
            refresh_token_lifetime_ms: None,
            odd_refresh_end: None,
            warning: None,
        };
        self.disk = Some(self.machine.granted(&presented, &grant, sent, now, &mut rng));
    }

    /// Time passes, and the world does what it does.
    fn pass(&mut self, wanted_ms: u64) {
        self.true_ms += wanted_ms.min(TICK_MS);
        self.read_again();
        if self.one_in(20) {
            // The key is rotated at the issuer, and the file follows later, or the other way round.
            self.known_key += 1;
        }
        if self.one_in(10) {
            self.key_in_file = Some(self.known_key);
        }
        if self.one_in(25) {
            self.key_in_file = None;
        }
        if self.one_in(40) {
            self.wall_offset_ms = self.rng.i64(-600_000..600_000);
        }
        if self.one_in(40) {
            self.machine = Lifecycle::new(policy(self.key_in_file), self.disk.clone(), self.now());
        }
        if self.one_in(30) {
            self.machine.order(self.now());
        }
        if self.one_in(4) && !self.has_valid_token() {
            self.machine.wanted(self.now());
        }
    }

    fn step(&mut self) {
        match self.machine.next(self.now()) {
            Instruction::Refresh => self.refresh(),
            Instruction::Wait(ms) | Instruction::WaitForClock(ms) => self.pass(ms.max(1)),
        }
        // A clock that is stepped while the process is down can't be seen by anyone.
        let is_exact = self.wall_offset_ms == 0;
        assert!(
            !(is_exact && self.has_valid_token() && self.true_ms >= self.expires_ms),
            "seed {}: a token is handed out after its end",
            self.seed
        );
    }

    fn has_valid_token(&self) -> bool {
        let now = self.now();
        self.machine.token().is_some_and(|token| !token.expires.reached(now))
    }
}

fn failure(class: Class) -> Failure {
    let what = What::Status(400, Some("invalid_grant".into()));
    Failure { class, reached: Reached::No, retry_after_ms: None, next_refresh_token: None, what }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    let steps = STEPS as u64;
    assert!(world.tries <= steps, "seed {seed}: {} tries", world.tries);
    // Somebody writes the right key into the file, and sets the clock: nobody has to restart.
    world.faults = false;
    world.wall_offset_ms = 0;
    world.known_key += 1;
    world.key_in_file = Some(world.known_key);
    let mended_ms = world.true_ms;
    while !(world.has_valid_token() && world.issued > 0)
        && world.true_ms - mended_ms < RETRY_INTERVAL_MS
    {
        world.step();
    }
    let took_ms = world.true_ms - mended_ms;
    assert!(took_ms <= RECOVERY_MAX_MS, "seed {seed}: the mended file was used after {took_ms} ms");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a failing seed is run again by its number")]
fn a_grant_without_a_refresh_token_recovers_as_soon_as_its_file_is_mended() {
    let one = std::env::var("EVERTOKEN_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    match one {
        Some(seed) => run(seed),
        None => (0..SEEDS).for_each(run),
    }
}
