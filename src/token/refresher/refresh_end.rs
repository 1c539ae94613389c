//! Warns of a refresh token that ends soon: once within 7 days of its end, once within 1 day.

use log::warn;

use crate::token::grant::Grant;
use crate::token::refresher::actor::Actor;

impl Actor {
    /// Says once that an issuer tells of the end in a way that is not understood.
    pub(super) fn warn_of_odd_refresh_end(&mut self, grant: &Grant) {
        let Some(told) = grant.odd_refresh_end.as_ref().filter(|_| !self.odd_end_said) else {
            return;
        };
        self.odd_end_said = true;
        warn!(
            provider = self.setup.name.as_str();
            "{told} (provider: {})", self.setup.name
        );
    }

    /// Says that the refresh token ends soon, where that is new.
    pub(super) fn warn_of_refresh_end(&mut self) {
        let now = self.setup.clock.wall();
        let Some(end) = self.machine.saved().refresh_end else { return };
        let Some(nearness) = end.nearness(now) else { return };
        if self.end_warned.is_some_and(|(at, said)| at == end.at && said >= nearness) {
            return;
        }
        self.end_warned = Some((end.at, nearness));
        let name = format!("provider {}", self.setup.name);
        let Some(told) = end.warning(&name, now) else { return };
        let config = &self.setup.config;
        let run = config.login.exist().then(|| config.call.login(self.setup.called()));
        let run = run.map_or_else(String::new, |command| format!(" (run: {command})"));
        warn!(
            provider = self.setup.name.as_str();
            "{told}; log in again before requests fail{run}"
        );
    }
}
