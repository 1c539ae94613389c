//! `settings.auth.keys`: keys with a name, which may be limited to certain providers.

use crate::config::inbound_key::{
    COMMENT_MARK, InboundKey, KEY_PREFIX, KeyHash, KeyRights, KeySecret, NAME_MAX_BYTES,
    PLAIN_KEY_NAME,
};
use crate::config::raw::{Section, nearest};
use crate::config::resolve::pattern::OtherWildcard;
use crate::config::resolve::sources::Sources;
use crate::config::{ProviderConfig, nfc};
use crate::secret::Secret;
use crate::visible::is_unseen;

/// The most models in a list, and the longest pattern of one.
const MODELS_MAX: usize = 1000;
const MODEL_MAX_BYTES: usize = 256;

/// The largest limits: a number beyond them is a mistake.
const REQUESTS_PER_MINUTE_MAX: u64 = 10_000_000;
const TOKENS_PER_DAY_MAX: u64 = 1_000_000_000_000_000;

/// The sources of a key.
const SOURCES: [&str; 3] = ["key_env", "key_file", "key_sha256"];

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
    let hash = read_hash(section);
    let named = sources.secret(section, "key_env", "key_file", true);
    if named.is_none() && !section.has("key_sha256") {
        let message = format!("the key '{name}' needs a 'key_env', a 'key_file' or a 'key_sha256'");
        section.require("key_env", message);
    }
    let rights = KeyRights {
        name,
        providers: read_providers(section),
        models: read_models(section),
        requests_per_minute: limit(section, "requests_per_minute", REQUESTS_PER_MINUTE_MAX),
        tokens_per_day: limit(section, "tokens_per_day", TOKENS_PER_DAY_MAX),
    };
    section.finish(&[]);
    if let Some(hash) = hash {
        return Some(InboundKey { secret: KeySecret::Hash(hash), rights });
    }
    let (named, name) = (named?, &rights.name);
    match named.found {
        Ok(secret) if secret.is_empty() => {
            section.error(named.key, format!("the key '{name}' is empty"));
            None
        }
        Ok(secret) if secret.begins_with(COMMENT_MARK) => {
            let message = format!(
                "the key '{name}' begins with '#', which no key may, because a comment would be one; put the key alone \
                 there, or choose another key"
            );
            section.error(named.key, message);
            None
        }
        Ok(secret) if secret.is_visible() => {
            Some(InboundKey { secret: KeySecret::Text(secret), rights })
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

/// The hash in `key_sha256`. A wrong one is not repeated, because it may be the key itself.
fn read_hash(section: &Section<'_>) -> Option<KeyHash> {
    let written = section.text("key_sha256")?;
    if let Some(other) = SOURCES[..2].iter().find(|key| section.has(key)) {
        section.error("key_sha256", format!("give '{other}' or 'key_sha256', not both"));
    }
    let Some(hash) = KeyHash::of_hex(&written) else {
        let message = match written.len() {
            _ if written.starts_with(KEY_PREFIX) => "this looks like the key itself; 'key_sha256' wants its hash, \
                which `evertoken key` prints beside it. Choose another key, because this one was written down"
                .to_owned(),
            0 => "'key_sha256' is empty, and there has to be one".to_owned(),
            64 => "'key_sha256' must be a SHA-256 in 64 hex digits, and has a character that is none".to_owned(),
            length => format!("'key_sha256' must be a SHA-256 in 64 hex digits, and has {length} characters"),
        };
        section.error("key_sha256", message);
        return None;
    };
    if hash == KeyHash::of(b"") {
        section.error("key_sha256", "'key_sha256' is the hash of an empty key");
        return None;
    }
    Some(hash)
}

/// A limit, a whole number from 1; None if it is left out.
fn limit(section: &Section<'_>, key: &'static str, most: u64) -> Option<u64> {
    if section.is_empty(key) {
        let message = format!("'{key}' has no value; leave it out for a key without this limit");
        section.error_at_key(key, message);
    }
    section.has(key).then(|| section.integer(key, most, 1, most))
}

fn check_name(section: &Section<'_>, name: &str) {
    if section.has("name") && name.trim().is_empty() {
        section.error("name", "'name' is empty, and there has to be one");
    } else if name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
        let message = format!(
            "'name' may have at most {NAME_MAX_BYTES} bytes, and no control characters among them"
        );
        section.error("name", message);
    } else if name.trim() != name {
        section.error("name", "'name' begins or ends with a space, which nobody would see");
    } else if let Some(code) = name.chars().find(|one| is_unseen(*one)).map(u32::from) {
        let message = format!("'name' has a character in it that nobody sees (U+{code:04X})");
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
    let mut slugs: Vec<_> = written.iter().map(|one| nfc::composed(one).into_owned()).collect();
    slugs.sort();
    slugs.dedup();
    Some(slugs)
}

/// The patterns in `models`; None for every model.
fn read_models(section: &Section<'_>) -> Option<Vec<String>> {
    if !section.has("models") && !section.is_empty("models") {
        return None;
    }
    if !section.is_filled_list("models") {
        let message = "'models' must be a list of names or patterns, and not empty; leave it out for a key for every model";
        section.error("models", message);
        return None;
    }
    let written = section.texts("models");
    if written.len() > MODELS_MAX {
        section.error("models", format!("'models' may have at most {MODELS_MAX} patterns"));
    }
    for (index, pattern) in written.iter().enumerate() {
        check_model(section, index, pattern);
    }
    Some(written)
}

fn check_model(section: &Section<'_>, index: usize, pattern: &str) {
    if !section.is_text_at("models", index) {
        let message = format!(
            "'models' holds names and patterns, and {pattern} is no text; write it in quotes if it is the name of a model"
        );
        return section.error_at("models", index, message);
    }
    let is_odd = |one: char| one.is_whitespace() || one.is_control() || is_unseen(one);
    let what = match pattern {
        "" => "is empty",
        long if long.len() > MODEL_MAX_BYTES => "is longer than 256 bytes",
        odd if odd.contains(is_odd) => {
            "has a space in it, or what nobody sees, which no name of a model has"
        }
        pattern => {
            return match OtherWildcard::of(pattern) {
                Some(other @ OtherWildcard::Hopeless(_)) => {
                    section.error_at("models", index, other.told(pattern));
                }
                Some(other) => section.warn_at("models", index, other.told(pattern)),
                None => {}
            };
        }
    };
    section.error_at("models", index, format!("this pattern matches no model: it {what}"));
}

/// Refuses a key with the name of one `before` it, or with its text: it would not be known whose request it is.
pub(super) fn check_unique(section: &Section<'_>, key: &InboundKey, before: &[InboundKey]) {
    let name = &key.rights.name;
    if before.iter().any(|other| other.rights.name == *name) {
        section.error(
            "name",
            format!("there is another key called '{name}'; give one of them another name"),
        );
    }
    // This stands in for a text that is not known, see `Sources::secret`.
    let is_unknown = |text: &Secret| SOURCES.iter().any(|source| text.matches(source.as_bytes()));
    if key.secret.text().is_some_and(is_unknown) {
        return;
    }
    let is_double = |other: &&InboundKey| other.secret.is_same(&key.secret);
    if let Some(other) = before.iter().find(is_double) {
        let place = SOURCES.into_iter().find(|key| section.has(key)).unwrap_or("name");
        let message = format!(
            "the keys '{}' and '{name}' are the same; choose another text for one of them",
            other.rights.name
        );
        section.error(place, message);
    }
}

/// Refuses a comment, and two lines with one name and different keys, or with one key and different names; `keys` are
/// beside the numbers of their lines. Keys without a name, and a line that stands there twice, are no matter. Warns of a
/// key that most clients can't send.
pub(super) fn check_lines(section: &Section<'_>, place: &str, keys: &[(u32, InboundKey)]) {
    for (index, (line, key)) in keys.iter().enumerate() {
        let name = &key.rights.name;
        if key.secret.is_comment() {
            let message = format!(
                "the key in line {line} begins with '#', which no key may, because a comment would be one; take the line \
                 out, or choose another key"
            );
            section.error(place, message);
        } else if key.secret.text().is_some_and(|text| !text.is_visible()) {
            let message = format!(
                "the key '{name}' is not one word of visible ASCII characters, so most clients can't send it; a comment \
                 can't stand on its line"
            );
            section.warn(place, message);
        }
        for (_, other) in &keys[..index] {
            let is_named_alike = other.rights.name == *name;
            let message = match (is_named_alike, other.secret.is_same(&key.secret)) {
                (true, false) if name != PLAIN_KEY_NAME => {
                    format!("two of these keys are called '{name}'; give one of them another name")
                }
                (false, true) => format!(
                    "the keys '{}' and '{name}' are the same; choose another text for one of them",
                    other.rights.name
                ),
                _ => continue,
            };
            section.error(place, message);
        }
    }
}

/// Refuses limits of tokens where no tokens are counted.
pub(super) fn check_without_usage(auth: &Section<'_>) {
    let sections = sections(auth).into_iter().flatten();
    for section in sections.filter(|one| one.has("tokens_per_day")) {
        let message = "'tokens_per_day' needs the counts of settings.usage, which is false; take one of them out";
        section.error("tokens_per_day", message);
    }
}

/// Refuses slugs in the lists of keys that no provider has; that of a disabled one is fine.
pub(super) fn check_providers(root: &Section<'_>, providers: &[ProviderConfig]) {
    let sections = sections(&root.section("settings").section("auth"));
    for section in sections.iter().flatten().filter(|one| one.is_filled_list("providers")) {
        for (index, written) in section.texts("providers").iter().enumerate() {
            let wanted = nfc::composed(written);
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
mod tests;
