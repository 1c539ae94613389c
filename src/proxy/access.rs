//! Access to the proxy: inbound keys, or without keys, `Host` and `Origin`.

use std::borrow::Cow;

use crate::config::is_loopback_host;
use crate::http::message::RequestHead;
use crate::http::refusal::{Code, Refusal};
use crate::proxy::client_key::ClientKey;
use crate::proxy::cors;
use crate::proxy::inbound_keys::{self, bare_key};
use crate::proxy::known_keys::Keys;
use crate::proxy::rights::Rights;
use crate::secret::Secret;

/// The places for a client's key.
const PLACES: &str =
    "x-api-key, Authorization: Bearer, x-goog-api-key, api-key, or the parameter key of the query";
/// The longest part of a Host or an Origin that a message repeats.
const SHOWN_MAX_BYTES: usize = 100;

/// The rules of access.
#[derive(Clone, Debug)]
pub struct Access {
    /// The keys, of which a request must show one; None if `auth` is off.
    pub keys: Option<Keys>,
    /// Accepted names and addresses if `auth` is off, in lower case, besides the loopback ones.
    pub hosts: Vec<String>,
    /// Origins of web pages that may call.
    pub origins: Vec<String>,
}

impl Access {
    /// Lets a request in with the rights of its key, or returns the reason why not. `for_page` allows Basic authentication, for browsers. Without
    /// keys, a request over a unix socket may have any `Host`: no name leads a browser there.
    pub fn check(
        &self,
        head: &RequestHead,
        for_page: bool,
        is_by_unix: bool,
    ) -> Result<Rights<'_>, Refusal> {
        if let Some(keys) = &self.keys {
            let key = check_key(keys, head, for_page)?;
            check_path(keys, head)?;
            Ok(Rights::of(key))
        } else {
            if !is_by_unix && !is_for_own_machine(head) {
                self.check_host(head.host())?;
            }
            check_origin(head, &self.origins)?;
            Ok(Rights::default())
        }
    }

    /// The keys in a request that no provider may get.
    pub(crate) fn secrets_in(&self, head: &RequestHead) -> Cow<'_, [Secret]> {
        self.keys.as_ref().map_or(Cow::Borrowed(&[]), |keys| keys.secrets_in(head))
    }

    /// The path of a request for the log, unless the path holds a key.
    pub fn shown_path<'a>(&self, head: &'a RequestHead) -> &'a str {
        if self.keys.as_ref().is_some_and(|keys| keys.are_in_path(head.path())) {
            "/[key]"
        } else {
            head.path()
        }
    }

    /// DNS rebinding leads a browser here by a foreign name, which its `Host` shows.
    fn check_host(&self, host: Option<&str>) -> Result<(), Refusal> {
        // An HTTP/1.0 client may send no `Host`; a browser always does.
        let Some(host) = host else { return Ok(()) };
        let name = host_name(host);
        let is_listed = || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        if is_loopback_host(name) || is_listed() {
            return Ok(());
        }
        let message = format!(
            "evertoken does not answer to the Host {}; add it to settings.allowed_hosts, or enable \
             settings.auth",
            shown(name.as_bytes())
        );
        Err(Refusal::new(Code::ForbiddenHost, message))
    }
}

/// True if the `Host` is one of those that most clients of this machine send.
fn is_for_own_machine(head: &RequestHead) -> bool {
    let host = head.headers.first("host").filter(|_| head.authority.is_none()).unwrap_or_default();
    let rest = host.strip_prefix(b"127.0.0.1").or_else(|| host.strip_prefix(b"localhost"));
    matches!(rest, Some([] | [b':', ..]))
}

/// `host` without its port and, for an IPv6 address, without its brackets.
pub(crate) fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

/// A page of another origin may make a browser send requests here, and such requests name their origin. Origins in
/// `allowed` may do so.
fn check_origin(head: &RequestHead, allowed: &[String]) -> Result<(), Refusal> {
    if cors::allowed(head, allowed).is_some() {
        return Ok(());
    }
    let cross_site =
        head.headers.all("sec-fetch-site").any(|site| !matches!(site, b"same-origin" | b"none"));
    let own_host = || head.host().unwrap_or("");
    let foreign_origin = head.headers.all("origin").any(|origin| {
        let origin = std::str::from_utf8(origin).unwrap_or("");
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(own_host()))
    });
    if cross_site || foreign_origin {
        return Err(Refusal::new(Code::ForbiddenOrigin, about_origin(head)));
    }
    Ok(())
}

/// The refused web page, and the setting that lets it in.
fn about_origin(head: &RequestHead) -> String {
    match head.headers.first("origin") {
        Some(b"null") => "A web page without an origin (Origin: null: a file, or a sandboxed frame) is refused; serve \
                          it from an address, and add that to settings.allowed_origins"
            .to_owned(),
        Some(origin) => format!(
            "A web page of {} is refused; to let it in, add this origin to settings.allowed_origins",
            shown(origin)
        ),
        None => "A request that a web page of another origin caused is refused (Sec-Fetch-Site); to let the page \
                 in, add its origin to settings.allowed_origins"
            .to_owned(),
    }
}

/// A client's text for a message: at most [`SHOWN_MAX_BYTES`] of it, and nothing ambiguous.
fn shown(text: &[u8]) -> String {
    let (start, end) = match text.split_at_checked(SHOWN_MAX_BYTES) {
        Some((start, _)) if text.len() > SHOWN_MAX_BYTES => (start, "…"),
        _ => (text, ""),
    };
    format!("'{}{end}'", start.escape_ascii())
}

/// A key can't be removed from a path, because the rest may be another path.
fn check_path(keys: &Keys, head: &RequestHead) -> Result<(), Refusal> {
    if !keys.are_in_path(head.path()) {
        return Ok(());
    }
    let message = format!(
        "The path holds a key of settings.auth, which must not go to a provider: take it out of the base URL, and send \
         it as {PLACES}"
    );
    Err(Refusal::new(Code::BadRequest, message))
}

/// The first of `keys` that the request shows.
fn check_key<'a>(
    keys: &'a Keys,
    head: &RequestHead,
    for_page: bool,
) -> Result<&'a ClientKey, Refusal> {
    let (mut found, mut by_browser, mut is_shown) = (None, false, false);
    for field in inbound_keys::shown(head) {
        let basic = if for_page { basic_password(&field) } else { None };
        let shown = basic.as_ref().map_or_else(|| bare_key(&field), |one| one.expose().as_bytes());
        is_shown |= !shown.is_empty();
        let key = keys.find(shown);
        by_browser |= key.is_some() && basic.is_some();
        found = found.or(key);
    }
    if by_browser {
        // A browser adds a password that its user once typed to other pages' requests too, even of pages that may
        // call with their own key.
        check_origin(head, &[])?;
    }
    if let Some(key) = found {
        return Ok(key);
    }
    let what = if is_shown {
        "The key that was sent is not one of this evertoken"
    } else {
        "No key was sent"
    };
    let message = format!(
        "{what}: send one that settings.auth names (api_key_file, api_key_env, keys) as {PLACES}; in most clients \
         that is the API key"
    );
    let mut refusal = Refusal::new(Code::Unauthorized, message);
    refusal.asks_browser = for_page;
    Err(refusal)
}

/// The password of Basic authentication (RFC 7617).
fn basic_password(field: &[u8]) -> Option<Secret> {
    let text = String::from_utf8(inbound_keys::basic_credentials(field)?).ok()?;
    text.split_once(':').map(|(_, password)| Secret::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{InboundKey, KeyRights, KeySecret};
    use crate::http::message::{BodyLength, Headers, Version};
    use crate::proxy::limits::AllUsed;
    use crate::proxy::metrics::Metrics;

    /// "user:two".
    const BASIC: (&str, &str) = ("Authorization", "Basic dXNlcjp0d28=");

    type Fields = &'static [(&'static str, &'static str)];

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        let host = headers.first("host").map(|host| String::from_utf8(host.to_vec()).unwrap());
        RequestHead {
            method: "GET".into(),
            target: "/".into(),
            version: Version::Http11,
            authority: host,
            headers,
            body: BodyLength::Absent,
        }
    }

    fn key(name: &str, text: &str, providers: Option<&[&str]>) -> InboundKey {
        let providers = providers.map(|slugs| slugs.iter().map(ToString::to_string).collect());
        let rights = KeyRights { providers, ..KeyRights::all(name) };
        InboundKey { secret: KeySecret::Text(Secret::new(text)), rights }
    }

    /// Keys for everything.
    #[expect(clippy::unnecessary_wraps, reason = "the form in `Access`")]
    fn plain(texts: &[&str]) -> Option<Keys> {
        let keys: Vec<_> = texts.iter().map(|text| key("default", text, None)).collect();
        Some(Keys::of(&keys, &Metrics::new(), &mut AllUsed::default()))
    }

    #[test]
    fn a_request_has_the_rights_of_the_first_key_that_it_shows() {
        let keys = [key("all", "one", None), key("ci", "two", Some(&["a", "b"]))];
        let keys = Some(Keys::of(&keys, &Metrics::new(), &mut AllUsed::default()));
        let access = Access { keys, hosts: Vec::new(), origins: Vec::new() };
        let limits = |fields: &[(&str, &str)]| {
            let limits = access.check(&head(fields), true, false).unwrap().limits();
            limits.map(|(name, slugs)| format!("{name}: {}", slugs.join(" ")))
        };
        let ci = Some("ci: a b".to_owned());
        let cases: [(Fields, &Option<String>); 7] = [
            (&[("x-api-key", "one")], &None),
            (&[("x-api-key", "two")], &ci),
            (&[("Authorization", "Bearer two")], &ci),
            (&[BASIC], &ci),
            (&[("x-api-key", "three"), ("api-key", "two")], &ci),
            (&[("x-api-key", "one"), ("Authorization", "Bearer two")], &ci),
            (&[("x-api-key", "two"), ("Authorization", "Bearer one")], &None),
        ];
        for (fields, expected) in cases {
            assert_eq!(limits(fields), *expected, "{fields:?}");
        }
        let open = Access { keys: None, hosts: Vec::new(), origins: Vec::new() };
        assert!(open.check(&head(&[]), false, false).unwrap().limits().is_none());
        assert!(access.check(&head(&[("x-api-key", "three")]), false, false).is_err());
    }

    #[test]
    fn hosts_and_origins_without_keys() {
        let access = Access { keys: None, hosts: vec!["proxy.lan".into()], origins: Vec::new() };
        let check = |fields: &[(&str, &str)]| {
            access.check(&head(fields), false, false).err().map(|r| r.code)
        };
        let cases: [(Fields, Option<Code>); 17] = [
            (&[], None),
            (&[("Host", "localhost:8080")], None),
            (&[("Host", "LOCALHOST")], None),
            (&[("Host", "127.0.0.1:8080")], None),
            (&[("Host", "127.9.9.9")], None),
            (&[("Host", "[::1]:8080")], None),
            (&[("Host", "Proxy.LAN:1")], None),
            (&[("Host", "evil.example")], Some(Code::ForbiddenHost)),
            (&[("Host", "localhost.evil.example")], Some(Code::ForbiddenHost)),
            (&[("Host", "127.0.0.1.evil.example")], Some(Code::ForbiddenHost)),
            (&[("Host", "192.168.1.1")], Some(Code::ForbiddenHost)),
            (&[("Host", "localhost:8080"), ("Origin", "http://localhost:8080")], None),
            (
                &[("Host", "localhost:8080"), ("Origin", "http://localhost:3000")],
                Some(Code::ForbiddenOrigin),
            ),
            (&[("Host", "localhost"), ("Origin", "null")], Some(Code::ForbiddenOrigin)),
            (
                &[("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")],
                Some(Code::ForbiddenOrigin),
            ),
            (
                &[("Host", "localhost"), ("Sec-Fetch-Site", "same-site")],
                Some(Code::ForbiddenOrigin),
            ),
            (&[("Host", "localhost"), ("Sec-Fetch-Site", "none")], None),
        ];
        for (fields, expected) in cases {
            assert_eq!(check(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn refusals_say_who_is_refused_and_what_to_set() {
        type Case<'a> = (&'a Access, &'a [(&'a str, &'a str)], &'a [&'a str]);

        let open = Access { keys: None, hosts: Vec::new(), origins: Vec::new() };
        let with_key = Access { keys: plain(&["one"]), hosts: Vec::new(), origins: Vec::new() };
        let long = "x".repeat(SHOWN_MAX_BYTES + 1);
        let cases: [Case<'_>; 8] = [
            (
                &open,
                &[("Host", "evil.example:1")],
                &["Host 'evil.example'", "settings.allowed_hosts"],
            ),
            (&open, &[("Host", &long)], &["x…'"]),
            (&open, &[("Host", &long[1..])], &["x'"]),
            (
                &open,
                &[("Host", "localhost"), ("Origin", "http://localhost:3000")],
                &["'http://localhost:3000'", "settings.allowed_origins"],
            ),
            (
                &open,
                &[("Host", "localhost"), ("Origin", "null")],
                &["null", "settings.allowed_origins"],
            ),
            (
                &open,
                &[("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")],
                &["Sec-Fetch-Site", "settings.allowed_origins"],
            ),
            (
                &with_key,
                &[],
                &[
                    "No key", "settings.auth", "x-api-key", "Bearer", "x-goog-api-key", " api-key",
                    "the parameter key",
                ],
            ),
            (&with_key, &[("api-key", "wrong")], &["is not one of this evertoken", "api_key_env"]),
        ];
        for (access, fields, parts) in cases {
            let refused = access.check(&head(fields), false, false).unwrap_err();
            for part in parts {
                assert!(refused.message.contains(part), "{part}: {}", refused.message);
            }
            assert!(!refused.message.contains("wrong"), "a key is not repeated");
        }
    }

    #[test]
    fn a_listed_page_may_call_from_another_site_but_not_with_what_the_browser_kept() {
        let origins = vec!["https://app.example".to_owned()];
        let open = Access { keys: None, hosts: Vec::new(), origins: origins.clone() };
        let page = [
            ("Host", "localhost"),
            ("Origin", "https://app.example"),
            ("Sec-Fetch-Site", "cross-site"),
        ];
        assert!(open.check(&head(&page), false, false).is_ok());
        let code =
            |fields: &[(&str, &str)]| open.check(&head(fields), false, false).unwrap_err().code;
        assert_eq!(code(&[page[0], page[2]]), Code::ForbiddenOrigin);
        assert_eq!(
            code(&[page[0], ("Origin", "https://evil.example"), page[2]]),
            Code::ForbiddenOrigin
        );
        assert_eq!(code(&[("Host", "evil.example"), page[1]]), Code::ForbiddenHost);
        let closed = Access { keys: plain(&["two"]), hosts: Vec::new(), origins };
        let refused = closed.check(&head(&[page[0], page[1], BASIC]), true, false).unwrap_err();
        assert_eq!(refused.code, Code::ForbiddenOrigin);
    }

    #[test]
    fn keys() {
        let access =
            Access { keys: plain(&["one", "two"]), hosts: Vec::new(), origins: Vec::new() };
        let lets_in =
            |fields: &[(&str, &str)], page| access.check(&head(fields), page, false).is_ok();
        let cases: [(Fields, bool, bool); 14] = [
            (&[], false, false),
            (&[("x-api-key", "one")], false, true),
            (&[("X-Api-Key", "two")], false, true),
            (&[("Authorization", "Bearer two")], false, true),
            (&[("authorization", "bearer one")], false, true),
            (&[("x-api-key", "wrong"), ("Authorization", "Bearer one")], false, true),
            (&[("x-api-key", "on")], false, false),
            (&[("x-api-key", "")], false, false),
            (&[("X-Goog-Api-Key", "two")], false, true),
            (&[("api-key", "one")], false, true),
            (&[("api-key", "none"), ("x-goog-api-key", "one")], false, true),
            (&[("x-key", "one")], false, false),
            (&[BASIC], false, false),
            (&[BASIC], true, true),
        ];
        for (fields, page, expected) in cases {
            assert_eq!(lets_in(fields, page), expected, "{fields:?}");
        }
        for (target, expected) in
            [("/?key=one", true), ("/?a&key=t%77o", true), ("/?key=on", false), ("/?k=one", false)]
        {
            let head = RequestHead { target: target.into(), ..head(&[]) };
            assert_eq!(access.check(&head, false, false).is_ok(), expected, "{target}");
        }
        // A browser's stored password is not valid for the pages of others.
        let foreign = [BASIC, ("Host", "proxy"), ("Origin", "http://evil.example")];
        let refused = access.check(&head(&foreign), true, false).unwrap_err();
        assert_eq!(refused.code, Code::ForbiddenOrigin);
        assert!(lets_in(&[BASIC, ("Host", "proxy"), ("Origin", "http://proxy")], true));
        assert!(access.check(&head(&[]), true, false).unwrap_err().asks_browser);
        assert!(!access.check(&head(&[]), false, false).unwrap_err().asks_browser);
        // Nor does it over a unix socket, where the origin of a page does.
        let open = Access { keys: None, hosts: Vec::new(), origins: Vec::new() };
        let by_unix = |fields: &[(&str, &str)]| open.check(&head(fields), false, true);
        assert!(by_unix(&[("Host", "evil.example")]).is_ok());
        let page = [("Host", "localhost"), ("Origin", "http://evil.example")];
        assert_eq!(by_unix(&page).unwrap_err().code, Code::ForbiddenOrigin);
        // With keys, the Host does not matter: a client with a key may use any name.
        assert!(lets_in(&[("Host", "evil.example"), ("x-api-key", "one")], false));
    }
}
