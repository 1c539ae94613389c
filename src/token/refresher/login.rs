//! Stores the tokens of a login, or the note of a logout, in the state folder and the token store.

use std::path::PathBuf;

use crate::clock::Moment;
use crate::record::SavedAccess;
use crate::secret::Secret;
use crate::token::grant::Grant;
use crate::token::lifecycle::Presented;
use crate::token::refresher::hold::{Hold, NotStored};
use crate::token::refresher::setup::Setup;

/// Stores `grant`, requested at `sent`, with its refresh token, and in the shared store too, if there is one. Returns
/// the place.
pub fn store_login(
    setup: &Setup,
    grant: &Grant,
    refresh_token: &Secret,
    sent: Moment,
) -> Result<PathBuf, NotStored> {
    let mut hold = Hold::take(setup, "login")?;
    let mut machine = hold.machine();
    let now = setup.clock.now();
    let saved = machine.logged_in(grant, refresh_token, sent, now, &mut setup.rng.clone());
    hold.store(&saved)
}

/// The tokens that a logout ends.
#[derive(Debug, Default)]
pub struct EndingTokens {
    /// The chain's refresh token, and the configured one if it was to begin a chain.
    pub refresh: Vec<Secret>,
    /// The access token, unless it has expired.
    pub access: Option<SavedAccess>,
    /// True if a grant without a refresh token brings new ones.
    pub come_again: bool,
}

impl EndingTokens {
    /// All of them.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.refresh.iter().chain(self.access.iter().map(|access| &access.token))
    }
}

/// Passes the tokens of the chain to `revoke`, and then stores that they are not used any more, here and in the shared
/// store, if there is one. Returns the place; None if nothing was stored before.
pub fn log_out(
    setup: &Setup,
    revoke: impl FnOnce(&EndingTokens),
) -> Result<Option<PathBuf>, NotStored> {
    let mut hold = Hold::take(setup, "logout")?;
    let mut machine = hold.machine();
    let presented = machine.presented();
    let now = setup.clock.now();
    let saved = machine.saved();
    let mut tokens = EndingTokens {
        refresh: saved.refresh_token.clone().into_iter().collect(),
        access: saved.access.clone().filter(|access| access.expires_at > now.wall),
        come_again: presented == Presented::Nothing,
    };
    let is_nothing_stored = saved.revision == 0 || saved.logged_out_at.is_some();
    if let Presented::Token(token) = presented
        && !tokens.refresh.contains(&token)
    {
        tokens.refresh.push(token);
    }
    revoke(&tokens);
    if is_nothing_stored && tokens.refresh.is_empty() {
        return Ok(None);
    }
    let name = format!("logout {:032x}", setup.rng.clone().u128(..));
    let saved = machine.logged_out(Secret::new(name).hash(), now);
    hold.store(&saved).map(Some)
}
