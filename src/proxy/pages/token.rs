//! `GET /-/token/<slug>`: the access token itself, for a tool that can't be pointed at a proxy.

use log::info;
use rustix::process::geteuid;

use crate::config::find_by_segment;
use crate::http::refusal::{Code, Refusal};
use crate::ingress::Request;
use crate::peer;
use crate::proxy::hand_out::{self, Asker};
use crate::proxy::page::Page;
use crate::proxy::pages::{needs, no_page, page};
use crate::proxy::rights::Rights;
use crate::proxy::route;
use crate::proxy::state::Proxy;

/// The slug in `page`, the path after `/-/`.
pub(crate) fn slug(page: &str) -> Option<&str> {
    page.strip_prefix("token/")
}

/// Answers `request`, which access let in with `rights` that do not exclude the provider with this slug, for its
/// token.
pub(crate) fn answer(
    proxy: &Proxy,
    request: &Request<'_>,
    slug: &str,
    rights: Rights<'_>,
) -> Result<Page, Refusal> {
    if !proxy.settings.token_endpoint {
        return Err(no_page());
    }
    let head = request.head;
    needs(&head.method, &["GET", "HEAD"])?;
    let asker = match (rights.limits(), request.client) {
        (Some((key, _)), _) => Asker::Listing(key),
        (None, Some(client)) if request.is_by_unix => Asker::Process(peer::of(client)),
        _ if proxy.access.keys.is_some() => Asker::Key,
        _ => Asker::Anybody,
    };
    hand_out::check(asker, head, geteuid().as_raw())?;
    let provider = find_by_segment(&proxy.providers, slug).ok_or_else(|| {
        let slugs = route::slugs(&proxy.providers, |_| true).unwrap_or_default();
        let message = format!("There is no such provider, or it is disabled; there are: {slugs}");
        Refusal::new(Code::UnknownProvider, message)
    })?;
    let name = &provider.config.name;
    let token = provider.source.access_token(name, &proxy.clock)?;
    if head.method == "GET" {
        provider.metrics.handed_out();
        info!(provider = name.as_str(); "Handed out the token of provider: {name} to {asker}");
    }
    Ok(page(200, "application/json", token.to_json(proxy.clock.wall()) + "\n"))
}
