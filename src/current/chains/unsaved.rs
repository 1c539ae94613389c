//! Which refresher has the newest token of a provider that is not refreshed any more, while the disk lacks it.

use std::sync::Arc;

use crate::config::{Credential, Form, Provider};
use crate::current::chains::{Chains, Running};
use crate::token::store::TokenStore;
use crate::token::watched::Unsaved;

impl Chains {
    /// Where the token of `provider` is published, if its refreshing was turned off and a refresher runs that has its
    /// chain: that may not have been able to store the newest one.
    pub(in crate::current) fn unsaved(
        &self,
        provider: &Provider,
        store: &Arc<TokenStore>,
    ) -> Option<Unsaved> {
        let Credential::Watched(file) = &provider.credential else { return None };
        let Form::Stored { seed, client } = &file.form else { return None };
        let has_chain = |running: &&Running| {
            let known = &running.life.config;
            let same_seed =
                matches!((&known.seed, seed), (Some(Ok(known)), Some(seed)) if known == seed);
            same_seed && (client.is_none() || *client == known.client_hash())
        };
        let has_place = |running: &&Running| {
            let lacks_seed =
                running.life.config.seed.as_ref().is_none_or(Result::is_err) || seed.is_none();
            lacks_seed && running.life.place.slug == provider.slug
        };
        let running = self.running.iter();
        let found = running.clone().find(has_chain).or_else(|| running.clone().find(has_place))?;
        Some(Unsaved { store: store.clone(), key: found.key })
    }
}
