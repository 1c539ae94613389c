//! The tokens of one chain as a refresher knows them, and its reports about them: log lines, once each, and its
//! posting. It touches neither disk nor network.

use crate::clock::{Moment, Timestamp};
use crate::config::{AutoRefresh, Missing};
use crate::record::refresh_end::Nearness;
use crate::record::{Saved, SavedFailure};
use crate::secret::Secret;
use crate::token::assertion::{Assertions, SigningStamp};
use crate::token::grant::{self, Failure, Grant, TokenRequest};
use crate::token::history::{RefreshStatus, Trouble};
use crate::token::lifecycle::{ANSWER_LOST, Instruction, Lifecycle, Policy, Presented};
use crate::token::refresher::desk::Desk;
use crate::token::refresher::words::{next_try, tell_stored};
use crate::token::store::Generation;
use crate::token::uninterrupted::Uninterrupted;
use crate::token::waiting::Cause;

pub(super) struct Life {
    pub(super) desk: Desk,
    pub(super) config: AutoRefresh,
    pub(super) machine: Lifecycle,
    pub(super) status: RefreshStatus,
    /// The next try follows at once, with the configured refresh token.
    pub(super) falls_back: bool,
    /// True if no provider uses the tokens: nothing is refreshed.
    pub(super) is_retired: bool,
    /// True for a single refresh, after which the refresher makes no further try.
    pub(super) is_single: bool,
    /// The address of the token store, and the reason why a refresh has to wait for it.
    pub(super) store_trouble: Option<(String, String)>,
    /// While a refresh token may be used up.
    pub(super) uninterrupted: Option<Uninterrupted>,
    said: SaidOnce,
}

/// Messages that the log has already, so that each appears once.
#[derive(Default)]
struct SaidOnce {
    clock: bool,
    /// The secret that the next refresh will lack.
    missing: Option<Missing>,
    /// The last token that the provider refused.
    refused: Option<Generation>,
    /// The end of a refresh token, and its nearness.
    refresh_end: Option<(Timestamp, Nearness)>,
    odd_refresh_end: bool,
    /// The time of the logout that ended the chain.
    logged_out: Option<Timestamp>,
    /// The hash of the superseded configured seed.
    superseded: Option<String>,
    /// The hash of the seed in a file that is not used before a reload.
    other_seed: Option<String>,
}

impl Life {
    /// Begins with the `stored` record.
    pub(super) fn new(
        desk: Desk,
        config: AutoRefresh,
        stored: Option<Saved>,
        is_single: bool,
    ) -> Self {
        let mut machine = Lifecycle::new(Policy::of(&config), stored, desk.clock.now());
        machine.record_configured_seed();
        machine.record_client(config.client_hash());
        Self {
            desk,
            config,
            machine,
            status: RefreshStatus::default(),
            falls_back: false,
            is_retired: false,
            is_single,
            store_trouble: None,
            uninterrupted: None,
            said: SaidOnce::default(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.desk.clock.now()
    }

    pub(super) fn is_due(&self) -> bool {
        self.machine.next(self.now()) == Instruction::Refresh
    }

    pub(super) fn has_valid_token(&self) -> bool {
        let now = self.now();
        self.machine.token().is_some_and(|token| !token.expires.reached(now))
    }

    /// Forgets the tokens, because they belong to another issuer or client.
    pub(super) fn forget(&mut self) {
        self.machine.forget(self.now());
        self.machine.record_client(self.config.client_hash());
    }

    /// True if `stored` is the chain of the configured seed, which is not known here yet.
    pub(super) fn begins_with(&self, stored: &Saved) -> bool {
        let knows =
            |saved: &Saved, hash: &str| saved.refresh_token.is_some() && saved.may_know_seed(hash);
        let brings = |hash: String| knows(stored, &hash) && !knows(self.machine.saved(), &hash);
        self.seed().map(Secret::hash).is_some_and(brings) && !self.machine.is_other_login(stored)
    }

    /// True if `stored` is about the chain in use.
    pub(super) fn is_of_this_chain(&self, stored: &Saved) -> bool {
        let known = self.machine.saved();
        let seed_hash = known.seed_hash.clone().or_else(|| self.seed().map(Secret::hash));
        let same_login = stored.login_hash.is_some() && stored.login_hash == known.login_hash;
        let is_other_client = stored.client.is_some() && stored.client != known.client;
        same_login || !is_other_client && seed_hash.is_some_and(|hash| stored.knows_seed(&hash))
    }

    fn seed(&self) -> Option<&Secret> {
        self.config.seed.as_ref()?.as_ref().ok()
    }

    /// The request that presents `presented`; the error names a missing secret.
    pub(super) fn token_request(&self, presented: &Presented) -> Result<TokenRequest, Failure> {
        self.missing(presented).map_or(Ok(()), Err).map_err(Failure::missing)?;
        let refresh_token = self.refresh_token(presented).map_err(Failure::missing)?;
        let scope = self.machine.scope(presented);
        let stamp = SigningStamp::at(self.desk.clock.wall());
        Assertions::of(&self.config, &stamp)
            .and_then(|signed| grant::request(&self.config, refresh_token.as_ref(), scope, &signed))
            .map_err(Failure::missing)
    }

    /// The secrets that a request with `presented` lacks.
    fn missing(&self, presented: &Presented) -> Option<Missing> {
        let refresh_token = self.refresh_token(presented).err();
        Missing::all(self.config.missing_of_client().into_iter().chain(refresh_token))
    }

    fn refresh_token(&self, presented: &Presented) -> Result<Option<Secret>, Missing> {
        match presented {
            Presented::Token(token) => Ok(Some(token.clone())),
            Presented::Nothing => Ok(None),
            Presented::Missing => {
                let login = || Missing::Login(self.config.call.login(&self.desk.called));
                let seed = self.config.seed.as_ref();
                let missing = seed.and_then(|seed| seed.as_ref().err()).cloned();
                Err(missing.unwrap_or_else(login))
            }
        }
    }

    /// The command for a login, if one is configured and would help.
    pub(super) fn login_command(&self, presented: &Presented) -> Option<String> {
        let config = &self.config;
        // Without a configured seed, the failure itself names the command; a login needs the client too.
        let helps = (*presented != Presented::Missing || config.seed.is_some())
            && config.missing_of_client().is_empty();
        (config.login.exist() && helps).then(|| config.call.login(&self.desk.called))
    }

    /// The secret whose lack will fail the next refresh, though there is a token.
    fn missing_ahead(&self) -> Option<Missing> {
        if self.is_retired || self.machine.token().is_none() {
            return None;
        }
        self.missing(&self.machine.presented())
    }

    /// The message that a due refresh waits for the token store.
    pub(super) fn told_of_store(&self) -> Option<String> {
        let (place, why) = self.store_trouble.as_ref().filter(|_| self.is_due())?;
        Some(format!("The token store {place} can't be used ({why}); waiting for it"))
    }
}

/// Publishing.
impl Life {
    pub(super) fn publish(&mut self, refreshing: bool) {
        self.draft();
        self.desk.publish(refreshing);
    }

    pub(super) fn wait_for(&mut self, cause: Cause) {
        self.draft();
        self.desk.wait_for(cause);
    }

    /// Notes that a due refresh waits for the token store.
    pub(super) fn wait_for_store(&mut self) {
        if let Some((place, why)) = self.store_trouble.clone().filter(|_| self.is_due()) {
            self.wait_for(Cause::Store { place, why });
        }
    }

    pub(super) fn wait_is_over(&mut self) {
        self.draft();
        self.desk.wait_is_over();
    }

    /// Brings the draft of the next posting up to date.
    pub(super) fn draft(&mut self) {
        self.status.consecutive_failures = self.machine.consecutive_failures();
        // A try has nothing to present before that.
        let waits = self.status.trouble.is_some_and(Trouble::waits_for_somebody);
        let tries = !self.is_retired && !waits;
        self.status.next_attempt_at = self.machine.next_attempt_at().filter(|_| tries);
        let mut refresh = self.status.clone();
        if let Some(told) = self.told_of_store() {
            refresh.fail(told.into(), Trouble::StoreAway, false);
        }
        let missing = self.missing_ahead();
        let draft = &mut self.desk.draft;
        draft.token = self.machine.token().cloned();
        draft.refresh = refresh;
        draft.refresh_end = self.machine.saved().refresh_end;
        draft.origin = Some(self.machine.saved().origin());
        draft.missing = missing;
    }
}

/// Log lines.
impl Life {
    /// Logs the stored record when it was first read.
    pub(super) fn report_start(&mut self) {
        let now = self.now();
        let name = &self.desk.name;
        if let Some(token) = self.machine.token() {
            let left = token.expires.left_ms(now) / 1000;
            self.desk.info(format_args!(
                "Using the stored token for provider: {name} (valid for {left} s)"
            ));
        }
        self.report_missing_secret();
        if let Some(failure) = self.machine.applicable_failure().cloned() {
            let (name, what) = (&self.desk.name, &failure.what);
            let at = failure.retry_at;
            let next = format!(
                "; it is still tried again at {at}, or as soon as there is a new refresh token"
            );
            let next = if self.is_single { "" } else { &next };
            let lost = if failure.answer_lost { format!("; {ANSWER_LOST}") } else { String::new() };
            self.desk.trouble(format_args!(
                "The last refresh for provider: {name} failed, and trying again does not help: {what}{lost}{next}"
            ));
            let login = self.login_command(&self.machine.presented());
            let (told, trouble) = tell_stored(&failure, login.as_deref());
            self.status.fail(told, trouble, true);
        }
        self.say_superseded_seed();
        self.warn_of_refresh_end();
    }

    /// Notes a record that was taken up; `brought` says that it brought a different token that is still valid.
    pub(super) fn note_taken_up(&mut self, brought: bool) {
        match self.machine.applicable_failure().cloned() {
            Some(failure) => self.failed_elsewhere(&failure),
            None if brought || self.machine.consecutive_failures() == 0 => self.status.settle(),
            None => {}
        }
        if !self.is_due() {
            // The configured refresh token was tried there too.
            self.falls_back = false;
        }
        self.say_logged_out();
        self.say_superseded_seed();
    }

    /// A refresh elsewhere failed permanently, and a try here would be useless: logged as one of our own.
    fn failed_elsewhere(&mut self, failure: &SavedFailure) {
        let login = self.login_command(&self.machine.presented());
        let (told, trouble) = tell_stored(failure, login.as_deref());
        if self.status.last_error.as_ref() != Some(&told) {
            let wait_ms = failure.retry_at.millis_since(self.desk.clock.wall());
            let next = next_try(trouble, self.is_single, u64::try_from(wait_ms).unwrap_or(0));
            self.desk.trouble(format_args!(
                "{told} (provider: {}; tried by another host or process{next})",
                self.desk.name
            ));
        }
        self.status.fail(told, trouble, true);
    }

    /// Logs once that a refresh waits for the wall clock to be set, or would wait.
    pub(super) fn warn_of_clock(&mut self, now: Moment) {
        let wait_ms = self.machine.clock_wait_left_ms(now).filter(|_| !self.said.clock);
        let Some(wait_ms) = wait_ms else { return };
        self.said.clock = true;
        self.desk.warn(format_args!(
            "The wall clock shows {}, earlier than the state file or this program; refreshing waits for it \
             to be set, for {} s at most or until a refresh is ordered (provider: {})",
            now.wall,
            wait_ms.div_ceil(1000),
            self.desk.name
        ));
    }

    /// Logs once for each token that the provider refused it, because each request orders a refresh while the token
    /// store is away.
    pub(super) fn say_refused(&mut self, generation: Generation) {
        if self.said.refused.replace(generation) != Some(generation) {
            let name = &self.desk.name;
            self.desk.warn(format_args!("Provider {name} refused its token; refreshing"));
        }
    }

    /// Logs a secret that the next refresh will lack, if that is new and no refresh has failed for it, which was
    /// logged. The secret is not needed before the token is due, so there is time to mend it.
    pub(super) fn report_missing_secret(&mut self) {
        let has_failed = self.status.trouble.is_some_and(Trouble::waits_for_somebody);
        let missing = self.missing_ahead().filter(|_| !has_failed);
        if missing == self.said.missing {
            return;
        }
        if let Some(missing) = &missing {
            self.desk.trouble(format_args!(
                "{missing} (provider: {}; the stored token serves until it ends)",
                self.desk.name
            ));
        }
        self.said.missing = missing;
    }

    /// Logs once that a logout has ended the chain.
    fn say_logged_out(&mut self) {
        let saved = self.machine.saved();
        let at = saved.logged_out_at.filter(|_| saved.is_logged_out());
        let said = std::mem::replace(&mut self.said.logged_out, at);
        if let Some(at) = at.filter(|_| at != said) {
            self.desk.warn(format_args!(
                "Provider {} was logged out at {at}; its tokens are not used any more",
                self.desk.name
            ));
        }
    }

    /// Logs once that a newer refresh token has superseded the configured one.
    fn say_superseded_seed(&mut self) {
        let superseded = self.machine.superseded_seed();
        if superseded.is_none() || superseded == self.said.superseded {
            return;
        }
        self.said.superseded = superseded;
        self.desk.warn(format_args!(
            "The configured refresh token of provider {} was superseded by a newer one, with which \
             another host, another process or an earlier start of this one began; continuing with \
             that one. Configure it here too, or none",
            self.desk.name
        ));
    }

    /// Logs once that a changed file, with the refresh token of this `hash`, is not followed before a reload, because
    /// it would separate providers that share a chain.
    pub(super) fn say_others_stay(&mut self, hash: Option<String>) {
        if hash == self.said.other_seed {
            return;
        }
        self.said.other_seed = hash;
        self.desk.warn(format_args!(
            "One of the files with the refresh token that the providers {} share has another one now, and not all \
             have it: reload the configuration, so that each has a chain of its own",
            self.desk.name
        ));
    }

    /// Logs once that an issuer names the end of a refresh token in an unknown form.
    pub(super) fn warn_of_odd_refresh_end(&mut self, grant: &Grant) {
        let told = grant.odd_refresh_end.as_ref().filter(|_| !self.said.odd_refresh_end);
        let Some(told) = told else { return };
        self.said.odd_refresh_end = true;
        self.desk.warn(format_args!("{told} (provider: {})", self.desk.name));
    }

    /// Warns of a refresh token that ends soon: once within 7 days of its end, once within 1 day.
    pub(super) fn warn_of_refresh_end(&mut self) {
        let now = self.desk.clock.wall();
        let Some(end) = self.machine.saved().refresh_end else { return };
        let Some(nearness) = end.nearness(now) else { return };
        if self.said.refresh_end.is_some_and(|(at, said)| at == end.at && said >= nearness) {
            return;
        }
        self.said.refresh_end = Some((end.at, nearness));
        let name = format!("provider {}", self.desk.name);
        let Some(told) = end.warning(&name, now) else { return };
        let call = &self.config.call;
        let run = self.config.login.exist().then(|| call.login(&self.desk.called));
        let run = run.map_or_else(String::new, |command| format!(" (run: {command})"));
        self.desk.warn(format_args!("{told}; log in again before requests fail{run}"));
    }
}
