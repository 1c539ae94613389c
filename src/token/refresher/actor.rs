//! The thread that keeps the token of one chain fresh: sleeps, listens, asks the lifecycle, and publishes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, select};
use log::{error, info, warn};

use crate::clock::{Due, Moment, Timestamp};
use crate::config::Missing;
use crate::record::Saved;
use crate::record::refresh_end::Nearness;
use crate::token::history::{RefreshStatus, Trouble};
use crate::token::lifecycle::{ANSWER_LOST, Lifecycle, Policy, Step};
use crate::token::refresher::disk::{Unread, load_at_start};
use crate::token::refresher::hosts::{Entry, Went};
use crate::token::refresher::words::tell_stored;
use crate::token::refresher::{Event, Setup, TICK_MS};
use crate::token::state_file::{StateFile, StateLock};
use crate::token::store::{Generation, Posting};
use crate::token::waiting::{Cause, Waits};

/// The longest sleep while there is no token to send: what may be waited for is a login.
const LOOK_MS: u64 = 5_000;
/// How long to wait while another process refreshes the same provider.
pub(super) const LOCK_RETRY_MS: u64 = 250;
/// How long a command waits for another process or host: longer than a token request may take.
pub(super) const BUSY_WAIT_MAX_MS: u64 = 45_000;
/// How long to wait before the shared store is tried again.
const AWAY_RETRY_MS: u64 = 500;
/// How often a wrong wall clock is looked at.
const CLOCK_RETRY_MS: u64 = 2_000;

/// One provider's refresher at work.
pub(super) struct Actor {
    pub(super) setup: Setup,
    pub(super) machine: Lifecycle,
    pub(super) status: RefreshStatus,
    /// What could not be written to disk yet, and why.
    pub(super) unsaved: Option<(Saved, String)>,
    /// The locks of state files, held for as long as these lack what could not be written: whoever read one meanwhile
    /// would find a refresh token that was used.
    pub(super) kept_locks: Vec<(PathBuf, StateLock)>,
    /// The state file is there and can't be read.
    pub(super) unread: Option<Unread>,
    /// What was said of the state file last.
    pub(super) notes: Vec<String>,
    /// What is newest could not be put into the shared store yet.
    pub(super) unshared: bool,
    /// What the next refresh waits for.
    pub(super) waits: Waits,
    /// Who waits for the outcome of the next refresh.
    pub(super) waiting: Vec<Sender<()>>,
    /// Until when a refresh is not tried again that another process, another host or the shared store kept
    /// off, whatever is heard meanwhile.
    pub(super) hold_off: Option<Due>,
    /// What it is told, and how much of that came before the last refresh ended.
    pub(super) inbox: Receiver<Event>,
    pub(super) joined: Option<usize>,
    /// As in [`Inbox`](crate::token::refresher::Inbox).
    pub(super) is_told_wanted: Arc<AtomicBool>,
    clock_warned: bool,
    pub(super) lock_warned: bool,
    /// What the log says that the next refresh will lack.
    pub(super) missing_said: Option<Missing>,
    /// The last token of which the log says that the provider refused it.
    pub(super) refused: Option<Generation>,
    /// The end of a refresh token that was warned about, and how near it was then.
    pub(super) end_warned: Option<(Timestamp, Nearness)>,
    /// Whether it was said that the issuer's words for the end of the refresh token are not understood.
    pub(super) odd_end_said: bool,
    /// The next try follows at once, with the refresh token of the configuration.
    pub(super) falls_back: bool,
    /// Hash of the configured seed of which was said that it is superseded.
    pub(super) superseded_said: Option<String>,
    /// Hash of the seed in a file that is not used before a reload, of which that was said.
    pub(super) other_seed_said: Option<String>,
    /// When the last look and the last tick were, on the steady clock.
    looked_at_ms: u64,
    ticked_at_ms: u64,
    /// No provider uses it: nothing is refreshed.
    pub(super) is_retired: bool,
    /// It refreshes once and ends: no try of its own comes after that.
    pub(super) is_single: bool,
    /// Where the tokens were kept before a reload, and who is told once they are stored anew and removed
    /// there.
    pub(super) left_places: Vec<(StateFile, Sender<()>)>,
    /// Where the configuration has them kept, whether or not another process keeps them elsewhere.
    pub(super) home: PathBuf,
    /// Where they are to be kept since a reload, and who is told as above.
    pub(super) next_place: Option<(StateFile, Sender<()>)>,
}

impl Actor {
    pub(super) fn new(
        mut setup: Setup,
        inbox: Receiver<Event>,
        is_told_wanted: Arc<AtomicBool>,
        is_single: bool,
    ) -> Self {
        let (policy, home) = (Policy::of(&setup.config), setup.state.path());
        let (read, notes) = load_at_start(&mut setup);
        let (stored, hindrance) = match read {
            Ok(stored) => (stored, None),
            Err(error) => (None, Some(error)),
        };
        let now = setup.clock.now();
        let mut machine = Lifecycle::new(policy, stored, now);
        machine.stamp_configured();
        machine.stamp_client(setup.config.client_hash());
        let mut actor = Self {
            setup,
            machine,
            status: RefreshStatus::default(),
            unsaved: None,
            kept_locks: Vec::new(),
            unread: None,
            notes: Vec::new(),
            unshared: false,
            waits: Waits::default(),
            waiting: Vec::new(),
            hold_off: None,
            inbox,
            joined: None,
            is_told_wanted,
            clock_warned: false,
            lock_warned: false,
            missing_said: None,
            refused: None,
            end_warned: None,
            odd_end_said: false,
            falls_back: false,
            superseded_said: None,
            other_seed_said: None,
            looked_at_ms: now.steady_ms,
            ticked_at_ms: now.steady_ms,
            is_retired: false,
            is_single,
            left_places: Vec::new(),
            home,
            next_place: None,
        };
        match hindrance {
            Some(error) => actor.note_unread(&error),
            None => actor.note_read(notes),
        }
        actor.report_start();
        actor.publish(matches!(actor.machine.next(now), Step::Refresh));
        actor
    }

    /// Refreshes once, waiting for another process that is at it.
    pub(super) fn refresh_once(mut self) -> Result<(), String> {
        let began = self.setup.clock.now();
        self.machine.order(began);
        loop {
            match self.refresh() {
                Went::Through if self.falls_back => {}
                Went::Through | Went::Away => break,
                Went::Unread => return Err(self.give_up()),
                Went::Busy => {
                    let now = self.setup.clock.now();
                    if now.steady_ms.saturating_sub(began.steady_ms) >= BUSY_WAIT_MAX_MS {
                        return Err(self.give_up());
                    }
                    // The timer's end is all that is waited for.
                    let _ = (self.setup.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
                }
            }
        }
        self.save_before_the_end();
        let failed = self.told_of_store().or_else(|| self.status.last_error.take());
        match (failed, self.unsaved) {
            (Some(error), _) => Err(error),
            (None, Some((_, why))) => Err(format!("The new token could not be stored: {why}")),
            (None, None) => Ok(()),
        }
    }

    /// Says what a single refresh would have had to wait for.
    fn give_up(&self) -> String {
        let waiting = self.waits.said().map_or_else(String::new, |waiting| format!(": {waiting}"));
        let told = format!("Provider {} was not refreshed{waiting}", self.setup.name);
        error!(
            provider = self.setup.name.as_str();
            "{told}"
        );
        told
    }

    /// Says what was stored when it was first read.
    pub(super) fn report_start(&mut self) {
        let now = self.setup.clock.now();
        if let Some(token) = self.machine.token() {
            let name = &self.setup.name;
            let left = token.expires.left_ms(now) / 1000;
            info!(
                provider = self.setup.name.as_str();
                "Using the stored token for provider: {name} (valid for {left} s)"
            );
        }
        self.say_missing();
        if let Some(failure) = self.machine.failure_that_counts().cloned() {
            let (name, what) = (&self.setup.name, &failure.what);
            let at = failure.retry_at;
            let next = format!(
                "; it is tried again at {at} all the same, or once there is a new refresh token"
            );
            let next = if self.is_single { "" } else { &next };
            let lost = if failure.answer_lost { format!("; {ANSWER_LOST}") } else { String::new() };
            error!(
                provider = self.setup.name.as_str();
                "The last refresh for provider: {name} failed, and trying again does not help: {what}{lost}{next}"
            );
            let login = self.login_command(&self.machine.presented());
            let (told, trouble) = tell_stored(&failure, login.as_deref());
            self.status.fail(told, trouble, true);
        }
        self.say_superseded_seed();
        self.warn_of_refresh_end();
    }

    pub(super) fn run(mut self) {
        loop {
            let now = self.setup.clock.now();
            self.warn_of_clock(now);
            let wait_ms = match self.machine.next(now) {
                _ if self.is_retired => TICK_MS,
                Step::Refresh if self.held_off_ms(now) > 0 => self.held_off_ms(now),
                Step::Refresh => match self.refresh() {
                    Went::Through if self.hear_who_joined() => continue,
                    Went::Through => break,
                    Went::Busy => self.hold_off_for(LOCK_RETRY_MS),
                    Went::Away => {
                        self.give_up_waiting();
                        self.hold_off_for(AWAY_RETRY_MS)
                    }
                    Went::Unread => {
                        self.give_up_waiting();
                        self.hold_off_for(self.unread_wait_ms(now))
                    }
                },
                Step::Wait(ms) => {
                    self.wait_is_over();
                    ms.min(self.longest_sleep_ms(now))
                }
                Step::WaitForClock(ms) => self.wait_for_clock(ms),
            };
            let wait_ms = if self.unshared { wait_ms.min(AWAY_RETRY_MS) } else { wait_ms };
            let timer = (self.setup.timer)(Duration::from_millis(wait_ms));
            select! {
                recv(self.inbox) -> event => match event {
                    Ok(Event::Stop) | Err(_) => break,
                    Ok(event) => self.hear(event),
                },
                recv(timer) -> _ => {
                    self.hold_off = None;
                    self.look();
                }
            }
            if self.looked_ms_ago() >= LOOK_MS {
                // Whoever comes again and again does not keep it from looking.
                self.look();
            }
        }
        self.save_before_the_end();
        if let Some((_, why)) = &self.unsaved {
            error!(
                provider = self.setup.name.as_str();
                "The last token of provider: {} could not be stored before the end ({why}); \
                 log in again if the next start can't refresh",
                self.setup.name
            );
        }
    }

    /// What is due after every sleep, whether or not a refresh is.
    fn look(&mut self) {
        self.looked_at_ms = self.setup.clock.now().steady_ms;
        if !self.is_retired {
            self.take_up_login();
        }
        if self.unshared {
            self.compare_with_shared();
        }
        let now = self.setup.clock.now();
        if now.steady_ms.saturating_sub(self.ticked_at_ms) >= TICK_MS {
            self.ticked_at_ms = now.steady_ms;
            self.tick();
        }
    }

    fn looked_ms_ago(&self) -> u64 {
        self.setup.clock.now().steady_ms.saturating_sub(self.looked_at_ms)
    }

    fn held_off_ms(&self, now: Moment) -> u64 {
        self.hold_off.map_or(0, |until| until.left_ms(now))
    }

    fn hold_off_for(&mut self, millis: u64) -> u64 {
        self.hold_off = Some(Due::after(self.setup.clock.now(), millis));
        millis
    }

    fn longest_sleep_ms(&self, now: Moment) -> u64 {
        let to_tick_ms = (self.ticked_at_ms + TICK_MS).saturating_sub(now.steady_ms);
        let to_tick_ms = to_tick_ms.min(self.unread_wait_ms(now));
        match self.machine.token() {
            Some(token) if !token.expires.reached(now) => to_tick_ms,
            _ => to_tick_ms.min(LOOK_MS),
        }
    }

    fn tick(&mut self) {
        // Where another process is at it, the next tick is soon enough.
        let _ = self.save_again();
        self.move_to_next_place();
        self.leave_old_places();
        if self.is_retired {
            return;
        }
        self.read_files_again();
        self.say_missing();
        if self.status.last_error.is_some() && self.unsaved.is_none() {
            // Another process may have stored what ends the failure.
            self.take_up_stored();
        }
        self.warn_of_refresh_end();
        self.publish(false);
    }

    /// Says once that a refresh waits for the wall clock to be set, or would.
    fn warn_of_clock(&mut self, now: Moment) {
        let Some(wait_ms) = self.machine.clock_wait_left_ms(now).filter(|_| !self.clock_warned)
        else {
            return;
        };
        self.clock_warned = true;
        warn!(
            provider = self.setup.name.as_str();
            "The wall clock shows {}, earlier than the state file or this program; refreshing waits for it \
             to be set, for {} s at most or until a refresh is ordered (provider: {})",
            now.wall,
            wait_ms.div_ceil(1000),
            self.setup.name
        );
    }

    fn wait_for_clock(&mut self, wait_ms: u64) -> u64 {
        self.wait_for(Cause::Clock { shown: self.setup.clock.wall() });
        wait_ms.min(CLOCK_RETRY_MS)
    }

    /// Whether there is nothing to refresh any more; then that is published, and who waits for it is heard.
    fn is_settled(&mut self) -> bool {
        let is_settled = self.machine.next(self.setup.clock.now()) != Step::Refresh;
        if is_settled {
            self.joined = Some(self.inbox.len());
            self.wait_is_over();
            self.publish(false);
        }
        is_settled
    }

    /// Refreshes, unless another process or another host is at it.
    fn refresh(&mut self) -> Went {
        if self.is_held_up_by_unread() {
            return Went::Unread;
        }
        self.joined = None;
        self.publish(true);
        let lock = match self.lock_and_take_up() {
            Err(Went::Busy) if self.is_settled() => return Went::Through,
            Err(went) => return went,
            Ok(_) if self.is_settled() => return Went::Through,
            Ok(lock) => lock,
        };
        self.read_files_again();
        let beginning = match self.lock_beginning() {
            // What another one stored was taken up on the way.
            Err(Went::Busy) if self.is_settled() => return Went::Through,
            Err(went) => return went,
            Ok(beginning) => beginning,
        };
        let went = match self.enter() {
            Entry::Ours => self.attempt(),
            Entry::Settled => Went::Through,
            Entry::Busy => Went::Busy,
            Entry::Away => Went::Away,
        };
        self.leave();
        self.keep_while_unsaved(lock, self.setup.state.lock_path());
        // Once the outcome is published, an order is about what comes after it.
        self.joined.get_or_insert(self.inbox.len());
        match went {
            Went::Busy => self.wait_for(Cause::Lease),
            Went::Through => self.wait_is_over(),
            Went::Away => self.wait_for_store(),
            Went::Unread => {}
        }
        if went != Went::Busy {
            self.publish(false);
        }
        self.has_begun(beginning);
        went
    }

    fn posting(&mut self, refreshing: bool) -> Posting {
        self.status.consecutive_failures = self.machine.consecutive_failures();
        // A try has nothing to present before that.
        let waits = self.status.trouble.is_some_and(Trouble::waits_for_somebody);
        let tries = !self.is_retired && !waits;
        self.status.next_attempt_at = self.machine.next_attempt_at().filter(|_| tries);
        let mut refresh = self.status.clone();
        if let Some(told) = self.told_of_store() {
            refresh.fail(told, Trouble::StoreAway, false);
        }
        Posting {
            token: self.machine.token().cloned(),
            refreshing,
            refresh,
            disk_error: self.unsaved.as_ref().map(|(_, why)| why.clone()),
            waiting: self.waits.said(),
            refresh_end: self.machine.saved().refresh_end,
            missing: self.missing_ahead(),
        }
    }

    pub(super) fn publish(&mut self, refreshing: bool) {
        let posting = self.posting(refreshing);
        self.setup.store.publish(self.setup.provider, posting);
    }
}
