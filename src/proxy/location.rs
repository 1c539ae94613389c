//! Maps the references in a provider's answers back to evertoken, within the provider's own origin. Pure.
//!
//! A reference (RFC 3986 §4.1) in `Location` or `Content-Location` is resolved as the provider means it. A target
//! below its `base_url` becomes a path on evertoken. Another target on the same origin can't be reached through
//! evertoken and becomes the provider's own URL, so that no client takes it for a path on evertoken, which may belong
//! to another provider.

use std::borrow::Cow;

use percent_encoding::{CONTROLS, percent_encode};

use crate::config::url::split_url;
use crate::config::{ProviderConfig, slug};
use crate::http::message::{Headers, RequestHead, path_of};
use crate::proxy::access::host_name;
use crate::proxy::api::api_of;
use crate::proxy::route::{Route, Table, candidates, route, split_slug};

/// The fields that hold a reference to another place.
const FIELDS: [&str; 2] = ["location", "content-location"];

/// Maps the references in an answer of `provider`, one of the table's, to the request with `head` back to evertoken.
pub(crate) fn map_back<P: AsRef<ProviderConfig>>(
    headers: &mut Headers,
    table: Table<'_, P>,
    provider: &ProviderConfig,
    head: &RequestHead,
) {
    for field in FIELDS {
        if !headers.contains(field) {
            continue;
        }
        let values: Vec<Vec<u8>> = headers.all(field).map(<[u8]>::to_vec).collect();
        headers.remove(field);
        for value in values {
            let text = match std::str::from_utf8(&value) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => percent_encode(&value, CONTROLS).into(),
            };
            let led = led_back(&text, table, provider, head);
            headers.push(field, led.map_or(value, String::into_bytes));
        }
    }
}

/// The reference for the client instead of `reference`; None if `reference` is right as it is.
fn led_back<P: AsRef<ProviderConfig>>(
    reference: &str,
    table: Table<'_, P>,
    provider: &ProviderConfig,
    head: &RequestHead,
) -> Option<String> {
    let base = Base::of(&provider.base_url)?;
    // As browsers read a URL: without tabs and surrounding blanks.
    let reference = reference.trim().replace('\t', "");
    let came_by = split_slug(head.path());
    let asked = came_by.map_or(head.path(), |(_, path)| path);
    if came_by.is_some() && (reference.is_empty() || reference.starts_with(['?', '#'])) {
        return None;
    }
    let (path, suffix) = base.resolve(&reference, asked)?;
    let path = path.replace('\\', "%5C");
    let Some(rest) = base.below(&path) else {
        return Some(format!("{}{path}{suffix}", base.origin));
    };
    let rest = if rest.is_empty() { "/" } else { rest };
    if came_by.is_none() && leads_to(rest, table, provider, head) {
        return Some(format!("{rest}{suffix}"));
    }
    let own = slug::in_path(&provider.slug);
    let segment = came_by.map_or(own.as_str(), |(segment, _)| segment);
    Some(format!("/to/{segment}{rest}{suffix}"))
}

/// True if a request for `path` that otherwise equals the one with `head` could go only to `provider`.
fn leads_to<P: AsRef<ProviderConfig>>(
    path: &str,
    table: Table<'_, P>,
    provider: &ProviderConfig,
    head: &RequestHead,
) -> bool {
    // Two slashes at the start would name another server; `/` sends a browser to the status page.
    let is_path = !path.starts_with("//")
        && path != "/"
        && matches!(route(path, table.providers), Ok(Route::Any));
    let served = || candidates(table, || api_of(path, &head.headers), None).unwrap_or_default();
    is_path
        && table.model_routes.is_empty()
        && matches!(served().as_slice(), [only] if std::ptr::eq(only.provider.as_ref(), provider))
}

/// A `base_url`, in the form in which references are compared with it.
struct Base<'a> {
    /// Scheme and authority.
    origin: &'a str,
    scheme: &'a str,
    host: &'a str,
    port: u16,
    /// The part of the base before each path: its path without the `/v1` at its end, which the request's path may
    /// have too.
    start: &'a str,
    /// That `/v1`, or nothing.
    version: &'a str,
}

impl<'a> Base<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, host, path) = split_url(url)?;
        let origin = &url[..url.len() - path.len()];
        let (_, authority) = origin.split_once("://")?;
        let path = path.trim_end_matches('/');
        let start = path.strip_suffix("/v1").unwrap_or(path);
        let port = port_of(scheme, authority)?;
        Some(Self { origin, scheme, host, port, start, version: &path[start.len()..] })
    }

    /// The provider's path that `reference` means, in an answer to a request for the path `asked`, with its query and
    /// fragment unchanged; None if it leads to another origin, or not to another path.
    fn resolve<'b>(&self, reference: &'b str, asked: &str) -> Option<(String, &'b str)> {
        let hierarchy = match scheme_of(reference) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(self.scheme) => {
                Some(rest.strip_prefix("//")?)
            }
            Some(_) => return None,
            None => reference.strip_prefix("//"),
        };
        let Some(hierarchy) = hierarchy else {
            let (path, suffix) = reference.split_at(end_of(reference, &['?', '#']));
            // A query alone refers to the requested path, which may be another provider's now.
            let same = path_of(asked).rsplit('/').next().unwrap_or_default();
            let path = if path.is_empty() { same } else { path };
            return Some((self.resolve_path(path, asked), suffix));
        };
        let (authority, rest) = hierarchy.split_at(end_of(hierarchy, &['/', '?', '#']));
        if !self.is_own(authority) {
            return None;
        }
        let (path, suffix) = rest.split_at(end_of(rest, &['?', '#']));
        Some((without_dots(if path.is_empty() { "/" } else { path }), suffix))
    }

    fn resolve_path(&self, path: &str, asked: &str) -> String {
        if path.starts_with('/') {
            return without_dots(path);
        }
        let asked = path_of(asked);
        let version = match asked.strip_prefix(self.version) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => "",
            _ => self.version,
        };
        let whole = format!("{}{version}{asked}", self.start);
        let folder = whole.rfind('/').map_or("/", |at| &whole[..=at]);
        without_dots(&format!("{folder}{path}"))
    }

    /// True if `authority` is the provider's own: the same name and port.
    fn is_own(&self, authority: &str) -> bool {
        host_name(authority).eq_ignore_ascii_case(self.host)
            && port_of(self.scheme, authority) == Some(self.port)
    }

    /// The part of `path` below the start of the base URL; None if it is not below it.
    fn below<'b>(&self, path: &'b str) -> Option<&'b str> {
        let rest = path.strip_prefix(self.start)?;
        let below = rest.strip_prefix(self.version)?;
        (below.is_empty() || below.starts_with('/')).then_some(rest)
    }
}

/// The scheme of a reference and the rest after its colon; None for a relative one.
fn scheme_of(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(is_plain);
    is_scheme.then_some((scheme, rest))
}

/// The port of an authority without a user, by default that of the scheme.
fn port_of(scheme: &str, authority: &str) -> Option<u16> {
    let behind = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[behind..].split_once(':') {
        Some((_, digits)) if !digits.is_empty() => digits.parse().ok(),
        _ => Some(if scheme == "https" { 443 } else { 80 }),
    }
}

fn end_of(text: &str, ends: &[char]) -> usize {
    text.find(ends).unwrap_or(text.len())
}

/// `path`, which starts with a slash, with its dot segments resolved (RFC 3986 §5.2.4), including encoded ones.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_folder = false;
    for segment in path.split('/').skip(1) {
        let dots = segment.replace("%2e", ".").replace("%2E", ".");
        ends_in_folder = matches!(dots.as_str(), "." | "..");
        match dots.as_str() {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let end = if ends_in_folder && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{BodyLength, Version};
    use crate::proxy::route::tests::config;

    fn head(target: &str) -> RequestHead {
        RequestHead {
            method: "GET".into(),
            target: target.into(),
            version: Version::Http11,
            authority: None,
            headers: Headers::new(),
            body: BodyLength::Absent,
        }
    }

    /// The mapped references of the first of these providers.
    #[track_caller]
    fn leads(providers: &str, target: &str, cases: &[(&str, &str)]) {
        let config = config(providers);
        for (reference, expected) in cases {
            let mut headers = Headers::new();
            headers.push("Location", *reference);
            headers.push("x-other", "a");
            map_back(&mut headers, (&config).into(), &config.providers[0], &head(target));
            let led = headers.first("location").map(String::from_utf8_lossy);
            assert_eq!(led.as_deref(), Some(*expected), "{reference}");
            assert_eq!(headers.first("x-other"), Some(b"a".as_slice()));
        }
    }

    fn providers(base_url: &str) -> String {
        format!(
            "providers: [{{name: p, type: openai, base_url: '{base_url}', auth_type: none}}, \
             {{name: q, type: generic, base_url: 'http://q', auth_type: none}}]"
        )
    }

    #[test]
    fn what_is_below_the_base_url_leads_back_by_the_way_it_was_asked() {
        leads(
            &providers("http://h/api/"),
            "/to/p/mcp?x",
            &[
                ("/api/mcp/", "/to/p/mcp/"),
                ("http://h/api/mcp/?a=b#c", "/to/p/mcp/?a=b#c"),
                ("HTTP://H:80/api/mcp/", "/to/p/mcp/"),
                ("//h/api/x", "/to/p/x"),
                ("//h:/api/x", "/to/p/x"),
                ("http://h/api", "/to/p/"),
                ("http://h/api?y", "/to/p/?y"),
                ("mcp/", "/to/p/mcp/"),
                ("./a/../b", "/to/p/b"),
                ("/api/%2e%2E/api/b/.", "/to/p/b/"),
                ("/api//b", "/to/p//b"),
                ("/api/a\\..\\b", "/to/p/a%5C..%5Cb"),
                ("\t /api/b ", "/to/p/b"),
                ("/api/\u{e9}", "/to/p/\u{e9}"),
            ],
        );
        let base = "http://[::1]:8080";
        leads(&providers(base), "/to/%70/a", &[("http://[::1]:8080/b", "/to/%70/b")]);
    }

    #[test]
    fn what_leads_elsewhere_stays() {
        let same = |reference| (reference, reference);
        leads(
            &providers("http://h/api"),
            "/to/p/mcp",
            &[
                "https://h/api/x", "http://h:81/api/x", "http://h.example/api", "http://u@h/api",
                "http://h@evil/api", "//evil/api", "mailto:a@h", "http:/api", "?a=b", "#c", "",
            ]
            .map(same),
        );
    }

    #[test]
    fn what_lies_beside_the_base_url_leads_to_the_provider_itself() {
        leads(
            &providers("http://h:81/api"),
            "/to/p/a/b",
            &[
                ("/apix", "http://h:81/apix"),
                ("/login?next=/api", "http://h:81/login?next=/api"),
                ("/to/q/x", "http://h:81/to/q/x"),
                ("../../../x", "http://h:81/x"),
                ("/api/../x", "http://h:81/x"),
                ("//h:81/x", "http://h:81/x"),
                ("http://h:81", "http://h:81/"),
                // Still below it.
                ("../x", "/to/p/x"),
            ],
        );
    }

    #[test]
    fn a_version_that_base_url_and_path_share_is_one() {
        let shared = [
            ("/v1/x/", "/to/p/v1/x/"),
            ("http://h/v1", "/to/p/v1"),
            ("/v1/v1/x", "/to/p/v1/v1/x"),
            ("../y", "http://h/y"),
            ("z", "/to/p/v1/z"),
            ("/v10", "http://h/v10"),
        ];
        for target in ["/to/p/v1/x", "/to/p/x"] {
            leads(&providers("http://h/v1"), target, &shared);
        }
        leads(
            &providers("http://h/o/v1"),
            "/to/p/x",
            &[("y", "/to/p/v1/y"), ("/o/y", "http://h/o/y")],
        );
    }

    #[test]
    fn outside_of_to_a_path_stays_plain_where_it_leads_to_the_same_provider_alone() {
        let alone = "providers: [{name: p, type: openai, base_url: 'http://h', auth_type: none}]";
        leads(
            alone,
            "/v1/x",
            &[
                ("/elsewhere", "/elsewhere"),
                ("http://h/v1/x/", "/v1/x/"),
                ("y", "/v1/y"),
                ("?a", "/v1/x?a"),
                // These would lead to another server, to evertoken's own pages, or to a provider of that name.
                ("http://h//evil/x", "/to/p//evil/x"),
                ("/-/status", "/to/p/-/status"),
                ("/to/q/x", "/to/p/to/q/x"),
                ("/", "/to/p/"),
                ("http://h?x", "/to/p/?x"),
            ],
        );
        let both = "providers: [{name: p, type: openai, base_url: 'http://h', auth_type: none}, \
                    {name: A, type: anthropic, base_url: 'http://a', auth_type: none}]";
        leads(
            both,
            "/v1/files",
            &[
                ("/v1/files/", "/v1/files/"),
                ("/v1/messages", "/to/p/v1/messages"),
                ("/mcp/", "/to/p/mcp/"),
            ],
        );
        // Another provider could serve it too.
        leads(
            &providers("http://h"),
            "/v1/files",
            &[
                ("/v1/files/", "/to/p/v1/files/"),
                ("?upload=1", "/to/p/v1/files?upload=1"),
                ("#f", "/to/p/v1/files#f"),
                ("", "/to/p/v1/files"),
            ],
        );
        let routed = format!("model_routes: {{'*': [{{provider: p}}]}}\n{alone}");
        leads(&routed, "/v1/files", &[("/v1/files/", "/to/p/v1/files/")]);
    }

    #[test]
    fn a_reference_that_is_no_utf_8_leads_back_too() {
        let mut headers = Headers::new();
        headers.push("content-location", b"/x\xe9".as_slice());
        let config = config(&providers("http://h"));
        map_back(&mut headers, (&config).into(), &config.providers[0], &head("/to/p/a"));
        assert_eq!(headers.first("content-location"), Some(b"/to/p/x%E9".as_slice()));
    }
}
