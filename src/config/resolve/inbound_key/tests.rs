//! Keys with a name, and the mistakes in them.

use std::path::Path;

use super::*;
use crate::config::resolve::resolve;
use crate::config::resolve::tests::{document, fine, sources, told};

fn with_keys(auth: &str) -> String {
    let other = "- name: Other Name\n  type: generic\n  base_url: https://y\n  enabled: false";
    let document = document(&format!("auth: {{{auth}}}"), "");
    document + &other.lines().map(|line| format!("  {line}\n")).collect::<String>()
}

fn inbound_keys(auth: &str) -> Option<Vec<InboundKey>> {
    resolve(&with_keys(auth), "f", &sources()).unwrap().0.settings.inbound_keys
}

/// Name, length of the key and providers of each key.
fn keys(auth: &str) -> Vec<(String, usize, Option<Vec<String>>)> {
    let keys = fine(&with_keys(auth)).settings.inbound_keys.unwrap();
    keys.into_iter()
        .map(|key| (key.rights.name, key.secret.text().unwrap().len(), key.rights.providers))
        .collect()
}

const NO_MODELS: &str = "'models' must be a list of names or patterns, and not empty; leave it out";
const NO_HEX: &str =
    "name: ci, key_sha256: g7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad1";
const EMPTY_HASH: &str =
    "name: ci, key_sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const NO_LIST: &str = "'providers' must be a list of slugs, and not empty; leave it out";

#[test]
fn keys_with_names_and_providers() {
    let list = "keys: [{name: ci, key_env: TOKEN, providers: [p, other-name, p]}, {name: me, key_file: /token}]";
    let ci = ("ci".into(), 9, Some(vec!["other-name".into(), "p".into()]));
    let me = ("me".into(), 9, None);
    assert_eq!(keys(&format!("enabled: true, {list}")), [ci.clone(), me.clone()]);
    let plain = |length| ("default".into(), length, None);
    assert_eq!(
        keys(&format!("enabled: true, api_key_env: KEYS, {list}")),
        [plain(3), plain(3), ci, me]
    );
    assert_eq!(inbound_keys(&format!("enabled: false, {list}, api_key_env: KEYS")), None);
    assert_eq!(inbound_keys("enabled: false, keys: []"), None);
    assert_eq!(keys("enabled: true, api_key_env: KEYS, keys: []").len(), 2);
    // A missing key matters only while keys are needed.
    assert_eq!(inbound_keys("enabled: false, keys: [{name: ci, key_env: NONE}]"), None);
}

#[test]
fn a_list_of_keys_without_the_switch_is_no_open_proxy() {
    let text = with_keys("keys: [{name: ci, key_env: TOKEN}]");
    assert_eq!(
        told(&text),
        [
            "f:1:25: warning: 'enabled' is left out, and taken for true because of this key; write 'enabled: true'"
        ]
    );
    let off = told(&with_keys("enabled: false, keys: [{name: ci, key_env: TOKEN}]"));
    assert_eq!(off, ["f:1:41: warning: 'enabled' is false, so no client needs this key"]);
}

/// One mistake is told, in a key with these members, at `place` among them.
#[track_caller]
fn assert_told(key: &str, place: &str, part: &str) {
    let text = with_keys(&format!("enabled: true, keys: [{{{key}}}]"));
    let told = told(&text);
    assert_eq!(told.len(), 1, "{key}: {told:?}");
    let list = text.find("[{").unwrap();
    let column = list + text[list..].find(place).unwrap() + 1;
    assert!(told[0].starts_with(&format!("f:1:{column}: ")), "{key}: {told:?}");
    assert!(told[0].contains(part), "{key}: {told:?}");
    assert!(!told[0].contains("the-token") && !told[0].contains("from-file"), "{told:?}");
}

#[test]
fn mistakes_in_keys() {
    let cases = [
        ("key_env: TOKEN", "{key_env", "a key needs a 'name'"),
        ("name: '', key_env: TOKEN", "''", "'name' is empty, and there has to be one"),
        ("name: \"a\\tb\", key_env: TOKEN", "\"a", "and no control characters"),
        ("name: ci", "{name", "the key 'ci' needs a 'key_env', a 'key_file' or a 'key_sha256'"),
        (
            "name: ci, key: x",
            "key: x",
            "unknown key 'key' in a key of clients, did you mean 'key_env'?",
        ),
        (
            "name: ci, key_env: TOKEN, key_file: /token",
            "/token",
            "give 'key_env' or 'key_file', not both",
        ),
        ("name: ci, key_env: ''", "''", "'key_env' is empty, and there has to be one"),
        ("name: ci, key_env: NONE", "NONE", "no key 'ci': "),
        ("name: ci, key_file: /none", "/none", "no key 'ci': "),
        ("name: ci, key_env: the-key!", "the-key!", "wants the name of a variable, not its value"),
        ("name: ci, key_env: KEYS", "KEYS", "the key 'ci' must be one word"),
        ("name: ci, key_env: TOKEN, providers: []", "[]", NO_LIST),
        ("name: ci, key_env: TOKEN, providers: ", "}]", NO_LIST),
        ("name: ci, key_env: TOKEN, providers: p", "p}", NO_LIST),
        (
            "name: ci, key_env: TOKEN, providers: [p, othe-name]",
            "othe-name",
            "did you mean 'other-name'?",
        ),
        (
            "name: ci, key_env: TOKEN, providers: [Other Name]",
            "Other Name",
            "did you mean 'other-name'?",
        ),
        (
            "name: ci, key_env: TOKEN}, {key_file: /token, name: ci",
            "ci}]",
            "another key called 'ci'",
        ),
        (
            "name: ci, key_env: TOKEN}, {name: b, providers: [p], key_env: TOKEN",
            "TOKEN}]",
            "the keys 'ci' and 'b' are the same",
        ),
    ];
    for (key, place, part) in cases {
        assert_told(key, place, part);
    }
    let plain = told(&with_keys(
        "enabled: true, api_key_env: TOKEN, keys: [{name: ci, key_env: TOKEN, providers: [p]}]",
    ));
    assert!(plain.len() == 1 && plain[0].contains("the keys 'default' and 'ci'"), "{plain:?}");
    let list = told(&with_keys("enabled: true, keys: {name: ci, key_env: TOKEN}"));
    assert!(list.len() == 1 && list[0].contains("'keys' must be a list"), "{list:?}");
    // Nor with the same rights: nobody could tell whose request it is.
    let same = told(&with_keys(
        "enabled: true, keys: [{name: a, key_env: TOKEN}, {name: b, key_env: TOKEN}]",
    ));
    assert!(same.len() == 1 && same[0].contains("'a' and 'b' are the same"), "{same:?}");
    // Texts that are not known are not the same.
    let unknown = told(&with_keys(
        "enabled: true, keys: [{name: a, key_env: 'no!'}, {name: b, key_env: 'no!'}]",
    ));
    assert!(unknown.len() == 2 && unknown[1].contains("wants the name"), "{unknown:?}");
}

#[test]
fn a_key_with_models_limits_and_a_hash_was_an_unknown_key() {
    let hash = "BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let list = format!(
        "enabled: true, keys: [{{name: ci, key_sha256: {hash}, models: ['gpt-*', o3], requests_per_minute: 1, \
         tokens_per_day: 1000000000000000}}]"
    );
    let keys = inbound_keys(&list).unwrap();
    let rights = KeyRights {
        models: Some(vec!["gpt-*".into(), "o3".into()]),
        requests_per_minute: Some(1),
        tokens_per_day: Some(TOKENS_PER_DAY_MAX),
        ..KeyRights::all("ci")
    };
    assert_eq!(keys[0], InboundKey { secret: KeySecret::Hash(KeyHash::of(b"abc")), rights });
    let most = format!("name: ci, key_env: TOKEN, requests_per_minute: {REQUESTS_PER_MINUTE_MAX}");
    assert_eq!(told(&with_keys(&format!("enabled: true, keys: [{{{most}}}]"))), [""; 0]);
}

#[test]
fn the_longest_pattern_and_the_longest_list_of_models() {
    let told = |models: &str| {
        told(&with_keys(&format!(
            "enabled: true, keys: [{{name: a, key_env: TOKEN, models: [{models}]}}]"
        )))
    };
    assert_eq!(told(&"m".repeat(MODEL_MAX_BYTES)), [""; 0]);
    assert!(told(&"m".repeat(MODEL_MAX_BYTES + 1))[0].contains("longer than 256 bytes"));
    let list = |count| vec!["m"; count].join(", ");
    assert_eq!(told(&list(MODELS_MAX)), [""; 0]);
    assert!(told(&list(MODELS_MAX + 1))[0].contains("at most 1000 patterns"));
}

#[test]
fn names_and_patterns_that_no_client_would_ever_match() {
    let of = |models: &str| format!("name: ci, key_env: TOKEN, models: [{models}]");
    for (models, place, part) in [
        ("1", "1]", "'models' holds names and patterns, and 1 is no text; write it in quotes"),
        ("a, true", "true", "and true is no text"),
        ("4.10", "4.10", "and 4.10 is no text"),
        ("'gpt-?'", "'gpt-?'", "'*' is the only wildcard, and '?' stands for itself"),
        ("o3, 'gpt-{4,5}'", "'gpt-{", "'gpt-{4,5}' matches no model"),
        ("\"a\\u202eb\"", "\"a", "or what nobody sees"),
        ("'gpt-[45]'", "'gpt-[", "warning: '[' in the pattern 'gpt-[45]' stands for itself"),
    ] {
        assert_told(&of(models), place, part);
    }
    for models in ["'1'", "'claude-sonnet-4-5[1m]'", "'*[1m]', gpt-4.1, 'a/b:c@d'"] {
        let text = with_keys(&format!("enabled: true, keys: [{{{}}}]", of(models)));
        assert_eq!(told(&text), [""; 0], "{models}");
    }
    assert_told("name: ' ci', key_env: TOKEN", "' ci'", "begins or ends with a space");
    assert_told("name: 'ci ', key_env: TOKEN", "'ci '", "begins or ends with a space");
    assert_told("name: \"c\\u200bi\", key_env: TOKEN", "\"c", "nobody sees (U+200B)");
}

#[test]
fn a_key_with_a_comment_behind_it_let_nobody_in_and_nobody_said_so() {
    let text = with_keys("enabled: true, api_key: 'et_a  # of Alice'");
    let told = told(&text);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("warning: the key 'default' is not one word of visible"), "{told:?}");
    assert!(!told[0].contains("et_a"), "{told:?}");
}

/// The mistakes in `settings.auth` of these keys, where the variable and the file LINES hold `text`.
fn mistakes(auth: &str, text: &str) -> Vec<String> {
    let look = |name: &str| match name {
        "LINES" => Some(text.to_owned()),
        other => (sources().environment)(other),
    };
    let files = |_: &Path| Ok(text.to_owned());
    let sources = Sources { environment: &look, files: &files, ..sources() };
    let found = resolve(&with_keys(auth), "f", &sources).err().unwrap_or_default();
    found.iter().map(ToString::to_string).collect()
}

/// Whoever sent `x-api-key: #` was let in, with all rights.
#[test]
fn a_comment_between_keys_was_a_key() {
    for (key, place) in [("api_key_env: LINES", "f:1:47: "), ("api_key_file: /lines", "f:1:48: ")] {
        let told = |text: &str| mistakes(&format!("enabled: true, {key}"), text);
        for (text, line) in [
            ("#x\none", 1),
            ("one\n\n #\n", 3),
            ("one\n#------", 2),
            ("one\n# of Alice", 2),
            ("#ci: one", 1),
            ("one\nci: #x", 2),
        ] {
            let told = told(text);
            assert_eq!(told.len(), 1, "{told:?}");
            let start = format!("{place}the key in line {line} begins with '#', which no key may");
            assert!(told[0].starts_with(&start), "{told:?}");
        }
        for fine in ["a#b\none", "one#", "ci: a#b"] {
            assert_eq!(told(fine), [""; 0], "{fine}");
        }
    }
    for source in ["key_env: LINES", "key_file: /lines"] {
        let told = |text| mistakes(&format!("enabled: true, keys: [{{name: ci, {source}}}]"), text);
        for text in ["#", "#one", "# of Alice\none"] {
            let told = told(text);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("the key 'ci' begins with '#'"), "{told:?}");
        }
        assert_eq!(told("a#b"), [""; 0]);
    }
}

#[test]
fn lines_with_one_name_or_one_key_twice() {
    let told = |text: &str| mistakes("enabled: true, api_key_env: LINES", text);
    for fine in ["one\ntwo", "one\none", "a: one\nb: two", "a: one\na: one", "default: one\ntwo"] {
        assert_eq!(told(fine), [""; 0], "{fine}");
    }
    for (text, part) in [
        ("a: one\na: two", "two of these keys are called 'a'"),
        ("a: one\nb: one", "the keys 'a' and 'b' are the same"),
        ("one\nb: one", "the keys 'default' and 'b' are the same"),
    ] {
        let told = told(text);
        assert!(told.len() == 1 && told[0].starts_with("f:1:47: "), "{told:?}");
        assert!(told[0].contains(part), "{told:?}");
    }
}

#[test]
fn the_longest_name() {
    let told = |length: usize| {
        let name = "n".repeat(length);
        told(&with_keys(&format!("enabled: true, keys: [{{name: {name}, key_env: TOKEN}}]")))
    };
    assert_eq!(told(NAME_MAX_BYTES), [""; 0]);
    assert!(told(NAME_MAX_BYTES + 1)[0].contains("at most 100 bytes"));
}

#[test]
fn mistakes_in_models_limits_and_hashes() {
    let cases = [
        (
            "name: ci, key_env: TOKEN, model: [a]",
            "model:",
            "unknown key 'model' in a key of clients, did you mean 'models'?",
        ),
        (
            "name: ci, key_env: TOKEN, requests_per_minut: 1",
            "requests_per_minut:",
            "did you mean 'requests_per_minute'?",
        ),
        (
            "name: ci, key_env: TOKEN, token_per_day: 1",
            "token_per_day:",
            "did you mean 'tokens_per_day'?",
        ),
        ("name: ci, key_env: TOKEN, models: []", "[]", NO_MODELS),
        ("name: ci, key_env: TOKEN, models: ", "}]", NO_MODELS),
        ("name: ci, key_env: TOKEN, models: a", "a}", NO_MODELS),
        ("name: ci, key_env: TOKEN, models: [a, '']", "''", "matches no model: it is empty"),
        ("name: ci, key_env: TOKEN, models: ['a b']", "'a b'", "it has a space in it"),
        ("name: ci, key_env: TOKEN, requests_per_minute: 0", "0}", "from 1 to 10000000, not 0"),
        ("name: ci, key_env: TOKEN, requests_per_minute: -1", "-1", "from 1 to 10000000, not -1"),
        ("name: ci, key_env: TOKEN, requests_per_minute: 0.5", "0.5", "must be a whole number"),
        ("name: ci, key_env: TOKEN, requests_per_minute: '5'", "'5'", "write it without quotes"),
        (
            "name: ci, key_env: TOKEN, requests_per_minute: 10000001",
            "10000001",
            "from 1 to 10000000",
        ),
        ("name: ci, key_env: TOKEN, tokens_per_day: 0", "0}", "from 1 to 1000000000000000, not 0"),
        ("name: ci, key_env: TOKEN, tokens_per_day: 1.5", "1.5", "must be a whole number"),
        (
            "name: ci, key_env: TOKEN, tokens_per_day: ",
            "tokens_per",
            "'tokens_per_day' has no value",
        ),
        ("name: ci, key_sha256: abc", "abc", "in 64 hex digits, and has 3 characters"),
        ("name: ci, key_sha256: ''", "''", "'key_sha256' is empty, and there has to be one"),
        ("name: ci, key_sha256: et_abc", "et_abc", "looks like the key itself"),
        (NO_HEX, "g7816", "has a character that is none"),
        (EMPTY_HASH, "e3b0c4", "is the hash of an empty key"),
        (
            "name: ci, key_env: TOKEN, key_sha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "ba78",
            "give 'key_env' or 'key_sha256', not both",
        ),
        (
            "name: ci, key_env: TOKEN}, {name: b, key_sha256: c2a73fcf61dfbdcadc79a10ba330b2ef5eb66fc0a6735ed69b796bb3c97b97ae",
            "c2a73fcf61dfbdcadc79a10ba330b2ef5eb66fc0a6735ed69b796bb3c97b97ae",
            "the keys 'ci' and 'b' are the same",
        ),
    ];
    for (key, place, part) in cases {
        assert_told(key, place, part);
    }
}

#[test]
fn a_limit_of_tokens_that_nobody_counts() {
    let key = "auth: {enabled: true, keys: [{name: ci, key_env: TOKEN, tokens_per_day: 5}]}";
    let told = |usage: &str| told(&document(&format!("{key}{usage}"), "auth_type: none"));
    assert_eq!(told(""), [""; 0]);
    let refused = told(", usage: false");
    assert!(
        refused.len() == 1 && refused[0].starts_with("f:1:84: 'tokens_per_day' needs"),
        "{refused:?}"
    );
}
