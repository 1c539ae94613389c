//! The proxy's own pages under `/-/`: the list, and the small ones. `status` gathers the values for the larger ones,
//! `html` is the page for people, and [`events`] keeps it up to date.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::config::{Credential, find_by_segment};
use crate::http::message::{Headers, ResponseHead};
use crate::http::refusal::{Code, Refusal};
use crate::logger;
use crate::proxy::metrics::{ConfigurationNow, Metrics, ProviderNow};
use crate::proxy::page::Page;
use crate::proxy::provider::Provider;
use crate::proxy::rights::Rights;
use crate::proxy::route::slugs;
use crate::proxy::state::Proxy;

mod chart;
pub(crate) mod events;
mod html;
mod listeners;
mod quota;
mod status;
pub(crate) mod token;
mod usage;

/// The longest wait of `POST /-/refresh/<slug>` for the outcome.
const REFRESH_WAIT: Duration = Duration::from_secs(40);
/// The policy of the page for people: it may load its own style, script, icon and data, and nobody may embed it.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
    connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// True if `page` needs no key even with `auth` on: the pages for supervisors.
pub(crate) fn is_open(page: &str) -> bool {
    matches!(page, "healthy" | "ready")
}

/// Refuses `page` to a key that may not do everything, unless the page is open to everybody or about one of the key's
/// providers.
pub(crate) fn check(proxy: &Proxy, page: &str, rights: Rights<'_>) -> Result<(), Refusal> {
    if !rights.are_limited() || is_open(page) {
        return Ok(());
    }
    if page.starts_with("token/") {
        rights.check_token()?;
    }
    match ["refresh/", "token/"].iter().find_map(|folder| page.strip_prefix(folder)) {
        None => Err(rights.refusal("opens none of evertoken's own pages")),
        // The page says that there is no such provider.
        Some(slug) => find_by_segment(&proxy.providers, slug)
            .map_or(Ok(()), |provider| rights.check(&provider.config)),
    }
}

/// Answers a request for `page`, the path after `/-/`.
pub(crate) fn answer(proxy: &Proxy, method: &str, page: &str) -> Result<Page, Refusal> {
    if let Some(slug) = page.strip_prefix("refresh/") {
        needs(method, &["POST"])?;
        return refresh(proxy, slug);
    }
    if page == "reload" {
        needs(method, &["POST"])?;
        return Ok(reload(proxy));
    }
    let make: fn(&Proxy) -> Page = match page {
        "" => people,
        "style.css" => |_| text("text/css; charset=utf-8", include_str!("pages/style.css")),
        "script.js" => |_| text("text/javascript; charset=utf-8", include_str!("pages/script.js")),
        "icon.svg" => |_| text("image/svg+xml", include_str!("pages/icon.svg")),
        "healthy" => |_| text("text/plain; charset=utf-8", "ok\n"),
        "ready" => ready,
        "status" => |proxy| json_page(200, &status::report(proxy)),
        "metrics" => metrics,
        _ => return Err(no_page()),
    };
    needs(method, &["GET", "HEAD"])?;
    Ok(make(proxy))
}

fn no_page() -> Refusal {
    let message = "There are /-/, /-/healthy, /-/ready, /-/status, /-/events, /-/metrics, /-/reload, \
                   /-/refresh/<provider> and with settings.token_endpoint /-/token/<provider>";
    Refusal::new(Code::NotFound, message)
}

/// Redirects a browser to the page for people.
pub(crate) fn redirect_to_page() -> Page {
    let mut page = page(302, "text/plain; charset=utf-8", "The page is at /-/\n".to_owned());
    page.head.headers.push("location", "/-/");
    page
}

/// Refuses a method that a page does not have.
fn needs(method: &str, allowed: &[&str]) -> Result<(), Refusal> {
    if allowed.contains(&method) {
        return Ok(());
    }
    let message = format!("This page is for {}", allowed.join(" and "));
    Err(Refusal::new(Code::MethodNotAllowed, message).allowing(allowed))
}

fn page(status: u16, content_type: &str, body: String) -> Page {
    let mut headers = Headers::new();
    headers.push("content-type", content_type);
    headers.push("cache-control", "no-store");
    headers.push("x-content-type-options", "nosniff");
    headers.push("referrer-policy", "no-referrer");
    Page { head: ResponseHead { status, headers }, body: body.into_bytes() }
}

fn json_page(status: u16, value: &impl Serialize) -> Page {
    // Texts, numbers and lists of them: JSON can hold all of it.
    let text = serde_json::to_string(value).unwrap_or_default();
    page(status, "application/json", text + "\n")
}

/// The page for people.
fn people(proxy: &Proxy) -> Page {
    let mut page = page(200, "text/html; charset=utf-8", html::render(&status::report(proxy)));
    page.head.headers.push("content-security-policy", PAGE_POLICY);
    page
}

/// A page that is always the same.
fn text(content_type: &str, body: &str) -> Page {
    page(200, content_type, body.to_owned())
}

/// 200 if every enabled provider has a credential to send, else 503 with the names of the others. Warnings are listed
/// too, such as a state file that can't be written.
fn ready(proxy: &Proxy) -> Page {
    proxy.look_at_files();
    let now = proxy.clock.now();
    let mut missing = Vec::new();
    let mut warnings = Vec::new();
    for provider in proxy.providers.iter().filter(|one| one.config.enabled) {
        let name = &provider.config.name;
        let posting = provider.source.posting();
        if !provider.source.has_one(&posting, now) {
            let reason = provider.source.why_none(&posting, now);
            missing.push(json!({ "name": name, "reason": reason }));
        }
        if let Some(waiting) = &posting.waiting {
            warnings.push(format!("{name}: {waiting}"));
        }
        warnings.extend(status::warning(provider, &posting, posting.missing.as_ref(), now));
    }
    for listener in proxy.listeners.now() {
        let Some(certificate) = listener.certificate else { continue };
        let doubt = certificate.validity.doubt(now.wall);
        let doubt = doubt.map(|why| format!("The certificate of settings.tls {why}"));
        let told = doubt.into_iter().chain(certificate.renewal_problem);
        let new: Vec<_> = told.filter(|told| !warnings.contains(told)).collect();
        warnings.extend(new);
    }
    let ready = missing.is_empty();
    let value = json!({ "ready": ready, "unavailable": missing, "warnings": warnings });
    let mut page = json_page(if ready { 200 } else { 503 }, &value);
    if !ready {
        page.head.headers.push("retry-after", "1");
    }
    page
}

/// Prometheus text.
fn metrics(proxy: &Proxy) -> Page {
    proxy.look_at_files();
    let now = proxy.clock.now();
    // A disabled provider may have another one's name, and then reports nothing under it.
    let is_namesake = |one: &Provider| {
        let mut others = proxy.providers.iter().map(|other| &other.config);
        !one.config.enabled && others.any(|other| other.enabled && other.name == one.config.name)
    };
    let stands: Vec<_> = proxy
        .providers
        .iter()
        .filter(|provider| !is_namesake(provider))
        .map(|provider| {
            let Provider { config, source, .. } = &**provider;
            let posting = source.posting();
            let kept = source.file().and_then(|watched| watched.known(now).ok());
            let refreshed = posting.token.as_ref().map(|token| token.expires.wall);
            let expires_at = refreshed.or_else(|| kept?.expires_at);
            let refresh_token_expires_at = posting.refresh_end.map(|end| end.at);
            // A disabled provider needs no credential, and nobody waits for one.
            let is_enabled = config.enabled;
            ProviderNow {
                name: &config.name,
                is_ready: is_enabled.then(|| source.has_one(&posting, now)),
                expires_at: expires_at.filter(|_| is_enabled),
                refresh_token_expires_at: refresh_token_expires_at.filter(|_| is_enabled),
                successes: posting.refresh.successes,
                failures: posting.refresh.failures,
                in_flight: provider.counts.in_flight.load(Ordering::Relaxed),
                tunnels: provider.counts.tunnels.report(),
                quota: status::quota(provider, now)
                    .into_iter()
                    .map(|one| (one.window, one.remaining_ratio, one.reset_at))
                    .collect(),
            }
        })
        .collect();
    let configuration = ConfigurationNow {
        read_at: proxy.configured_at,
        is_last_reload_fine: proxy.last_reload.failed().is_none(),
        departed_in_flight: proxy.departed_in_flight(),
    };
    let usage = proxy.usage.as_ref().map(|ledger| ledger.of_run()).unwrap_or_default();
    let dropped = logger::dropped_lines();
    let listeners = proxy.listeners.now();
    let text = proxy.metrics.scrape(&stands, &listeners, configuration, dropped, &usage);
    page(200, Metrics::CONTENT_TYPE, text)
}

/// Reads the configuration again; 422 with every problem, and with the time of the configuration in use, if it can't
/// be used.
fn reload(proxy: &Proxy) -> Page {
    match (proxy.reload)() {
        Ok(notes) => json_page(200, &json!({ "reloaded": true, "notes": notes })),
        Err(problems) => {
            let since = proxy.configured_at.to_string();
            let told = json!({ "reloaded": false, "problems": problems, "in_use_since": since });
            json_page(422, &told)
        }
    }
}

/// The message about a slug that no provider has, with the slugs of the refreshed ones, because only those can be
/// refreshed.
fn no_such_provider(providers: &[Arc<Provider>]) -> String {
    match slugs(providers, |one| matches!(one.credential, Credential::Refreshed(_))) {
        None => "There is no such provider, or it is disabled; none is refreshed".to_owned(),
        Some(slugs) => format!(
            "There is no such provider, or it is disabled; the refreshed providers are: {slugs}"
        ),
    }
}

/// Refreshes now and waits for the outcome.
fn refresh(proxy: &Proxy, slug: &str) -> Result<Page, Refusal> {
    let provider = find_by_segment(&proxy.providers, slug);
    let refreshed = provider.and_then(|provider| Some((provider, provider.source.refresher()?)));
    let Some((provider, inbox)) = refreshed else {
        let message = match provider.map(|provider| &provider.config) {
            Some(one) => {
                format!("{} is not refreshed: {}", one.name, one.credential.why_not_refreshed())
            }
            None => no_such_provider(&proxy.providers),
        };
        return Err(Refusal::new(Code::UnknownProvider, message));
    };
    // The refresher closes this end once it has published the outcome.
    let _ = inbox.force().recv_timeout(REFRESH_WAIT);
    let posting = provider.source.posting();
    let value = status::provider_report(proxy, provider, &posting, proxy.clock.now());
    Ok(json_page(if posting.trouble().is_none() { 200 } else { 502 }, &value))
}
