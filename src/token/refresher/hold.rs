//! A chain in the hands of a command: under the lock that refreshes take, and under the lease if hosts share it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::record::Saved;
use crate::shared::chain::{Put, SharedChain};
use crate::token::lifecycle::{Lifecycle, Policy};
use crate::token::refresher::desk::Desk;
use crate::token::refresher::setup::{BUSY_WAIT_MAX_MS, LOCK_RETRY_MS, Setup};
use crate::token::refresher::vault::file::load;
use crate::token::state_file::{Locking, StateLock};
use crate::token::waiting::{Cause, Waits};

/// A login or a logout that could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    /// The state file, or its lock.
    #[error("{0} can't be written: {1}")]
    Unwritable(String, io::Error),
    /// The state file is left as it is.
    #[error("{0} can't be read ({1}), so it is left as it is")]
    Unreadable(String, io::Error),
    /// Another process holds the lock of the state file.
    #[error(
        "{0} can't be written: {1} has held the lock {2} for {secs} s; if it hangs, end it, and try again",
        secs = BUSY_WAIT_MAX_MS / 1000
    )]
    Locked(String, String, String),
    /// Another host holds the lease.
    #[error("another host has been refreshing this provider for too long; try again")]
    Leased,
}

/// A chain that nobody else refreshes or changes as long as this exists.
pub(super) struct Hold<'a> {
    setup: &'a Setup,
    /// `login` or `logout`, for messages.
    act: &'static str,
    desk: Desk,
    /// The newest record, of the state folder or the token store.
    pub(super) stored: Option<Saved>,
    /// The chain in the token store, and the number of its lease.
    lease: Option<(SharedChain, u64)>,
    _lock: StateLock,
}

impl<'a> Hold<'a> {
    /// Waits for the lock and the lease.
    pub(super) fn take(setup: &'a Setup, act: &'static str) -> Result<Self, NotStored> {
        let desk = Desk::of(setup);
        let lock = wait_for_lock(setup, act, &desk)?;
        let stored = load(&setup.state, &desk);
        let stored = stored.map_err(|error| NotStored::Unreadable(place(setup), error))?;
        let mut hold = Self { setup, act, desk, stored, lease: None, _lock: lock };
        hold.wait_for_lease()?;
        Ok(hold)
    }

    /// The lifecycle with the newest record.
    pub(super) fn machine(&mut self) -> Lifecycle {
        let policy = Policy::of(&self.setup.config);
        let mut machine = Lifecycle::new(policy, self.stored.take(), self.setup.clock.now());
        machine.record_client(self.setup.config.client_hash());
        if let Some((_, fence)) = &self.lease {
            machine.set_fence(*fence);
        }
        machine
    }

    /// Stores `saved` for all processes and hosts; returns the place.
    pub(super) fn store(mut self, saved: &Saved) -> Result<PathBuf, NotStored> {
        if let Some((mut chain, _)) = self.lease.take() {
            match chain.write(saved, None) {
                Ok(Put::Done) => {}
                Ok(Put::Refused(_)) => self.warn_of(&chain, "another host was faster"),
                Err(trouble) => self.warn_of(&chain, &trouble.to_string()),
            }
            chain.release();
        }
        let stored = self.setup.state.replace(saved);
        stored.map_err(|error| NotStored::Unwritable(place(self.setup), error))?;
        Ok(self.setup.state.path())
    }

    fn wait_for_lease(&mut self) -> Result<(), NotStored> {
        let chain = self.setup.chain.as_ref().map(SharedChain::again);
        let Some(mut chain) = chain else { return Ok(()) };
        let known_fence = self.stored.as_ref().map_or(0, |stored| stored.fence);
        for _ in 0..BUSY_WAIT_MAX_MS / LOCK_RETRY_MS {
            match chain.take(None, known_fence) {
                Ok(Some((fence, found))) => {
                    let known = self.stored.as_ref();
                    let is_newer =
                        |saved: &Saved| known.is_none_or(|known| saved.mark() > known.mark());
                    self.stored = found.saved.filter(is_newer).or(self.stored.take());
                    self.lease = Some((chain, fence));
                    return Ok(());
                }
                // Only the end of the timer matters.
                Ok(None) => {
                    let _ = (self.setup.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
                }
                Err(trouble) => {
                    self.warn_of(&chain, &trouble.to_string());
                    return Ok(());
                }
            }
        }
        Err(NotStored::Leased)
    }

    fn warn_of(&self, chain: &SharedChain, why: &str) {
        let act = self.act;
        let again = if act == "login" { "log in" } else { "log out" };
        self.desk.warn(format_args!(
            "The {act} can't be written to the token store {} ({why}); this host tries again later. If \
             the other hosts use another token by then, {again} again",
            chain.place()
        ));
    }
}

/// A command that stored nothing returns the lease too; other hosts would have to wait for it.
impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some((chain, _)) = &mut self.lease {
            chain.release();
        }
    }
}

fn place(setup: &Setup) -> String {
    setup.state.path().display().to_string()
}

fn wait_for_lock(setup: &Setup, act: &str, desk: &Desk) -> Result<StateLock, NotStored> {
    let mut waits = Waits::default();
    let path = setup.state.lock_path().display().to_string();
    for _ in 0..BUSY_WAIT_MAX_MS / LOCK_RETRY_MS {
        match setup.state.try_lock() {
            Ok(Locking::Ours(lock)) => return Ok(lock),
            Ok(Locking::Theirs) => {
                let now = setup.clock.now();
                let holder =
                    if waits.is_to_be_said(now) { setup.state.lock_holder() } else { None };
                if let Some(told) = waits.wait(Cause::Lock { path: path.clone(), holder }, now) {
                    desk.warn(format_args!("The {act} is {told}"));
                }
                // Only the end of the timer matters.
                let _ = (setup.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
            }
            Ok(Locking::Nobodys(error)) | Err(error) => {
                return Err(NotStored::Unwritable(place(setup), error));
            }
        }
    }
    let who = setup.state.lock_holder().unwrap_or_else(|| "another process".to_owned());
    Err(NotStored::Locked(place(setup), who, path))
}
