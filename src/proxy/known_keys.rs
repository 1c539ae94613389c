//! The keys of clients, as texts or as hashes, and the search for them in a request. Pure.
//!
//! Every key is compared, in constant time, so that the time does not tell which one it was.

use std::borrow::Cow;

use crate::config::{InboundKey, KeyHash, KeySecret};
use crate::http::message::RequestHead;
use crate::proxy::client_key::ClientKey;
use crate::proxy::inbound_keys::{self, bare_key};
use crate::proxy::limits::AllUsed;
use crate::proxy::metrics::Metrics;
use crate::secret::Secret;

/// The keys of clients, and what is known of each.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The keys that are known as texts.
    secrets: Vec<Secret>,
    /// The others.
    hashes: Vec<KeyHash>,
    /// Those of `secrets`, followed by those of `hashes`.
    clients: Vec<ClientKey>,
}

impl Keys {
    pub(crate) fn of(keys: &[InboundKey], metrics: &Metrics, used: &mut AllUsed) -> Self {
        let mut all = Self { secrets: Vec::new(), hashes: Vec::new(), clients: Vec::new() };
        let mut hashed = Vec::new();
        for key in keys {
            let client = ClientKey::new(&key.rights, metrics, used);
            match &key.secret {
                KeySecret::Text(secret) => {
                    all.secrets.push(secret.clone());
                    all.clients.push(client);
                }
                KeySecret::Hash(hash) => {
                    all.hashes.push(hash.clone());
                    hashed.push(client);
                }
            }
        }
        all.clients.append(&mut hashed);
        all
    }

    /// The key that `shown` is.
    pub(crate) fn find(&self, shown: &[u8]) -> Option<&ClientKey> {
        let mut found = None;
        for (index, key) in self.secrets.iter().enumerate() {
            let matches = key.matches(shown);
            found = found.or(matches.then_some(index));
        }
        if !self.hashes.is_empty() {
            let hash = KeyHash::of(shown);
            for (index, key) in self.hashes.iter().enumerate() {
                let matches = *key == hash;
                found = found.or(matches.then_some(self.secrets.len() + index));
            }
        }
        found.map(|index| &self.clients[index])
    }

    /// The keys that must not go on from a request: those that are known as texts, and those in the request of which
    /// only the hash was known.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    pub(crate) fn secrets_in(&self, head: &RequestHead) -> Cow<'_, [Secret]> {
        if self.hashes.is_empty() {
            return Cow::Borrowed(&self.secrets);
        }
        let mut all = self.secrets.clone();
        let mut look = |text: &[u8]| {
            if let Some(text) = self.hashed(text) {
                all.push(text);
            }
        };
        for field in inbound_keys::shown(head) {
            look(bare_key(&field));
        }
        for (_, value) in head.headers.iter() {
            inbound_keys::each_word(value, &mut look);
        }
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        inbound_keys::each_word(query.as_bytes(), &mut look);
        Cow::Owned(all)
    }

    /// True if a key is in `path`.
    pub(crate) fn are_in_path(&self, path: &str) -> bool {
        let mut found = inbound_keys::holds(path.as_bytes(), &self.secrets);
        if !self.hashes.is_empty() {
            for segment in path.split('/') {
                let mut look = |text: &[u8]| found |= self.hashed(text).is_some();
                inbound_keys::each_word(segment.as_bytes(), &mut look);
            }
        }
        found
    }

    /// `text`, if it is a key of which only the hash is known.
    fn hashed(&self, text: &[u8]) -> Option<Secret> {
        let hash = KeyHash::of(text);
        let mut is_one = false;
        for key in &self.hashes {
            is_one |= *key == hash;
        }
        is_one.then(|| Secret::new(String::from_utf8_lossy(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyRights;
    use crate::http::message::{BodyLength, Headers, Version};

    const HASHED: &str = "et_hashed-key-0123456789";

    fn keys() -> Keys {
        let key = |name: &str, secret| InboundKey { secret, rights: KeyRights::all(name) };
        let hashed =
            |name: &str, text: &str| key(name, KeySecret::Hash(KeyHash::of(text.as_bytes())));
        let all = [
            hashed("hashed", HASHED),
            key("text", KeySecret::Text(Secret::new("text-key-0123456789"))),
            hashed("short", "short"),
        ];
        Keys::of(&all, &Metrics::new(), &mut AllUsed::default())
    }

    fn head(target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(*name, *value);
        }
        RequestHead {
            method: "GET".into(),
            target: target.into(),
            version: Version::Http11,
            authority: None,
            headers,
            body: BodyLength::Absent,
        }
    }

    #[test]
    fn a_key_is_found_by_its_text_and_by_its_hash() {
        let keys = keys();
        let find = |shown: &str| keys.find(shown.as_bytes()).map(|key| key.rights.name.clone());
        assert_eq!(find(HASHED).as_deref(), Some("hashed"));
        assert_eq!(find("text-key-0123456789").as_deref(), Some("text"));
        assert_eq!(find("short").as_deref(), Some("short"));
        for other in ["", "shor", "et_hashed-key-012345678", "ET_HASHED-KEY-0123456789"] {
            assert_eq!(find(other), None, "{other}");
        }
    }

    #[test]
    fn a_key_of_which_only_the_hash_is_known_is_found_wherever_it_stands() {
        let keys = keys();
        let count = |target: &str, fields: &[(&str, &str)]| {
            keys.secrets_in(&head(target, fields))
                .iter()
                .filter(|key| key.len() == HASHED.len())
                .count()
        };
        let encoded = "et_hashed%2Dkey%2D0123456789";
        for (target, name, value) in [
            ("/", "x-api-key", HASHED.to_owned()),
            ("/", "authorization", format!("Bearer {HASHED}")),
            ("/", "authorization", format!("bearer  {HASHED} ")),
            // user:et_hashed-key-0123456789
            ("/", "authorization", "Basic dXNlcjpldF9oYXNoZWQta2V5LTAxMjM0NTY3ODk=".to_owned()),
            ("/", "cookie", format!("a=1; key={HASHED}; b=2")),
            ("/", "x-other", format!("a, {HASHED}")),
            ("/", "x-other", encoded.to_owned()),
            ("/", "sec-websocket-protocol", format!("openai-insecure-api-key.{HASHED}")),
            (&format!("/?a=1&other={HASHED}"), "x", String::new()),
            (&format!("/?other={encoded}"), "x", String::new()),
        ] {
            assert!(count(target, &[(name, &value)]) > 0, "{target} {name}: {value}");
        }
        for value in ["x-et_hashed-key-0123456789", "et_hashed-key-01234567890", ""] {
            assert_eq!(count("/", &[("x-other", value)]), 0, "{value}");
        }
        let short = keys.secrets_in(&head("/", &[("x-api-key", "short")]));
        assert_eq!(short.len(), 2, "one that is shown may be short");
    }

    #[test]
    fn a_key_in_a_path_is_found() {
        let keys = keys();
        for path in [
            format!("/{HASHED}/v1"),
            format!("/v1/{HASHED}"),
            "/et_hashed%2Dkey-0123456789".to_owned(),
            "/a/text-key-0123456789".to_owned(),
        ] {
            assert!(keys.are_in_path(&path), "{path}");
        }
        for path in ["/", "/v1/messages/count_tokens", "/v1/et_hashed-key-01234567890"] {
            assert!(!keys.are_in_path(path), "{path}");
        }
    }
}
