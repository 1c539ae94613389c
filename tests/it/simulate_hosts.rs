//! Several hosts on one chain, in virtual time: the lease, the token machine and a model of the server, with
//! a pause possible before every step, clocks that differ, kills, and a server that goes away or empty.
//!
//! `EVERTOKEN_SIM_SEED=n` runs one seed. In even seeds only what the hosts can outlast happens between the
//! look at the lease and the answer in the store (a pause that the others wait out, a slow issuer, a server
//! that forgets everything): beyond that no fencing number helps, since the issuer knows none. Those seeds must
//! never use a refresh token twice. In odd seeds anything happens anywhere; a token that was used twice must
//! be explained by it.

use std::collections::HashSet;

use evertoken::clock::{Moment, Timestamp};
use evertoken::secret::Secret;
use evertoken::shared::lease::{InHand, Lease, Mark, Tenancy, length_ms};
use evertoken::token::grant::{Class, Failure, Grant, Reached, What};
use evertoken::token::lifecycle::{Lifecycle, Policy, Presented, Step};
use evertoken::token::saved::Saved;
use fastrand::Rng;

use crate::support::engine::ModelEngine;

const SEEDS: u64 = 300;
const HOSTS: usize = 4;
const STEPS: usize = 15_000;
const LIFETIME_MS: u64 = 60_000;
const LEAD_MS: u64 = 20_000;
/// How far the wall clocks of the hosts differ at most, either way.
const SKEW_MAX_MS: i64 = 1_000;
/// The issuer's answer is slow once in so many refreshes, and otherwise comes within so many milliseconds.
const SLOW_ONE_IN: u32 = 6;
const ANSWER_MS: u64 = 200;
/// The least and the most time a token request may take.
const REQUEST_MIN_MS: u64 = 2_000;
const REQUEST_MAX_MS: u64 = 30_000;
/// How often a host looks at the server, whatever it heard.
const POLL_MS: u64 = 500;
/// How soon after a write every host that runs has heard of it.
const HEARD_WITHIN_MS: u64 = 1_000;

/// Where a host is in a refresh.
enum Stage {
    Idle,
    Look,
    Take,
    Mark,
    LastLook(Presented),
    Send(Presented),
    /// The answer, when the request was sent, and when the answer comes.
    Receive(Presented, Result<Grant, ()>, Moment, u64),
    Store(Saved),
    Release,
}

impl Stage {
    /// A pause or a kill here can't be told from a slow issuer by anybody else.
    fn is_delicate(&self) -> bool {
        matches!(self, Self::Send(_) | Self::Receive(..) | Self::Store(_))
    }
}

struct Host {
    name: String,
    machine: Lifecycle,
    disk: Option<Saved>,
    tenancy: Tenancy,
    lease: Option<Lease>,
    stage: Stage,
    paused_until_ms: u64,
    skew_ms: i64,
    /// How often the server had been emptied when the lease was taken.
    epoch: u64,
    unshared: bool,
    /// When it last compared notes with the server.
    heard_ms: u64,
}

struct World {
    seed: u64,
    rng: Rng,
    true_ms: u64,
    engine: ModelEngine<Saved>,
    engine_back_ms: u64,
    epoch: u64,
    /// The highest fencing number it gave out since it was last emptied.
    given: u64,
    written_ms: u64,
    hosts: Vec<Host>,
    current: String,
    used: HashSet<String>,
    revoked: bool,
    issued: u64,
    faults: bool,
    /// Something happened where fencing can't help.
    explained: bool,
    refused_stale: u64,
}

fn policy() -> Policy {
    Policy {
        refresh_before_ms: LEAD_MS,
        retry_interval_ms: 600_000,
        seed: Some(Secret::new("seed")),
        without_refresh_token: false,
        scope: None,
        client_hash: "client".into(),
    }
}

fn moment(true_ms: u64, skew_ms: i64) -> Moment {
    let wall = Timestamp::from_secs(1_800_000_000).plus_millis(i64::try_from(true_ms).unwrap());
    Moment { wall: wall.plus_millis(skew_ms), steady_ms: true_ms }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let host = |index: usize, rng: &mut Rng| {
            let skew_ms = rng.i64(-SKEW_MAX_MS..=SKEW_MAX_MS);
            Host {
                name: format!("host{index}"),
                machine: Lifecycle::new(policy(), None, moment(0, skew_ms)),
                disk: None,
                tenancy: Tenancy::default(),
                lease: None,
                stage: Stage::Idle,
                paused_until_ms: 0,
                skew_ms,
                epoch: 0,
                unshared: false,
                heard_ms: 0,
            }
        };
        let hosts = (0..HOSTS).map(|index| host(index, &mut rng)).collect();
        Self {
            seed,
            rng,
            true_ms: 0,
            engine: ModelEngine::empty(),
            engine_back_ms: 0,
            epoch: 0,
            given: 0,
            written_ms: 0,
            hosts,
            current: "seed".into(),
            used: HashSet::new(),
            revoked: false,
            issued: 0,
            faults: true,
            explained: false,
            refused_stale: 0,
        }
    }

    fn is_gentle(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    fn one_in(&mut self, chance: u32) -> bool {
        self.faults && self.rng.u32(0..chance) == 0
    }

    fn now(&self, host: usize) -> Moment {
        moment(self.true_ms, self.hosts[host].skew_ms)
    }

    fn is_there(&self) -> bool {
        self.true_ms >= self.engine_back_ms
    }

    fn in_hand(&self, host: usize) -> Option<InHand> {
        let token = self.hosts[host].machine.token()?;
        let lead = token.expires.wall.millis_since(token.refresh_due_at);
        Some(InHand { expires: token.expires, lead_ms: u64::try_from(lead).unwrap_or(0) })
    }

    fn observe(&mut self, host: usize) {
        let pending = self.engine.record.as_ref().is_some_and(|saved| saved.pending.is_some());
        let (mark, now) = (self.engine.mark, self.now(host));
        self.hosts[host].tenancy.observe(mark, pending, now);
    }

    /// As `take_up_shared`: the newer of the two wins.
    fn compare(&mut self, host: usize) {
        self.observe(host);
        let now = self.now(host);
        self.hosts[host].heard_ms = self.true_ms;
        let known = self.hosts[host].machine.saved().clone();
        if self.engine.mark < known.mark() {
            let newest = self.share(host, known);
            self.hosts[host].disk = Some(newest);
            return;
        }
        let own = &mut self.hosts[host];
        own.unshared = false;
        if self.engine.mark > known.mark()
            && let Some(mut saved) = self.engine.record.clone()
        {
            saved.saved_at = saved.saved_at.min(now.wall);
            own.machine.take_up_shared(saved.clone(), now);
            own.disk = Some(saved);
        }
    }

    /// As `share`: what is newest then.
    fn share(&mut self, host: usize, saved: Saved) -> Saved {
        if !self.is_there() {
            self.hosts[host].unshared = true;
            return saved;
        }
        if self.write(host, saved.clone()).is_some() {
            return saved;
        }
        self.adopt(host);
        self.hosts[host].machine.saved().clone()
    }

    fn write(&mut self, host: usize, saved: Saved) -> Option<bool> {
        let grace = length_ms(self.in_hand(host).map(|token| token.lead_ms));
        let sent = self.now(host);
        let own = &mut self.hosts[host];
        let length = own.lease.map_or(grace, |lease| lease.length_ms);
        let (before, mark) = (self.engine.mark, saved.mark());
        let written = self.engine.write(mark, saved, &own.name, (length, grace), self.true_ms);
        assert!(self.engine.mark >= before, "seed {}: an older record replaced a newer", self.seed);
        let Some(ours) = written else {
            self.refused_stale += 1;
            return None;
        };
        assert!(mark.fence >= self.given, "seed {}: a stalled holder wrote", self.seed);
        own.unshared = false;
        own.lease = own.lease.filter(|_| ours).map(|old| Lease::from(sent, old.fence, length));
        self.written_ms = self.true_ms;
        self.observe(host);
        Some(ours)
    }

    fn adopt(&mut self, host: usize) {
        self.observe(host);
        let now = self.now(host);
        if let Some(mut saved) = self.engine.record.clone() {
            saved.saved_at = saved.saved_at.min(now.wall);
            self.hosts[host].machine.adopt_shared(saved.clone(), now);
            self.hosts[host].disk = Some(saved);
        }
    }

    /// One step of one host.
    fn act(&mut self, host: usize) {
        let now = self.now(host);
        let stage = std::mem::replace(&mut self.hosts[host].stage, Stage::Idle);
        self.hosts[host].stage = match stage {
            Stage::Idle => match self.hosts[host].machine.next(now) {
                Step::Refresh => Stage::Look,
                Step::Wait(_) | Step::WaitForClock(_) => Stage::Idle,
            },
            Stage::Look if self.is_there() => self.look(host, now),
            Stage::Take if self.is_there() => self.take(host, now),
            Stage::Mark => self.mark(host, now),
            Stage::LastLook(presented) => self.last_look(host, presented, now),
            Stage::Send(presented) => self.send(host, presented, now),
            Stage::Receive(.., comes_ms) if self.true_ms < comes_ms => stage,
            Stage::Receive(presented, answer, sent, _) => {
                self.receive(host, &presented, answer, sent)
            }
            Stage::Store(saved) => {
                let newest = self.share(host, saved);
                self.hosts[host].disk = Some(newest);
                Stage::Release
            }
            Stage::Release => {
                self.release(host);
                Stage::Idle
            }
            Stage::Look | Stage::Take => Stage::Idle,
        };
    }

    fn settled_or_patient(&self, host: usize, now: Moment) -> bool {
        let own = &self.hosts[host];
        own.machine.next(now) != Step::Refresh
            || own.tenancy.patience_left_ms(self.in_hand(host), now) > 0
    }

    fn look(&mut self, host: usize, now: Moment) -> Stage {
        let is_held = self.engine.holder(self.true_ms).is_some();
        self.compare(host);
        if is_held || self.settled_or_patient(host, now) { Stage::Idle } else { Stage::Take }
    }

    fn take(&mut self, host: usize, now: Moment) -> Stage {
        let length = length_ms(self.in_hand(host).map(|token| token.lead_ms));
        let least = self.hosts[host].machine.saved().fence;
        let name = self.hosts[host].name.clone();
        let Some(fence) = self.engine.take(&name, length, least, self.true_ms) else {
            return Stage::Idle;
        };
        let own = &mut self.hosts[host];
        own.lease = Some(Lease::from(now, fence, length));
        own.epoch = self.epoch;
        assert!(fence > self.given, "seed {}: a fencing number twice", self.seed);
        self.given = fence;
        own.tenancy.taken(fence);
        if self.engine.mark < own.machine.saved().mark() {
            return Stage::Release;
        }
        self.compare(host);
        if self.settled_or_patient(host, now) {
            return Stage::Release;
        }
        self.hosts[host].machine.set_fence(fence);
        Stage::Mark
    }

    fn mark(&mut self, host: usize, now: Moment) -> Stage {
        let before = self.hosts[host].machine.saved().clone();
        let presented = self.hosts[host].machine.presented();
        let marked = self.hosts[host].machine.begin(&presented, now).expect("there is a chain");
        let written = self.is_there().then(|| self.write(host, marked.clone()));
        if let Some(Some(_)) = written {
            self.hosts[host].disk = Some(marked);
            return Stage::LastLook(presented);
        }
        self.hosts[host].machine.put_back(before);
        if written.is_some() {
            self.adopt(host);
        }
        Stage::Release
    }

    fn last_look(&mut self, host: usize, presented: Presented, now: Moment) -> Stage {
        let own = &self.hosts[host];
        if !Tenancy::may_send(own.lease.as_ref(), now) {
            return Stage::Release;
        }
        if own.epoch == self.epoch {
            let holder = self.engine.holder(self.true_ms);
            assert_eq!(holder, Some(own.name.as_str()), "seed {}: sent without a lease", self.seed);
        }
        Stage::Send(presented)
    }

    /// The request arrives at the issuer.
    fn send(&mut self, host: usize, presented: Presented, sent: Moment) -> Stage {
        let comes_ms = self.true_ms + self.answer_takes_ms(host, sent);
        let Presented::Token(token) = &presented else { panic!("nothing to present") };
        if self.revoked || token.expose() != self.current {
            self.revoked |= self.used.contains(token.expose());
            return Stage::Receive(presented, Err(()), sent, comes_ms);
        }
        self.issued += 1;
        let next = format!("refresh-{}", self.issued);
        self.used.insert(std::mem::replace(&mut self.current, next.clone()));
        let grant = Grant {
            access_token: Secret::new(format!("access-{}", self.issued)),
            refresh_token: Some(Secret::new(next)),
            lifetime_ms: i64::try_from(LIFETIME_MS).unwrap(),
            refresh_in_ms: None,
            earliest_refresh_in_ms: None,
            has_ended: false,
            scope: None,
            refresh_token_lifetime_ms: None,
            warning: None,
        };
        Stage::Receive(presented, Ok(grant), sent, comes_ms)
    }

    /// Never longer than it is waited for, as `time_allowed`: an answer that nobody waits for is lost.
    fn answer_takes_ms(&mut self, host: usize, now: Moment) -> u64 {
        let left = self.in_hand(host).map_or(0, |token| token.expires.left_ms(now));
        let allowed = if left == 0 { REQUEST_MAX_MS } else { left / 3 };
        let slow = self.one_in(SLOW_ONE_IN);
        let most = if slow { allowed.clamp(REQUEST_MIN_MS, REQUEST_MAX_MS) } else { ANSWER_MS };
        self.rng.u64(0..most)
    }

    fn receive(
        &mut self,
        host: usize,
        presented: &Presented,
        answer: Result<Grant, ()>,
        sent: Moment,
    ) -> Stage {
        let now = self.now(host);
        let mut rng = self.rng.fork();
        let machine = &mut self.hosts[host].machine;
        let saved = if let Ok(grant) = answer {
            Some(machine.granted(presented, &grant, sent, now, &mut rng))
        } else {
            let what = What::Status(400, None);
            let (class, reached) = (Class::TokenDead, Reached::No);
            let failure = Failure { class, reached, retry_after_ms: None, what };
            machine.failed(presented, &failure, now, &mut rng).1
        };
        saved.map_or(Stage::Release, Stage::Store)
    }

    fn release(&mut self, host: usize) {
        let own = &mut self.hosts[host];
        if own.lease.take().is_some() && self.true_ms >= self.engine_back_ms {
            self.engine.release(&own.name, self.true_ms);
        }
    }

    /// What keepers do: renew, and hear what is new.
    fn keep(&mut self, host: usize) {
        if !self.is_there() {
            return;
        }
        let now = self.now(host);
        let own = &mut self.hosts[host];
        if let Some(lease) = own.lease.filter(|lease| lease.is_to_be_renewed(now)) {
            let ours = self.engine.renew(&own.name, lease.length_ms, self.true_ms);
            own.lease = ours.then(|| Lease::from(now, lease.fence, lease.length_ms));
        }
        let is_idle = matches!(own.stage, Stage::Idle);
        let news = own.heard_ms <= self.written_ms || own.unshared;
        let is_due = self.true_ms.saturating_sub(own.heard_ms) >= POLL_MS;
        if is_idle && (is_due || news && self.rng.u32(0..3) == 0) {
            self.compare(host);
        }
    }

    /// Whether others would miss it: it is in the middle of a refresh, or knows what the server does not.
    fn is_delicate(&self, host: usize) -> bool {
        let own = &self.hosts[host];
        own.stage.is_delicate() || own.unshared || own.machine.saved().mark() > self.engine.mark
    }

    /// Pauses, kills, and a server that goes away or empty.
    fn disturb(&mut self, host: usize) {
        let delicate = self.is_delicate(host);
        let idle = matches!(self.hosts[host].stage, Stage::Idle);
        if (!self.is_gentle() || !delicate) && self.one_in(if idle { 400 } else { 12 }) {
            self.explained |= delicate;
            let length = [50, 500, 3_000, 15_000, 45_000, 120_000][self.rng.usize(0..6)];
            self.hosts[host].paused_until_ms = self.true_ms + self.rng.u64(0..length);
        }
        if self.is_gentle() && self.has_time(host) && self.one_in(8) {
            // Longer than its lease, and not as long as the token in hand: the others wait for it.
            self.hosts[host].paused_until_ms = self.true_ms + self.rng.u64(10_200..11_500);
        }
        if (!self.is_gentle() || !delicate) && self.one_in(600) {
            self.explained |= delicate;
            self.restart(host);
        }
        if self.one_in(700) {
            self.disturb_engine();
        }
        if self.hosts[host].stage.is_delicate() && self.is_outlasted() && self.one_in(8) {
            // The host that is at it tells of its refresh before another could have the lease.
            self.forget();
        }
    }

    /// It knows what is on its disk.
    fn restart(&mut self, host: usize) {
        let now = self.now(host);
        let own = &mut self.hosts[host];
        own.machine = Lifecycle::new(policy(), own.disk.clone(), now);
        (own.tenancy, own.lease, own.stage) = (Tenancy::default(), None, Stage::Idle);
        own.unshared = false;
        own.heard_ms = 0;
    }

    /// The server goes away for a while, or forgets everything at once; in a power cut all hosts go with it.
    fn disturb_engine(&mut self) {
        let delicate = (0..HOSTS).any(|host| self.is_delicate(host));
        let marks = self.hosts.iter().map(|host| host.machine.saved().mark());
        let least = marks.min().unwrap_or_default();
        let all_know = least >= self.engine.mark.max(Mark { fence: 0, generation: 1 });
        match self.rng.u32(0..3) {
            0 if !self.is_gentle() || !delicate => {
                self.explained |= delicate;
                self.engine_back_ms = self.true_ms + self.rng.u64(0..30_000);
                if all_know && self.rng.bool() {
                    self.forget();
                }
            }
            // Who knows the seed alone can't tell an emptied server from a new one; the others tell it.
            1 if all_know && !delicate && self.can_tell() => {
                self.forget();
                let newcomer = self.rng.usize(0..HOSTS);
                if self.can_tell_without(newcomer) {
                    self.hosts[newcomer].disk = None;
                    self.restart(newcomer);
                }
            }
            2 if all_know && !delicate => {
                self.forget();
                for host in 0..HOSTS {
                    self.restart(host);
                    let back_ms = self.rng.u64(0..60_000);
                    self.hosts[host].paused_until_ms = self.true_ms + back_ms;
                }
            }
            _ if self.is_gentle() => {}
            _ => {
                self.explained |= delicate || !all_know;
                self.forget();
            }
        }
    }

    fn forget(&mut self) {
        self.engine = ModelEngine::empty();
        self.epoch += 1;
        self.given = 0;
        self.written_ms = self.true_ms.max(self.engine_back_ms);
    }

    /// Whether somebody who knows the newest runs, and the server is there to be told.
    fn can_tell(&self) -> bool {
        self.can_tell_without(HOSTS)
    }

    fn can_tell_without(&self, other: usize) -> bool {
        let tells = |host: usize| {
            let own = &self.hosts[host];
            host != other
                && own.paused_until_ms <= self.true_ms
                && own.machine.saved().mark() >= self.engine.mark
        };
        self.is_there() && (0..HOSTS).any(tells)
    }

    /// Whether every host in the middle of a refresh runs, and has its answer before a lease that the server
    /// forgot could have been given to another.
    fn is_outlasted(&self) -> bool {
        let soon = self.true_ms + 1_000;
        let in_time = |own: &Host| match own.stage {
            Stage::Send(_) => false,
            Stage::Receive(.., comes_ms) => comes_ms < soon && own.paused_until_ms <= self.true_ms,
            _ => !own.stage.is_delicate() || own.paused_until_ms <= self.true_ms,
        };
        self.can_tell() && self.hosts.iter().all(in_time)
    }

    /// Whether it waits for the issuer with a token in hand that lasts.
    fn has_time(&self, host: usize) -> bool {
        let now = self.now(host);
        matches!(self.hosts[host].stage, Stage::Receive(..))
            && self.hosts[host].epoch == self.epoch
            && self.in_hand(host).is_some_and(|token| token.expires.left_ms(now) > LEAD_MS)
    }

    fn step(&mut self) {
        self.true_ms += self.rng.u64(0..40);
        let host = self.rng.usize(0..HOSTS);
        if self.hosts[host].paused_until_ms > self.true_ms {
            return;
        }
        self.disturb(host);
        if self.hosts[host].paused_until_ms > self.true_ms {
            return;
        }
        self.keep(host);
        self.act(host);
        if self.is_gentle() {
            assert!(!self.revoked, "seed {}: a refresh token was used twice", self.seed);
        }
        assert!(!self.revoked || self.explained, "seed {}: used twice for no reason", self.seed);
    }

    fn have_the_newest(&self) -> bool {
        let newest = format!("access-{}", self.issued);
        (0..HOSTS).all(|host| {
            let token = self.hosts[host].machine.token();
            token.is_some_and(|token| {
                token.secret.expose() == newest && !token.expires.reached(self.now(host))
            })
        })
    }
}

/// A holder stands still before it has sent anything: its lease ends before the token does.
#[test]
fn a_holder_that_stalls_costs_no_token() {
    for seed in 0..SEEDS / 10 {
        let mut world = World::new(2 * seed);
        world.faults = false;
        while !world.have_the_newest() || world.issued == 0 {
            world.step();
        }
        let holder = loop {
            world.step();
            let before_it_sends = |host: &Host| {
                host.lease.is_some() && matches!(host.stage, Stage::Mark | Stage::LastLook(_))
            };
            if let Some(holder) = world.hosts.iter().position(before_it_sends) {
                break holder;
            }
        };
        world.hosts[holder].paused_until_ms = world.true_ms + 2 * LIFETIME_MS;
        let until_ms = world.true_ms + 2 * LIFETIME_MS;
        while world.true_ms < until_ms {
            world.step();
            for host in (0..HOSTS).filter(|host| *host != holder) {
                let token = world.hosts[host].machine.token();
                let is_good = token.is_some_and(|token| !token.expires.reached(world.now(host)));
                assert!(is_good, "seed {seed}: nothing was refreshed while the holder stood still");
            }
        }
        assert!(!world.revoked);
    }
}

/// Runs one seed: whether its chain survived, how many tokens there were, and how many late writes.
fn run(seed: u64) -> (bool, u64, u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.faults = false;
    for host in &mut world.hosts {
        host.paused_until_ms = 0;
    }
    let begun = world.true_ms;
    while !world.have_the_newest() && world.true_ms - begun < 10 * LIFETIME_MS {
        world.step();
    }
    let survived = world.have_the_newest();
    assert!(survived || world.revoked, "seed {seed}: not all have the newest token");
    if survived {
        // From here on every new token reaches all of them at once.
        let mut known = world.issued;
        let mut since = None;
        for _ in 0..STEPS {
            world.step();
            if world.issued > known {
                (known, since) = (world.issued, Some(world.true_ms));
            }
            if since.is_some() && world.have_the_newest() {
                since = None;
            }
            let waited = since.map_or(0, |since| world.true_ms - since);
            assert!(waited <= HEARD_WITHIN_MS * 3, "seed {seed}: a token took {waited} ms");
        }
        assert!(known > 0);
    }
    (survived, world.issued, world.refused_stale)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a failing seed is run again by its number")]
fn no_seed_uses_a_refresh_token_twice() {
    if let Some(seed) = std::env::var("EVERTOKEN_SIM_SEED").ok().and_then(|seed| seed.parse().ok())
    {
        run(seed);
        return;
    }
    let all: Vec<_> = (0..SEEDS).map(run).collect();
    let gentle = all.iter().step_by(2).filter(|(survived, ..)| *survived).count();
    assert_eq!(gentle, all.len() / 2, "without an unlucky moment every chain survives");
    let survived = all.iter().filter(|(survived, ..)| *survived).count();
    assert!(survived > gentle, "and some with one");
    assert!(all.iter().map(|(_, issued, _)| issued).sum::<u64>() > SEEDS * 3);
    let refused = all.iter().map(|(.., stale)| stale).sum::<u64>();
    assert!(refused > 50, "only {refused} late writes were refused");
}
