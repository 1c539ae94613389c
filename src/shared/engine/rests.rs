//! Cooldowns of providers and rests of their models, on the server.

use crate::shared::engine::scripts::FORGET;
use crate::shared::engine::{Line, Names, StoreError};

/// The most resting models of a provider that the server knows. The others are published all the same.
const RESTING_SLOTS: u64 = 8;

impl Line {
    /// Publishes that a provider cools down for so many milliseconds, with a number; a longer known cooldown stays.
    pub fn cool_down(
        &mut self,
        names: &Names,
        (ms, number): (u64, u64),
        from: &str,
    ) -> Result<(), StoreError> {
        let (key, length) = (names.key("cooldown"), ms.to_string());
        if ms > 0 && self.cooldown_left_ms(names)? < ms {
            self.link.ask(&["SET", &key, &number.to_string(), "PX", &length])?;
        }
        let news = format!("c {} {ms} {from}:{number}", names.slug);
        self.link.ask(&["PUBLISH", &names.news(), &news]).map(drop)
    }

    /// Publishes that rests of a provider, or of this `model` of it, ended early, and forgets them. One with another
    /// number stays.
    pub fn end_rest(
        &mut self,
        names: &Names,
        model: Option<&str>,
        numbers: &[u64],
        from: &str,
    ) -> Result<(), StoreError> {
        let key = model.map_or_else(|| names.key("cooldown"), |model| names.rest_key(slot(model)));
        let value = |number: &u64| match model {
            None => number.to_string(),
            Some(model) => resting_value(model, *number),
        };
        let values: Vec<String> = numbers.iter().map(value).collect();
        let mut command = vec!["EVAL", FORGET, "1", &key];
        command.extend(values.iter().map(String::as_str));
        self.link.ask(&command)?;
        let news = serde_json::json!({
            "end": names.slug, "model": model, "numbers": numbers, "from": from
        });
        self.link.ask(&["PUBLISH", &names.news(), &news.to_string()]).map(drop)
    }

    /// The rest of a provider's cooldown, in milliseconds.
    pub fn cooldown_left_ms(&mut self, names: &Names) -> Result<u64, StoreError> {
        // Below zero where there is none.
        self.link.ask(&["PTTL", &names.key("cooldown")]).map(|reply| reply.number())
    }

    /// The number of a provider's cooldown; None if it has none.
    pub fn cooldown_number(&mut self, names: &Names) -> Result<Option<u64>, StoreError> {
        let reply = self.link.ask(&["GET", &names.key("cooldown")])?;
        Ok(reply.text().and_then(|text| text.parse().ok()))
    }

    /// Publishes that one model of a provider rests for so many milliseconds, with a number; a longer known rest stays.
    pub fn rest(
        &mut self,
        names: &Names,
        model: &str,
        (ms, number): (u64, u64),
        from: &str,
    ) -> Result<(), StoreError> {
        // A model has its own key by the hash of its name. Two that share one have the longer rest there.
        let (key, length) = (names.rest_key(slot(model)), ms.to_string());
        if ms > 0 && self.link.ask(&["PTTL", &key])?.number() < ms {
            let value = resting_value(model, number);
            self.link.ask(&["SET", &key, &value, "PX", &length])?;
        }
        let news = serde_json::json!({
            "rest": names.slug, "model": model, "ms": ms, "number": number, "from": from
        });
        self.link.ask(&["PUBLISH", &names.news(), &news.to_string()]).map(drop)
    }

    /// The resting models of a provider, each with the rest of its time in milliseconds and its number.
    pub fn resting_models(
        &mut self,
        names: &Names,
    ) -> Result<Vec<(String, u64, Option<u64>)>, StoreError> {
        let mut resting = Vec::new();
        for number in 0..RESTING_SLOTS {
            let key = names.rest_key(number);
            let model = self.link.ask(&["GET", &key])?;
            let Some(value) = model.text() else { continue };
            // An older evertoken stores the model alone.
            let (model, end) = value.rsplit_once('\n').unwrap_or((value, ""));
            let left_ms = self.link.ask(&["PTTL", &key])?.number();
            if left_ms > 0 {
                resting.push((model.to_owned(), left_ms, end.parse().ok()));
            }
        }
        Ok(resting)
    }
}

/// The value of the key of a model that rests.
fn resting_value(model: &str, number: u64) -> String {
    format!("{model}\n{number}")
}

/// The number of a model's key (FNV-1a).
fn slot(model: &str) -> u64 {
    let hash = model.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % RESTING_SLOTS
}
