//! `evertoken check`: finds, without spending a token, problems that the configuration alone does not show.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::assemble::{issuer_sender, upstream_to};
use crate::clock::{Clock, Timestamp};
use crate::config::{
    Config, Credential, Fallback, ProviderConfig, ProviderTimeouts, SharedStore, resolve,
};
use crate::http::message::Headers;
use crate::http::selected::Selected;
use crate::shared::clocks::Offset;
use crate::shared::engine::{Engine, Line};
use crate::shared::health::far_apart;
use crate::tls::Validity;
use crate::token::discovery;
use crate::token::state_file::{exposures, would_be_writable};
use crate::upstream::{Answer, OutBody, OutRequest, Upstream, UpstreamError};

mod judged;
pub(crate) mod routing;
pub(crate) mod socket;
pub(crate) mod sources;

use judged::{Endpoint, EndpointAnswer, Finding, judge, needs_post};
use sources::CredentialFindings;

/// The largest acceptable difference of a server's clock.
const CLOCK_DIFFERENCE_MAX_MS: i64 = 60_000;
/// The longest time for an endpoint's answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The findings of an online check.
#[derive(Debug, Default)]
pub(crate) struct OnlineReport {
    /// One line for each working endpoint.
    pub fine: Vec<String>,
    /// One line for each doubtful endpoint.
    pub warnings: Vec<String>,
    /// One line for each problem.
    pub problems: Vec<String>,
}

/// The way tokens are shared with other hosts; None if they are not.
pub(crate) fn sharing(config: &Config) -> Option<String> {
    let store = config.settings.token_store.as_ref()?;
    let sealed = if store.key.is_some() { "sealed with a key" } else { "not sealed" };
    let meanwhile = match store.fallback {
        Fallback::Wait => "nothing is refreshed",
        Fallback::Local => "each host refreshes for itself",
    };
    Some(format!(
        "Tokens are shared through {} (keys begin with '{}', records are {sealed}); while it can't be \
         reached, {meanwhile}",
        store.place, store.prefix
    ))
}

/// Connects to the token store as `check --online` does, and checks its write access and its clock.
fn judge_store(store: &SharedStore, clock: &Clock, report: &mut OnlineReport) {
    let line = format!("token_store {}", store.place);
    let asked = Line::open(store).and_then(|mut server| {
        server.probe(&store.prefix)?;
        let version = server.ping()?;
        let sent = clock.now();
        let shown = server.time()?;
        Ok((version, shown.and_then(|shown| Offset::measured(sent, shown, clock.now()))))
    });
    match asked {
        Ok((_, Some(offset))) if offset.is_too_far() => {
            report.problems.push(format!(
                "{line}: answers, but: {}",
                far_apart(&store.place.to_string(), offset)
            ));
        }
        Ok((version, _)) => report.fine.push(format!("{line}: answers ({version})")),
        Err(trouble) => report.problems.push(format!("{line}: {trouble}")),
    }
}

/// Problems of the environment and the state folder, after those of the credentials.
pub(crate) fn offline_problems(config: &Config, sources: &CredentialFindings) -> Vec<String> {
    let missing = resolve::missing_secrets(config);
    let mut problems: Vec<_> =
        missing.iter().map(|(name, what)| format!("{name}: {what}")).collect();
    problems.extend(sources.problems.iter().cloned());
    let folder = &config.settings.state_dir;
    if folder.as_os_str().is_empty() {
        // Its absence was already found.
        return problems;
    }
    if let Err(error) = would_be_writable(folder) {
        problems.push(format!(
            "the state folder {} can't be written: {error}; set settings.state_dir to a folder of \
             the user that runs evertoken",
            folder.display()
        ));
    }
    problems.extend(exposures(folder));
    problems
}

/// The warning of a certificate for clients that ends soon.
pub(crate) fn certificate_warning(config: &Config, now: Timestamp) -> Option<String> {
    let own = config.settings.tls.as_ref()?.fitting_certificate()?;
    let validity = Validity { begins: own.begins, ends: own.ends };
    let ends = own.ends;
    validity.ends_soon(now).then(|| {
        format!("the certificate of settings.tls expires at {ends}; replace its files before that")
    })
}

/// Providers whose proxy or roots can't be used, for a configuration without mistakes.
pub(crate) fn connection_problems(config: &Config) -> Vec<String> {
    let enabled = config.providers.iter().filter(|provider| provider.enabled);
    enabled
        .filter_map(|provider| {
            let origin = origin_of(&provider.base_url);
            upstream_to(origin, provider, &config.settings.limits).err()
        })
        .map(|error| error.to_string())
        .collect()
}

/// Resolves, connects and shakes hands with every endpoint of the enabled providers, and compares clocks. It sends a
/// HEAD request without a credential, and an empty POST to a token endpoint that answers HEAD with a redirect, as not
/// found, or as failing.
pub(crate) fn online(config: &Config, clock: &Clock) -> OnlineReport {
    let mut report = OnlineReport::default();
    if let Some(store) = &config.settings.token_store {
        judge_store(store, clock, &mut report);
    }
    for provider in config.providers.iter().filter(|provider| provider.enabled) {
        let provider = &ProviderConfig {
            timeouts: check_timeouts(provider.timeouts),
            ..discovered(provider, config, &mut report)
        };
        let of_tokens = ProviderConfig { egress: provider.token_egress(), ..provider.clone() };
        for (endpoint, url) in endpoints(provider) {
            let provider = if endpoint == Endpoint::Base { provider } else { &of_tokens };
            let line = format!("{}: {} {url}", provider.name, endpoint.key());
            // The offline check reports an upstream that can't be made.
            let Ok(upstream) = upstream_to(origin_of(&url), provider, &config.settings.limits)
            else {
                continue;
            };
            ask(&upstream, (&line, endpoint, &url), clock, &mut report);
        }
    }
    report
}

/// `provider`, completed with the metadata of its issuer, if that names endpoints: it is fetched and not kept.
fn discovered(
    provider: &ProviderConfig,
    config: &Config,
    report: &mut OnlineReport,
) -> ProviderConfig {
    let (token_egress, mut provider) = (provider.token_egress(), provider.clone());
    let Credential::Refreshed(refresh) = &mut provider.credential else { return provider };
    let Some(issuer) = refresh.issuer_for_endpoints().map(str::to_owned) else { return provider };
    // The offline check reports connections that can't be made.
    let Ok(send) = issuer_sender(&token_egress, &config.settings.limits) else {
        return provider;
    };
    let line = format!("{}: issuer {issuer}", provider.name);
    let found = discovery::fetch(&issuer, &send).and_then(|metadata| {
        discovery::complete(refresh, &metadata)?;
        let has_certificate = refresh.client_certificate.is_some();
        discovery::complete_login(&mut refresh.login, &metadata, has_certificate, (true, true));
        Ok(metadata)
    });
    match found {
        Ok(metadata) => {
            let document = metadata.to_document();
            let keys = document.as_object().into_iter().flat_map(|members| members.keys());
            let named: Vec<_> = keys.filter(|key| key.ends_with("_endpoint")).cloned().collect();
            report.fine.push(format!("{line}: its metadata names {}", named.join(", ")));
        }
        Err(error) => {
            let kept = discovery::load(&config.settings.state_dir, &issuer);
            let serves = kept.map(|kept| format!("; the copy of {} serves", kept.fetched_at));
            report.problems.push(format!("{line}: {error}{}", serves.unwrap_or_default()));
        }
    }
    provider
}

/// The time limits of a check: a model may think for minutes, but nobody needs that for a HEAD.
fn check_timeouts(usual: ProviderTimeouts) -> ProviderTimeouts {
    ProviderTimeouts { response: usual.response.min(ANSWER_MAX), ..usual }
}

/// The endpoints, in the order of their keys.
fn endpoints(provider: &ProviderConfig) -> BTreeMap<Endpoint, String> {
    let mut endpoints = BTreeMap::from([(Endpoint::Base, format!("{}/", provider.base_url))]);
    if let Credential::Refreshed(config) = &provider.credential {
        let login = &config.login;
        let token_url = Some(config.token_url.clone()).filter(|url| !url.is_empty());
        let others = [
            (Endpoint::Authorization, &login.authorization_url),
            (Endpoint::DeviceAuthorization, &login.device_authorization_url),
            (Endpoint::Revocation, &login.revocation_url),
            (Endpoint::Token, &token_url),
        ];
        endpoints.extend(others.into_iter().filter_map(|(one, url)| Some((one, url.clone()?))));
    }
    endpoints
}

/// Scheme and authority of a URL.
fn origin_of(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + "://".len());
    url[authority..].find(['/', '?', '#']).map_or(url, |end| &url[..authority + end])
}

/// Asks an endpoint without a credential and reports the findings; `line` names it.
fn ask(
    upstream: &Upstream,
    (line, endpoint, url): (&str, Endpoint, &str),
    clock: &Clock,
    report: &mut OnlineReport,
) {
    let target = url.strip_prefix(origin_of(url)).filter(|path| !path.is_empty()).unwrap_or("/");
    let headers = Headers::new();
    let head = OutRequest {
        method: "HEAD",
        target,
        passed_on: &Selected::none(),
        headers: &headers,
        response_max: None,
        websocket_key: None,
    };
    let answer = match upstream.send(&head, &mut OutBody::Absent, None, &mut 0) {
        Ok(answer) => answer,
        Err(error) => return report.problems.push(format!("{line}: {}", plain(error))),
    };
    if let Some(seconds) = clocks_apart(&answer.head.headers, clock.wall()) {
        report.problems.push(format!(
            "{line}: answers, but its clock and this machine's are {seconds} s apart"
        ));
    }
    let seen_first = seen(&answer);
    drop(answer);
    let post = needs_post(endpoint, &seen_first).then(|| {
        // This spends nothing: no client, no secret, no token.
        let posted = upstream.send(
            &OutRequest { method: "POST", ..head },
            &mut OutBody::Held(b""),
            None,
            &mut 0,
        );
        posted.ok().map(|answer| seen(&answer))
    });
    match judge(endpoint, url, &seen_first, post.flatten().as_ref()) {
        Finding::Fine(told) => report.fine.push(format!("{line}: {told}")),
        Finding::Doubtful(told) => report.warnings.push(format!("{line}: {told}")),
        Finding::Wrong(told) => report.problems.push(format!("{line}: {told}")),
    }
}

fn seen(answer: &Answer) -> EndpointAnswer {
    let location = answer.head.headers.first("location");
    let location = location.map(|location| String::from_utf8_lossy(location).into_owned());
    EndpointAnswer { status: answer.head.status, location }
}

/// The difference in seconds between the server's clock and this one, if it is too large.
///
/// The answer of a cache tells nothing: some caches date it by their own clock, and others leave the date of the server's
/// answer, which is older by `Age` (RFC 9111 §4.2.3).
fn clocks_apart(headers: &Headers, now: Timestamp) -> Option<i64> {
    if headers.first("age").is_some_and(|age| age != b"0") {
        return None;
    }
    let millis = headers.date()?.millis_since(now).abs();
    (millis > CLOCK_DIFFERENCE_MAX_MS).then_some(millis / 1000)
}

/// The test that remains after an online check without findings: the first provider whose refresh would show more.
pub(crate) fn untried_refresh(config: &Config) -> Option<String> {
    config.providers.iter().filter(|provider| provider.enabled).find_map(|provider| match &provider
        .credential
    {
        Credential::Refreshed(refresh) => Some(refresh.call.refresh(&provider.slug)),
        _ => None,
    })
}

fn plain(error: UpstreamError) -> String {
    match error {
        UpstreamError::Unreachable(why) => format!("no connection: {why}"),
        UpstreamError::NoTls { why, remedy } => format!("no connection: {why}{remedy}"),
        UpstreamError::Broken(why) | UpstreamError::TimedOut(why) => format!("no answer: {why}"),
        UpstreamError::Short(shortage) => shortage.to_string(),
        UpstreamError::Unsendable(why) => why,
        UpstreamError::ClientGone | UpstreamError::RequestBody(_) => "no answer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AuthType, Egress, ProviderKind};

    #[test]
    fn an_endpoint_that_does_not_answer_is_not_waited_for_as_long_as_a_model() {
        let limits = |secs| {
            let [connect, response, idle] = [10, secs, 300].map(Duration::from_secs);
            ProviderTimeouts { connect, response, idle }
        };
        assert_eq!(check_timeouts(limits(600)), limits(15));
        assert_eq!(check_timeouts(limits(14)), limits(14));
    }

    /// The answer of a CDN, an hour old, was a wrong clock.
    #[test]
    fn clocks_are_compared_up_to_the_limit_and_not_with_the_answers_of_caches() {
        let date = Timestamp::from_secs(1_800_000_000);
        let at = |millis: i64, age: Option<&str>| {
            let mut headers = Headers::new();
            headers.push("date", "Fri, 15 Jan 2027 08:00:00 GMT");
            if let Some(age) = age {
                headers.push("age", age);
            }
            clocks_apart(&headers, date.plus_millis(millis))
        };
        for (millis, apart) in [
            (0, None),
            (CLOCK_DIFFERENCE_MAX_MS, None),
            (-CLOCK_DIFFERENCE_MAX_MS, None),
            (CLOCK_DIFFERENCE_MAX_MS + 1, Some(60)),
            (-CLOCK_DIFFERENCE_MAX_MS - 1, Some(60)),
            (3_600_000, Some(3600)),
        ] {
            assert_eq!(at(millis, None), apart, "{millis}");
            assert_eq!(at(millis, Some("0")), apart, "{millis}");
            for age in ["3600", "1", "3600, 7"] {
                assert_eq!(at(millis, Some(age)), None, "{millis} {age}");
            }
        }
        assert_eq!(clocks_apart(&Headers::new(), date), None);
    }

    #[test]
    fn endpoints_of_a_provider_without_refresh() {
        let provider = ProviderConfig {
            name: "p".into(),
            slug: "p".into(),
            kind: ProviderKind::Generic,
            base_url: "http://x/v1".into(),
            enabled: true,
            auth_type: AuthType::None,
            credential: Credential::None,
            auth_header: None,
            auth_prefix: None,
            headers: Vec::new(),
            query: Vec::new(),
            egress: Egress::default(),
            max_in_flight: 1,
            weight: 1,
            websocket: true,
            timeouts: ProviderTimeouts::default(),
        };
        assert_eq!(
            endpoints(&provider),
            BTreeMap::from([(Endpoint::Base, "http://x/v1/".to_owned())])
        );
    }
}
