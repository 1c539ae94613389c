//! Routing: which providers may serve a request, and what is refused.

use super::*;
use crate::config::resolve::{Sources, resolve};

/// A configuration from its text.
pub(crate) fn config(text: &str) -> Config {
    let sources = Sources {
        environment: &|_| None,
        files: &|_| Err(std::io::ErrorKind::NotFound.into()),
        now: crate::clock::Timestamp::from_secs(1_800_000_000),
        file_modes: &|_| None,
        file_mode: None,
        is_root: true,
        working_folder: None,
    };
    resolve(text, "f", &sources).unwrap_or_else(|problems| panic!("{problems:?}")).0
}

/// Providers with these names and types; a name in capitals means disabled.
fn with(providers: &[(&str, &str)], routes: &str) -> Config {
    let providers: String = providers
            .iter()
            .map(|(name, kind)| {
                let enabled = name.to_lowercase() == *name;
                format!(
                    "  - {{name: {name}, type: {kind}, base_url: 'http://x', auth_type: none, enabled: {enabled}}}\n"
                )
            })
            .collect();
    config(&format!("{routes}providers:\n{providers}"))
}

/// Names and types.
type Providers<'a> = &'a [(&'a str, &'a str)];

const ALL: [(&str, &str); 4] =
    [("OFF", "anthropic"), ("g", "generic"), ("a", "anthropic"), ("o", "openai")];

#[test]
fn targets_and_where_they_go() {
    let config = with(&ALL, "");
    let cases: [(&str, Option<(usize, &str)>); 9] = [
        ("/to/a/v1/x%2F..?a=b", Some((2, "/v1/x%2F..?a=b"))),
        ("/to/a", Some((2, "/"))),
        ("/to/a/", Some((2, "/"))),
        ("/to/a?x", Some((2, "/?x"))),
        ("/to/a//v1", Some((2, "//v1"))),
        ("/to/off/v1", None),
        ("/to/none/v1", None),
        ("/to/", None),
        ("/to//x", None),
    ];
    for (target, expected) in cases {
        let routed = route(target, &config.providers).ok();
        let of = |(index, target): (usize, &str)| {
            Route::Provider(&config.providers[index], target.into())
        };
        assert_eq!(routed, expected.map(of), "{target}");
    }
    let text = "providers: [{name: 官方, type: generic, base_url: 'http://x', auth_type: none}]";
    let config = self::config(text);
    for target in ["/to/%E5%AE%98%E6%96%B9/v1", "/to/%e5%ae%98%e6%96%B9/v1", "/to/官方/v1"] {
        let expected = Ok(Route::Provider(&config.providers[0], "/v1".into()));
        assert_eq!(route(target, &config.providers), expected, "{target}");
    }
    for target in ["/to/%E5%AE%98/v1", "/to/%E5%AE/v1", "/to/%E5%AE%98%E6%96%B9%2Fv1"] {
        assert!(route(target, &config.providers).is_err(), "{target}");
    }
    let page = |target| route(target, &config.providers);
    assert_eq!(page("/-/status?x"), Ok(Route::Page("status".into())));
    assert_eq!(page("/-"), Ok(Route::Page(String::new())));
    assert_eq!(page("/anything?q=/to/a/"), Ok(Route::Any));
}

/// The names of the candidates, with the model if it is renamed.
fn names(config: &Config, api: Option<ProviderKind>, model: Option<&str>) -> Vec<String> {
    let candidates = candidates(config.into(), || api, model).unwrap_or_default();
    let name = |one: &Candidate<'_, ProviderConfig>| {
        let name = &one.provider.name;
        let model = one.model.map(|model| format!(" as {model}"));
        format!("{name}{}", model.unwrap_or_default())
    };
    candidates.iter().map(name).collect()
}

#[test]
fn candidates_by_type() {
    use ProviderKind::{Anthropic, Generic, OpenAi};
    let more = [ALL.as_slice(), &[("b", "anthropic"), ("h", "generic")]].concat();
    let cases: [(Providers<'_>, Option<ProviderKind>, &[&str]); 11] = [
        (&ALL, Some(Anthropic), &["a", "g"]),
        (&ALL, Some(OpenAi), &["o", "g"]),
        (&ALL, Some(Generic), &["g"]),
        (&ALL, None, &[]),
        (&more, Some(Anthropic), &["a", "b", "g", "h"]),
        (&more, Some(Generic), &["g", "h"]),
        (&[("o", "openai"), ("g", "generic")], Some(Anthropic), &["g"]),
        (&[("o", "openai"), ("p", "openai")], Some(Anthropic), &[]),
        (&[("o", "openai"), ("OFF", "anthropic")], Some(Anthropic), &["o"]),
        (&[("o", "openai"), ("OFF", "anthropic")], None, &["o"]),
        (&[("OFF", "anthropic")], Some(Anthropic), &[]),
    ];
    for (providers, api, expected) in cases {
        assert_eq!(names(&with(providers, ""), api, Some("m")), expected, "{api:?}");
    }
}

#[test]
fn nobody_for_a_request_says_who_there_is() {
    use ProviderKind::{Generic, OpenAi};
    let off = [("OFF", "openai")].as_slice();
    let two = [("a", "anthropic"), ("b", "anthropic")].as_slice();
    let mixed = [("o", "openai"), ("a", "anthropic"), ("p", "openai")].as_slice();
    let cases = [
        (off, None, "No provider is enabled in providers.yaml"),
        (
            two,
            Some(OpenAi),
            "type openai or generic, and none of those is enabled; there are: anthropic: a, b.",
        ),
        (
            two,
            Some(Generic),
            "type generic, and none of those is enabled; there are: anthropic: a, b.",
        ),
        (mixed, None, "providers are enabled: anthropic: a; openai: o, p."),
    ];
    for (providers, api, part) in cases {
        let refused = candidates((&with(providers, "")).into(), || api, None).unwrap_err();
        assert_eq!(refused.code, Code::NoProvider);
        assert!(refused.message.contains(part), "{}", refused.message);
    }
}

#[test]
fn candidates_by_model() {
    let routes = "model_routes:
  'claude-*-haiku*': [{provider: o, model: small, priority: 2}, {provider: a, model: passthrough, priority: 1}]
  '*': [{provider: OFF}, {provider: g}]
";
    let config = with(&ALL, routes);
    let cases: [(Option<&str>, &[&str]); 5] = [
        (Some("claude-3-haiku-1"), &["a", "o as small"]),
        (Some("claude--haiku"), &["a", "o as small"]),
        (Some("claude-haiku"), &["g"]),
        (Some("gpt"), &["g"]),
        (None, &["a", "g"]),
    ];
    let anthropic = Some(ProviderKind::Anthropic);
    for (model, expected) in cases {
        assert_eq!(names(&config, anthropic, model), expected, "{model:?}");
    }
    let only_off = with(&ALL, "model_routes: {'*': [{provider: OFF}]}\n");
    assert_eq!(names(&only_off, anthropic, Some("m")), ["a", "g"]);
}

#[test]
fn the_table_in_words() {
    let routes = "settings: {selection_strategy: random}
model_routes:
  '*haiku*': [{provider: a, priority: 1}, {provider: o, model: small, priority: 2}, {provider: g, priority: 2}]
  'x': [{provider: OFF}]
";
    let explained = explain(&with(&ALL, routes));
    let expected = [
        "model '*haiku*' a, then o (as small) or g",
        "model 'x' as without it, since none of its providers is enabled",
        "/v1/messages, or with anthropic-version a, then g",
        "/v1/chat/completions, responses, embeddings, files, … o, then g",
        "/v1beta/…, …:generateContent g",
        "any other path nobody (404)",
        "/to/g/… g alone",
        "/to/a/… a alone",
        "/to/o/… o alone",
    ];
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let explained: Vec<_> = explained.iter().map(|line| squeezed(line)).collect();
    assert_eq!(explained, expected.map(squeezed));
    let weighted = "settings: {selection_strategy: sticky}
providers:
  - {name: A, type: openai, base_url: 'http://x', auth_type: none, weight: 3}
  - {name: B, type: openai, base_url: 'http://x', auth_type: none}
";
    let explained = explain(&config(weighted));
    assert!(explained[1].ends_with("  A (weight 3) or B"), "{explained:?}");
}

#[test]
fn patterns() {
    let cases = [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("*", "anything", true),
        ("a*", "a", true),
        ("*a", "ba", true),
        ("*a", "ab", false),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("*sonnet*", "claude-sonnet-4-5", true),
        ("*Sonnet*", "claude-sonnet-4-5", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("**", "x", true),
        ("", "", true),
        ("", "x", false),
    ];
    for (pattern, text, expected) in cases {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
}
