//! The keys that let clients in, and their rights. Pure.

use subtle::ConstantTimeEq;

use crate::secret::{SHA256_BYTES, Secret, sha256};

/// The name of a key that stands alone on its line.
pub(crate) const PLAIN_KEY_NAME: &str = "default";

/// The longest name of a key.
pub(crate) const NAME_MAX_BYTES: usize = 100;

/// The beginning of comments in other files. No key may begin with it: whoever sends a comment would be let in.
pub(crate) const COMMENT_MARK: u8 = b'#';

/// The beginning of keys that `evertoken key` makes.
pub(crate) const KEY_PREFIX: &str = "et_";

/// A key that lets a client in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundKey {
    /// The key itself, or its hash.
    pub secret: KeySecret,
    /// Its rights.
    pub rights: KeyRights,
}

/// A key, or its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySecret {
    /// Its text.
    Text(Secret),
    /// Its hash alone, so that the configuration gives nobody the key.
    Hash(KeyHash),
}

/// The SHA-256 of a key.
#[derive(Clone, Debug)]
pub struct KeyHash([u8; SHA256_BYTES]);

/// The rights of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRights {
    /// The name of the key.
    pub name: String,
    /// The slugs of the providers that it may use; None for every provider, and evertoken's own pages.
    pub providers: Option<Vec<String>>,
    /// The patterns of the models that it may use; None for every model.
    pub models: Option<Vec<String>>,
    /// The most requests in any minute.
    pub requests_per_minute: Option<u64>,
    /// The most tokens in a day.
    pub tokens_per_day: Option<u64>,
}

impl InboundKey {
    /// The key on a line of `api_key_file` or `api_key_env`, `key` or `name: key`; None if the line is blank.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let line = line.trim();
        let (name, key) = named(line).unwrap_or((PLAIN_KEY_NAME, line));
        let rights = KeyRights::all(name);
        (!key.is_empty()).then(|| Self { secret: KeySecret::Text(Secret::new(key)), rights })
    }
}

impl KeySecret {
    /// The text, if it is known.
    pub(crate) fn text(&self) -> Option<&Secret> {
        match self {
            Self::Text(secret) => Some(secret),
            Self::Hash(_) => None,
        }
    }

    /// True if it looks like a comment.
    pub(crate) fn is_comment(&self) -> bool {
        self.text().is_some_and(|text| text.begins_with(COMMENT_MARK))
    }

    /// True if `other` is of the same key.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one == other,
            _ => self.hash() == other.hash(),
        }
    }

    fn hash(&self) -> KeyHash {
        match self {
            Self::Text(secret) => KeyHash(secret.sha256()),
            Self::Hash(hash) => hash.clone(),
        }
    }
}

impl KeyHash {
    /// The hash of `key`.
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(sha256(key))
    }

    /// The hash in hex digits of either case; None if it is none.
    pub(crate) fn of_hex(text: &str) -> Option<Self> {
        if text.len() != 2 * SHA256_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; SHA256_BYTES];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(hash))
    }
}

/// In constant time.
impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for KeyHash {}

impl KeyRights {
    /// The rights of a key called `name` that may do everything.
    pub(crate) fn all(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// True if the key may use the provider with this slug.
    pub(crate) fn allow(&self, slug: &str) -> bool {
        self.providers.as_ref().is_none_or(|slugs| slugs.iter().any(|own| own == slug))
    }

    /// True if the key may not do everything: it is one of a user, not of the operator.
    pub(crate) fn are_limited(&self) -> bool {
        self.providers.is_some() || self.is_for_evertoken_alone()
    }

    /// True if only evertoken can keep the key's limits, so that it gets no token itself.
    pub(crate) fn is_for_evertoken_alone(&self) -> bool {
        self.models.is_some() || self.requests_per_minute.is_some() || self.tokens_per_day.is_some()
    }
}

/// True if `name` can name a key on a line.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain)
}

/// Name and key of a line `name: key`. A key with a colon in it has no blank after that.
fn named(line: &str) -> Option<(&str, &str)> {
    let (name, key) = line.split_once(':')?;
    (is_plain_name(name) && key.starts_with([' ', '\t'])).then(|| (name, key.trim_start()))
}

/// The key with which the commands ask a running instance: the first one that may do everything, else the first.
pub(crate) fn own_key(keys: &[InboundKey]) -> Option<&Secret> {
    let mut known = keys.iter().filter_map(|key| Some((key.secret.text()?, &key.rights)));
    let first = known.clone().next();
    known.find(|(_, rights)| !rights.are_limited()).or(first).map(|(secret, _)| secret)
}

/// The key with which the commands ask a running instance for the token of a provider: the first one that lists it,
/// because that one gets the token over a port too.
pub(crate) fn key_for_token<'a>(keys: &'a [InboundKey], slug: &str) -> Option<&'a Secret> {
    let lists = |rights: &KeyRights| {
        rights.providers.is_some() && rights.allow(slug) && !rights.is_for_evertoken_alone()
    };
    let mut listing = keys.iter().filter(|key| lists(&key.rights));
    listing.find_map(|key| key.secret.text()).or_else(|| own_key(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, text: &str, providers: Option<&[&str]>) -> InboundKey {
        let providers = providers.map(|slugs| slugs.iter().map(ToString::to_string).collect());
        let rights = KeyRights { providers, ..KeyRights::all(name) };
        InboundKey { secret: KeySecret::Text(Secret::new(text)), rights }
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
        assert_eq!(own_key(&all), plain.secret.text());
        assert_eq!(own_key(&all[..1]), limited.secret.text());
        assert_eq!(own_key(&[]), None);
        for (slug, expected) in [("a", &limited), ("b", &limited), ("c", &plain)] {
            assert_eq!(key_for_token(&all, slug), expected.secret.text(), "{slug}");
        }
        assert!(limited.rights.allow("b") && !limited.rights.allow("c") && plain.rights.allow("c"));
        // A key of which only the hash is known can't be sent.
        let hashed = InboundKey {
            secret: KeySecret::Hash(KeyHash::of(b"three")),
            rights: KeyRights::all("hashed"),
        };
        let all = [hashed, limited.clone()];
        assert_eq!(own_key(&all), limited.secret.text());
        assert_eq!(own_key(&all[..1]), None);
        // One with a limit gets no token.
        let mut counted = limited.clone();
        counted.rights.requests_per_minute = Some(1);
        assert_eq!(key_for_token(&[counted, plain.clone()], "a"), plain.secret.text());
    }

    #[test]
    fn a_hash_is_read_in_either_case_and_nothing_else_is_one() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of_hex(abc), Some(KeyHash::of(b"abc")));
        assert_eq!(KeyHash::of_hex(&abc.to_uppercase()), Some(KeyHash::of(b"abc")));
        assert_ne!(KeyHash::of_hex(abc), Some(KeyHash::of(b"abd")));
        let (short, long) = (&abc[1..], format!("{abc}a"));
        for other in ["", "abc", short, &long, &abc.replace('b', "g"), &abc.replace("ba", "é")] {
            assert_eq!(KeyHash::of_hex(other), None, "{other}");
        }
        let text = KeySecret::Text(Secret::new("abc"));
        assert!(text.is_same(&KeySecret::Hash(KeyHash::of(b"abc"))));
        assert!(!text.is_same(&KeySecret::Hash(KeyHash::of(b"abd"))));
    }
}
