//! `settings.auth`: the keys that let a client in.

use crate::config::inbound_key::InboundKey;
use crate::config::raw::Section;
use crate::config::resolve::inbound_key;
use crate::config::resolve::sources::{NamedSecret, Sources};
use crate::config::{Missing, SecretLookup};
use crate::secret::Secret;

/// Keys of the original family of configuration files that evertoken does not use.
const UNUSED_AUTH: [&str; 1] = ["exempt_paths"];

/// The keys that let a client in; None if `auth` is off. A file with a key must never run open, so a missing key is
/// an error here, unlike a provider's.
pub(super) fn read(section: &Section<'_>, sources: &Sources<'_>) -> Option<Vec<InboundKey>> {
    let written = section.text("api_key");
    let is_empty = written.as_ref().is_some_and(|key| key.trim().is_empty());
    let literal = written.filter(|key| !key.is_empty());
    let has_literal = literal.is_some();
    let named = sources.secret(section, "api_key_env", "api_key_file", false);
    let has_source = named.is_some();
    let listed = inbound_key::sections(section);
    let has_list = listed.as_ref().is_none_or(|listed| !listed.is_empty());
    let enabled = section.flag("enabled", has_literal || has_source || has_list);
    if has_literal && has_source {
        section.error("api_key", "give one of api_key, api_key_env and api_key_file");
    }
    if has_literal {
        sources.warn_if_exposed(section, "api_key", "api_key_env");
    }
    let place = match (&literal, &named) {
        (Some(_), _) => "api_key",
        (None, Some(named)) => named.key,
        (None, None) if has_list => "keys",
        (None, None) => "enabled",
    };
    check_switch(section, enabled, if has_list && !enabled { "keys" } else { place });
    let mut keys = Vec::new();
    if enabled && is_empty && place == "enabled" {
        section.error("api_key", "auth is enabled, but there is no key: 'api_key' is empty");
    } else if enabled && place != "keys" {
        keys = read_plain(section, sources, literal, named, place);
    }
    for section in listed.iter().flatten() {
        if let Some(key) = inbound_key::read(section, sources, enabled) {
            inbound_key::check_unique(section, &key, &keys);
            keys.push(key);
        }
    }
    section.finish(&UNUSED_AUTH);
    enabled.then_some(keys)
}

/// The keys in `api_key`, or those that `named` or the default variable holds.
fn read_plain(
    section: &Section<'_>,
    sources: &Sources<'_>,
    literal: Option<String>,
    named: Option<NamedSecret>,
    place: &str,
) -> Vec<InboundKey> {
    let found = match (literal, named) {
        (Some(key), _) => Ok(Secret::new(key)),
        (None, Some(named)) => named.found,
        (None, None) => default_key(sources),
    };
    match found {
        Err(missing) => {
            let message = format!("auth is enabled, but there is no key: {missing}");
            section.error_of_unset(place, message, &missing.variables());
            Vec::new()
        }
        Ok(text) => {
            let lines = (1..).zip(text.expose().lines());
            let keys = lines.filter_map(|(line, text)| Some((line, InboundKey::of_line(text)?)));
            let keys: Vec<_> = keys.collect();
            if keys.is_empty() {
                section.error(place, "auth is enabled, but there is no key: it is blank");
            }
            inbound_key::check_lines(section, place, &keys);
            keys.into_iter().map(|(_, key)| key).collect()
        }
    }
}

/// Warns if the key at `place` is not required of clients, or is required without an `enabled`: a file with a key
/// never runs open by an oversight.
fn check_switch(section: &Section<'_>, enabled: bool, place: &str) {
    let message = match (section.has("enabled"), enabled, place) {
        (_, _, "enabled") => return,
        // The example names the variable's usual name.
        (true, true, _) | (true, false, "api_key_env") => return,
        (_, false, _) => "'enabled' is false, so no client needs this key",
        (false, true, _) => {
            "'enabled' is left out, and taken for true because of this key; write 'enabled: true'"
        }
    };
    section.warn(place, message);
}

/// The keys in the default variable, if `auth` names none.
fn default_key(sources: &Sources<'_>) -> SecretLookup {
    const VARIABLE: &str = "EVERTOKEN_API_KEY";
    let missing = || Missing::Variable(VARIABLE.to_owned());
    sources.variable(VARIABLE).map(Secret::new).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySecret;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{document, fine, sources, told};

    #[test]
    fn keys_of_clients() {
        let keys = |settings: &str| {
            let keys = fine(&document(settings, "auth_type: none")).settings.inbound_keys;
            keys.map(|keys| keys.into_iter().map(|key| key.secret).collect::<Vec<_>>())
        };
        let text = |text| KeySecret::Text(Secret::new(text));
        let two = Some(vec![text("one"), text("two")]);
        assert_eq!(keys("auth: {enabled: true, api_key_env: KEYS}"), two);
        assert_eq!(keys("auth: {enabled: true, api_key: one}"), Some(vec![text("one")]));
        assert_eq!(keys("auth: {enabled: false, api_key_env: KEYS}"), None);
    }

    #[test]
    fn an_empty_key_is_named_and_not_a_variable_that_nobody_wrote() {
        for key in ["''", "' '"] {
            let text =
                document(&format!("auth: {{enabled: true, api_key: {key}}}"), "auth_type: none");
            let told = told(&text);
            assert_eq!(told.len(), 1, "{told:?}");
            let end = "auth is enabled, but there is no key: ";
            assert!(told[0].contains(end) && !told[0].contains("EVERTOKEN_API_KEY"), "{told:?}");
        }
        let told = told(&document("auth: {enabled: true, api_key: ''}", "auth_type: none"));
        assert!(told[0].ends_with("'api_key' is empty"), "{told:?}");
    }

    #[test]
    fn a_key_that_the_switch_does_not_go_with_is_said() {
        let off = |place: u32| {
            format!("f:1:{place}: warning: 'enabled' is false, so no client needs this key")
        };
        let empty = |key: &str, place: u32| {
            format!("f:1:{place}: warning: '{key}' is empty, which is as if it were left out")
        };
        let implied = |place: u32| {
            format!(
                "f:1:{place}: warning: 'enabled' is left out, and taken for true because of this key; write \
                 'enabled: true'"
            )
        };
        let cases = [
            ("enabled: false, api_key: one", None, vec![off(44)]),
            ("enabled: false, api_key_file: /token", None, vec![off(49)]),
            // The example has this: it names the variable that would count.
            ("enabled: false, api_key_env: KEYS", None, vec![]),
            ("enabled: false, api_key: ''", None, vec![]),
            ("enabled: false", None, vec![]),
            // A file that names a key, in any of the three ways, must never run open.
            ("api_key_env: KEYS", Some(2), vec![implied(32)]),
            ("api_key_file: /token", Some(1), vec![implied(33)]),
            ("api_key: one", Some(1), vec![implied(28)]),
            ("api_key_env: ''", None, vec![empty("api_key_env", 32)]),
            ("api_key_file: ''", None, vec![empty("api_key_file", 33)]),
            ("api_key: ''", None, vec![]),
            ("enabled: true, api_key: one", Some(1), vec![]),
            ("enabled: true, api_key_env: KEYS", Some(2), vec![]),
        ];
        for (auth, keys, expected) in cases {
            let text = document(&format!("auth: {{{auth}}}"), "auth_type: none");
            assert_eq!(told(&text), expected, "{auth}");
            let (config, _) = resolve(&text, "f", &sources()).unwrap();
            let found = config.settings.inbound_keys.map(|keys| keys.len());
            assert_eq!(found, keys, "{auth}");
        }
    }
}
