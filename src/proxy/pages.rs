//! The proxy's own pages under `/-/`: healthy, ready, status, refresh.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::Moment;
use crate::config::{Credential, ProviderKind};
use crate::message::{Headers, ResponseHead};
use crate::proxy::exchange::Proxy;
use crate::proxy::metrics::{Metrics, ProviderNow};
use crate::refusal::{Code, Refusal};
use crate::token::store::Posting;

/// How long `POST /-/refresh/<slug>` waits for the outcome.
const REFRESH_WAIT: Duration = Duration::from_secs(40);

/// A page, ready to be sent.
#[derive(Debug)]
pub struct Page {
    /// Status and header fields without framing.
    pub head: ResponseHead,
    /// The body.
    pub body: Vec<u8>,
}

/// Whether `page` needs no key even where `auth` is on: what a supervisor asks for.
pub fn is_open(page: &str) -> bool {
    matches!(page, "healthy" | "ready")
}

/// Answers a request for `page`, which is what follows `/-/`.
pub fn answer(proxy: &Proxy, method: &str, page: &str) -> Result<Page, Refusal> {
    if let Some(slug) = page.strip_prefix("refresh/") {
        needs(method, &["POST"])?;
        return refresh(proxy, slug);
    }
    if page == "reload" {
        needs(method, &["POST"])?;
        return Ok(reload(proxy));
    }
    let make = match page {
        "healthy" => healthy,
        "ready" => ready,
        "status" => status,
        "metrics" => metrics,
        _ => {
            let message = "There are /-/healthy, /-/ready, /-/status, /-/metrics, /-/reload and /-/refresh/<provider>";
            return Err(Refusal::new(Code::NotFound, message));
        }
    };
    needs(method, &["GET", "HEAD"])?;
    Ok(make(proxy))
}

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
    Page { head: ResponseHead { status, headers }, body: body.into_bytes() }
}

fn json_page(status: u16, value: &Value) -> Page {
    page(status, "application/json", format!("{value}\n"))
}

fn healthy(_: &Proxy) -> Page {
    page(200, "text/plain; charset=utf-8", "ok\n".to_owned())
}

/// 200 where every enabled provider has a credential to send, else 503 naming those that have none.
/// A state file that can't be written is named too, since a restart would lose what it lacks.
fn ready(proxy: &Proxy) -> Page {
    let now = proxy.clock.now();
    let mut missing = Vec::new();
    let mut warnings = Vec::new();
    for (index, provider) in proxy.config.providers.iter().enumerate() {
        if !provider.enabled {
            continue;
        }
        let posting = proxy.posting(index);
        if !proxy.has_credential(index, &posting, now) {
            let reason = reason(proxy, index, &posting);
            missing.push(json!({ "name": provider.name, "reason": reason }));
        }
        if let Some(why) = &posting.disk_error {
            let text = format!("The state file of {} can't be written: {why}", provider.name);
            warnings.push(text);
        }
    }
    let ready = missing.is_empty();
    let value = json!({ "ready": ready, "unavailable": missing, "warnings": warnings });
    let mut page = json_page(if ready { 200 } else { 503 }, &value);
    if !ready {
        page.head.headers.push("retry-after", "1");
    }
    page
}

fn reason(proxy: &Proxy, index: usize, posting: &Posting) -> String {
    let watched = proxy.ways[index].watched.as_ref();
    let unread = watched.and_then(|watched| watched.read(proxy.clock.wall()).err());
    match (&proxy.config.providers[index].credential, unread, &posting.refresh.last_error) {
        (Credential::Missing(missing), _, _) => missing.to_string(),
        (_, Some(why), _) => why,
        (_, _, Some(error)) => error.clone(),
        (_, _, None) => "the first token is still on its way".to_owned(),
    }
}

fn status(proxy: &Proxy) -> Page {
    let now = proxy.clock.now();
    let in_flight: u64 =
        proxy.ways.iter().map(|way| way.counts.in_flight.load(Ordering::Relaxed)).sum();
    let count = proxy.config.providers.len();
    let providers: Vec<Value> =
        (0..count).map(|index| provider_status(proxy, index, &proxy.posting(index), now)).collect();
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": proxy.started_at.to_string(),
        "uptime_seconds": proxy.uptime.elapsed().as_secs(),
        "in_flight": in_flight,
        "providers": providers,
    });
    json_page(200, &value)
}

/// The token in use: a refreshed one, or one that another program keeps.
fn token_status(proxy: &Proxy, index: usize, posting: &Posting, now: Moment) -> Option<Value> {
    if let Some(watched) = &proxy.ways[index].watched {
        let kept = watched.read(now.wall).ok()?;
        let left = kept.expires_at.map(|at| at.millis_since(now.wall) / 1000);
        return Some(json!({
            "source": "file",
            "obtained_at": null,
            "expires_at": kept.expires_at.map(|at| at.to_string()),
            "expires_in_seconds": left,
            "refresh_due_at": null,
            "generation": kept.generation,
        }));
    }
    posting.token.as_ref().map(|token| {
        json!({
            "source": token.source,
            "obtained_at": token.obtained_at.to_string(),
            "expires_at": token.expires.wall.to_string(),
            "expires_in_seconds": token.expires.left_ms(now) / 1000,
            "refresh_due_at": token.refresh_due_at.to_string(),
            "generation": token.generation,
        })
    })
}

fn provider_status(proxy: &Proxy, index: usize, posting: &Posting, now: Moment) -> Value {
    let (provider, way) = (&proxy.config.providers[index], &proxy.ways[index]);
    let token = token_status(proxy, index, posting, now);
    let cooldown = way.cooldown.until(now);
    let kind = match provider.kind {
        ProviderKind::Anthropic => "anthropic",
        ProviderKind::OpenAi => "openai",
        ProviderKind::Generic => "generic",
    };
    let refresh = &posting.refresh;
    json!({
        "name": provider.name,
        "slug": provider.slug,
        "type": kind,
        "base_url": provider.base_url,
        "enabled": provider.enabled,
        "state": state(proxy, index, posting, now),
        "token": token,
        "refresh": {
            "successes": refresh.successes,
            "failures": refresh.failures,
            "consecutive_failures": refresh.consecutive_failures,
            "last_error": refresh.last_error,
            "next_attempt_at": refresh.next_attempt_at.map(|at| at.to_string()),
        },
        "requests": {
            "total": way.counts.total.load(Ordering::Relaxed),
            "in_flight": way.counts.in_flight.load(Ordering::Relaxed),
            "errors": way.counts.errors.load(Ordering::Relaxed),
        },
        "cooldown_until": cooldown.map(|until| until.wall.to_string()),
    })
}

fn state(proxy: &Proxy, index: usize, posting: &Posting, now: Moment) -> &'static str {
    if !proxy.config.providers[index].enabled {
        "disabled"
    } else if posting.refreshing {
        "refreshing"
    } else if !proxy.has_credential(index, posting, now) {
        "unavailable"
    } else if proxy.ways[index].cooldown.until(now).is_some() {
        "cooling_down"
    } else if posting.refresh.consecutive_failures > 0 {
        "failing"
    } else {
        "ready"
    }
}

/// Prometheus text.
fn metrics(proxy: &Proxy) -> Page {
    let now = proxy.clock.now();
    let providers = proxy.config.providers.iter().enumerate();
    let stands: Vec<_> = providers
        .map(|(index, provider)| {
            let posting = proxy.posting(index);
            let watched = proxy.ways[index].watched.as_ref();
            let kept = watched.and_then(|watched| watched.read(now.wall).ok());
            let refreshed = posting.token.as_ref().map(|token| token.expires.wall);
            ProviderNow {
                name: &provider.name,
                is_ready: provider.enabled && proxy.has_credential(index, &posting, now),
                expires_at: refreshed.or_else(|| kept?.expires_at),
                successes: posting.refresh.successes,
                failures: posting.refresh.failures,
                in_flight: proxy.ways[index].counts.in_flight.load(Ordering::Relaxed),
            }
        })
        .collect();
    page(200, Metrics::CONTENT_TYPE, proxy.metrics.scrape(&stands))
}

/// Reads the configuration again; 422 with every problem where it can't be used.
fn reload(proxy: &Proxy) -> Page {
    match (proxy.reload)() {
        Ok(notes) => json_page(200, &json!({ "reloaded": true, "notes": notes })),
        Err(problems) => json_page(422, &json!({ "reloaded": false, "problems": problems })),
    }
}

/// Refreshes now and waits for the outcome.
fn refresh(proxy: &Proxy, slug: &str) -> Result<Page, Refusal> {
    let found = proxy.config.providers.iter().position(|one| one.slug == slug && one.enabled);
    let inbox = found.and_then(|index| Some((index, proxy.ways[index].inbox.as_ref()?)));
    let Some((index, inbox)) = inbox else {
        let message = "No such provider, or it has no token to refresh";
        return Err(Refusal::new(Code::UnknownProvider, message));
    };
    // The refresher closes this end once the outcome is published.
    let _ = inbox.force().recv_timeout(REFRESH_WAIT);
    let posting = proxy.posting(index);
    let value = provider_status(proxy, index, &posting, proxy.clock.now());
    Ok(json_page(if posting.refresh.last_error.is_none() { 200 } else { 502 }, &value))
}
