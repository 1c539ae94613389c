//! One refresh: the request, its answer, and what both are kept and told as.

use std::time::Duration;

use log::{error, info, warn};

use crate::clock::Moment;
use crate::config::Missing;
use crate::secret::Secret;
use crate::token::grant::{self, Class, Failure, Grant, TokenRequest, What};
use crate::token::history::{Refreshed, Trouble};
use crate::token::lifecycle::Presented;
use crate::token::refresher::TokenAnswer;
use crate::token::refresher::actor::Actor;
use crate::token::refresher::hosts::{NoGrant, Went};
use crate::token::refresher::words::{next_try, shortened, tell};

/// The least and the most time a token request may take.
const REQUEST_MIN_MS: u64 = 2_000;
const REQUEST_MAX_MS: u64 = 30_000;

impl Actor {
    /// Refreshes with what the machine presents, under the lock and the lease.
    pub(super) fn attempt(&mut self) -> Went {
        info!(
            provider = self.setup.name.as_str();
            "Starting token refresh for provider: {}", self.setup.name
        );
        let presented = self.machine.presented();
        let began = self.setup.clock.now();
        let outcome = self.exchange(&presented);
        let ended = self.setup.clock.now();
        let trouble = match outcome {
            Ok((grant, sent)) => {
                self.succeeded(&presented, &grant, sent);
                None
            }
            Err(NoGrant::Failed(failure)) => Some(self.failed(&presented, &failure)),
            Err(NoGrant::Withdrawn(went)) => return went,
        };
        self.status.history.push(Refreshed {
            at: began.wall,
            took_ms: ended.steady_ms.saturating_sub(began.steady_ms),
            trouble,
        });
        Went::Through
    }

    fn exchange(&mut self, presented: &Presented) -> Result<(Grant, Moment), NoGrant> {
        let request = self.token_request(presented)?;
        self.begin(presented)?;
        let sent = self.setup.clock.now();
        let answer = (self.setup.send)(&request, self.time_allowed(sent)).map_err(|no_answer| {
            match no_answer.shortage {
                Some(shortage) => Failure::short(shortage),
                None => Failure::no_answer(no_answer.reached, no_answer.why),
            }
        })?;
        let TokenAnswer { status, headers, body } = answer;
        let fields = &self.setup.config.token_fields;
        let grant = grant::read(status, &headers, &body, fields, sent.wall)?;
        if self.machine.repeats_an_ended_token(&grant, sent) {
            self.machine.link(presented, &grant, sent.wall);
            return Err(Failure::ended_token().into());
        }
        Ok((grant, sent))
    }

    /// The request that presents `presented`; not where a secret is missing.
    pub(super) fn token_request(&self, presented: &Presented) -> Result<TokenRequest, Failure> {
        let refresh_token = self.refresh_token(presented);
        let of_client = self.setup.config.missing_of_client();
        let missing = of_client.into_iter().chain(refresh_token.as_ref().err().cloned());
        if let Some(missing) = Missing::all(missing) {
            return Err(Failure::missing(missing));
        }
        let refresh_token = refresh_token.map_err(Failure::missing)?;
        let scope = self.machine.scope(presented);
        grant::request(&self.setup.config, refresh_token.as_ref(), scope).map_err(Failure::missing)
    }

    fn refresh_token(&self, presented: &Presented) -> Result<Option<Secret>, Missing> {
        match presented {
            Presented::Token(token) => Ok(Some(token.clone())),
            Presented::Nothing => Ok(None),
            Presented::Missing => {
                let login = || Missing::Login(self.setup.config.call.login(self.setup.called()));
                let seed = self.setup.config.seed.as_ref();
                let missing = seed.and_then(|seed| seed.as_ref().err()).cloned();
                Err(missing.unwrap_or_else(login))
            }
        }
    }

    /// A third of what is left of the token, so that a hanging endpoint leaves time for other tries.
    fn time_allowed(&self, now: Moment) -> Duration {
        let left = self.machine.token().map_or(0, |token| token.expires.left_ms(now));
        let allowed = if left == 0 { REQUEST_MAX_MS } else { left / 3 };
        Duration::from_millis(allowed.clamp(REQUEST_MIN_MS, REQUEST_MAX_MS))
    }

    fn succeeded(&mut self, presented: &Presented, grant: &Grant, sent: Moment) {
        let now = self.setup.clock.now();
        let generation = self.machine.token().map(|token| token.generation);
        let saved = self.machine.granted(presented, grant, sent, now, &mut self.setup.rng);
        self.save(saved);
        self.status.successes += 1;
        self.falls_back = false;
        self.status.settle();
        // An order that comes once the token is there is about the next one.
        self.joined = Some(self.inbox.len());
        // Whoever reads the line below finds the token in use.
        self.publish(false);
        let Some(token) = self.machine.token() else { return };
        let is_repeated = generation == Some(token.generation);
        if let Some(warning) = grant.warning.as_ref().filter(|_| !is_repeated) {
            warn!(
                provider = self.setup.name.as_str();
                "{warning} (provider: {})", self.setup.name
            );
        }
        info!(
            provider = self.setup.name.as_str();
            "Successfully refreshed token for provider using client_id: {} (provider: {}, {}valid for \
             {} s)",
            shortened(self.setup.config.client_id.as_deref().unwrap_or_default()),
            self.setup.name,
            if is_repeated { "the same token again, " } else { "" },
            token.expires.left_ms(sent) / 1000
        );
        self.warn_of_odd_refresh_end(grant);
        self.warn_of_refresh_end();
    }

    fn failed(&mut self, presented: &Presented, failure: &Failure) -> Trouble {
        let now = self.setup.clock.now();
        let (after, saved) = self.machine.failed(presented, failure, now, &mut self.setup.rng);
        if let Some(saved) = saved {
            self.save(saved);
        }
        self.status.failures += u64::from(!matches!(failure.what, What::Short(_)));
        self.falls_back = after.falls_back_to_seed;
        let login = self.login_command(presented);
        let told = tell(failure, after, login.as_deref());
        let wait_ms = after.next_attempt.left_ms(now);
        let trouble = Trouble::of(failure, after.answer_lost);
        if let What::Short(shortage) = failure.what {
            shortage.say(&format!("the token of provider {} can't be refreshed", self.setup.name));
        } else {
            let next = next_try(trouble, self.is_single, wait_ms);
            error!(
                provider = self.setup.name.as_str();
                "{told} (provider: {}{next})", self.setup.name
            );
        }
        let goes_on = after.falls_back_to_seed || after.returns_to_chain;
        self.status.fail(told, trouble, failure.class != Class::Transient && !goes_on);
        trouble
    }

    /// What to run where a login is configured and would help.
    pub(super) fn login_command(&self, presented: &Presented) -> Option<String> {
        let config = &self.setup.config;
        // Without a seed in the configuration, the failure itself says what to run; a login needs the client too.
        let helps = (*presented != Presented::Missing || config.seed.is_some())
            && config.missing_of_client().is_empty();
        let slug = self.setup.called();
        (config.login.exist() && helps).then(|| config.call.login(slug))
    }
}
