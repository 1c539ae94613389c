//! Web pages that may call (`settings.allowed_origins`): their preflights, and the fields that let them read an
//! answer (<https://fetch.spec.whatwg.org/#http-cors-protocol>). Pure.

use crate::http::message::{Headers, RequestHead, ResponseHead};

/// The time for which a browser may remember the answer to a preflight, in seconds: short, so that a changed
/// configuration counts soon.
const PREFLIGHT_MAX_AGE_SECONDS: &str = "600";

/// Fields of a provider's answer that evertoken's replace.
const OURS: [&str; 3] = [
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
];

/// Fields that every page may read, or that no page may read.
const NOT_EXPOSED: [&str; 9] = [
    "cache-control", "content-language", "content-length", "content-type", "expires",
    "last-modified", "pragma", "set-cookie", "vary",
];

/// The request's own origin, if it is among `origins`.
pub(crate) fn allowed<'a>(head: &RequestHead, origins: &'a [String]) -> Option<&'a str> {
    if origins.is_empty() {
        return None;
    }
    let mut shown = head.headers.all("origin");
    let origin = shown.next().filter(|_| shown.next().is_none())?;
    origins.iter().map(String::as_str).find(|own| own.as_bytes() == origin)
}

/// The answer to a preflight of an allowed page; None for any other request.
pub(crate) fn preflight(head: &RequestHead, origins: &[String]) -> Option<ResponseHead> {
    if origins.is_empty() || head.method != "OPTIONS" {
        return None;
    }
    let method = head.headers.first("access-control-request-method")?;
    allowed(head, origins)?;
    let mut headers = Headers::new();
    headers.push("access-control-allow-methods", method);
    for fields in head.headers.all("access-control-request-headers") {
        headers.push("access-control-allow-headers", fields);
    }
    if head.headers.first("access-control-request-private-network") == Some(b"true") {
        // https://wicg.github.io/private-network-access/: a page on the internet calls a server on this machine.
        headers.push("access-control-allow-private-network", "true");
    }
    headers.push("access-control-max-age", PREFLIGHT_MAX_AGE_SECONDS);
    let varies = "Access-Control-Request-Method, Access-Control-Request-Headers";
    headers.push("vary", varies);
    Some(ResponseHead { status: 204, headers })
}

/// Lets the page of `origin` read an answer with these fields.
pub(crate) fn share(headers: &mut Headers, origin: &str) {
    for field in OURS {
        headers.remove(field);
    }
    let exposed = exposed(headers).join(b", ".as_slice());
    headers.push("access-control-allow-origin", origin);
    if !exposed.is_empty() {
        headers.push("access-control-expose-headers", exposed);
    }
    if !headers.list_contains("vary", "origin") && !headers.list_contains("vary", "*") {
        headers.push("vary", "Origin");
    }
}

/// The names of the fields that a page may read only if they are listed, each once.
fn exposed(headers: &Headers) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = Vec::new();
    for (name, _) in headers.iter() {
        let is = |other: &&str| name.eq_ignore_ascii_case(other.as_bytes());
        let is_cors = name.to_ascii_lowercase().starts_with(b"access-control-");
        let is_known = names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if !is_cors && !is_known && !NOT_EXPOSED.iter().any(is) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::{BodyLength, Version, method as method_of};

    fn origins() -> Vec<String> {
        ["http://localhost:3000", "https://app.example"].map(Into::into).to_vec()
    }

    fn of(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        headers
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: method_of(method.as_bytes()),
            target: "/v1/messages".into(),
            version: Version::Http11,
            authority: None,
            headers: of(fields),
            body: BodyLength::Absent,
        }
    }

    #[test]
    fn an_origin_is_allowed_where_it_is_listed_to_the_letter() {
        let origins = origins();
        let is_allowed = |fields: &[(&str, &str)]| allowed(&head("GET", fields), &origins);
        assert_eq!(is_allowed(&[("Origin", "https://app.example")]), Some("https://app.example"));
        for other in [
            "",
            "null",
            "*",
            "https://app.example/",
            "https://app.example:443",
            "https://APP.example",
            "http://app.example",
            "https://app.example.evil",
            "https://x.app.example",
            "http://localhost:30000",
            "https://app.example, http://localhost:3000",
        ] {
            assert_eq!(is_allowed(&[("Origin", other)]), None, "{other}");
        }
        let twice = [("Origin", "https://app.example"), ("Origin", "https://app.example")];
        assert_eq!((is_allowed(&[]), is_allowed(&twice)), (None, None));
        assert_eq!(allowed(&head("GET", &[("Origin", "null")]), &[]), None);
    }

    #[test]
    fn preflights_get_what_they_ask_for() {
        let origin = ("Origin", "https://app.example");
        let method = ("Access-Control-Request-Method", "POST");
        let asked = [
            origin,
            method,
            ("Access-Control-Request-Headers", "content-type,x-api-key"),
            ("Access-Control-Request-Private-Network", "true"),
        ];
        let answer = preflight(&head("OPTIONS", &asked), &origins()).unwrap();
        assert_eq!(answer.status, 204);
        let expected = of(&[
            ("access-control-allow-methods", "POST"),
            ("access-control-allow-headers", "content-type,x-api-key"),
            ("access-control-allow-private-network", "true"),
            ("access-control-max-age", "600"),
            ("vary", "Access-Control-Request-Method, Access-Control-Request-Headers"),
        ]);
        assert_eq!(answer.headers, expected);
        let plain = preflight(&head("OPTIONS", &asked[..2]), &origins()).unwrap();
        assert!(!plain.headers.contains("access-control-allow-private-network"));
        for (verb, fields) in [
            ("OPTIONS", [origin].as_slice()),
            ("OPTIONS", &[method]),
            ("OPTIONS", &[("Origin", "https://evil.example"), method]),
            ("POST", &asked),
        ] {
            assert_eq!(preflight(&head(verb, fields), &origins()), None, "{verb} {fields:?}");
        }
        assert_eq!(preflight(&head("OPTIONS", &asked), &[]), None);
    }

    #[test]
    fn answers_are_readable_for_the_page_and_the_providers_own_word_is_not_doubled() {
        let mut headers = of(&[
            ("Content-Type", "a"),
            ("Request-Id", "1"),
            ("request-id", "2"),
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Expose-Headers", "x"),
            ("Retry-After", "1"),
            ("Set-Cookie", "a=b"),
        ]);
        share(&mut headers, "https://app.example");
        let expected = of(&[
            ("Content-Type", "a"),
            ("Request-Id", "1"),
            ("request-id", "2"),
            ("Retry-After", "1"),
            ("Set-Cookie", "a=b"),
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-expose-headers", "Request-Id, Retry-After"),
            ("vary", "Origin"),
        ]);
        assert_eq!(headers, expected);
        for vary in ["origin", "Accept, Origin", "*"] {
            let mut headers = of(&[("vary", vary)]);
            share(&mut headers, "https://app.example");
            let expected =
                of(&[("vary", vary), ("access-control-allow-origin", "https://app.example")]);
            assert_eq!(headers, expected);
        }
    }
}
