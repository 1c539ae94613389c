//! What is left of one account's quota, in its file and in the token store. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Moment, Timestamp};
use crate::json;
use crate::quota::account::AccountId;
use crate::quota::standing::{SavedWindow, Windows};

/// The version of the form.
const VERSION: u64 = 1;

/// The quota of one account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredQuota {
    version: u64,
    /// The account, as [`AccountId`] writes it.
    account: String,
    /// The time of writing.
    pub saved_at: Timestamp,
    /// The windows that are worth keeping.
    pub windows: Vec<SavedWindow>,
    /// The end of the provider's cooldown, if it cools down because it answered so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<Timestamp>,
    /// The models that rest because a refusal concerned them alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resting_models: Vec<StoredRest>,
}

/// A model that rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredRest {
    /// Its name.
    pub model: String,
    /// The end of its rest.
    pub until: Timestamp,
}

/// The reason why a text is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadQuota {
    /// It is no JSON with a version.
    #[error("it is no quota file of evertoken")]
    Foreign,
    /// A later version wrote it.
    #[error("a later evertoken wrote it (version {0} of its form; this one knows {VERSION})")]
    Later(u64),
    /// Its values are wrong.
    #[error("its values are no quota")]
    Broken,
}

impl StoredQuota {
    /// The present knowledge.
    pub(crate) fn of(windows: &Windows, cooldown_until: Option<Timestamp>, now: Moment) -> Self {
        Self {
            version: VERSION,
            account: windows.account().to_string(),
            saved_at: now.wall,
            windows: windows.saved(now),
            cooldown_until,
            resting_models: Vec::new(),
        }
    }

    /// The account.
    pub(crate) fn account(&self) -> Option<AccountId> {
        AccountId::parse(&self.account)
    }

    /// Without cooldowns of the provider and its models.
    pub(crate) fn without_rests(self) -> Self {
        Self { cooldown_until: None, resting_models: Vec::new(), ..self }
    }

    /// Its text.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialize")
    }

    /// Reads the output of [`StoredQuota::to_json`].
    pub(crate) fn parse(text: &[u8]) -> Result<Self, BadQuota> {
        let json: Value = json::read(text).map_err(|_| BadQuota::Foreign)?;
        match json.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(version) if version > VERSION => return Err(BadQuota::Later(version)),
            _ => return Err(BadQuota::Foreign),
        }
        let stored: Self = serde_json::from_value(json).map_err(|_| BadQuota::Broken)?;
        stored.account().is_some().then_some(stored).ok_or(BadQuota::Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_later_and_broken_texts_are_told_apart() {
        let good = StoredQuota::of(
            &Windows::default(),
            Some(Timestamp::from_secs(1_800_000_000)),
            Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms: 1 },
        );
        let text = good.to_json();
        assert_eq!(StoredQuota::parse(text.as_bytes()), Ok(good));
        let changed = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            StoredQuota::parse(text.replace(from, to).as_bytes())
        };
        for (wrong, expected) in [
            (changed("\"version\":1", "\"version\":2"), BadQuota::Later(2)),
            (changed("\"version\":1", "\"version\":0"), BadQuota::Foreign),
            (changed("\"version\":1", "\"format\":1"), BadQuota::Foreign),
            (changed("\"account\":\"00", "\"account\":\"0"), BadQuota::Broken),
            (changed("\"windows\":[]", "\"windows\":[{}]"), BadQuota::Broken),
            (StoredQuota::parse(&text.as_bytes()[1..]), BadQuota::Foreign),
            (StoredQuota::parse(b""), BadQuota::Foreign),
            (StoredQuota::parse(b"[1]"), BadQuota::Foreign),
        ] {
            assert_eq!(wrong, Err(expected));
        }
    }
}
