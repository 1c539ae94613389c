//! What a login does to a token life: it begins a chain, and the seeds known so far are over.

use fastrand::Rng;

use crate::clock::Moment;
use crate::record::Saved;
use crate::record::refresh_end::RefreshEnd;
use crate::secret::Secret;
use crate::token::grant::Grant;
use crate::token::lifecycle::{Lifecycle, Presented};
use crate::token::scope;

impl Lifecycle {
    /// A login brought `grant` and with it `refresh_token`. Returns what must be on disk.
    ///
    /// A chain of the login's own begins. The seed that is configured, and those that were used
    /// before, do not begin another one from now on; a seed that was never seen still does.
    pub fn logged_in(
        &mut self,
        grant: &Grant,
        refresh_token: &Secret,
        sent: Moment,
        now: Moment,
        rng: &mut Rng,
    ) -> Saved {
        let mut begun = Saved {
            login_hash: Some(refresh_token.hash()),
            refresh_token: Some(refresh_token.clone()),
            // RFC 6749 §5.1: an answer without a scope grants what was asked for.
            granted_scope: grant.scope.clone().or_else(|| self.policy.scope.clone()),
            revision: self.saved.revision,
            fence: self.saved.fence,
            configured_seed: self.saved.configured_seed.clone(),
            client: self.saved.client.clone(),
            refresh_end: RefreshEnd::after(None, grant.refresh_token_lifetime_ms, false, sent.wall),
            ..Saved::default()
        };
        self.supersede_seeds(&mut begun);
        self.saved = begun;
        self.accept(grant, sent, now, rng);
        self.stamped(now)
    }

    /// The scope that a request with `presented` asks for. The refresh token of a login may not ask for more than
    /// the login was granted (RFC 6749 §6), and without a scope it asks for just that.
    pub fn scope(&self, presented: &Presented) -> Option<&str> {
        let configured = self.policy.scope.as_deref();
        let Presented::Token(token) = presented else { return configured };
        let is_of_login =
            self.saved.login_hash.is_some() && self.saved.refresh_token.as_ref() == Some(token);
        if !is_of_login {
            return configured;
        }
        let granted = self.saved.granted_scope.as_deref()?;
        configured.filter(|configured| scope::is_same(configured, granted))
    }

    /// Whether `stored` began with a login that is not known here: it wins over whatever is, since
    /// somebody wanted it.
    pub fn is_other_login(&self, stored: &Saved) -> bool {
        stored.login_hash.is_some() && stored.login_hash != self.saved.login_hash
    }

    /// Notes in `begun`, which a login began, the seeds that are known here.
    ///
    /// A refresh token that failed, or whose outcome is not known, may be a seed that never began a
    /// chain: the login may have been made where the service's environment can't be seen.
    pub(super) fn supersede_seeds(&self, begun: &mut Saved) {
        let known = &self.saved;
        let failed = known.failure.as_ref().map(|failure| failure.refresh_token_hash.clone());
        let unsure = known.pending.as_ref().map(|marker| marker.refresh_token_hash.clone());
        let chain = known.refresh_token.as_ref().map(Secret::hash);
        let tried = failed.into_iter().chain(unsure).filter(|hash| chain.as_ref() != Some(hash));
        // Where the issuer does not rotate, the chain's token is the seed itself.
        let configured = self.policy.seed.as_ref().map(Secret::hash);
        let seeds = known.superseded_seeds.iter().cloned().chain(known.seed_hash.clone());
        for seed in seeds.chain(configured).chain(tried) {
            begun.supersede_seed(seed);
        }
    }
}
