//! The metadata of a refresher's issuer: completes the configuration before a token request, daily anew.

use crate::clock::{Due, Moment};
use crate::config::AutoRefresh;
use crate::token::discovery::{self, DiscoveryError, KEPT_MAX_MS, KeptMetadata};
use crate::token::grant::Failure;
use crate::token::lifecycle::Policy;
use crate::token::refresher::desk::Desk;
use crate::token::refresher::life::Life;
use crate::token::sender::Send;
use crate::token::state_file::StateFile;

/// The wait after a failed try to read the metadata, while a kept copy serves.
const RETRY_MS: u64 = 3_600_000;
/// The shortest time between two tries because the token endpoint does not answer as one.
const DOUBT_MS: u64 = 600_000;

/// The metadata in use; nothing for a configuration that names its token endpoint.
#[derive(Default)]
pub(super) struct Issuer {
    kept: Option<KeptMetadata>,
    /// The time from which on it is fetched before a token request.
    next: Option<Due>,
    /// The time of the last try.
    tried: Option<Moment>,
    /// True if the log has it that the metadata can't be read anew.
    has_warned: bool,
}

impl Issuer {
    /// Completes `config` with the kept copy in the folder of `state`, whatever the copy's age.
    pub(super) fn begin(config: &mut AutoRefresh, state: &StateFile, desk: &mut Desk) -> Self {
        let mut issuer = Self::default();
        if let Some(kept) = kept_beside(state, config, desk) {
            // If the copy names no token endpoint, the first token request says so.
            let _ = issuer.take(kept, config, desk.clock.now());
        }
        issuer
    }

    /// Before a token request: fetches the metadata if there is none, or the kept copy is a day old. If that fails, the
    /// kept copy goes on serving.
    pub(super) fn freshen(
        &mut self,
        life: &mut Life,
        state: &StateFile,
        send: &Send,
    ) -> Result<(), Failure> {
        let now = life.now();
        let is_fresh = self.next.is_some_and(|next| !next.reached(now));
        let Some(name) = discovery::issuer_of(&life.config).filter(|_| !is_fresh) else {
            return Ok(());
        };
        let name = name.to_owned();
        // Another provider's refresher, or another process, may just have fetched it.
        let known_since = self.kept.as_ref().map(|kept| kept.fetched_at);
        let newer = kept_beside(state, &life.config, &mut life.desk).filter(|kept| {
            kept.is_of_today(now.wall) && known_since.is_none_or(|known| kept.fetched_at > known)
        });
        if let Some(kept) = newer {
            return Ok(self.use_now(kept, life)?);
        }
        self.tried = Some(now);
        match discovery::fetch(&name, send) {
            Ok(metadata) => {
                let kept = KeptMetadata { metadata, fetched_at: now.wall };
                let stored =
                    life.desk.on_disk(state, |state| discovery::keep(state.folder(), &kept));
                if let Err(why) = stored {
                    self.warn(life, &why);
                }
                self.use_now(kept, life)?;
            }
            Err(error) if self.kept.is_some() => {
                self.warn(life, &format!("{error}; the kept copy goes on serving"));
                self.next = Some(Due::after(now, RETRY_MS));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The token endpoint did not answer as one: the metadata may name another one by now.
    pub(super) fn doubt(&mut self, now: Moment) {
        let soonest = self.tried.map_or(Due::after(now, 0), |at| Due::after(at, DOUBT_MS));
        self.next = self.next.map(|next| next.earlier(soonest));
    }

    fn use_now(&mut self, kept: KeptMetadata, life: &mut Life) -> Result<(), DiscoveryError> {
        self.take(kept, &mut life.config, life.desk.clock.now())?;
        self.has_warned = false;
        // An endpoint that has moved ends a failure of the old one.
        life.machine.set_policy(Policy::of(&life.config));
        Ok(())
    }

    fn take(
        &mut self,
        kept: KeptMetadata,
        config: &mut AutoRefresh,
        now: Moment,
    ) -> Result<(), DiscoveryError> {
        discovery::complete(config, &kept.metadata)?;
        let age_ms = u64::try_from(now.wall.millis_since(kept.fetched_at)).unwrap_or(KEPT_MAX_MS);
        self.next = Some(Due::after(now, KEPT_MAX_MS.saturating_sub(age_ms)));
        self.kept = Some(kept);
        Ok(())
    }

    fn warn(&mut self, life: &Life, why: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            life.desk.warn(format_args!("{why} (provider: {})", life.desk.name));
        }
    }
}

/// The copy that `config` needs, in the folder of `state`.
fn kept_beside(state: &StateFile, config: &AutoRefresh, desk: &mut Desk) -> Option<KeptMetadata> {
    let name = discovery::issuer_of(config)?;
    desk.on_disk(state, |state| discovery::load(state.folder(), name))
}
