//! The thread that keeps a process in touch with the shared store: it receives other hosts' messages and polls as
//! well, wakes the refreshers, renews their leases, and passes cooldowns on in both directions.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, after, bounded, select};
use log::info;

use crate::atomic::AtomicU64;
use crate::clock::{Clock, Due, Moment};
use crate::config::SharedStore;
use crate::record::Mark;
use crate::secret::fingerprint;
use crate::shared::chain::Held;
use crate::shared::clocks::Offset;
use crate::shared::engine::{Engine, Line, Names, News, StoreError, Subscription};
use crate::shared::health::{Finder, Health, Use};
use crate::shared::tallies::{Exchange, SharedPart};
use crate::thread::{self, Thread};

/// A TLS handshake needs more stack than a forwarding worker has.
const STACK_BYTES: usize = 256 * 1024;
/// The time for which the thread listens before it does its other work.
const LISTEN: Duration = Duration::from_millis(100);
/// The time between two looks at the records, regardless of messages.
const POLL_MS: u64 = 500;
/// The time between two exchanges of counts.
const EXCHANGE_MS: u64 = 1_000;
/// The wait before the next try to connect.
const RETRY: Duration = Duration::from_millis(500);
/// The time between two checks that the server accepts writes, because a refresh that is due in an hour would find
/// out too late.
const INSPECT_MS: u64 = 60_000;
/// The same while somebody is in trouble with the server.
const INSPECT_IN_TROUBLE_MS: u64 = 2_000;
/// The most cooldowns that wait to be sent; further ones are dropped.
const COOLDOWNS_MAX: usize = 64;

/// Another host's word about the rest of a provider, or of one model.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RestNews<'a> {
    /// It lasts for so many milliseconds, and has this number; an older evertoken tells none.
    Begun(u64, Option<u64>),
    /// Those with these numbers ended early.
    Ended(&'a [u64]),
}

/// Takes such a word about the provider, or about this model of it.
pub(crate) type Rest = Box<dyn Fn(Option<&str>, RestNews<'_>) + Send + Sync>;

/// The keeper's tasks for one provider.
pub(crate) struct KeptProvider {
    /// Its name within this process.
    pub key: u64,
    /// Its name on all hosts.
    pub slug: String,
    /// Wakes its refresher after a change of the record; None without a refresher.
    pub wake: Option<Box<dyn Fn() + Send + Sync>>,
    /// The lease to renew while it is used.
    pub held: Option<Arc<Held>>,
    /// Makes it, or a model of it, rest, or ends that.
    pub rest: Rest,
    /// Exchanges what is left of its quota; None for a refresher.
    pub quota: Option<QuotaExchange>,
}

type Hear = dyn Fn(Option<&str>) + Send + Sync;

/// Exchanges what is left of a provider's quota with other hosts.
pub(crate) struct QuotaExchange {
    /// The text for the other hosts, if they do not know the newest yet.
    pub tell: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// Takes the text of another host; None if the store has none.
    pub hear: Box<Hear>,
}

/// Sends cooldowns to the other hosts.
#[derive(Clone, Debug)]
pub struct CooldownSender {
    slug: String,
    cooldowns: Sender<ToldCooldown>,
    /// The number of the latest cooldown that was told. It begins at random, so that no other host has the same.
    latest: Arc<AtomicU64>,
}

/// A cooldown on its way to the other hosts, or its end.
#[derive(Debug)]
struct ToldCooldown {
    slug: String,
    /// The model that rests; None for the whole provider.
    model: Option<String>,
    what: ToldWhat,
}

#[derive(Debug)]
enum ToldWhat {
    /// It lasts until then, and has this number.
    Begun(Due, u64),
    /// Those with these numbers ended early.
    Ended(Vec<u64>),
}

impl CooldownSender {
    /// The provider, or this `model` of it, rests for `length` from `now` on. Returns the number of that rest. Never
    /// blocks: if too many messages wait, this one is dropped.
    pub(crate) fn tell(&self, length: Duration, model: Option<&str>, now: Moment) -> u64 {
        let number = self.latest.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let what = ToldWhat::Begun(Due::after(now, ms), number);
        self.send(model.map(str::to_owned), what);
        number
    }

    /// The rests of the provider, or of this `model` of it, with these `numbers` ended early.
    pub(crate) fn tell_end(&self, model: Option<String>, numbers: Vec<u64>) {
        if !numbers.is_empty() {
            self.send(model, ToldWhat::Ended(numbers));
        }
    }

    fn send(&self, model: Option<String>, what: ToldWhat) {
        let _ = self.cooldowns.try_send(ToldCooldown { slug: self.slug.clone(), model, what });
    }
}

type Members = Arc<Mutex<Vec<Arc<KeptProvider>>>>;

/// The running keeper. Dropping it ends the thread.
pub(crate) struct Keeper {
    /// The keeper's store.
    pub store: SharedStore,
    /// The store's health, also for others who find it in trouble.
    pub health: Arc<Health>,
    /// The counts that are shared.
    pub counts: SharedPart,
    members: Members,
    cooldowns: Sender<ToldCooldown>,
    /// See [`CooldownSender`].
    latest: Arc<AtomicU64>,
    // Closed before the thread is joined.
    stop: Option<Sender<()>>,
    _thread: Thread,
}

impl Keeper {
    /// Starts the thread; `instance` names this process among the others.
    pub(crate) fn start(store: &SharedStore, instance: String, clock: Clock) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (cooldowns, told) = bounded(COOLDOWNS_MAX);
        let (members, counts) = <(Members, SharedPart)>::default();
        let health = Arc::new(Health::new(store));
        let latest = Arc::new(AtomicU64::new(fingerprint(&instance)));
        let work = KeeperThread {
            store: store.clone(),
            health: health.clone(),
            instance,
            clock,
            members: members.clone(),
            counts: counts.clone(),
            told,
            stopped,
            was_there: false,
        };
        let thread = thread::spawn("token-store", STACK_BYTES, move || work.run())?;
        let (store, stop) = (store.clone(), Some(stop));
        Ok(Self { store, health, counts, members, cooldowns, latest, stop, _thread: thread })
    }

    /// Adds `member` from the next poll on; it replaces the one with its key.
    pub(crate) fn add(&self, member: KeptProvider) {
        let mut members = lock(&self.members);
        members.retain(|known| known.key != member.key);
        members.push(Arc::new(member));
    }

    /// Forgets all members except those for which `is_used` holds.
    pub(crate) fn retain(&self, is_used: impl Fn(u64) -> bool) {
        lock(&self.members).retain(|member| is_used(member.key));
    }

    /// A sender for cooldowns of the provider called `slug`.
    pub(crate) fn cooldown_sender(&self, slug: &str) -> CooldownSender {
        let (cooldowns, latest) = (self.cooldowns.clone(), self.latest.clone());
        CooldownSender { slug: slug.to_owned(), cooldowns, latest }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop = None;
    }
}

fn lock(members: &Members) -> MutexGuard<'_, Vec<Arc<KeptProvider>>> {
    // Each change is complete in itself.
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's inputs.
struct KeeperThread {
    store: SharedStore,
    health: Arc<Health>,
    instance: String,
    clock: Clock,
    members: Members,
    counts: SharedPart,
    told: Receiver<ToldCooldown>,
    stopped: Receiver<()>,
    was_there: bool,
}

/// One connection's state.
struct Session<'a> {
    line: Line,
    subscription: Subscription<'a>,
    /// The mark of each member's record at the last look.
    marks: HashMap<u64, Mark>,
    polled: Option<Moment>,
    inspected: Option<Moment>,
    exchange: Exchange,
    exchanged: Option<Moment>,
    /// It refused writes at the last inspection.
    is_unwritable: bool,
}

impl KeeperThread {
    fn run(mut self) {
        loop {
            let trouble = match self.session() {
                Ok(()) => return,
                Err(trouble) => trouble,
            };
            self.health.found(Finder::Keeper, &trouble, Use::Writing, self.clock.now());
            select! {
                recv(self.stopped) -> _ => return,
                recv(after(RETRY)) -> _ => {}
            }
        }
    }

    /// Keeps in touch until the stop, or until something fails.
    fn session(&mut self) -> Result<(), StoreError> {
        let (line, mut other) = (Line::open(&self.store)?, Line::open(&self.store)?);
        let subscription = other.listen(&self.store.prefix)?;
        self.report_reached();
        let mut session = Session {
            line,
            subscription,
            marks: HashMap::new(),
            polled: None,
            inspected: None,
            exchange: Exchange::default(),
            exchanged: None,
            is_unwritable: false,
        };
        loop {
            match self.stopped.try_recv() {
                Ok(()) | Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {}
            }
            self.inspect_when_due(&mut session)?;
            self.poll_when_due(&mut session)?;
            self.renew(&mut session.line)?;
            self.tell(&mut session.line)?;
            self.exchange_when_due(&mut session)?;
            self.listen(&mut session)?;
        }
    }

    fn members(&self) -> Vec<Arc<KeptProvider>> {
        lock(&self.members).clone()
    }

    fn names(&self, slug: &str) -> Names {
        Names::new(&self.store.prefix, slug)
    }

    fn listen(&self, session: &mut Session<'_>) -> Result<(), StoreError> {
        match session.subscription.hear(LISTEN)? {
            Some(News::Record(slug)) => self.wake(&slug),
            Some(News::Rest { slug, model, ms, number, from }) if from != self.instance => {
                self.rest(&slug, model.as_deref(), RestNews::Begun(ms, number));
            }
            Some(News::End { slug, model, numbers, from }) if from != self.instance => {
                self.rest(&slug, model.as_deref(), RestNews::Ended(&numbers));
            }
            Some(News::Quota { slug, told, from }) if from != self.instance => {
                let text = match told {
                    Some(told) => Some(told),
                    None => session.line.quota(&self.names(&slug))?,
                };
                let members = self.members();
                let own = members.iter().filter(|member| member.slug == slug);
                own.filter_map(|member| member.quota.as_ref())
                    .for_each(|quota| (quota.hear)(text.as_deref()));
            }
            Some(News::Quota { .. } | News::Rest { .. } | News::End { .. }) | None => {}
        }
        Ok(())
    }

    fn wake(&self, slug: &str) {
        for member in self.members().iter().filter(|member| member.slug == slug) {
            if let Some(wake) = &member.wake {
                wake();
            }
        }
    }

    fn rest(&self, slug: &str, model: Option<&str>, news: RestNews<'_>) {
        for member in self.members().iter().filter(|member| member.slug == slug) {
            (member.rest)(model, news);
        }
    }

    /// Looks at every record, because a message may have been lost, or the server may be empty.
    fn poll_when_due(&self, session: &mut Session<'_>) -> Result<(), StoreError> {
        let now = self.clock.now();
        if session.polled.is_some_and(|polled| !has_passed(POLL_MS, polled, now)) {
            return Ok(());
        }
        session.polled = Some(now);
        session.subscription.ping()?;
        for member in self.members() {
            let names = self.names(&member.slug);
            if !session.marks.contains_key(&member.key) {
                let number = session.line.cooldown_number(&names)?;
                let left_ms = session.line.cooldown_left_ms(&names)?;
                if left_ms > 0 {
                    (member.rest)(None, RestNews::Begun(left_ms, number));
                }
                for (model, left_ms, number) in session.line.resting_models(&names)? {
                    (member.rest)(Some(&model), RestNews::Begun(left_ms, number));
                }
                if let Some(quota) = &member.quota {
                    (quota.hear)(session.line.quota(&names)?.as_deref());
                }
            }
            let mark = session.line.mark(&names)?;
            let is_news = session.marks.insert(member.key, mark) != Some(mark)
                || member.held.as_ref().is_some_and(|held| held.knows_newer_than(mark));
            if let Some(wake) = member.wake.as_ref().filter(|_| is_news) {
                wake();
            }
        }
        Ok(())
    }

    fn renew(&self, line: &mut Line) -> Result<(), StoreError> {
        for member in self.members() {
            let Some(held) = &member.held else { continue };
            let sent = self.clock.now();
            let Some(lease) = held.lease().filter(|lease| lease.is_to_be_renewed(sent)) else {
                continue;
            };
            let is_ours = line.renew(&held.names, &held.holder, lease.length_ms)?;
            held.renewed(lease, sent, is_ours);
        }
        Ok(())
    }

    fn tell(&self, line: &mut Line) -> Result<(), StoreError> {
        for ToldCooldown { slug, model, what } in self.told.try_iter() {
            let (names, model, from) = (self.names(&slug), model.as_deref(), &self.instance);
            match what {
                ToldWhat::Begun(until, number) => {
                    // The message may have waited for the server.
                    let rest = (until.left_ms(self.clock.now()), number);
                    if rest.0 == 0 {
                        continue;
                    }
                    match model {
                        None => line.cool_down(&names, rest, from)?,
                        Some(model) => line.rest(&names, model, rest, from)?,
                    }
                }
                ToldWhat::Ended(numbers) => line.end_rest(&names, model, &numbers, from)?,
            }
        }
        for member in self.members() {
            if let Some(text) = member.quota.as_ref().and_then(|quota| (quota.tell)()) {
                line.tell_quota(&self.names(&member.slug), &text, &self.instance)?;
            }
        }
        Ok(())
    }

    /// Shares counts with the other hosts.
    fn exchange_when_due(&self, session: &mut Session<'_>) -> Result<(), StoreError> {
        let now = self.clock.now();
        if session.exchanged.is_some_and(|last| !has_passed(EXCHANGE_MS, last, now)) {
            return Ok(());
        }
        session.exchanged = Some(now);
        let Session { exchange, line, .. } = session;
        exchange.run(&self.counts, &mut |writer, tally, known| {
            line.exchange(&self.store.prefix, writer, tally, known)
        })
    }

    /// Compares clocks, and checks that the server accepts writes. If it does not, the session continues, because
    /// other hosts' writes can still be read; after the second failure, another connection may lead to another
    /// server.
    fn inspect_when_due(&self, session: &mut Session<'_>) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.health.settle(now);
        let every = if self.health.is_in_trouble() { INSPECT_IN_TROUBLE_MS } else { INSPECT_MS };
        if session.inspected.is_some_and(|inspected| !has_passed(every, inspected, now)) {
            return Ok(());
        }
        session.inspected = Some(now);
        let shown = session.line.time()?;
        if let Some(offset) = shown.and_then(|shown| Offset::measured(now, shown, self.clock.now()))
        {
            self.health.measured(offset);
        }
        match session.line.probe(&self.store.prefix) {
            Ok(()) => {
                session.is_unwritable = false;
                self.health.can_write(now);
            }
            Err(trouble) if session.is_unwritable => return Err(trouble),
            Err(trouble) => {
                session.is_unwritable = true;
                self.health.found(Finder::Keeper, &trouble, Use::Writing, now);
            }
        }
        Ok(())
    }

    fn report_reached(&mut self) {
        if !self.was_there {
            info!("Tokens are shared through {}", self.store.place);
        }
        self.was_there = true;
    }
}

fn has_passed(ms: u64, since: Moment, now: Moment) -> bool {
    now.steady_ms.saturating_sub(since.steady_ms) >= ms
}
