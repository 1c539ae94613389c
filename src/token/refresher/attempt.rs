//! One refresh: its locks and lease, the request and its answer, and the record and the log line of the outcome.

use std::time::Duration;

use fastrand::Rng;

use crate::clock::Moment;
use crate::config::GrantType;
use crate::token::assertion::blame;
use crate::token::command::output;
use crate::token::grant::{self, Class, Failure, Grant, TokenRequest, What};
use crate::token::history::{Refreshed, Trouble};
use crate::token::lifecycle::Presented;
use crate::token::refresher::hindrance::Hindrance;
use crate::token::refresher::inbox::Orders;
use crate::token::refresher::issuer::Issuer;
use crate::token::refresher::life::Life;
use crate::token::refresher::secrets;
use crate::token::refresher::vault::Vault;
use crate::token::refresher::vault::shared::Entry;
use crate::token::refresher::words::{means, next_try, tell};
use crate::token::sender::{Allowed, IssuerLink, TokenAnswer};
use crate::token::uninterrupted::Uninterrupted;
use crate::token::waiting::Cause;

/// The shortest and the longest time for a try.
const REQUEST_MIN_MS: u64 = 2_000;
const REQUEST_MAX_MS: u64 = 30_000;

/// The parts that a refresh uses.
pub(super) struct RefreshAttempt<'a> {
    pub(super) life: &'a mut Life,
    pub(super) issuer: &'a mut Issuer,
    pub(super) vault: &'a mut Vault,
    pub(super) orders: &'a mut Orders,
    pub(super) link: &'a IssuerLink,
    pub(super) rng: &'a mut Rng,
}

/// The reason why an attempt brought no grant.
enum NoGrant {
    Failed(Failure),
    /// Nothing was sent, nor marked.
    Unsent(Failure),
    /// The attempt was given up before anything was sent.
    Withdrawn(Hindrance),
}

impl From<Failure> for NoGrant {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl RefreshAttempt<'_> {
    /// Refreshes, unless another process or another host is refreshing.
    pub(super) fn make(mut self) -> Result<(), Hindrance> {
        if self.vault.is_held_up(self.life) {
            return Err(Hindrance::Unread);
        }
        self.orders.begin();
        self.life.publish(true);
        // Before the lock and the lease, which other processes and hosts wait for.
        let no_metadata =
            self.issuer.freshen(self.life, &self.vault.file.state, &self.link.send).err();
        let lock = match self.vault.lock_and_take_up(self.life) {
            Ok(_) | Err(Hindrance::Busy) if self.is_settled() => return Ok(()),
            lock => lock?,
        };
        secrets::read_again(self.vault, self.life);
        let beginning = match self.vault.lock_beginning(self.life) {
            // The attempt took up a record that another process or host stored.
            Err(Hindrance::Busy) if self.is_settled() => return Ok(()),
            beginning => beginning?,
        };
        let outcome = match self.vault.shared.enter(&mut self.vault.file, self.life) {
            Ok(Entry::Ours) => self.refresh(no_metadata),
            Ok(Entry::Settled) => Ok(()),
            Err(hindrance) => Err(hindrance),
        };
        self.vault.leave(lock, self.life);
        // A command's refresh lasts until its outcome is told.
        if !self.life.is_single {
            self.life.uninterrupted = None;
        }
        // After the outcome is published, an order is about the next refresh.
        self.orders.end_at_last();
        match outcome {
            Err(Hindrance::Busy) => self.life.wait_for(Cause::Lease),
            Ok(()) => self.life.wait_is_over(),
            Err(Hindrance::StoreAway) => self.life.wait_for_store(),
            Err(Hindrance::Unread | Hindrance::CalledOff | Hindrance::Unwritable) => {}
        }
        if outcome != Err(Hindrance::Busy) {
            self.life.publish(false);
        }
        self.vault.has_begun(beginning, self.life);
        outcome
    }

    /// Returns true if nothing is left to refresh; then publishes that, and answers the waiting callers.
    fn is_settled(&mut self) -> bool {
        let is_settled = !self.life.is_due();
        if is_settled {
            self.orders.end();
            self.life.wait_is_over();
            self.life.publish(false);
        }
        is_settled
    }

    /// Refreshes with the credential that the lifecycle presents; `no_metadata` says why the token endpoint is unknown.
    fn refresh(&mut self, no_metadata: Option<Failure>) -> Result<(), Hindrance> {
        self.life
            .desk
            .info(format_args!("Starting token refresh for provider: {}", self.life.desk.name));
        let presented = self.life.machine.presented();
        let began = self.life.now();
        let outcome = self.exchange(&presented, no_metadata);
        let took_ms = self.life.now().steady_ms.saturating_sub(began.steady_ms);
        let tried = Refreshed { at: began.wall, took_ms, trouble: None };
        match outcome {
            Ok((grant, sent)) => self.succeeded(&presented, &grant, sent, tried),
            Err(NoGrant::Failed(failure)) => self.failed(&presented, &failure, true, tried),
            Err(NoGrant::Unsent(failure)) => self.failed(&presented, &failure, false, tried),
            Err(NoGrant::Withdrawn(hindrance)) => return Err(hindrance),
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        presented: &Presented,
        no_metadata: Option<Failure>,
    ) -> Result<(Grant, Moment), NoGrant> {
        let request = self.life.token_request(presented)?;
        if let Some(failure) = no_metadata {
            return Err(NoGrant::Unsent(failure));
        }
        self.reach_again(&request.url).map_err(NoGrant::Unsent)?;
        self.vault
            .shared
            .begin(presented, &mut self.vault.file, self.life)
            .map_err(NoGrant::Withdrawn)?;
        // A command that is killed ends the refresh, and must not end this process before the signal does.
        if presented.token().is_some() || self.life.config.command().is_some() {
            self.life.uninterrupted.get_or_insert_with(Uninterrupted::begin);
        }
        let sent = self.life.now();
        let grant = self.ask(&request, presented, sent).inspect_err(|no_grant| {
            // The issuer has rotated, whatever else its answer lacks.
            if let NoGrant::Failed(Failure { next_refresh_token: Some(next), .. }) = no_grant {
                self.life.machine.continue_chain(presented, next, sent.wall);
            }
        })?;
        if self.life.machine.repeats_an_ended_token(&grant, sent) {
            self.life.machine.extend_chain(presented, &grant, sent.wall);
            return Err(Failure::ended_token().into());
        }
        Ok((grant, sent))
    }

    /// Looks whether the issuer can be reached again, if the last try did not reach it.
    ///
    /// A try marks its refresh token on disk before, and takes the mark back after. Tries for hours without a network would
    /// wear out flash memory.
    fn reach_again(&self, url: &str) -> Result<(), Failure> {
        let was_unreachable = self.life.status.trouble == Some(Trouble::Unreachable);
        match &self.link.reach {
            Some(reach) if was_unreachable => reach(url, self.time_for_try(self.life.now())),
            _ => Ok(()),
        }
    }

    /// Sends the request, or runs the command that takes its place, and reads the answer.
    fn ask(
        &self,
        request: &TokenRequest,
        presented: &Presented,
        sent: Moment,
    ) -> Result<Grant, NoGrant> {
        let orders = &*self.orders;
        let allowed = self.time_allowed(presented, sent);
        let answer = (self.link.send)(request, allowed, &|| orders.ends_command());
        let config = &self.life.config;
        let Some(command) = config.command() else {
            let TokenAnswer { status, headers, body, .. } = answer?;
            let times = (sent.wall, self.life.now().wall);
            let is_oauth = !matches!(config.grant_type, GrantType::Request(_));
            let read = if is_oauth { grant::read } else { grant::read_any };
            let grant = read(status, &headers, &body, &config.token_fields, sent.wall);
            return grant
                .map_err(|failure| blame::blamed(failure, config, &headers, times))
                .map_err(|failure| {
                    failure.without(config.secrets().chain(presented.token())).into()
                });
        };
        if orders.ends_command() {
            return Err(NoGrant::Withdrawn(Hindrance::CalledOff));
        }
        let TokenAnswer { body, said, .. } = answer?;
        output::read(&body, &config.token_fields, command.zone(), sent.wall)
            .map_err(|failure| failure.of_command_that_said(said.as_deref()).into())
    }

    /// The time for a request with `presented`.
    ///
    /// The issuer may use up a refresh token long before it answers, so its answer is awaited for as long as any: another
    /// try would present the used token.
    fn time_allowed(&self, presented: &Presented, now: Moment) -> Allowed {
        let connecting = self.time_for_try(now);
        let longest = presented.token().map(|_| Duration::from_millis(REQUEST_MAX_MS));
        Allowed { connecting, whole: longest.unwrap_or(connecting) }
    }

    /// A third of the token's remaining time, so that a hanging endpoint leaves time for other tries.
    fn time_for_try(&self, now: Moment) -> Duration {
        let left = self.life.machine.token().map_or(0, |token| token.expires.left_ms(now));
        let allowed = if left == 0 { REQUEST_MAX_MS } else { left / 3 };
        Duration::from_millis(allowed.clamp(REQUEST_MIN_MS, REQUEST_MAX_MS))
    }

    fn succeeded(&mut self, presented: &Presented, grant: &Grant, sent: Moment, tried: Refreshed) {
        let life = &mut *self.life;
        let generation = life.machine.token().map(|token| token.generation);
        let saved = life.machine.granted(presented, grant, sent, life.now(), self.rng);
        self.vault.save(saved, life);
        life.status.successes += 1;
        life.falls_back = false;
        life.status.settle();
        life.status.history.push(tried);
        self.orders.end();
        // The token is in use before the log line below says so.
        life.publish(false);
        let Some(token) = life.machine.token() else { return };
        let name = &life.desk.name;
        let is_repeated = generation == Some(token.generation);
        if let Some(warning) = grant.warning.as_ref().filter(|_| !is_repeated) {
            life.desk.warn(format_args!("{warning} (provider: {name})"));
        }
        life.desk.info(format_args!(
            "Successfully refreshed token for provider using {} (provider: {name}, {}valid for {} s)",
            means(&life.config),
            if is_repeated { "the same token again, " } else { "" },
            token.expires.left_ms(sent) / 1000
        ));
        life.warn_of_odd_refresh_end(grant);
        life.warn_of_refresh_end();
    }

    /// The refresh failed, after a request that may have been sent if `is_marked`.
    fn failed(
        &mut self,
        presented: &Presented,
        failure: &Failure,
        is_marked: bool,
        tried: Refreshed,
    ) {
        let life = &mut *self.life;
        let now = life.now();
        let (after, saved) = if is_marked {
            life.machine.failed(presented, failure, now, self.rng)
        } else {
            (life.machine.failed_unsent(failure, now, self.rng), None)
        };
        if let Some(saved) = saved {
            self.vault.save(saved, life);
        }
        life.status.failures += u64::from(!matches!(failure.what, What::Short(_)));
        life.falls_back = after.falls_back_to_seed;
        let login = life.login_command(presented);
        let told = tell(failure, after, login.as_deref());
        let wait_ms = after.next_attempt.left_ms(now);
        let trouble = Trouble::of(failure, after.answer_lost);
        if matches!(trouble, Trouble::WrongUrl | Trouble::NotAToken | Trouble::Unreachable) {
            self.issuer.doubt(now);
        }
        let goes_on = after.falls_back_to_seed || after.returns_to_newer_chain;
        life.status.fail(told.clone(), trouble, failure.class != Class::Transient && !goes_on);
        life.status.history.push(Refreshed { trouble: Some(trouble), ..tried });
        self.orders.end();
        // As for a success: whoever acts on the log line below finds the failure in the status.
        life.publish(false);
        let name = &life.desk.name;
        if let What::Short(shortage) = failure.what {
            shortage.say(&format!("the token of provider {name} can't be refreshed"));
        } else {
            let next = next_try(trouble, life.is_single, wait_ms);
            life.desk.trouble(format_args!("{told} (provider: {name}{next})"));
        }
    }
}
