//! The thread that keeps the token of one chain fresh: sleeps, listens, asks the lifecycle, and has it refreshed.

use std::time::Duration;

use crossbeam_channel::{Sender, TryRecvError, select_biased};
use fastrand::Rng;

use crate::clock::{Due, Moment};
use crate::token::lifecycle::{Instruction, OnRejection, Policy};
use crate::token::places::Seeker;
use crate::token::refresher::attempt::RefreshAttempt;
use crate::token::refresher::desk::Desk;
use crate::token::refresher::hindrance::Hindrance;
use crate::token::refresher::inbox::{Change, Event, Orders};
use crate::token::refresher::issuer::Issuer;
use crate::token::refresher::life::Life;
use crate::token::refresher::moves::{Moves, leave_old_places};
use crate::token::refresher::secrets;
use crate::token::refresher::setup::{
    BUSY_WAIT_MAX_MS, LOCK_RETRY_MS, Purpose, Setup, TICK_MS, Timer,
};
use crate::token::refresher::vault::Vault;
use crate::token::refresher::vault::file::File;
use crate::token::refresher::vault::shared::Shared;
use crate::token::sender::IssuerLink;
use crate::token::store::Generation;
use crate::token::waiting::Cause;

/// The longest sleep while there is no token to send, because a login may come.
const LOOK_MS: u64 = 5_000;
/// The wait before the next try of the shared store.
const AWAY_RETRY_MS: u64 = 500;
/// The rest of a token's life in which a command that prints it refreshes it first.
const NEAR_END_MS: u64 = 60_000;
/// The time between two looks at a wrong wall clock.
const CLOCK_RETRY_MS: u64 = 2_000;

/// The working refresher of one chain.
pub(super) struct Actor {
    life: Life,
    issuer: Issuer,
    vault: Vault,
    moves: Moves,
    orders: Orders,
    link: IssuerLink,
    timer: Timer,
    rng: Rng,
    /// The time before which no refresh is tried, whatever event comes, because another process, another host or the
    /// shared store prevented the last try.
    hold_off: Option<Due>,
    /// The times of the last look and the last tick, on the steady clock.
    looked_at_ms: u64,
    ticked_at_ms: u64,
}

impl Actor {
    /// Loads the stored record and publishes its state.
    pub(super) fn new(setup: Setup, orders: Orders, purpose: Purpose) -> Self {
        let mut desk = Desk::of(&setup);
        desk.logs_trouble = purpose != Purpose::Obtain;
        let is_single = purpose != Purpose::Serve;
        let Setup { mut config, state, seeker, chain, timer, link, rng, .. } = setup;
        let moves = Moves::new(state.path());
        let issuer = Issuer::begin(&mut config, &state, &mut desk);
        let is_kept = !config.grant_type.keeps_nothing();
        let (file, stored) = File::open(state, seeker, is_kept, &mut desk);
        let life = Life::new(desk, config, stored, is_single);
        let now_ms = life.now().steady_ms;
        let mut actor = Self {
            life,
            issuer,
            vault: Vault { file, shared: Shared::new(chain) },
            moves,
            orders,
            link,
            timer,
            rng,
            hold_off: None,
            looked_at_ms: now_ms,
            ticked_at_ms: now_ms,
        };
        actor.life.report_start();
        actor.life.publish(actor.life.is_due());
        actor
    }

    /// Refreshes once; waits while another process refreshes. True if there is a new token, and it is stored.
    pub(super) fn refresh_once(mut self) -> bool {
        let began = self.life.now();
        self.life.machine.order(began);
        loop {
            match self.refresh() {
                Ok(()) if self.life.falls_back => {}
                Ok(()) | Err(Hindrance::StoreAway) => break,
                Err(Hindrance::Unread | Hindrance::CalledOff | Hindrance::Unwritable) => {
                    return self.give_up();
                }
                Err(Hindrance::Busy) if self.wait_for_others(began) => {}
                Err(Hindrance::Busy) => return self.give_up(),
            }
        }
        self.vault.save_before_the_end(&self.timer, &mut self.life);
        let has_failed = self.life.status.last_error.is_some() || self.vault.file.is_unsaved();
        !has_failed && self.life.told_of_store().is_none()
    }

    /// Makes sure of a valid token and publishes the outcome. Refreshes only if it is time to do so and the token is
    /// about to end, and waits for another process only without a valid token.
    pub(super) fn obtain_once(mut self) {
        let began = self.life.now();
        while self.needs_refresh_now() {
            match self.refresh() {
                Ok(()) => {}
                Err(Hindrance::Busy)
                    if !self.life.has_valid_token() && self.wait_for_others(began) => {}
                Err(_) => break,
            }
        }
        self.vault.save_before_the_end(&self.timer, &mut self.life);
        self.life.publish(false);
    }

    fn needs_refresh_now(&self) -> bool {
        let now = self.life.now();
        let left_ms = self.life.machine.token().map_or(0, |token| token.expires.left_ms(now));
        left_ms <= NEAR_END_MS && self.life.is_due()
    }

    /// Waits a moment while another process refreshes; false if it has lasted too long since `began`.
    fn wait_for_others(&self, began: Moment) -> bool {
        let waited_ms = self.life.now().steady_ms.saturating_sub(began.steady_ms);
        if waited_ms >= BUSY_WAIT_MAX_MS {
            return false;
        }
        // Only the end of the timer matters.
        let _ = (self.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
        true
    }

    /// Logs the hindrance of a single refresh.
    fn give_up(&self) -> bool {
        let desk = &self.life.desk;
        let why =
            desk.told_wait().or_else(|| Some(self.life.status.last_error.as_ref()?.to_string()));
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        desk.error(format_args!("Provider {} was not refreshed{why}", desk.name));
        false
    }

    pub(super) fn run(mut self) {
        loop {
            let wait_ms = match self.act() {
                Some(wait_ms) => wait_ms,
                None if self.settle_joined() => continue,
                None => break,
            };
            let timer = (self.timer)(Duration::from_millis(wait_ms));
            // An event comes before the timer: it may be an order to keep still, or another configuration.
            select_biased! {
                recv(self.orders.events) -> event => match event {
                    Ok(Event::Stop) | Err(_) => break,
                    Ok(event) => self.hear(event),
                },
                recv(timer) -> _ => {
                    self.hold_off = None;
                    self.look();
                }
            }
            if self.looked_ms_ago() >= LOOK_MS {
                // Frequent events do not keep it from looking.
                self.look();
            }
        }
        self.vault.save_before_the_end(&self.timer, &mut self.life);
        if let Some(why) = &self.life.desk.draft.disk_error {
            self.life.desk.error(format_args!(
                "The last token of provider: {} could not be stored before the end ({why}); \
                 log in again if the next start can't refresh",
                self.life.desk.name
            ));
        }
    }

    /// Does what is due. Returns the time to sleep afterwards, or None after a refresh.
    fn act(&mut self) -> Option<u64> {
        let now = self.life.now();
        self.life.warn_of_clock(now);
        let wait_ms = match self.life.machine.next(now) {
            _ if self.life.is_retired => TICK_MS,
            Instruction::Refresh if self.held_off_ms(now) > 0 => self.held_off_ms(now),
            Instruction::Refresh => match self.refresh() {
                Ok(()) => return None,
                Err(hindrance) => self.hold_off_for(hindrance, now),
            },
            Instruction::Wait(ms) => {
                self.life.wait_is_over();
                ms.min(self.longest_sleep_ms(now))
            }
            Instruction::WaitForClock(ms) => {
                self.life.wait_for(Cause::Clock { shown: now.wall });
                ms.min(CLOCK_RETRY_MS)
            }
        };
        Some(if self.vault.shared.is_behind() { wait_ms.min(AWAY_RETRY_MS) } else { wait_ms })
    }

    /// Delays the next try because of `hindrance`, and returns the delay.
    fn hold_off_for(&mut self, hindrance: Hindrance, now: Moment) -> u64 {
        let wait_ms = match hindrance {
            Hindrance::Busy => LOCK_RETRY_MS,
            Hindrance::StoreAway => AWAY_RETRY_MS,
            Hindrance::Unread => self.vault.file.unread_wait_ms(now),
            // The event that called the command off is read first.
            Hindrance::CalledOff => 0,
            // Only of a command.
            Hindrance::Unwritable => LOCK_RETRY_MS,
        };
        // A command that was called off is run after that event, if anybody still needs its token.
        if !matches!(hindrance, Hindrance::Busy | Hindrance::CalledOff) {
            self.give_up_waiting();
        }
        self.hold_off = Some(Due::after(self.life.now(), wait_ms));
        wait_ms
    }

    /// The work that follows each sleep, whether or not a refresh is due.
    fn look(&mut self) {
        self.looked_at_ms = self.life.now().steady_ms;
        if !self.life.is_retired {
            self.vault.take_up_login(&mut self.life);
        }
        if self.vault.shared.is_behind() {
            self.vault.shared.compare(&mut self.vault.file, &mut self.life);
        }
        let now = self.life.now();
        if now.steady_ms.saturating_sub(self.ticked_at_ms) >= TICK_MS {
            self.ticked_at_ms = now.steady_ms;
            self.tick();
        }
    }

    fn looked_ms_ago(&self) -> u64 {
        self.life.now().steady_ms.saturating_sub(self.looked_at_ms)
    }

    fn held_off_ms(&self, now: Moment) -> u64 {
        self.hold_off.map_or(0, |until| until.left_ms(now))
    }

    fn longest_sleep_ms(&self, now: Moment) -> u64 {
        let to_tick_ms = (self.ticked_at_ms + TICK_MS).saturating_sub(now.steady_ms);
        let to_tick_ms = to_tick_ms.min(self.vault.file.unread_wait_ms(now));
        match self.life.machine.token() {
            Some(token) if !token.expires.reached(now) => to_tick_ms,
            _ => to_tick_ms.min(LOOK_MS),
        }
    }

    fn tick(&mut self) {
        let (vault, life) = (&mut self.vault, &mut self.life);
        // If another process holds the lock, the next tick is soon enough.
        vault.save_again(life);
        self.moves.go_on(vault, life);
        leave_old_places(vault, life);
        if life.is_retired {
            return;
        }
        secrets::read_again(vault, life);
        life.report_missing_secret();
        if life.status.last_error.is_some() && !vault.file.is_unsaved() {
            // Another process may have stored a record that ends the failure.
            vault.take_up_stored(life);
        }
        life.warn_of_refresh_end();
        life.publish(false);
    }

    /// Refreshes, unless another process or another host is refreshing.
    fn refresh(&mut self) -> Result<(), Hindrance> {
        let attempt = RefreshAttempt {
            life: &mut self.life,
            issuer: &mut self.issuer,
            vault: &mut self.vault,
            orders: &mut self.orders,
            link: &self.link,
            rng: &mut self.rng,
        };
        attempt.make()
    }
}

/// The reactions to events.
impl Actor {
    fn hear(&mut self, event: Event) {
        self.orders.note(&event);
        match event {
            Event::Change(change) => {
                self.hold_off = None;
                self.change(*change);
            }
            Event::Reloaded(seeker) => {
                self.hold_off = None;
                self.reloaded(*seeker);
            }
            Event::Retire => self.retire(),
            // The last posting answers the caller.
            _ if self.life.is_retired => {}
            Event::Force(done) => self.ordered(done),
            Event::Rejected(generation, done) => self.rejected(generation, done),
            Event::Wanted(_) => {
                // The clocks are read right after this, whether or not it brings the next try forward.
                if self.life.machine.wanted(self.life.now()) {
                    self.life.publish(false);
                }
            }
            Event::News => {
                let brought = self.vault.shared.compare(&mut self.vault.file, &mut self.life);
                if brought || !self.life.is_due() {
                    // Another host brought the awaited token, or the news that trying is useless.
                    self.orders.answer();
                }
            }
            Event::Stop => {}
        }
    }

    fn ordered(&mut self, done: Sender<()>) {
        if self.vault.take_up_login(&mut self.life) && self.life.has_valid_token() {
            // The login that was just stored fulfils the order.
            return;
        }
        self.life.machine.order(self.life.now());
        self.orders.join(done);
        self.hold_off = None;
    }

    fn rejected(&mut self, generation: Generation, done: Sender<()>) {
        match self.life.machine.rejected(generation, self.life.now()) {
            OnRejection::Refresh => {
                self.life.say_refused(generation);
                self.orders.join(done);
            }
            OnRejection::Join => self.orders.join(done),
            OnRejection::Later(wait_ms) => {
                let name = &self.life.desk.name;
                self.life.desk.info(format_args!(
                    "Provider {name} refused the new token too; it is refreshed in {} s",
                    wait_ms.div_ceil(1000)
                ));
            }
            OnRejection::Nothing => {}
        }
    }

    /// A refresh has ended. Callers that ordered one meanwhile have joined it. Returns false if the thread is to end.
    fn settle_joined(&mut self) -> bool {
        if !self.life.falls_back {
            self.orders.answer();
        }
        // An order that comes after a change of the configuration is about the new one.
        let mut is_of_now = true;
        for _ in 0..self.orders.take_joined() {
            match self.orders.events.try_recv() {
                Ok(Event::Stop) | Err(TryRecvError::Disconnected) => return false,
                Ok(Event::Force(done)) if is_of_now && self.life.falls_back => {
                    self.orders.join(done);
                }
                Ok(Event::Force(_)) if is_of_now => {}
                Ok(Event::Change(change)) => {
                    is_of_now = false;
                    self.hear(Event::Change(change));
                }
                // A reload without a change for this chain is an order too.
                Ok(Event::Reloaded(seeker)) => {
                    self.life.is_retired = false;
                    self.vault.seek_by(*seeker, &self.life);
                }
                Ok(event) => self.hear(event),
                Err(TryRecvError::Empty) => break,
            }
        }
        true
    }

    /// Tells the waiting callers that a refresh could not even be tried.
    fn give_up_waiting(&mut self) {
        let was_ordered = self.life.machine.withdrawn();
        self.orders.answer();
        if let Some(told) = self.life.told_of_store().filter(|_| was_ordered) {
            let name = &self.life.desk.name;
            self.life
                .desk
                .warn(format_args!("Provider {name} was not refreshed as ordered: {told}"));
        }
    }

    /// Changes to another configuration. The tokens in memory count, because the state file may lack them after a
    /// failed write.
    fn change(&mut self, change: Change) {
        let (vault, life) = (&mut self.vault, &mut self.life);
        life.is_retired = false;
        let Change { setup, keeps_chain, leaving } = change;
        if setup.seeker.is_foreign(life.machine.saved()) {
            // An unwritten record belongs to the earlier chain, and is dropped after this try.
            vault.save_again(life);
        }
        life.desk.change(&setup);
        let Setup { mut config, state, seeker, chain, timer, link, .. } = setup;
        self.issuer = Issuer::begin(&mut config, &state, &mut life.desk);
        if !keeps_chain {
            vault.shared.change(chain, life);
        }
        life.config = config;
        (self.timer, self.link, vault.file.seeker) = (timer, link, seeker);
        life.machine.reconfigure(Policy::of(&life.config), life.now());
        vault.forget_tokens_of_others(life);
        life.machine.record_client(life.config.client_hash());
        self.moves.begin(state, leaving, vault, life);
        life.publish(false);
    }

    /// The configuration is unchanged; the reload is an order to try, if the last try failed.
    fn reloaded(&mut self, seeker: Seeker) {
        self.life.is_retired = false;
        // A file may hold another refresh token by now, or the earlier one again.
        self.vault.seek_by(seeker, &self.life);
        if self.life.machine.next_attempt_at().is_some() {
            self.life.machine.order(self.life.now());
        }
    }

    /// No provider uses the chain any more. Requests that wait for a token are told so.
    fn retire(&mut self) {
        let life = &mut self.life;
        life.is_retired = true;
        self.orders.answer();
        // If another process holds the lock, the next tick is soon enough.
        self.vault.save_again(life);
        if life.machine.token().is_none() {
            let gone = "its provider was removed from the configuration, or disabled";
            life.status.last_error.get_or_insert_with(|| gone.to_owned().into());
        }
        life.publish(false);
    }
}
