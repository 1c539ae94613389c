//! Who may use the proxy: inbound keys, and where there are none, `Host` and `Origin`.

use crate::config::is_loopback_host;
use crate::message::RequestHead;
use crate::proxy::inbound_keys::{self, bare_key};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;

/// The rules of access.
#[derive(Clone, Debug)]
pub struct Access {
    /// Keys of which a request must show one; None where `auth` is off.
    pub keys: Option<Vec<Secret>>,
    /// Names and addresses answered to where `auth` is off, lower case, beside the loopback ones.
    pub hosts: Vec<String>,
}

impl Access {
    /// Lets a request in, or says why not. `for_page` allows Basic authentication, for browsers.
    pub fn check(&self, head: &RequestHead, for_page: bool) -> Result<(), Refusal> {
        if let Some(keys) = &self.keys {
            check_key(keys, head, for_page)
        } else {
            self.check_host(head.host.as_deref())?;
            check_origin(head)
        }
    }

    /// A browser that was led here by a name that resolves to us (DNS rebinding) shows that name.
    fn check_host(&self, host: Option<&str>) -> Result<(), Refusal> {
        // An HTTP/1.0 client may send none; a browser always does.
        let Some(host) = host else { return Ok(()) };
        let name = host_name(host);
        let is_listed = || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        if is_loopback_host(name) || is_listed() {
            return Ok(());
        }
        Err(Refusal::new(
            Code::ForbiddenHost,
            "This Host is not one that evertoken answers to; add it to settings.allowed_hosts, or \
             enable settings.auth",
        ))
    }
}

/// `host` without its port and, for an IPv6 address, without its brackets.
pub fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.split(':').next().unwrap_or(host)
}

/// A page of another origin may make a browser send requests here; those say where they come from.
fn check_origin(head: &RequestHead) -> Result<(), Refusal> {
    let cross_site =
        head.headers.all("sec-fetch-site").any(|site| !matches!(site, b"same-origin" | b"none"));
    let own_host = head.host.as_deref().unwrap_or("");
    let foreign_origin = head.headers.all("origin").any(|origin| {
        let origin = std::str::from_utf8(origin).unwrap_or("");
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(own_host))
    });
    if cross_site || foreign_origin {
        let message = "Requests from web pages of another origin are refused";
        return Err(Refusal::new(Code::ForbiddenOrigin, message));
    }
    Ok(())
}

fn check_key(keys: &[Secret], head: &RequestHead, for_page: bool) -> Result<(), Refusal> {
    let (mut found, mut by_browser) = (false, false);
    for field in inbound_keys::shown(head) {
        let basic = if for_page { basic_password(&field) } else { None };
        let shown = basic.as_ref().map_or_else(|| bare_key(&field), |one| one.expose().as_bytes());
        for key in keys {
            // Every key is compared, so that the time does not tell which one it was.
            let matches = key.matches(shown);
            found |= matches;
            by_browser |= matches && basic.is_some();
        }
    }
    if by_browser {
        // A browser adds what its user once typed to the requests of other pages too.
        return check_origin(head);
    }
    if found {
        return Ok(());
    }
    let message = "A key of this evertoken is needed, as x-api-key or as Authorization: Bearer";
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
    use crate::message::{BodyLength, Headers, Version};

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
            host,
            headers,
            body: BodyLength::Absent,
        }
    }

    #[test]
    fn hosts_and_origins_without_keys() {
        let access = Access { keys: None, hosts: vec!["proxy.lan".into()] };
        let check =
            |fields: &[(&str, &str)]| access.check(&head(fields), false).err().map(|r| r.code);
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
    fn keys() {
        let access =
            Access { keys: Some(vec![Secret::new("one"), Secret::new("two")]), hosts: Vec::new() };
        let lets_in = |fields: &[(&str, &str)], page| access.check(&head(fields), page).is_ok();
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
            assert_eq!(access.check(&head, false).is_ok(), expected, "{target}");
        }
        // What a browser kept is not good for the pages of others.
        let foreign = [BASIC, ("Host", "proxy"), ("Origin", "http://evil.example")];
        let refused = access.check(&head(&foreign), true).unwrap_err();
        assert_eq!(refused.code, Code::ForbiddenOrigin);
        assert!(lets_in(&[BASIC, ("Host", "proxy"), ("Origin", "http://proxy")], true));
        assert!(access.check(&head(&[]), true).unwrap_err().asks_browser);
        assert!(!access.check(&head(&[]), false).unwrap_err().asks_browser);
        // With keys, the Host does not matter: whoever has the key may use any name.
        assert!(lets_in(&[("Host", "evil.example"), ("x-api-key", "one")], false));
    }
}
