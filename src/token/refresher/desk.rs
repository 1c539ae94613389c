//! The desk of a refresher: publishes its posting, and reports its waits.

use std::fmt::Arguments;
use std::sync::Arc;

use log::{Level, log};

use crate::clock::Clock;
use crate::token::hang;
use crate::token::refresher::setup::Setup;
use crate::token::state_file::StateFile;
use crate::token::store::{Posting, PostingKey, TokenStore};
use crate::token::waiting::{Cause, Waits};

pub(super) struct Desk {
    key: PostingKey,
    store: Arc<TokenStore>,
    /// The provider's name, for the log.
    pub(super) name: String,
    /// The provider's name in commands.
    pub(super) called: String,
    pub(super) clock: Clock,
    watches_disk: bool,
    waits: Waits,
    /// The state file can't be read, which comes before every other cause of a wait.
    pub(super) is_file_unread: bool,
    /// The next posting.
    pub(super) draft: Posting,
    /// False if the command says the posting's trouble at its end, so that the log need not.
    pub(super) logs_trouble: bool,
}

impl Desk {
    pub(super) fn of(setup: &Setup) -> Self {
        Self {
            key: setup.provider,
            store: setup.store.clone(),
            name: setup.name.clone(),
            called: setup.seeker.provider().unwrap_or(setup.state.slug()).to_owned(),
            clock: setup.clock.clone(),
            watches_disk: setup.watches_disk,
            waits: Waits::default(),
            is_file_unread: false,
            draft: Posting { refreshing: true, ..Posting::default() },
            logs_trouble: true,
        }
    }

    /// Takes over the names of another configuration.
    pub(super) fn change(&mut self, setup: &Setup) {
        let now = Self::of(setup);
        let (waits, draft) = (std::mem::take(&mut self.waits), std::mem::take(&mut self.draft));
        *self = Self { waits, draft, is_file_unread: self.is_file_unread, ..now };
    }

    pub(super) fn info(&self, told: Arguments<'_>) {
        self.log(Level::Info, told);
    }

    pub(super) fn warn(&self, told: Arguments<'_>) {
        self.log(Level::Warn, told);
    }

    pub(super) fn error(&self, told: Arguments<'_>) {
        self.log(Level::Error, told);
    }

    /// Logs the trouble that the posting has.
    pub(super) fn trouble(&self, told: Arguments<'_>) {
        self.log(self.trouble_level(), told);
    }

    fn trouble_level(&self) -> Level {
        if self.logs_trouble { Level::Error } else { Level::Debug }
    }

    /// Logs a line, which has its provider as a field like all lines of a refresher.
    fn log(&self, level: Level, told: Arguments<'_>) {
        log!(level, provider = self.name.as_str(); "{told}");
    }

    pub(super) fn publish(&mut self, refreshing: bool) {
        self.draft.refreshing = refreshing;
        self.draft.waiting = self.waits.said();
        self.store.publish(self.key, self.draft.clone());
    }

    /// The cause of the wait, if it is long.
    pub(super) fn told_wait(&self) -> Option<String> {
        self.waits.said().map(|waiting| waiting.to_string())
    }

    /// Notes that `cause` is awaited before anything else can be done: in the log once the wait is long, and in the
    /// posting.
    pub(super) fn wait_for(&mut self, cause: Cause) {
        let is_of_file = cause.is_of_file();
        let is_of_disk = matches!(cause, Cause::Disk { .. });
        if self.is_file_unread && !is_of_file && !is_of_disk {
            return;
        }
        let is_refreshing = match cause {
            Cause::Lock { .. } | Cause::LockFile { .. } | Cause::Lease => true,
            Cause::Disk { .. } => self.draft.refreshing,
            _ => false,
        };
        // The log reports the token store and resources that ran out once for all providers.
        let is_logged = !matches!(cause, Cause::Store { .. } | Cause::Shortage(_));
        if let Some(told) = self.waits.wait(cause, self.clock.now()) {
            // Whoever acts on the log line finds the wait in the status.
            self.publish(is_refreshing);
            if is_logged {
                let level = if is_of_file { self.trouble_level() } else { Level::Warn };
                self.log(level, format_args!("The refresher of provider {} is {told}", self.name));
            }
        }
    }

    /// Notes that another process has the lock of `state`.
    pub(super) fn wait_for_lock(&mut self, state: &StateFile) {
        let path = state.lock_path().display().to_string();
        // The list of all locks is read only when the holder is to be named.
        let is_to_be_said = self.waits.is_to_be_said(self.clock.now());
        let holder = if is_to_be_said { state.lock_holder() } else { None };
        self.wait_for(Cause::Lock { path, holder });
    }

    /// Notes the end of the wait.
    pub(super) fn wait_is_over(&mut self) {
        if self.is_file_unread {
            return;
        }
        let is_logged = !self.waits.is_said_for_all();
        if let Some(told) = self.waits.end(self.clock.now()) {
            // The same order as at its start.
            self.publish(false);
            if is_logged {
                self.info(format_args!("For the refresher of provider {}, {told}", self.name));
            }
        }
    }

    /// Does `work` with `state`. A hanging disk counts as a wait.
    pub(super) fn on_disk<T: Send>(
        &mut self,
        state: &StateFile,
        work: impl FnOnce(&StateFile) -> T + Send,
    ) -> T {
        if !self.watches_disk {
            return work(state);
        }
        let path = state.path().display().to_string();
        let mut has_hung = false;
        let mut tell = |is_long| {
            has_hung = true;
            self.wait_for(Cause::Disk { path: path.clone(), is_long });
        };
        let outcome = hang::on_disk(&mut tell, || work(state));
        if has_hung {
            self.wait_is_over();
        }
        outcome
    }
}
