//! The target for a provider: the client's, without its keys and with the configured parameters. Pure.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::config::{Credential, ProviderConfig};
use crate::proxy::inbound_keys::{self, KEY_PARAMETER};
use crate::secret::Secret;

/// The characters that a parameter may hold unencoded: the unreserved ones (RFC 3986 §2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The target for `provider`. A configured parameter replaces the client's of that name; other bytes stay as they
/// are.
pub(crate) fn to_upstream<'a>(
    target: &'a str,
    provider: &ProviderConfig,
    keys: &[Secret],
) -> Cow<'a, str> {
    if keys.is_empty() && provider.query.is_empty() && !takes_key(provider) {
        return Cow::Borrowed(target);
    }
    with_parameters(target, provider, keys)
}

/// The target with the parameters that are for `provider`.
// Not inlined: keeps worker stacks small.
#[inline(never)]
fn with_parameters<'a>(
    target: &'a str,
    provider: &ProviderConfig,
    keys: &[Secret],
) -> Cow<'a, str> {
    let has_key_parameter = takes_key(provider);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None if provider.query.is_empty() => return Cow::Borrowed(target),
        None => (target, None),
    };
    let is_left_out = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        has_key_parameter && decoded(name) == KEY_PARAMETER
            || inbound_keys::holds(parameter.as_bytes(), keys)
            || provider.query.iter().any(|(own, wanted)| {
                decoded(name) == own.as_str() && decoded(value) != wanted.as_str()
            })
    };
    let mut parameters: Vec<Cow<'_, str>> = Vec::new();
    let own = query.unwrap_or_default();
    parameters.extend(own.split('&').filter(|one| !is_left_out(one)).map(Cow::Borrowed));
    let is_untouched = query.is_some() && parameters.len() == own.split('&').count();
    let is_there = |name: &str| {
        parameters.iter().any(|one| decoded(one.split('=').next().unwrap_or_default()) == name)
    };
    let missing: Vec<_> = provider.query.iter().filter(|(name, _)| !is_there(name)).collect();
    if is_untouched && missing.is_empty() {
        return Cow::Borrowed(target);
    }
    // An empty query has one empty parameter.
    parameters.retain(|one| !one.is_empty() || missing.is_empty());
    for (name, value) in missing {
        parameters.push(Cow::Owned(format!("{}={}", encoded(name), encoded(value))));
    }
    if parameters.is_empty() {
        return Cow::Owned(path.to_owned());
    }
    Cow::Owned(format!("{path}?{}", parameters.join("&")))
}

/// True if the provider's clients send their credential as the parameter `key`.
fn takes_key(provider: &ProviderConfig) -> bool {
    let field = provider.auth_header.as_deref().unwrap_or_default();
    field.eq_ignore_ascii_case("x-goog-api-key")
        && !matches!(provider.credential, Credential::Passthrough)
}

/// A name or a value, decoded (`application/x-www-form-urlencoded`, as most servers read a query).
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, ENCODED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::route::tests::config;

    fn provider(lines: &str) -> ProviderConfig {
        let text =
            format!("providers: [{{name: p, type: generic, base_url: 'http://x', {lines}}}]");
        config(&text).providers.remove(0)
    }

    #[track_caller]
    fn sent(lines: &str, cases: &[(&str, &str)]) {
        let (provider, keys) = (provider(lines), [Secret::new("in+bound")]);
        for (target, expected) in cases {
            assert_eq!(to_upstream(target, &provider, &keys), *expected, "{target}");
        }
    }

    #[test]
    fn a_target_that_needs_no_change_stays_byte_for_byte() {
        for target in ["/a", "/a?", "/a?&", "/a?b&&c=%zz", "/a?b=c+d%20e&b=2", "/%2F?x=?y#"] {
            sent("auth_value: v", &[(target, target)]);
        }
    }

    #[test]
    fn configured_parameters_are_added_and_win() {
        sent(
            "auth_value: v, query: {api-version: '2024-10-21', 'a b/ü': 'c&d=e+f'}",
            &[
                ("/x", "/x?api-version=2024-10-21&a%20b%2F%C3%BC=c%26d%3De%2Bf"),
                ("/x?", "/x?api-version=2024-10-21&a%20b%2F%C3%BC=c%26d%3De%2Bf"),
                ("/x?y=%20", "/x?y=%20&api-version=2024-10-21&a%20b%2F%C3%BC=c%26d%3De%2Bf"),
                (
                    "/x?api-version=old&y=1&api%2Dversion=older",
                    "/x?y=1&api-version=2024-10-21&a%20b%2F%C3%BC=c%26d%3De%2Bf",
                ),
            ],
        );
        // An existing parameter keeps its place.
        sent(
            "auth_value: v, query: {v: '1 2'}",
            &[
                ("/x?v=1+2&y", "/x?v=1+2&y"),
                ("/x?y&v=1%202", "/x?y&v=1%202"),
                ("/x?V=1&v", "/x?V=1&v=1%202"),
            ],
        );
    }

    #[test]
    fn keys_of_clients_are_taken_out_of_the_query() {
        let gemini = "auth_value: v, auth_header: X-Goog-Api-Key";
        sent(
            gemini,
            &[
                ("/x?key=any&alt=sse", "/x?alt=sse"),
                ("/x?alt=sse&k%65y=any", "/x?alt=sse"),
                ("/x?key=any", "/x"),
                ("/x?keys=any&Key=1&key", "/x?keys=any&Key=1"),
            ],
        );
        let inbound = [
            ("/x?a=in%2Bbound&b=1", "/x?b=1"),
            ("/x?a=in+bound", "/x"),
            ("/x?%69n%2Bbound", "/x"),
            ("/x?auth=Bearer%20in%2Bbound&b", "/x?b"),
            ("/x?key=any", "/x?key=any"),
            ("/x?a=in%2Bboundary", "/x?a=in%2Bboundary"),
        ];
        sent("auth_value: v", &inbound);
        sent("auth_value: passthrough", &inbound);
        sent(
            "auth_value: passthrough, auth_header: x-goog-api-key, enabled: false",
            &[("/x?key=a", "/x?key=a")],
        );
    }
}
