//! `settings.token_store` and the keys beside it.

use std::path::Path;

use crate::config::raw::Section;
use crate::config::resolve::Sources;
use crate::config::{Fallback, SharedStore};
use crate::secret::Secret;
use crate::shared::engine::IS_BUILT_IN;
use crate::shared::place::Place;

/// A key that is shorter is a word that can be guessed.
const KEY_MIN_CHARS: usize = 32;
const PREFIX_MAX_BYTES: usize = 100;

/// Reads the keys that begin with `token_store`; None where there is no `token_store`.
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
    if !IS_BUILT_IN {
        section.error("token_store", "this evertoken was built without the feature 'redis'");
    }
    let password = read_secret(section, sources, "password");
    let key = read_secret(section, sources, "key");
    if key.as_ref().is_some_and(|key| key.expose().chars().count() < KEY_MIN_CHARS) {
        let message = format!(
            "the key for the token store needs at least {KEY_MIN_CHARS} characters; \
             'openssl rand -base64 32' makes one"
        );
        section.error(place_of(section, "key"), message);
    }
    let place = read_place(section, sources, &url, password);
    if key.is_none() && place.as_ref().is_some_and(Place::is_open_on_the_way) {
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
        key,
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
    password: Option<Secret>,
) -> Option<Place> {
    let mut place = match Place::parse(url) {
        Ok(place) => place,
        Err(why) => {
            section.error("token_store", why);
            return None;
        }
    };
    if place.password.is_some() {
        if password.is_some() {
            let key = place_of(section, "password");
            section.error(key, "the URL in 'token_store' has a password already");
        }
        if sources.is_exposed() {
            let advice = "this file can be read by group or others; chmod 600 it, or use \
                          token_store_password_env";
            section.warn("token_store", advice);
        }
    } else {
        place.password = password;
    }
    Some(place)
}

/// The secret in `token_store_<what>_env` or `_file`. One that is named and not there is an error: an
/// instance must not run beside the others with something else.
fn read_secret(section: &Section<'_>, sources: &Sources<'_>, what: &str) -> Option<Secret> {
    let (env_key, file_key) = keys_of(what);
    match sources.secret(section, env_key, file_key)? {
        Ok(secret) => Some(secret),
        Err(missing) => {
            section.error(place_of(section, what), missing.to_string());
            None
        }
    }
}

fn keys_of(what: &str) -> (&'static str, &'static str) {
    match what {
        "password" => ("token_store_password_env", "token_store_password_file"),
        _ => ("token_store_key_env", "token_store_key_file"),
    }
}

fn place_of(section: &Section<'_>, what: &str) -> &'static str {
    let (env_key, file_key) = keys_of(what);
    if section.has(env_key) { env_key } else { file_key }
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
    let path = section.text("token_store_ca_file")?;
    match (sources.files)(Path::new(&path)) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => Some(text),
        Ok(_) => {
            section
                .error("token_store_ca_file", format!("there is no PEM certificate in '{path}'"));
            None
        }
        Err(error) => {
            section.error("token_store_ca_file", format!("'{path}' can't be read: {error}"));
            None
        }
    }
}
