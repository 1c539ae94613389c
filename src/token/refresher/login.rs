//! Stores the tokens of a login in the state folder, under the lock that refreshes take.

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

/// Stores `grant`, requested at `sent`, with its refresh token, and in the shared store too, if there is one. Returns
/// the place, or the reason of a failure.
pub fn store_login(
    setup: &Setup,
    grant: &Grant,
    refresh_token: &Secret,
    sent: Moment,
) -> Result<PathBuf, String> {
    let path = setup.state.path();
    let failed = |why: String| format!("{} can't be written: {why}", path.display());
    let desk = Desk::of(setup);
    let _lock = wait_for_lock(setup, &desk).map_err(&failed)?;
    let mut stored = load(&setup.state, &desk).map_err(|why| {
        format!("{} can't be read ({why}), so it is left as it is", path.display())
    })?;
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
    setup.state.replace(&saved).map_err(|error| failed(error.to_string()))?;
    Ok(path)
}

/// The chain in the shared store, with its lease, the lease's number, and the stored record; None if there is no such
/// store, or it can't be used.
type Leased = Option<(SharedChain, u64, Option<Saved>)>;

fn wait_for_lease(setup: &Setup, known_fence: u64, desk: &Desk) -> Result<Leased, String> {
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
    Err("another host has been refreshing this provider for too long; try again".to_owned())
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

fn wait_for_lock(setup: &Setup, desk: &Desk) -> Result<StateLock, String> {
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
            Ok(Locking::Nobodys(error)) | Err(error) => return Err(error.to_string()),
        }
    }
    let who = setup.state.lock_holder().unwrap_or_else(|| "another process".to_owned());
    Err(format!(
        "{who} has held the lock {path} for {} s; if it hangs, end it, and log in again",
        BUSY_WAIT_MAX_MS / 1000
    ))
}
