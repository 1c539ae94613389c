//! `check --route`: the order, the reasons, and that it says what requests meet.

use super::*;
use crate::proxy::route::tests::config;

const PROVIDERS: &str = "
providers:
  - {name: Work, type: anthropic, base_url: 'http://x', auth_type: none, weight: 3}
  - {name: Home, type: anthropic, base_url: 'http://x', auth_type: none}
  - {name: Old, type: anthropic, base_url: 'http://x', auth_type: none, enabled: false}
  - {name: Local, type: generic, base_url: 'http://x', auth_type: none}
  - {name: Codex, type: openai, base_url: 'http://x', auth_type: none}
";
const ROUTES: &str = "
model_routes:
  '*haiku*': [{provider: Local, model: qwen, priority: 2}, {provider: Work, priority: 1}, {provider: Home, priority: 1}]
  'old-*': [{provider: Old}]
";
const KEYS: &str = "auth: {enabled: true, api_key: abc, keys: [{name: ci, key_env: CI, providers: [home, codex]}]}";

fn of(settings: &str, routes: &str, providers: &str) -> Config {
    config(&format!("settings: {{{settings}}}\n{routes}{providers}"))
}

fn question(words: &str) -> RouteQuestion {
    let mut words = words.split(' ').map(str::to_owned);
    let model = words.next().unwrap();
    let mut question = RouteQuestion { model, key: None, path: None };
    for word in words {
        if word.starts_with('/') { question.path = Some(word) } else { question.key = Some(word) }
    }
    question
}

/// The lines without the closing one.
fn told(config: &Config, words: &str) -> (Vec<String>, bool) {
    let mut answer = answer(config, &question(words), |_| None).unwrap();
    if answer.is_served {
        assert!(answer.lines.pop().unwrap().contains("cool down"));
    }
    (answer.lines, answer.is_served)
}

#[track_caller]
fn check(config: &Config, words: &str, expected: &[&str]) {
    let (lines, is_served) = told(config, words);
    assert_eq!(lines, expected, "{words}");
    assert_eq!(is_served, expected.iter().any(|line| line.starts_with("  1.")), "{words}");
}

#[test]
fn by_a_route() {
    let title = "A request for the model 'a-haiku-1', by the route '*haiku*':";
    let others = [
        "  not Old: it is disabled (enabled: false)",
        "  not Codex: the route '*haiku*' does not name it",
    ];
    let with = |strategy: &str| of(&format!("selection_strategy: {strategy}"), ROUTES, PROVIDERS);
    for (strategy, order) in [
        (
            "sticky",
            &["  1. Work (3 of 4 conversations) or Home (1 of 4)", "  2. Local (as qwen)"][..],
        ),
        (
            "round_robin",
            &["  1. Work (3 of 4 requests, in turn) or Home (1 of 4)", "  2. Local (as qwen)"],
        ),
        (
            "random",
            &["  1. Work (3 of 4 requests, at random) or Home (1 of 4)", "  2. Local (as qwen)"],
        ),
        ("priority", &["  1. Work", "  2. Home", "  3. Local (as qwen)"]),
    ] {
        check(&with(strategy), "a-haiku-1", &[&[title], order, &others].concat());
    }
}

#[test]
fn by_the_api_of_each_path() {
    let config = of("", ROUTES, PROVIDERS);
    let old = "  not Old: it is disabled (enabled: false)";
    let messages = [
        "A request for the model 'm' to /v1/messages, by its API, anthropic:",
        "  1. Work",
        "  2. Home",
        "  3. Local",
        old,
        "  not Codex: its type is openai, and the request belongs to the API anthropic",
    ];
    check(&config, "m /v1/messages", &messages);
    check(
        &config,
        "m /v1/messages?beta=true",
        &[
            &["A request for the model 'm' to /v1/messages?beta=true, by its API, anthropic:"],
            &messages[1..],
        ]
        .concat(),
    );
    let chat = [
        "A request for the model 'm' to /v1/chat/completions, by its API, openai:",
        "  1. Codex",
        "  2. Local",
        "  not Work: its type is anthropic, and the request belongs to the API openai",
        "  not Home: its type is anthropic, and the request belongs to the API openai",
        old,
    ];
    let gemini = [
        "A request for the model 'm' to /v1beta/models/m:generateContent, by its API, generic (its body names no model, so \
         model_routes do not count):",
        "  1. Local",
        "  not Work: its type is anthropic, and the request belongs to the API generic",
        "  not Home: its type is anthropic, and the request belongs to the API generic",
        old,
        "  not Codex: its type is openai, and the request belongs to the API generic",
    ];
    check(&config, "m", &[&messages[..], &chat, &gemini].concat());
    let (lines, _) = told(&config, "haiku /v1beta/models/haiku:generateContent");
    assert!(lines[1] == "  1. Local" && lines.len() == 6, "{lines:?}");
    let (lines, is_served) = told(&config, "m /register");
    assert!(
        !is_served && lines[1].starts_with("  nobody: 404 no_provider: This path"),
        "{lines:?}"
    );
    assert_eq!(
        lines[0],
        "A request for the model 'm' to /register, by its path, which belongs to no API:"
    );
    let (lines, _) = told(&config, "m /v1/models");
    assert!(lines.last().unwrap().contains("GET"), "{lines:?}");
}

#[test]
fn a_route_whose_providers_are_disabled_is_named() {
    let config = of("", ROUTES, PROVIDERS);
    let (lines, is_served) = told(&config, "old-1 /v1/messages");
    assert_eq!(
        lines[0],
        "A request for the model 'old-1' to /v1/messages, by its API, anthropic (the providers of the route 'old-*' are \
         disabled):"
    );
    assert!(is_served);
}

#[test]
fn by_the_path_and_pages() {
    let config = of("", "", PROVIDERS);
    check(
        &config,
        "m /to/home/v1/messages",
        &[
            "A request for the model 'm' to /to/home/v1/messages, which names the provider:",
            "  1. Home",
            "  not Work: the path names home alone",
            "  not Old: it is disabled (enabled: false)",
            "  not Local: the path names home alone",
            "  not Codex: the path names home alone",
        ],
    );
    let (lines, is_served) = told(&config, "m /to/old/x");
    assert!(!is_served && lines[1].contains("404 unknown_provider: Old is disabled"), "{lines:?}");
    check(
        &config,
        "m /-/status",
        &["/-/status is one of evertoken's own pages: no provider gets it"],
    );
}

#[test]
fn a_lone_provider_gets_everything() {
    let config =
        of("", "", "providers: [{name: P, type: openai, base_url: 'http://x', auth_type: none}]");
    check(&config, "m", &["A request for the model 'm', to the only enabled provider:", "  1. P"]);
}

/// With the rights of its key, as a request has them.
#[test]
fn with_a_key() {
    let mut config = of("", "", PROVIDERS);
    let unknown = answer(&config, &question("m ci"), |_| None).unwrap_err();
    assert_eq!(unknown, "There is no key 'ci': settings.auth is off, so requests need no key");
    config.settings.inbound_keys = of_keys();
    let unknown = answer(&config, &question("m cy"), |_| None).unwrap_err();
    assert_eq!(unknown, "There is no key 'cy' in settings.auth; there are: default, ci");
    check(
        &config,
        "m ci /v1/messages",
        &[
            "A request for the model 'm' to /v1/messages with the key 'ci', by its API, anthropic:",
            "  1. Home",
            "  not Work: the key 'ci' may not use it",
            "  not Old: it is disabled (enabled: false)",
            "  not Local: the key 'ci' may not use it",
            "  not Codex: its type is openai, and the request belongs to the API anthropic",
        ],
    );
    let (lines, is_served) = told(&config, "m ci /v1beta/models/m:generateContent");
    assert!(!is_served && lines[1].contains("403 not_allowed: The key 'ci'"), "{lines:?}");
    let (lines, is_served) = told(&config, "m ci /to/work/x");
    assert!(!is_served && lines[1].contains("403 not_allowed"), "{lines:?}");
    assert_eq!(lines[2], "  not Work: the key 'ci' may not use it");
    assert!(told(&config, "m default /to/work/x").1);
}

fn of_keys() -> Option<Vec<crate::config::InboundKey>> {
    let sources = crate::config::resolve::Sources {
        environment: &|name| (name == "CI").then(|| "two".to_owned()),
        files: &|_| Err(std::io::ErrorKind::NotFound.into()),
        now: crate::clock::Timestamp::from_secs(1_800_000_000),
        file_modes: &|_| None,
        file_mode: None,
        is_root: true,
        working_folder: None,
    };
    let text = format!("settings: {{{KEYS}}}\n{PROVIDERS}");
    let (config, _) = crate::config::resolve::resolve(&text, "f", &sources).unwrap();
    config.settings.inbound_keys
}

/// The providers that the key has seemed to be kept from it.
#[test]
fn a_model_that_a_key_may_not_use_was_told_as_a_provider() {
    let mut config = of("", "", PROVIDERS);
    let mut keys = of_keys().unwrap();
    let ci = keys.iter_mut().find(|key| key.rights.name == "ci").unwrap();
    ci.rights.models = Some(vec!["gpt-*".to_owned()]);
    config.settings.inbound_keys = Some(keys);
    let (lines, is_served) = told(&config, "m ci /v1/messages");
    assert!(!is_served && lines[1].contains("The key 'ci' may not use the model 'm'"), "{lines:?}");
    for line in [
        "  not Home: the key 'ci' may not use this model",
        "  not Work: the key 'ci' may not use it",
    ] {
        assert!(lines.iter().any(|told| told == line), "{lines:?}");
    }
}

#[test]
fn a_provider_without_a_credential_comes_last() {
    let config = of("selection_strategy: sticky", "", PROVIDERS);
    let without =
        |index: usize| (index == 0).then(|| "Missing environment variable: 'X'".to_owned());
    let told = answer(&config, &question("m /v1/messages"), without).unwrap();
    assert_eq!(
        told.lines[1..5],
        [
            "  1. Home",
            "  2. Local",
            "  3. Work",
            "     Work comes last, since it has no credential: Missing environment variable: 'X'"
        ]
    );
    assert!(told.is_served);
    let none = answer(&config, &question("m /v1/messages"), |_| Some("why".to_owned())).unwrap();
    assert!(!none.is_served);
}
