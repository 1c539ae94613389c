//! Puts what a login brought into the state folder, under the lock that refreshes take.

use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Moment;
use crate::secret::Secret;
use crate::token::grant::Grant;
use crate::token::lifecycle::{Lifecycle, Policy};
use crate::token::refresher::Setup;
use crate::token::refresher::actor::LOCK_RETRY_MS;
use crate::token::refresher::disk::load;
use crate::token::saved::{Locking, StateLock};

/// How long a refresh of another process is waited for: longer than a token request may take.
const LOCK_WAIT_MAX_MS: u64 = 45_000;

/// Stores `grant`, asked for at `sent`, with its refresh token; where to, or why that failed.
pub fn store_login(
    setup: &Setup,
    grant: &Grant,
    refresh_token: &Secret,
    sent: Moment,
) -> Result<PathBuf, String> {
    let path = setup.state.path();
    let failed = |why: String| format!("{} can't be written: {why}", path.display());
    let _lock = wait_for_lock(setup).map_err(&failed)?;
    let stored = load(setup);
    let now = setup.clock.now();
    let mut machine = Lifecycle::new(Policy::of(&setup.config), stored, now);
    let saved = machine.logged_in(grant, refresh_token, sent, now, &mut setup.rng.clone());
    setup.state.replace(&saved).map_err(|error| failed(error.to_string()))?;
    Ok(path)
}

fn wait_for_lock(setup: &Setup) -> Result<StateLock, String> {
    for _ in 0..LOCK_WAIT_MAX_MS / LOCK_RETRY_MS {
        match setup.state.try_lock() {
            Ok(Locking::Ours(lock)) => return Ok(lock),
            // The timer's end is all that is waited for.
            Ok(Locking::Theirs) => {
                let _ = (setup.timer)(Duration::from_millis(LOCK_RETRY_MS)).recv();
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("another process has been refreshing this provider for too long; try again".to_owned())
}
