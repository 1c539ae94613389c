//! `settings.auth.keys`: keys with a name, which may be limited to certain providers.

use crate::config::inbound_key::{InboundKey, KeyRights};
use crate::config::raw::{Section, nearest};
use crate::config::resolve::sources::Sources;
use crate::config::{ProviderConfig, slug};

/// The longest name of a key.
const NAME_MAX_BYTES: usize = 100;

/// A section of this list, in messages.
const SECTION: &str = "a key of clients";

/// The sections of the list; None if it is not a list, which is reported.
pub(super) fn sections<'a>(auth: &Section<'a>) -> Option<Vec<Section<'a>>> {
    auth.sections("keys", SECTION)
}

/// Reads one key. A missing variable or file is an error if `is_on`: `settings.auth` is enabled.
pub(super) fn read(
    section: &Section<'_>,
    sources: &Sources<'_>,
    is_on: bool,
) -> Option<InboundKey> {
    section.require("name", "a key needs a 'name'");
    let name = section.text("name").unwrap_or_default();
    check_name(section, &name);
    let named = sources.secret(section, "key_env", "key_file", true);
    if named.is_none() {
        section.require("key_env", format!("the key '{name}' needs a 'key_env' or a 'key_file'"));
    }
    let providers = read_providers(section);
    section.finish(&[]);
    let named = named?;
    match named.found {
        Ok(secret) if secret.is_visible() => {
            Some(InboundKey { secret, rights: KeyRights { name, providers } })
        }
        Ok(_) => {
            let message = format!(
                "the key '{name}' must be one word of visible ASCII characters, on one line"
            );
            section.error(named.key, message);
            None
        }
        Err(missing) => {
            if is_on {
                let message = format!("auth is enabled, but there is no key '{name}': {missing}");
                section.error_of_unset(named.key, message, &missing.variables());
            }
            None
        }
    }
}

fn check_name(section: &Section<'_>, name: &str) {
    if section.has("name") && name.trim().is_empty() {
        section.error("name", "'name' is empty, and there has to be one");
    } else if name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        let message = format!(
            "'name' may have at most {NAME_MAX_BYTES} bytes, and no control characters among them"
        );
        section.error("name", message);
    }
}

/// The slugs in `providers`, sorted; None for every provider.
fn read_providers(section: &Section<'_>) -> Option<Vec<String>> {
    if !section.has("providers") && !section.is_empty("providers") {
        return None;
    }
    if !section.is_filled_list("providers") {
        let message = "'providers' must be a list of slugs, and not empty; leave it out for a key for every provider";
        section.error("providers", message);
        return None;
    }
    let written = section.texts("providers");
    let mut slugs: Vec<_> = written.iter().map(|one| slug::composed(one).into_owned()).collect();
    slugs.sort();
    slugs.dedup();
    Some(slugs)
}

/// Refuses a key with the name of one `before` it, or with its text and other rights.
pub(super) fn check_unique(section: &Section<'_>, key: &InboundKey, before: &[InboundKey]) {
    let name = &key.rights.name;
    if before.iter().any(|other| other.rights.name == *name) {
        section.error(
            "name",
            format!("there is another key called '{name}'; give one of them another name"),
        );
    }
    let is_double = |other: &&InboundKey| {
        other.secret == key.secret && other.rights.providers != key.rights.providers
    };
    if let Some(other) = before.iter().find(is_double) {
        let place = if section.has("key_env") { "key_env" } else { "key_file" };
        let message = format!(
            "the keys '{}' and '{name}' have the same text, but not the same providers; choose another text for one of them",
            other.rights.name
        );
        section.error(place, message);
    }
}

/// Refuses slugs in the lists of keys that no provider has; that of a disabled one is fine.
pub(super) fn check_providers(root: &Section<'_>, providers: &[ProviderConfig]) {
    let sections = sections(&root.section("settings").section("auth"));
    for section in sections.iter().flatten().filter(|one| one.is_filled_list("providers")) {
        for (index, written) in section.texts("providers").iter().enumerate() {
            let wanted = slug::composed(written);
            if providers.iter().all(|one| one.slug != wanted) {
                let hint = hint(written, providers);
                let message = format!("there is no provider with the slug '{written}'{hint}");
                section.error_at("providers", index, message);
            }
        }
    }
}

/// The slug that may be meant: that of the provider with this name, else the nearest one.
fn hint(written: &str, providers: &[ProviderConfig]) -> String {
    let by_name = providers.iter().find(|one| one.name == written).map(|one| one.slug.as_str());
    let near = || nearest(written, providers.iter().map(|one| one.slug.as_str()));
    by_name.or_else(near).map(|near| format!(", did you mean '{near}'?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
            .map(|key| (key.rights.name, key.secret.len(), key.rights.providers))
            .collect()
    }

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

    #[test]
    fn mistakes_in_keys() {
        let cases = [
            ("key_env: TOKEN", "{key_env", "a key needs a 'name'"),
            ("name: '', key_env: TOKEN", "''", "'name' is empty, and there has to be one"),
            ("name: \"a\\tb\", key_env: TOKEN", "\"a", "and no control characters"),
            ("name: ci", "{name", "the key 'ci' needs a 'key_env' or a 'key_file'"),
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
            (
                "name: ci, key_env: the-key!",
                "the-key!",
                "wants the name of a variable, not its value",
            ),
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
                "name: ci, key_env: TOKEN, models: [a]",
                "models",
                "unknown key 'models' in a key of clients",
            ),
            (
                "name: ci, key_env: TOKEN, requests_per_minute: 1",
                "requests_per",
                "unknown key 'requests_per_minute'",
            ),
            (
                "name: ci, key_env: TOKEN, tokens_per_day: 1",
                "tokens_per",
                "unknown key 'tokens_per_day' in a key",
            ),
            (
                "name: ci, key_env: TOKEN}, {key_file: /token, name: ci",
                "ci}]",
                "another key called 'ci'",
            ),
            (
                "name: ci, key_env: TOKEN}, {name: b, providers: [p], key_env: TOKEN",
                "TOKEN}]",
                "the keys 'ci' and 'b' have the same text, but not the same providers",
            ),
        ];
        for (key, place, part) in cases {
            let text = with_keys(&format!("enabled: true, keys: [{{{key}}}]"));
            let told = told(&text);
            assert_eq!(told.len(), 1, "{key}: {told:?}");
            let list = text.find("[{").unwrap();
            let column = list + text[list..].find(place).unwrap() + 1;
            assert!(told[0].starts_with(&format!("f:1:{column}: ")), "{key}: {told:?}");
            assert!(told[0].contains(part), "{key}: {told:?}");
            assert!(!told[0].contains("the-token") && !told[0].contains("from-file"), "{told:?}");
        }
        let plain = told(&with_keys(
            "enabled: true, api_key_env: TOKEN, keys: [{name: ci, key_env: TOKEN, providers: [p]}]",
        ));
        assert!(plain.len() == 1 && plain[0].contains("the keys 'default' and 'ci'"), "{plain:?}");
        let list = told(&with_keys("enabled: true, keys: {name: ci, key_env: TOKEN}"));
        assert!(list.len() == 1 && list[0].contains("'keys' must be a list"), "{list:?}");
        // The same rights twice are no matter.
        keys("enabled: true, keys: [{name: a, key_env: TOKEN}, {name: b, key_env: TOKEN}]");
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
}
