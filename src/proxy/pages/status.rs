//! From the running proxy to a report: what `/-/status`, the page and its events show.

use std::sync::atomic::Ordering;

use crate::clock::Moment;
use crate::config::Form;
use crate::config::{Credential, Provider};
use crate::proxy::exchange::Proxy;
use crate::report::advice::{Commands, advice, login_again};
use crate::report::{
    CredentialKind, ProviderReport, RefreshTokenReport, Report, RequestsReport, State, TokenReport,
};
use crate::token::history::Trouble;
use crate::token::store::Posting;

/// How everything stands.
pub(super) fn report(proxy: &Proxy) -> Report {
    let now = proxy.clock.now();
    let in_flight = proxy.ways.iter().map(|way| way.counts.in_flight.load(Ordering::Relaxed)).sum();
    let providers = 0..proxy.config.providers.len();
    let is_ready = |index: usize| {
        !proxy.config.providers[index].enabled
            || proxy.has_credential(index, &proxy.posting(index), now)
    };
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: proxy.started_at,
        now: now.wall,
        uptime_seconds: proxy.uptime.elapsed().as_secs(),
        in_flight,
        ready: providers.clone().all(is_ready),
        token_store: proxy.store_health.as_ref().map(|health| health.report()),
        failed_reload: proxy.last_reload.failed(),
        providers: providers
            .map(|index| provider_report(proxy, index, &proxy.posting(index), now))
            .collect(),
    }
}

/// How one provider stands.
pub(super) fn provider_report(
    proxy: &Proxy,
    index: usize,
    posting: &Posting,
    now: Moment,
) -> ProviderReport {
    let (provider, way) = (&proxy.config.providers[index], &proxy.ways[index]);
    let mut report = ProviderReport {
        name: provider.name.clone(),
        slug: provider.slug.clone(),
        kind: provider.kind.as_str().to_owned(),
        base_url: provider.base_url.clone(),
        enabled: provider.enabled,
        state: state(proxy, index, posting, now),
        token: token_report(proxy, index, posting, now),
        refresh: posting.refresh.clone(),
        waiting: posting.waiting.clone(),
        requests: RequestsReport {
            total: way.counts.total.load(Ordering::Relaxed),
            in_flight: way.counts.in_flight.load(Ordering::Relaxed),
            errors: way.counts.errors.load(Ordering::Relaxed),
            first_byte: proxy.metrics.first_byte(&provider.name),
        },
        cooldown_until: way.cooldown.until(now).map(|until| until.wall),
        credential: credential_kind(&provider.credential),
        problem: problem(proxy, index, posting, now),
        advice: None,
        warning: warning(proxy, index, posting),
        refresh_token: refresh_token(provider, posting, now),
    };
    let refreshed = match &provider.credential {
        Credential::Refreshed(config) => Some(&**config),
        _ => None,
    };
    let commands = refreshed.map(|config| Commands {
        login: config.login.exist().then(|| config.call.login(&provider.slug)),
        check_online: config.call.check_online(),
    });
    report.advice = advice(&report, &commands.unwrap_or_default());
    report
}

/// The token in use: a refreshed one, or one that another program keeps.
fn token_report(
    proxy: &Proxy,
    index: usize,
    posting: &Posting,
    now: Moment,
) -> Option<TokenReport> {
    if let Some(watched) = &proxy.ways[index].watched {
        let kept = watched.read(now).ok()?;
        let kind = credential_kind(&proxy.config.providers[index].credential);
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
    provider: &Provider,
    posting: &Posting,
    now: Moment,
) -> Option<RefreshTokenReport> {
    let Credential::Refreshed(config) = &provider.credential else { return None };
    let end = posting.refresh_end?;
    let login = config.login.exist().then(|| config.call.login(&provider.slug));
    let warning = end.warning(&provider.name, now.wall);
    let warning = warning.map(|told| format!("{told}. {}", login_again(login.as_deref())));
    Some(RefreshTokenReport { expires_at: end.at, warning })
}

fn credential_kind(credential: &Credential) -> CredentialKind {
    match credential {
        Credential::None => CredentialKind::None,
        Credential::Passthrough => CredentialKind::Passthrough,
        Credential::Static(_) => CredentialKind::Static,
        Credential::Missing(_) => CredentialKind::Missing,
        Credential::Watched(file) if matches!(file.form, Form::Stored { .. }) => {
            CredentialKind::Stored
        }
        Credential::Watched(_) => CredentialKind::File,
        Credential::Refreshed(_) => CredentialKind::Refreshed,
    }
}

fn state(proxy: &Proxy, index: usize, posting: &Posting, now: Moment) -> State {
    if !proxy.config.providers[index].enabled {
        State::Disabled
    } else if posting.refreshing {
        State::Refreshing
    } else if !proxy.has_credential(index, posting, now) {
        State::Unavailable
    } else if proxy.ways[index].cooldown.until(now).is_some() {
        State::CoolingDown
    } else if posting.refresh.consecutive_failures > 0 {
        State::Failing
    } else {
        State::Ready
    }
}

/// What is wrong at the moment: why there is no credential, or why the last refresh failed.
fn problem(proxy: &Proxy, index: usize, posting: &Posting, now: Moment) -> Option<String> {
    if !proxy.config.providers[index].enabled {
        return None;
    }
    let words = if proxy.has_credential(index, posting, now) {
        posting.trouble()?
    } else if posting.refreshing && posting.trouble().is_none() {
        // The first token is coming.
        return None;
    } else {
        reason(proxy, index, posting)
    };
    match posting.refresh.trouble {
        _ if posting.waiting.is_some() => Some(words),
        // What to do, which the log adds to these, is said by the advice.
        Some(
            Trouble::TokenDead | Trouble::AnswerLost | Trouble::Missing | Trouble::LoginNeeded,
        ) => words.split("; ").next().map(str::to_owned),
        _ => Some(words),
    }
}

/// Why there is no credential.
pub(super) fn reason(proxy: &Proxy, index: usize, posting: &Posting) -> String {
    let watched = proxy.ways[index].watched.as_ref();
    let unread = watched.and_then(|watched| watched.read(proxy.clock.now()).err());
    match (&proxy.config.providers[index].credential, unread, posting.trouble()) {
        (Credential::Missing(missing), _, _) => missing.to_string(),
        (_, Some(why), _) => why,
        (_, _, Some(why)) => why,
        (_, _, None) => "the first token is still on its way".to_owned(),
    }
}

/// What somebody should see to though there is a credential to send: a state file that can't be written, since a restart
/// would lose what it lacks, or a credential file that is gone or odd.
pub(super) fn warning(proxy: &Proxy, index: usize, posting: &Posting) -> Option<String> {
    let provider = &proxy.config.providers[index];
    if let Some(why) = &posting.disk_error {
        return Some(format!("The state file of {} can't be written: {why}", provider.name));
    }
    let watched = proxy.ways[index].watched.as_ref().filter(|_| provider.enabled)?;
    watched.read(proxy.clock.now()).ok()?;
    watched.warning()
}
