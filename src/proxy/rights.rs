//! The rights of a request: those of its key. Pure.

use crate::config::ProviderConfig;
use crate::http::refusal::{Code, Refusal};
use crate::proxy::client_key::ClientKey;
use crate::proxy::glob::matches;
use crate::visible::visible;

/// Gemini's names of models begin so in bodies.
const GEMINI_FOLDER: &str = "models/";
/// The longest name of a model that a message shows.
const SHOWN_MAX_CHARS: usize = 100;

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

    /// The name of the key, and the slugs of the providers that it is limited to; None if it is not limited to some.
    pub(crate) fn limits(self) -> Option<(&'a str, &'a [String])> {
        let key = &self.key?.rights;
        Some((&key.name, key.providers.as_deref()?))
    }

    /// True if the request may not do everything.
    pub(crate) fn are_limited(self) -> bool {
        self.key.is_some_and(|key| key.rights.are_limited())
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

    /// Refuses a token to a key whose limits only evertoken can keep.
    pub(crate) fn check_token(self) -> Result<(), Refusal> {
        match self.key {
            Some(key) if key.rights.is_for_evertoken_alone() => Err(self.refusal(
                "gets no token, because with the token itself it would have every model and no limit",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a WebSocket to a key whose limits could not be kept in it, because nobody reads what passes.
    pub(crate) fn check_websocket(self) -> Result<(), Refusal> {
        match self.key {
            Some(key) if key.rights.models.is_some() => {
                Err(self
                    .refusal("may not open a WebSocket, in which its models are not looked for"))
            }
            Some(key) if key.rights.tokens_per_day.is_some() => {
                Err(self.refusal("may not open a WebSocket, whose tokens are not counted"))
            }
            _ => Ok(()),
        }
    }

    /// True if the request may use only certain models.
    pub(crate) fn are_by_model(self) -> bool {
        self.key.is_some_and(|key| key.rights.models.is_some())
    }

    /// True if the request may use `model`.
    pub(crate) fn allow_model(self, model: &str) -> bool {
        let patterns = self.key.and_then(|key| key.rights.models.as_ref());
        patterns.is_none_or(|patterns| patterns.iter().any(|one| matches(one, model)))
    }

    /// Refuses `model`, as a request names it, to a request that may not use it.
    pub(crate) fn check_model(self, model: &str) -> Result<(), Refusal> {
        if self.allow_model(model.strip_prefix(GEMINI_FOLDER).unwrap_or(model)) {
            return Ok(());
        }
        let shown: String = model.chars().take(SHOWN_MAX_CHARS).collect();
        Err(self.refusal(&format!("may not use the model '{}'", visible(&shown))))
    }

    /// The refusal of a request whose key `fails`: `may not use the provider b`.
    pub(crate) fn refusal(self, fails: &str) -> Refusal {
        let Some(key) = self.key else { return Refusal::new(Code::NotAllowed, fails) };
        let rights = &key.rights;
        let mut has = Vec::new();
        if let Some(slugs) = &rights.providers {
            has.push(format!("only the providers {}", slugs.join(", ")));
        }
        if let Some(models) = &rights.models {
            has.push(format!("only the models {}", models.join(", ")));
        }
        if rights.requests_per_minute.is_some() || rights.tokens_per_day.is_some() {
            has.push("a limit".to_owned());
        }
        let message = format!(
            "The key '{}' {fails}: in settings.auth.keys it has {}",
            rights.name,
            has.join(", and ")
        );
        Refusal::new(Code::NotAllowed, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyRights;
    use crate::proxy::limits::AllUsed;
    use crate::proxy::metrics::Metrics;

    #[test]
    fn a_refused_model_was_named_by_code_points() {
        let rights = KeyRights { models: Some(vec!["gpt-*".to_owned()]), ..KeyRights::all("ci") };
        let key = ClientKey::new(&rights, &Metrics::new(), &mut AllUsed::default());
        let refused = |model| Rights::of(&key).check_model(model).unwrap_err().message;
        assert!(refused("通义千问").contains("may not use the model '通义千问'"));
        assert!(refused("a\nb\u{202e}").contains("'a\\nb\\u{202e}'"));
    }

    #[test]
    fn a_refusal_says_what_the_key_has() {
        let list = |texts: &[&str]| Some(texts.iter().map(ToString::to_string).collect());
        let rights = KeyRights {
            providers: list(&["a", "b"]),
            models: list(&["gpt-*"]),
            requests_per_minute: Some(1),
            ..KeyRights::all("ci")
        };
        let key = ClientKey::new(&rights, &Metrics::new(), &mut AllUsed::default());
        let refusal = Rights::of(&key).refusal("may not use the model x");
        assert_eq!(
            refusal.message,
            "The key 'ci' may not use the model x: in settings.auth.keys it has only the providers a, b, and only the \
             models gpt-*, and a limit"
        );
    }

    #[test]
    fn models_by_their_patterns() {
        let rights = KeyRights {
            models: Some(vec!["gpt-*-mini".into(), "o3".into()]),
            ..KeyRights::all("ci")
        };
        let key = ClientKey::new(&rights, &Metrics::new(), &mut AllUsed::default());
        let rights = Rights::of(&key);
        for (model, expected) in [
            ("gpt-5-mini", true),
            ("gpt--mini", true),
            ("o3", true),
            ("o3-pro", false),
            ("gpt-5", false),
            ("", false),
            ("GPT-5-mini", false),
        ] {
            assert_eq!(rights.allow_model(model), expected, "{model}");
            assert!(Rights::default().allow_model(model));
        }
        assert!(rights.are_by_model() && rights.are_limited() && !Rights::default().are_limited());
        assert!(rights.check_token().is_err() && Rights::default().check_token().is_ok());
    }

    #[test]
    fn keys_whose_limits_nobody_could_keep_in_a_websocket() {
        let all = KeyRights::all("ci");
        let by_minute = KeyRights { requests_per_minute: Some(1), ..all.clone() };
        let by_day = KeyRights { tokens_per_day: Some(1), ..all.clone() };
        let by_model = KeyRights { models: Some(vec!["*".into()]), ..all.clone() };
        let by_provider = KeyRights { providers: Some(vec!["a".into()]), ..all.clone() };
        for (rights, expected) in [
            (all, true),
            (by_minute, true),
            (by_provider, true),
            (by_day, false),
            (by_model, false),
        ] {
            let key = ClientKey::new(&rights, &Metrics::new(), &mut AllUsed::default());
            assert_eq!(Rights::of(&key).check_websocket().is_ok(), expected, "{rights:?}");
        }
        assert!(Rights::default().check_websocket().is_ok());
    }
}
