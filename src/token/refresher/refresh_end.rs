//! Warns of a refresh token that ends soon: once within 7 days of its end, once within 1 day.

use log::warn;

use crate::token::refresher::actor::Actor;

impl Actor {
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
        let run = config.login.exist().then(|| config.call.login(self.setup.state.slug()));
        let run = run.map_or_else(String::new, |command| format!(" (run: {command})"));
        warn!(
            provider = self.setup.name.as_str();
            "{told}; log in again before requests fail{run}"
        );
    }
}
