//! `settings.token_store` and the keys beside it.

use crate::config::raw::Section;
use crate::config::resolve::egress::CERTIFICATE;
use crate::config::resolve::sources::Sources;
use crate::config::store_address::StoreAddress;
use crate::config::{Fallback, SharedStore};
use crate::secret::Secret;

/// A shorter key could be guessed.
const KEY_MIN_CHARS: usize = 32;
const PREFIX_MAX_BYTES: usize = 100;

/// Reads the keys that begin with `token_store`; None without a `token_store`.
pub(super) fn read(section: &Section<'_>, sources: &Sources<'_>) -> Option<SharedStore> {
    const BESIDE: [&str; 7] = [
        "token_store_password_env",
        "token_store_password_file",
        "token_store_key_env",
        "token_store_key_file",
        "token_store_ca_file",
        "token_store_prefix",
        "token_store_fallback",
    ];
    let url = section.text("token_store").filter(|url| !url.is_empty());
    let beside: Vec<_> = BESIDE.into_iter().filter(|key| section.has(key)).collect();
    let Some(url) = url else {
        for key in beside {
            section.error(key, format!("'{key}' does nothing without a 'token_store'"));
        }
        return None;
    };
    if !cfg!(feature = "redis") {
        section.error("token_store", "this evertoken was built without the feature 'redis'");
    }
    let password =
        read_secret(section, sources, "token_store_password_env", "token_store_password_file");
    let key = read_secret(section, sources, "token_store_key_env", "token_store_key_file");
    let is_short = |key: &Secret| key.expose().chars().count() < KEY_MIN_CHARS;
    if let Some((place, _)) = key.as_ref().filter(|(_, key)| is_short(key)) {
        let message = format!(
            "the key for the token store needs at least {KEY_MIN_CHARS} characters; \
             'openssl rand -base64 32' makes one"
        );
        section.error(place, message);
    }
    let place = read_place(section, sources, &url, password);
    if key.is_none() && place.as_ref().is_some_and(StoreAddress::is_open_on_the_way) {
        let advice = "tokens can be read on the way to this server; use rediss://, or seal them with \
                      token_store_key_env";
        section.warn("token_store", advice);
    }
    let ca_pem = read_ca_file(section, sources);
    if ca_pem.is_some() && place.as_ref().is_some_and(|place| !place.tls) {
        section.error("token_store_ca_file", "only a rediss:// server shows a certificate");
    }
    let store = SharedStore {
        prefix: read_prefix(section),
        key: key.map(|(_, key)| key),
        ca_pem,
        fallback: section.choice(
            "token_store_fallback",
            &[("wait", Fallback::Wait), ("local", Fallback::Local)],
        ),
        place: place?,
    };
    Some(store)
}

fn read_place(
    section: &Section<'_>,
    sources: &Sources<'_>,
    url: &str,
    password: Option<(&str, Secret)>,
) -> Option<StoreAddress> {
    let mut place = match StoreAddress::parse(url) {
        Ok(place) => place,
        Err(why) => {
            section.error("token_store", why);
            return None;
        }
    };
    if place.password.is_some() {
        if let Some((key, _)) = password {
            section.error(key, "the URL in 'token_store' has a password already");
        }
        sources.warn_if_exposed(section, "token_store", "token_store_password_env");
    } else {
        place.password = password.map(|(_, password)| password);
    }
    Some(place)
}

/// The secret of the token store that `env_key` or `file_key` names, and the key that names it. A missing one is an
/// error, because an instance must not run beside the others with another key.
fn read_secret(
    section: &Section<'_>,
    sources: &Sources<'_>,
    env_key: &'static str,
    file_key: &'static str,
) -> Option<(&'static str, Secret)> {
    let named = sources.secret(section, env_key, file_key, true)?;
    match named.found {
        Ok(secret) => Some((named.key, secret)),
        Err(missing) => {
            section.error_of_unset(named.key, missing.to_string(), &missing.variables());
            None
        }
    }
}

fn read_prefix(section: &Section<'_>) -> String {
    let prefix = section.text("token_store_prefix").unwrap_or_else(|| "evertoken:".to_owned());
    let plain = |byte: u8| (0x21..=0x7e).contains(&byte);
    if prefix.len() > PREFIX_MAX_BYTES || !prefix.bytes().all(plain) {
        let message = format!(
            "'token_store_prefix' must be at most {PREFIX_MAX_BYTES} letters, digits and signs, \
             without blanks"
        );
        section.error("token_store_prefix", message);
    }
    prefix
}

fn read_ca_file(section: &Section<'_>, sources: &Sources<'_>) -> Option<String> {
    const KEY: &str = "token_store_ca_file";
    let path = sources.plain_path(section, KEY)?;
    let shown = path.display();
    let read = (sources.files)(&path);
    let why = match &read {
        Ok(text) if text.contains(CERTIFICATE) => return read.ok(),
        Ok(_) => format!("there is no PEM certificate in '{shown}'"),
        Err(error) => format!("'{shown}' can't be read: {error}"),
    };
    section.error(KEY, why);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{PEM, document, fine, sources, told};

    #[test]
    fn the_token_store() {
        let store =
            |settings: &str| fine(&document(settings, "auth_type: none")).settings.token_store;
        assert_eq!(store(""), None);
        assert_eq!(store("token_store: ''"), None);
        let plain = store("token_store: 'redis://u:p@127.0.0.1/2'").unwrap();
        assert_eq!(plain.place.to_string(), "redis://127.0.0.1:6379/2");
        assert_eq!(plain.place.password, Some(Secret::new("p")));
        assert_eq!((plain.prefix.as_str(), plain.fallback), ("evertoken:", Fallback::Wait));
        assert_eq!((plain.key, plain.ca_pem), (None, None));
        let all = store(
            "token_store: 'rediss://u@h', token_store_password_env: SECRET, token_store_key_env: LONG, \
             token_store_ca_file: /pem, token_store_prefix: 'x:', token_store_fallback: local",
        );
        let all = all.unwrap();
        assert_eq!(all.place.password, Some(Secret::new("the-secret")));
        assert_eq!(all.key, Some(Secret::new("k".repeat(32))));
        assert_eq!(all.ca_pem.as_deref(), Some(PEM));
        assert_eq!((all.prefix.as_str(), all.fallback), ("x:", Fallback::Local));
    }

    #[test]
    fn a_token_store_that_is_wrong() {
        let cases = [
            ("token_store: 'http://h'", "f:1:25: 'token_store' must be redis://"),
            ("token_store: 'redis://a,b/0'", "f:1:25: several addresses are for Sentinel"),
            ("token_store: 'redis://h:0'", "f:1:25: every address is a host"),
            ("token_store_prefix: 'x:'", "f:1:32: 'token_store_prefix' does nothing without"),
            (
                "token_store: 'unix:///s', token_store_fallback: no",
                "f:1:60: 'token_store_fallback'",
            ),
            (
                "token_store: 'unix:///s', token_store_key_env: SECRET",
                "f:1:59: the key for the token",
            ),
            ("token_store: 'unix:///s', token_store_key_env: NONE", "f:1:59: Missing environment"),
            (
                "token_store: 'unix:///s', token_store_password_file: /empty",
                "f:1:65: Missing secret",
            ),
            ("token_store: 'unix:///s', token_store_prefix: 'a b'", "f:1:58: 'token_store_prefix'"),
            ("token_store: 'unix:///s', token_store_ca_file: /pem", "f:1:59: only a rediss://"),
            ("token_store: 'rediss://h', token_store_ca_file: /empty", "f:1:60: there is no PEM"),
            (
                "token_store: 'redis://:p@localhost', token_store_password_env: SECRET",
                "f:1:75: the URL in 'token_store' has a password already",
            ),
            ("token_store: 'redis://h'", "f:1:25: warning: tokens can be read on the way"),
        ];
        for (settings, begins) in cases {
            let found = told(&document(settings, "auth_type: none"));
            assert_eq!(found.len(), 1, "{settings}: {found:?}");
            assert!(found[0].starts_with(begins), "{settings}: {found:?}");
            assert!(!found[0].contains("the-secret"), "{found:?}");
        }
        let long = format!("token_store: 'unix:///s', token_store_prefix: '{}'", "x".repeat(100));
        fine(&document(&long, "auth_type: none"));
        assert_eq!(told(&document(&long.replace("'x", "'xx"), "auth_type: none")).len(), 1);
        let exposed = Sources { file_mode: Some(0o100_644), ..sources() };
        let text = document("token_store: 'redis://:p@localhost'", "auth_type: none");
        let (_, warnings) = resolve(&text, "f", &exposed).unwrap();
        assert!(warnings[0].message.contains("or use token_store_password_env"), "{warnings:?}");
    }
}
