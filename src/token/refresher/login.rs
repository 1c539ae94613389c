//! Stores the tokens of a login in the state folder, under the lock that refreshes take.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Moment;
use crate::record::Saved;
use crate::secret::Secret;
use crate::shared::chain::{Put, SharedChain};
use crate::token::grant::Grant;
use crate::token::lifecycle::{Lifecycle, Policy};
use crate::token::refresher::desk::Desk;
use crate::token::refresher::setup::{BUSY_WAIT_MAX_MS, LOCK_RETRY_MS, Setup};
use crate::token::refresher::vault::file::load;
use crate::token::state_file::{Locking, StateLock};
use crate::token::waiting::{Cause, Waits};

/// A login that could not be stored.
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
        "{0} can't be written: {1} has held the lock {2} for {secs} s; if it hangs, end it, and log in again",
        secs = BUSY_WAIT_MAX_MS / 1000
    )]
    Locked(String, String, String),
    /// Another host holds the lease.
    #[error("another host has been refreshing this provider for too long; try again")]
    Leased,
}

/// Stores `grant`, requested at `sent`, with its refresh token, and in the shared store too, if there is one. Returns
/// the place.
pub fn store_login(
    setup: &Setup,
    grant: &Grant,
    refresh_token: &Secret,
    sent: Moment,
) -> Result<PathBuf, NotStored> {
    let path = setup.state.path();
    let place = path.display().to_string();
    let desk = Desk::of(setup);
    let _lock = wait_for_lock(setup, &place, &desk)?;
    let stored = load(&setup.state, &desk);
    let mut stored = stored.map_err(|error| NotStored::Unreadable(place.clone(), error))?;
    let known_fence = stored.as_ref().map_or(0, |stored| stored.fence);
    let mut lease = wait_for_lease(setup, known_fence, &desk)?;
    if let Some((_, _, shared)) = &mut lease {
        let is_newer =
            |shared: &Saved| stored.as_ref().is_none_or(|stored| shared.mark() > stored.mark());
        stored = shared.take_if(|shared| is_newer(shared)).or(stored);
    }
    let now = setup.clock.now();
    let mut machine = Lifecycle::new(Policy::of(&setup.config), stored, now);
    machine.record_client(setup.config.client_hash());
    if let Some((_, fence, _)) = &lease {
        machine.set_fence(*fence);
    }
    let saved = machine.logged_in(grant, refresh_token, sent, now, &mut setup.rng.clone());
    if let Some((chain, ..)) = &mut lease {
        share(chain, &saved, &desk);
    }
    setup.state.replace(&saved).map_err(|error| NotStored::Unwritable(place, error))?;
    Ok(path)
}

/// The chain in the shared store, with its lease, the lease's number, and the stored record; None if there is no such
/// store, or it can't be used.
type Leased = Option<(SharedChain, u64, Option<Saved>)>;

fn wait_for_lease(setup: &Setup, known_fence: u64, desk: &Desk) -> Result<Leased, NotStored> {
    let Some(mut chain) = setup.chain.as_ref().map(SharedChain::again) else { return Ok(None) };
    for _ in 0..BUSY_WAIT_MAX_MS / LOCK_RETRY_MS {
        match chain.take(None, known_fence) {
            Ok(Some((fence, found))) => return Ok(Some((chain, fence, found.saved))),
            // Only the end of the timer matters.
            Ok(None) => {
                let _ = (setup.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
            }
            Err(trouble) => {
                warn_of(&chain, &trouble.to_string(), desk);
                return Ok(None);
            }
        }
    }
    Err(NotStored::Leased)
}

/// Writes the login to the shared store, for all hosts.
fn share(chain: &mut SharedChain, saved: &Saved, desk: &Desk) {
    match chain.write(saved, None) {
        Ok(Put::Done) => {}
        Ok(Put::Refused(_)) => warn_of(chain, "another host was faster", desk),
        Err(trouble) => warn_of(chain, &trouble.to_string(), desk),
    }
    chain.release();
}

fn warn_of(chain: &SharedChain, why: &str, desk: &Desk) {
    desk.warn(format_args!(
        "The login can't be written to the token store {} ({why}); this host tries again later. If \
         the other hosts use another token by then, log in again",
        chain.place()
    ));
}

fn wait_for_lock(setup: &Setup, place: &str, desk: &Desk) -> Result<StateLock, NotStored> {
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
                    desk.warn(format_args!("The login is {told}"));
                }
                // Only the end of the timer matters.
                let _ = (setup.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
            }
            Ok(Locking::Nobodys(error)) | Err(error) => {
                return Err(NotStored::Unwritable(place.to_owned(), error));
            }
        }
    }
    let who = setup.state.lock_holder().unwrap_or_else(|| "another process".to_owned());
    Err(NotStored::Locked(place.to_owned(), who, path))
}
