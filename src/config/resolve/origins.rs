//! `settings.allowed_origins`: the web pages that may call.

use std::net::Ipv6Addr;

use crate::config::raw::Section;
use crate::config::url::split_port;

/// The origins, as browsers send them.
pub(super) fn read(section: &Section<'_>) -> Vec<String> {
    let origins = section.texts("allowed_origins");
    for (index, origin) in origins.iter().enumerate() {
        if let Some(problem) = problem(origin) {
            section.error_at("allowed_origins", index, problem);
        }
    }
    origins
}

/// The problem with an origin; None if a browser could send it.
fn problem(origin: &str) -> Option<String> {
    if origin.contains('*') {
        return Some(
            "'allowed_origins' has no '*': it would let every web page use the credentials; write each origin"
                .to_owned(),
        );
    }
    if origin.eq_ignore_ascii_case("null") || origin.starts_with("file:") {
        return Some(
            "'allowed_origins' can't hold \"null\": files and sandboxed frames of every web page show it; serve the \
             page from an address of its own"
                .to_owned(),
        );
    }
    let right = as_sent(origin);
    if right.as_deref() == Some(origin) {
        return None;
    }
    let right = right.or_else(|| as_sent(&format!("http://{origin}")));
    let hint = right.map(|right| format!("; did you mean \"{right}\"?")).unwrap_or_default();
    Some(format!(
        "'allowed_origins' must hold origins as browsers send them, such as \"https://app.example\" or \
         \"http://localhost:3000\", not \"{}\"{hint}",
        origin.escape_debug()
    ))
}

/// The origin of `url` as a browser sends it: lower case, without a default port and without path; None if it has
/// none.
fn as_sent(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        || !scheme.bytes().all(is_plain)
    {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = split_port(authority)?;
    let host = if authority.starts_with('[') {
        format!("[{}]", host.parse::<Ipv6Addr>().ok()?)
    } else {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return None;
        }
        host.to_ascii_lowercase()
    };
    let scheme = scheme.to_ascii_lowercase();
    let port = match port {
        Some(digits) if digits.starts_with('+') => return None,
        Some(digits) => digits.parse::<u16>().ok()?,
        None => 0,
    };
    let is_usual = matches!((scheme.as_str(), port), (_, 0) | ("http", 80) | ("https", 443));
    let port = if is_usual { String::new() } else { format!(":{port}") };
    Some(format!("{scheme}://{host}{port}"))
}

#[cfg(test)]
mod tests {
    use crate::config::resolve::tests::{document, fine, told};

    #[test]
    fn origins_are_as_browsers_send_them() {
        let all = "'http://localhost:3000', 'https://app.example', 'http://[::1]:8080', 'https://xn--bcher-kva.example', \
                   'chrome-extension://abcdefghijklmnop', 'tauri://localhost', 'http://127.0.0.1'";
        let config = fine(&document(&format!("allowed_origins: [{all}]"), "auth_type: none"));
        assert_eq!(config.settings.allowed_origins.len(), 7);
        assert_eq!(config.settings.allowed_origins[0], "http://localhost:3000");
        assert!(fine(&document("", "auth_type: none")).settings.allowed_origins.is_empty());
    }

    #[test]
    fn what_is_no_origin_is_told_with_its_place_and_the_right_one() {
        for (origin, right) in [
            ("https://app.example/", Some("https://app.example")),
            ("https://app.example/path?x", Some("https://app.example")),
            ("https://App.Example", Some("https://app.example")),
            ("HTTPS://app.example", Some("https://app.example")),
            ("https://app.example:443", Some("https://app.example")),
            ("http://app.example:80", Some("http://app.example")),
            ("http://app.example:08080", Some("http://app.example:8080")),
            ("http://[0:0::1]:3000", Some("http://[::1]:3000")),
            ("localhost:3000", Some("http://localhost:3000")),
            ("app.example", Some("http://app.example")),
            (" https://app.example", None),
            ("https://app.example:99999", None),
            ("https://app.example:x", None),
            ("https://u@app.example", None),
            ("https://bücher.example", None),
            ("https://", None),
            ("", None),
        ] {
            let said = told(&document(
                &format!("allowed_origins: [\"http://a\", \"{origin}\"]"),
                "auth_type: none",
            ));
            assert_eq!(said.len(), 1, "{origin}: {said:?}");
            assert!(said[0].starts_with("f:1:42: 'allowed_origins' must hold origins"), "{said:?}");
            let hint =
                right.map_or("\"".to_owned(), |right| format!("; did you mean \"{right}\"?"));
            assert!(
                said[0].ends_with(&hint) && said[0].contains("did you") == right.is_some(),
                "{said:?}"
            );
        }
        for (origin, part) in [
            ("*", "no '*'"),
            ("https://*.example", "no '*'"),
            ("null", "\"null\""),
            ("file://", "\"null\""),
        ] {
            let said =
                told(&document(&format!("allowed_origins: ['{origin}']"), "auth_type: none"));
            assert!(said[0].starts_with("f:1:30: ") && said[0].contains(part), "{said:?}");
        }
        let said = told(&document("allowed_origins: 'http://a'", "auth_type: none"));
        assert_eq!(said, ["f:1:29: 'allowed_origins' must be a list of texts"]);
    }
}
