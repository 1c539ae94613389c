//! What the next refresh will lack though there is a token to send: published, and said once.

use log::error;

use crate::config::Missing;
use crate::token::grant::What;
use crate::token::history::Trouble;
use crate::token::refresher::actor::Actor;

impl Actor {
    /// The secret for the lack of which the next refresh will fail, though there is a token.
    pub(super) fn missing_ahead(&self) -> Option<Missing> {
        if self.is_retired || self.machine.token().is_none() {
            return None;
        }
        match self.token_request(&self.machine.presented()).err()?.what {
            What::Missing(missing) => Some(missing),
            _ => None,
        }
    }

    /// Says it where it is new, and no refresh has failed for it, which was said. It is not needed before the token is
    /// due, and there is time to mend it.
    pub(super) fn say_missing(&mut self) {
        let has_failed = self.status.trouble.is_some_and(Trouble::waits_for_somebody);
        let missing = self.missing_ahead().filter(|_| !has_failed);
        if missing == self.missing_said {
            return;
        }
        if let Some(missing) = &missing {
            error!(
                provider = self.setup.name.as_str();
                "{missing} (provider: {}; the stored token serves until it ends)", self.setup.name
            );
        }
        self.missing_said = missing;
    }
}
