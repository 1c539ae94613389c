//! The keys that let clients in, and their rights. Pure.

use crate::secret::Secret;

/// The name of a key that stands alone on its line.
pub(crate) const PLAIN_KEY_NAME: &str = "default";

/// A key that lets a client in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundKey {
    /// The key itself.
    pub secret: Secret,
    /// Its rights.
    pub rights: KeyRights,
}

/// The rights of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRights {
    /// The name of the key.
    pub name: String,
    /// The slugs of the providers that it may use; None for every provider, and evertoken's own pages.
    pub providers: Option<Vec<String>>,
}

impl InboundKey {
    /// The key on a line of `api_key_file` or `api_key_env`, `key` or `name: key`; None if the line is blank.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let line = line.trim();
        let (name, key) = named(line).unwrap_or((PLAIN_KEY_NAME, line));
        let rights = KeyRights { name: name.to_owned(), providers: None };
        (!key.is_empty()).then(|| Self { secret: Secret::new(key), rights })
    }
}

impl KeyRights {
    /// True if the key may use the provider with this slug.
    pub(crate) fn allow(&self, slug: &str) -> bool {
        self.providers.as_ref().is_none_or(|slugs| slugs.iter().any(|own| own == slug))
    }
}

/// Name and key of a line `name: key`. A key with a colon in it has no blank after that.
fn named(line: &str) -> Option<(&str, &str)> {
    let (name, key) = line.split_once(':')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(is_plain);
    (is_name && key.starts_with([' ', '\t'])).then(|| (name, key.trim_start()))
}

/// The key with which the commands ask a running instance: the first one that may do everything, else the first.
pub(crate) fn own_key(keys: &[InboundKey]) -> Option<&Secret> {
    let unlimited = keys.iter().find(|key| key.rights.providers.is_none());
    unlimited.or(keys.first()).map(|key| &key.secret)
}

/// The key with which the commands ask a running instance for the token of a provider: the first one that lists it,
/// because that one gets the token over a port too.
pub(crate) fn key_for_token<'a>(keys: &'a [InboundKey], slug: &str) -> Option<&'a Secret> {
    let lists = |key: &&InboundKey| key.rights.providers.is_some() && key.rights.allow(slug);
    keys.iter().find(lists).map(|key| &key.secret).or_else(|| own_key(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, text: &str, providers: Option<&[&str]>) -> InboundKey {
        let providers = providers.map(|slugs| slugs.iter().map(ToString::to_string).collect());
        let rights = KeyRights { name: name.to_owned(), providers };
        InboundKey { secret: Secret::new(text), rights }
    }

    #[test]
    fn lines_with_and_without_a_name() {
        for (line, name, text) in [
            ("abc", "default", "abc"),
            (" abc ", "default", "abc"),
            ("ci: abc", "ci", "abc"),
            ("a.b-c_1:\t abc ", "a.b-c_1", "abc"),
            ("ci: a b", "ci", "a b"),
            ("ci: a: b", "ci", "a: b"),
            // Keys with a colon in them.
            ("ci:abc", "default", "ci:abc"),
            (": abc", "default", ": abc"),
            ("a b: abc", "default", "a b: abc"),
            ("ci:", "default", "ci:"),
        ] {
            assert_eq!(InboundKey::of_line(line), Some(key(name, text, None)), "{line:?}");
        }
        assert_eq!(InboundKey::of_line(" "), None);
        assert_eq!(InboundKey::of_line("ci: ").map(|key| key.rights.name), Some("default".into()));
    }

    #[test]
    fn the_commands_take_a_key_that_may_do_what_they_ask() {
        let (limited, plain) = (key("ci", "one", Some(&["a", "b"])), key("default", "two", None));
        let all = [limited.clone(), plain.clone()];
        assert_eq!(own_key(&all), Some(&plain.secret));
        assert_eq!(own_key(&all[..1]), Some(&limited.secret));
        assert_eq!(own_key(&[]), None);
        for (slug, expected) in [("a", &limited), ("b", &limited), ("c", &plain)] {
            assert_eq!(key_for_token(&all, slug), Some(&expected.secret), "{slug}");
        }
        assert!(limited.rights.allow("b") && !limited.rights.allow("c") && plain.rights.allow("c"));
    }
}
