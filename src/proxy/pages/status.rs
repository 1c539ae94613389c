//! Makes a report of the running proxy, for `/-/status`, the page and its events.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::{Due, Moment, Timestamp};
use crate::config::{self, Credential, FileFormat, Missing};
use crate::proxy::cooldown::Cooldown;
use crate::proxy::provider::Provider;
use crate::proxy::state::Proxy;
use crate::report::advice::{Commands, advice, login_again};
use crate::report::listeners::ListenerReport;
use crate::report::usage::UsageReport;
use crate::report::{
    CredentialKind, ProviderReport, RefreshTokenReport, Report, RequestsReport, RestingModelReport,
    State, TokenReport, WindowReport,
};
use crate::token::history::Trouble;
use crate::token::store::Posting;

/// The status of everything.
pub(super) fn report(proxy: &Proxy) -> Report {
    proxy.look_at_files();
    let now = proxy.clock.now();
    let all = || proxy.providers.iter().map(|provider| (&**provider, provider.source.posting()));
    let in_flight = |one: &Arc<Provider>| one.counts.in_flight.load(Ordering::Relaxed);
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: proxy.started_at,
        now: now.wall,
        uptime_seconds: proxy.uptime.elapsed().as_secs(),
        in_flight: proxy.providers.iter().map(in_flight).sum::<u64>() + proxy.departed_in_flight(),
        ready: all().all(|(one, posting)| !one.config.enabled || one.source.has_one(&posting, now)),
        token_store: proxy.store_health.as_ref().map(|health| health.report()),
        failed_reload: proxy.last_reload.failed(),
        usage: proxy.usage.as_ref().map(|ledger| UsageReport::of(&ledger.shown_days())),
        listeners: listeners(proxy, now.wall),
        providers: all()
            .map(|(provider, posting)| provider_report(proxy, provider, &posting, now))
            .collect(),
    }
}

fn listeners(proxy: &Proxy, now: Timestamp) -> Vec<ListenerReport> {
    let all = proxy.listeners.now();
    all.iter().map(|listener| ListenerReport::of(listener, now)).collect()
}

/// The models of a provider that are passed over.
fn resting_models(cooldown: &Cooldown, now: Moment) -> Vec<RestingModelReport> {
    let resting = cooldown.models.all(now).into_iter();
    resting.map(|(model, until)| RestingModelReport { model, until: until.wall }).collect()
}

/// The status of one provider.
pub(super) fn provider_report(
    proxy: &Proxy,
    provider: &Provider,
    posting: &Posting,
    now: Moment,
) -> ProviderReport {
    let Provider { config, counts, .. } = provider;
    // Once a refresh has failed for it, it is the problem.
    let has_failed = posting.refresh.trouble.is_some_and(Trouble::waits_for_somebody);
    let missing = posting.missing.as_ref().filter(|_| !has_failed);
    let commands = commands(config);
    let mut report = ProviderReport {
        name: config.name.clone(),
        slug: config.slug.clone(),
        kind: config.kind.as_str().to_owned(),
        base_url: config.base_url.clone(),
        enabled: config.enabled,
        state: state(provider, posting, now),
        token: token_report(provider, posting, now),
        refresh: posting.refresh.clone(),
        waiting: posting.waiting.clone(),
        requests: RequestsReport {
            total: counts.total.load(Ordering::Relaxed),
            in_flight: counts.in_flight.load(Ordering::Relaxed),
            errors: counts.errors.load(Ordering::Relaxed),
            first_byte: proxy.metrics.first_byte(&config.name),
        },
        tunnels: counts.tunnels.report(),
        cooldown_until: passed_over_until(provider, now).map(|until| until.wall),
        resting_models: resting_models(&provider.cooldown, now),
        quota: quota(provider, now),
        credential: credential_kind(&config.credential),
        grant: grant(&config.credential),
        problem: problem(provider, posting, now),
        advice: None,
        warning: warning(provider, posting, missing, now),
        refresh_token: refresh_token(config, posting, &commands, now),
    };
    report.advice = advice(&report, &commands);
    report
}

fn grant(credential: &Credential) -> Option<String> {
    match credential {
        Credential::Refreshed(refresh) => Some(refresh.grant_type.name().to_owned()),
        _ => None,
    }
}

/// The commands that a message may name.
fn commands(provider: &config::ProviderConfig) -> Commands {
    let Credential::Refreshed(refresh) = &provider.credential else { return Commands::default() };
    Commands {
        login: refresh.login.exist().then(|| refresh.call.login(&provider.slug)),
        check_online: refresh.call.check_online(),
    }
}

/// The token in use: a refreshed one, or one that another program keeps.
fn token_report(provider: &Provider, posting: &Posting, now: Moment) -> Option<TokenReport> {
    if let Some(watched) = provider.source.file() {
        let kept = watched.known(now).ok()?;
        let kind = credential_kind(&provider.config.credential);
        let source = if kind == CredentialKind::Stored { "state_file" } else { "file" };
        return Some(TokenReport {
            source: source.to_owned(),
            obtained_at: None,
            expires_at: kept.expires_at,
            expires_in_seconds: kept.expires_at.map(|at| at.millis_since(now.wall) / 1000),
            refresh_due_at: None,
            generation: kept.generation,
        });
    }
    posting.token.as_ref().map(|token| TokenReport {
        source: token.source.to_owned(),
        obtained_at: Some(token.obtained_at),
        expires_at: Some(token.expires.wall),
        expires_in_seconds: i64::try_from(token.expires.left_ms(now) / 1000).ok(),
        refresh_due_at: Some(token.refresh_due_at),
        generation: token.generation,
    })
}

fn refresh_token(
    provider: &config::ProviderConfig,
    posting: &Posting,
    commands: &Commands,
    now: Moment,
) -> Option<RefreshTokenReport> {
    let end = posting.refresh_end?;
    let login = commands.login.as_deref();
    let warning = end.warning(&provider.name, now.wall);
    let warning = warning.map(|told| format!("{told}. {}", login_again(login)));
    Some(RefreshTokenReport { expires_at: end.at, warning })
}

/// The time until which the provider is passed over, whatever the model: it failed, or its account has nothing left.
fn passed_over_until(provider: &Provider, now: Moment) -> Option<Due> {
    let used_up = provider.nothing_left_until(now);
    let ends = provider.cooldown.until(now).into_iter().chain(used_up);
    ends.max_by_key(|until| until.left_ms(now))
}

/// What is left of the quota of the account in use.
pub(super) fn quota(provider: &Provider, now: Moment) -> Vec<WindowReport> {
    let Some(origin) = provider.source.origin(now) else { return Vec::new() };
    let windows = provider.allowance.windows(origin, now).into_iter();
    let shown = windows.map(|one| WindowReport {
        used_up_until: one.used_up_until(now).map(|until| until.wall),
        window: one.name,
        model: one.model,
        remaining_ratio: one.remaining_ratio,
        reset_at: one.reset.map(|reset| reset.wall),
        stated_at: one.stated_at,
    });
    shown.collect()
}

fn credential_kind(credential: &Credential) -> CredentialKind {
    match credential {
        Credential::None => CredentialKind::None,
        Credential::Passthrough => CredentialKind::Passthrough,
        Credential::Static(_) => CredentialKind::Static,
        Credential::Missing(_) => CredentialKind::Missing,
        Credential::Watched(file) if matches!(file.form, FileFormat::Stored { .. }) => {
            CredentialKind::Stored
        }
        Credential::Watched(_) => CredentialKind::File,
        Credential::Refreshed(_) => CredentialKind::Refreshed,
    }
}

fn state(provider: &Provider, posting: &Posting, now: Moment) -> State {
    if !provider.config.enabled {
        State::Disabled
    } else if posting.refreshing {
        State::Refreshing
    } else if !provider.source.has_one(posting, now) {
        State::Unavailable
    } else if passed_over_until(provider, now).is_some() {
        State::CoolingDown
    } else if posting.refresh.consecutive_failures > 0 {
        State::Failing
    } else {
        State::Ready
    }
}

/// The present problem: the reason for a missing credential, or for the last refresh's failure.
fn problem(provider: &Provider, posting: &Posting, now: Moment) -> Option<String> {
    if !provider.config.enabled {
        return None;
    }
    let words = if provider.source.has_one(posting, now) {
        posting.trouble()?
    } else if posting.refreshing && posting.trouble().is_none() {
        // The first token is on its way.
        return None;
    } else {
        provider.source.why_none(posting, now)
    };
    let refresh = &posting.refresh;
    match (refresh.trouble, &refresh.last_error) {
        _ if posting.waiting.is_some() => Some(words),
        // The log adds the remedy to these; here the advice has it.
        (
            Some(
                Trouble::TokenDead | Trouble::AnswerLost | Trouble::Missing | Trouble::LoginNeeded,
            ),
            Some(error),
        ) => Some(error.what.clone()),
        _ => Some(words),
    }
}

/// A problem that needs attention although there is a credential to send: a state file that can't be written, a secret
/// that is `missing` for the next refresh, or a credential file that is gone or odd.
pub(super) fn warning(
    provider: &Provider,
    posting: &Posting,
    missing: Option<&Missing>,
    now: Moment,
) -> Option<String> {
    let config = &provider.config;
    let unwritten = posting.disk_error.as_ref().map(|why| {
        let name = &config.name;
        format!(
            "The state file of {name} can't be written: {why}. Make it writable: a restart before that loses the token"
        )
    });
    let missing = missing.filter(|_| config.enabled && provider.source.has_one(posting, now));
    let missing = missing.map(|missing| next_refresh_fails(missing, &config.name));
    let of_posting: Vec<_> = unwritten.into_iter().chain(missing).collect();
    if !of_posting.is_empty() {
        return Some(of_posting.join(". "));
    }
    let watched = provider.source.file().filter(|_| config.enabled)?;
    watched.known(now).ok()?;
    watched.warning()
}

fn next_refresh_fails(missing: &Missing, name: &str) -> String {
    let remedy = missing.remedy().map_or_else(String::new, |remedy| format!("; {remedy}"));
    if missing.ends_in_command() {
        return format!("The next refresh will fail (provider: {name}){remedy}: {missing}");
    }
    format!("{missing}: the next refresh will fail (provider: {name}){remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_next_refresh_lacks_is_told_with_what_to_do() {
        let variable = || Missing::Variable("X".into());
        let file = || Missing::File("/f".into(), "it is empty".into());
        let login = || Missing::Login("evertoken login --provider p".into());
        for (missing, words) in [
            (
                variable(),
                "Missing environment variable: 'X': the next refresh will fail (provider: P); set it where \
                 evertoken is started, and restart",
            ),
            (
                file(),
                "Missing secret file: '/f' (it is empty): the next refresh will fail (provider: P); the file is \
                 read again by itself",
            ),
            (
                Missing::Several(vec![variable(), file()]),
                "Missing environment variable: 'X'; Missing secret file: '/f' (it is empty): the next refresh will \
                 fail (provider: P); set them where evertoken is started, and restart; files are read again by \
                 themselves",
            ),
            // Nothing follows after a command.
            (
                login(),
                "The next refresh will fail (provider: P): There is no refresh token yet; run: evertoken login \
                 --provider p",
            ),
        ] {
            assert_eq!(next_refresh_fails(&missing, "P"), words);
        }
        let both = next_refresh_fails(&Missing::Several(vec![variable(), login()]), "P");
        assert!(both.contains("restart; ") && both.ends_with("login --provider p"), "{both}");
    }
}
