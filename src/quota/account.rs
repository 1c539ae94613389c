//! Names the account behind a provider's credential without telling anything about it. Pure.

use std::fmt::{self, Write};

use crate::config::{Credential, ProviderConfig};
use crate::secret::Secret;

/// Parts of the names of header fields and parameters that choose an account: `OpenAI-Organization`, `x-goog-user-project`,
/// `ChatGPT-Account-ID`. Others may differ between hosts that share the account.
const OF_ACCOUNT: [&str; 10] = [
    "org", "project", "account", "tenant", "workspace", "subscription", "key", "auth", "token",
    "cookie",
];

/// Names an account: what is left of its quota is no other account's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountId {
    /// The provider's endpoint, its fixed credential or its client, and the configured fields that choose an account.
    pub base: u64,
    /// The login or seed with which the chain began, or the credential in a file; 0 for other credentials.
    pub origin: u64,
}

/// See [`AccountId::base`]; None if each client has an account of its own.
pub(crate) fn base(config: &ProviderConfig) -> Option<u64> {
    let credential = match &config.credential {
        Credential::Passthrough => return None,
        Credential::None | Credential::Missing(_) => String::new(),
        Credential::Static(secret) => secret.hash(),
        Credential::Watched(_) => "file".to_owned(),
        Credential::Refreshed(refresh) => refresh.client_hash().unwrap_or_default(),
    };
    let mut all = format!("{}\n{credential}\n", config.base_url);
    let chooses = |name: &str| {
        let name = name.to_ascii_lowercase();
        OF_ACCOUNT.iter().any(|part| name.contains(part))
    };
    for (name, value) in config.headers.iter().filter(|(name, _)| chooses(name)) {
        // Writing to a text does not fail.
        let _ = writeln!(all, "{name}: {value:?}");
    }
    for (name, value) in config.query.iter().filter(|(name, _)| chooses(name)) {
        let _ = writeln!(all, "{name}={value}");
    }
    Some(Secret::new(all).fingerprint())
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.base, self.origin)
    }
}

impl AccountId {
    /// Parses the output of `Display`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let (base, origin) = text.split_at_checked(16).filter(|(_, rest)| rest.len() == 16)?;
        Some(Self { base: number(base)?, origin: number(origin)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::request_fields::FieldValue;
    use crate::token::group::tests::providers;

    #[test]
    fn an_account_is_written_and_read_back() {
        let id = AccountId { base: 1, origin: u64::MAX };
        assert_eq!(id.to_string(), "0000000000000001ffffffffffffffff");
        assert_eq!(AccountId::parse(&id.to_string()), Some(id));
        let wrong =
            ["", "1", "0000000000000001fffffffffffffffff", "000000000000000gffffffffffffffff"];
        for text in wrong {
            assert_eq!(AccountId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn whatever_may_change_the_account_changes_its_name() {
        let all = providers(&[
            ("a", "seed", "client", ""),
            ("b", "other", "client", ""),
            ("c", "seed", "id", ""),
        ]);
        let of = |change: &dyn Fn(&mut ProviderConfig)| {
            let mut one = all[0].clone();
            change(&mut one);
            base(&one)
        };
        let own = of(&|_| ());
        assert_eq!(base(&all[1]), own, "the seed is in the origin, because a login replaces it");
        assert_eq!(of(&|one| (one.name, one.slug) = ("x".into(), "x".into())), own);
        assert_eq!(of(&|one| one.max_in_flight = 1), own);
        let text = |value: &str| FieldValue::Text(value.to_owned());
        assert_eq!(of(&|one| one.headers.push(("x-host".into(), text("h")))), own);
        assert_eq!(of(&|one| one.query.push(("api-version".into(), "1".into()))), own);
        let others = [
            base(&all[2]),
            of(&|one| one.base_url = "http://y".into()),
            of(&|one| one.headers.push(("OpenAI-Organization".into(), text("o")))),
            of(&|one| one.headers.push(("OpenAI-Organization".into(), text("p")))),
            of(&|one| one.query.push(("key".into(), "k".into()))),
            of(&|one| one.credential = Credential::Static(Secret::new("key-1"))),
            of(&|one| one.credential = Credential::Static(Secret::new("key-2"))),
            of(&|one| one.credential = Credential::None),
            own,
        ];
        for (index, one) in others.iter().enumerate() {
            assert!(one.is_some() && !others[..index].contains(one), "{index}");
        }
        assert_eq!(of(&|one| one.credential = Credential::Passthrough), None);
    }
}
