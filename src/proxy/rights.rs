//! The rights of a request: those of its key. Pure.

use crate::config::ProviderConfig;
use crate::http::refusal::{Code, Refusal};
use crate::proxy::client_key::ClientKey;

/// The rights of a request; those of one without a key by default, which may do everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rights<'a> {
    key: Option<&'a ClientKey>,
}

impl<'a> Rights<'a> {
    /// The rights of a request with a key.
    pub(crate) fn of(key: &'a ClientKey) -> Self {
        Self { key: Some(key) }
    }

    /// The key of the request; None without one.
    pub(crate) fn key(self) -> Option<&'a ClientKey> {
        self.key
    }

    /// The name of the key, and the slugs of the providers that it is limited to; None if it is not limited.
    pub(crate) fn limits(self) -> Option<(&'a str, &'a [String])> {
        let key = &self.key?.rights;
        Some((&key.name, key.providers.as_deref()?))
    }

    /// True if the request may use `provider`.
    pub(crate) fn allow(self, provider: &ProviderConfig) -> bool {
        self.key.is_none_or(|key| key.rights.allow(&provider.slug))
    }

    /// Refuses `provider` to a request that may not use it.
    pub(crate) fn check(self, provider: &ProviderConfig) -> Result<(), Refusal> {
        if self.allow(provider) {
            return Ok(());
        }
        Err(self.refusal(&format!("may not use the provider {}", provider.slug)))
    }

    /// The refusal of a request whose key `fails`: `may not use the provider b`.
    pub(crate) fn refusal(self, fails: &str) -> Refusal {
        let (name, slugs) = self.limits().unwrap_or_default();
        let message = format!(
            "The key '{name}' {fails}: in settings.auth.keys it has only the providers {}",
            slugs.join(", ")
        );
        Refusal::new(Code::NotAllowed, message)
    }
}
