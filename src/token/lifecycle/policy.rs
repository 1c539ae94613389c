//! What the configuration says about one token life.

use std::time::Duration;

use crate::clock::Moment;
use crate::config::{AutoRefresh, GrantType};
use crate::secret::Secret;
use crate::token::grant;
use crate::token::lifecycle::{Lifecycle, Policy};

impl Policy {
    /// The policy of `config`.
    pub fn of(config: &AutoRefresh) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // With a placeholder for the refresh token, the request is everything else about it.
        let client_hash = grant::request(config, None, config.scope.as_deref())
            .map(|request| {
                let mut all = format!("{}\n{}", request.url, request.body.expose());
                // Another version of this program is no other client.
                let headers = request.headers.iter().filter(|(name, _)| name != grant::USER_AGENT);
                for (name, value) in headers {
                    all.push_str(name);
                    all.push_str(value.expose());
                }
                Secret::new(all).hash()
            })
            .unwrap_or_default();
        Self {
            refresh_before_ms: millis(config.refresh_before_expiry),
            retry_interval_ms: millis(config.retry_interval),
            seed: config.seed.clone().and_then(Result::ok),
            without_refresh_token: config.grant_type == GrantType::ClientCredentials,
            scope: config.scope.clone(),
            client_hash,
        }
    }
}

impl Lifecycle {
    /// A reload brought `policy`: what is known here goes on under it. Where the request has changed, or the
    /// last try failed, one try is made at once; a good token that was got in the same way is kept.
    pub fn reconfigure(&mut self, policy: Policy, now: Moment) {
        let other_client = policy.client_hash != self.policy.client_hash;
        let has_failed = self.next_attempt.is_some();
        self.set_policy(policy);
        // A new seed may be another account's; one that is known again brings its token back.
        self.take_up_access(now);
        if other_client || has_failed {
            self.order(now);
        }
    }
}
