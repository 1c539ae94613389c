//! Judges endpoints by their answers to requests without a credential. Pure.

use crate::http::message::reason_phrase;

/// The longest address of a redirect that is shown.
const LOCATION_SHOWN_MAX_CHARS: usize = 200;

/// A URL of a provider's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    /// `authorization_url`.
    Authorization,
    /// `base_url`.
    Base,
    /// `device_authorization_url`.
    DeviceAuthorization,
    /// `revocation_url`.
    Revocation,
    /// `token_url`.
    Token,
}

impl Endpoint {
    /// Its key in the configuration.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Authorization => "authorization_url",
            Self::Base => "base_url",
            Self::DeviceAuthorization => "device_authorization_url",
            Self::Revocation => "revocation_url",
            Self::Token => "token_url",
        }
    }
}

/// The parts of an answer that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointAnswer {
    /// Its status.
    pub(super) status: u16,
    /// The target of a redirect.
    pub(super) location: Option<String>,
}

/// The finding about an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing is wrong with it.
    Fine(String),
    /// It may be wrong, perhaps only for now.
    Doubtful(String),
    /// It can't work.
    Wrong(String),
}

/// True if a HEAD request does not tell how a POST would be answered: some pages exist for only one of the two.
pub(super) fn needs_post(endpoint: Endpoint, head: &EndpointAnswer) -> bool {
    endpoint == Endpoint::Token && matches!(head.status, 300..=399 | 404 | 500..=599)
}

/// Judges `endpoint` at `url` by its answers to a HEAD request and, if needed, to an empty POST.
pub(super) fn judge(
    endpoint: Endpoint,
    url: &str,
    head: &EndpointAnswer,
    post: Option<&EndpointAnswer>,
) -> Finding {
    if endpoint != Endpoint::Token {
        return Finding::Fine(format!("{}; {}", of_head(head.status), untried(endpoint)));
    }
    let seen = post.unwrap_or(head);
    let answer = in_words(seen.status);
    match seen.status {
        300..=399 if needs_post(endpoint, head) => Finding::Wrong(redirected(url, seen)),
        404 if needs_post(endpoint, head) => Finding::Doubtful(format!(
            "answers {answer}: is its path right? {}",
            capital(untried(endpoint))
        )),
        500..=599 if needs_post(endpoint, head) => {
            Finding::Doubtful(format!("reachable, but it fails ({answer}); {}", untried(endpoint)))
        }
        _ if post.is_some() => Finding::Fine(format!(
            "reachable ({} to a HEAD, {answer} to an empty POST); {}",
            in_words(head.status),
            untried(endpoint)
        )),
        _ => Finding::Fine(format!("{}; {}", of_head(head.status), untried(endpoint))),
    }
}

fn of_head(status: u16) -> String {
    let answer = in_words(status);
    match status {
        400..=499 => format!("reachable; a HEAD is refused there ({answer}), which is usual"),
        500..=599 => format!("reachable, but it fails ({answer})"),
        _ => format!("reachable ({answer})"),
    }
}

fn redirected(url: &str, seen: &EndpointAnswer) -> String {
    let answer = in_words(seen.status);
    let why = "token requests do not follow redirects";
    let Some(location) = &seen.location else {
        return format!("answers {answer}: {why}; write the address that it means");
    };
    let target: String = absolute(url, location)
        .chars()
        .filter(|character| !character.is_control())
        .take(LOCATION_SHOWN_MAX_CHARS)
        .collect();
    format!("answers {answer} to {target}: {why}; write that address")
}

/// `location`, with the scheme and authority of `url` if it has none.
fn absolute(url: &str, location: &str) -> String {
    let scheme = url.split("://").next().unwrap_or_default();
    let authority = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next());
    match authority {
        Some(_) if location.starts_with("//") => format!("{scheme}:{location}"),
        Some(authority) if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    }
}

fn untried(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Base => "the credential was not tried",
        Endpoint::Token => "client, secret and refresh token were not tried",
        Endpoint::Authorization | Endpoint::DeviceAuthorization => "a login was not tried",
        Endpoint::Revocation => "a logout was not tried",
    }
}

fn in_words(status: u16) -> String {
    format!("{status} {}", reason_phrase(status)).trim_end().to_owned()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        format!("{}{}", first.to_ascii_uppercase(), chars.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://i.example/token";

    fn seen(status: u16) -> EndpointAnswer {
        EndpointAnswer { status, location: None }
    }

    #[test]
    fn where_a_redirect_leads_is_said_as_a_whole_address() {
        for (location, target) in [
            ("https://other.example/t?a=b", "https://other.example/t?a=b"),
            ("/oauth/token", "https://i.example/oauth/token"),
            ("//other.example/t", "https://other.example/t"),
            ("t/\u{1b}[1m", "t/[1m"),
        ] {
            let redirect = EndpointAnswer { status: 301, location: Some(location.to_owned()) };
            assert_eq!(
                judge(Endpoint::Token, URL, &redirect, Some(&redirect)),
                Finding::Wrong(format!(
                    "answers 301 Moved Permanently to {target}: token requests do not follow redirects; write \
                     that address"
                ))
            );
        }
        let long = |length| EndpointAnswer { status: 308, location: Some("x".repeat(length)) };
        let shown = |length| match judge(Endpoint::Token, URL, &long(length), None) {
            Finding::Wrong(told) => told.matches('x').count(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown(LOCATION_SHOWN_MAX_CHARS), LOCATION_SHOWN_MAX_CHARS);
        assert_eq!(shown(LOCATION_SHOWN_MAX_CHARS + 1), LOCATION_SHOWN_MAX_CHARS);
    }

    #[test]
    fn a_post_settles_what_a_head_leaves_open() {
        for status in [301, 302, 404, 500, 503] {
            let fine = judge(Endpoint::Token, URL, &seen(status), Some(&seen(400)));
            assert!(
                matches!(&fine, Finding::Fine(told) if told.contains("400 Bad Request to an empty POST"))
            );
            let not = judge(Endpoint::Token, URL, &seen(status), Some(&seen(status)));
            assert!(!matches!(not, Finding::Fine(_)), "{not:?}");
            assert!(!needs_post(Endpoint::Base, &seen(status)));
            assert!(matches!(judge(Endpoint::Base, URL, &seen(status), None), Finding::Fine(_)));
        }
        for status in [200, 400, 401, 403, 405, 415] {
            assert!(!needs_post(Endpoint::Token, &seen(status)), "{status}");
            assert!(matches!(judge(Endpoint::Token, URL, &seen(status), None), Finding::Fine(_)));
        }
    }
}
