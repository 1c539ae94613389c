//! The lifetimes of an answer's tokens, by the answer or by the token. Pure.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::token_fields::TokenFields;
use crate::expiry;
use crate::jwt::{self, Exp};

/// The assumed lifetime if none is named.
pub(crate) const LIFETIME_ASSUMED_MS: i64 = 3_600_000;
/// A longer lifetime counts as a mistake.
pub const LIFETIME_MAX_MS: i64 = 10 * 366 * 24 * 3_600_000;
/// The zone of a date and time without an offset, in the form of the variable `TZ`: UTC, because an issuer is
/// elsewhere.
const ISSUERS_ZONE: &str = "";

/// Members with a lifetime in seconds (here), and with a point in time (below).
const LIFETIMES: [&str; 1] = ["expires_in"];
const ENDS: [&str; 2] = ["expires_at", "expires_on"];
/// The same for the refresh token: most issuers', Keycloak's, Intuit's.
const REFRESH_LIFETIMES: [&str; 3] =
    ["refresh_token_expires_in", "refresh_expires_in", "x_refresh_token_expires_in"];
const REFRESH_ENDS: [&str; 2] = ["refresh_token_expires_at", "refresh_expires_at"];

/// The sources of the lifetimes of an answer's tokens.
#[derive(Clone, Copy)]
pub(super) struct Times<'a> {
    pub(super) answer: &'a Value,
    /// The places of the answer's values.
    pub(super) fields: &'a TokenFields,
    /// The time at which the request was sent.
    pub(super) sent: Timestamp,
}

fn is_sane(millis: i64) -> bool {
    (1..=LIFETIME_MAX_MS).contains(&millis)
}

impl<'a> Times<'a> {
    fn value(self, name: &str) -> Option<&'a Value> {
        self.fields.value(self.answer, name)
    }

    /// The access token's lifetime in milliseconds, and a defect if there is one: by the answer, else by the token's
    /// own `exp`, else an hour.
    pub(super) fn of_access_token(self, access_token: &str) -> (i64, Option<String>) {
        let sent = self.sent;
        if let Some(millis) = self.named(&LIFETIMES, &ENDS) {
            return (millis, None);
        }
        let end = jwt::exp(access_token);
        let exp = end.known();
        let left = exp.map(|exp| exp.millis_since(sent));
        let odd = self
            .senseless()
            .map(|name| format!("The token response's '{name}' makes no sense"))
            .or(match end {
                Exp::At(at) if at <= sent => Some(
                    "The access token's own 'exp' is in the past; is the clock right?".to_owned(),
                ),
                Exp::NotUnderstood => {
                    Some("The access token's own 'exp' is not understood".to_owned())
                }
                Exp::At(_) | Exp::Unnamed => None,
            });
        let iat = jwt::claims(access_token).and_then(|claims| point(claims.get("iat")?));
        // If a clock is wrong, the issuer still meant the time from `iat` to `exp`.
        let meant = exp.zip(iat).map(|(exp, iat)| exp.millis_since(iat));
        let sane = |lifetime: Option<i64>| lifetime.filter(|millis| is_sane(*millis));
        let (millis, taken) = match (sane(left), sane(meant)) {
            (Some(left), _) => (left, "the token's own 'exp' is used"),
            (None, Some(meant)) => (meant, "the time from its 'iat' to its 'exp' is used"),
            (None, None) => (LIFETIME_ASSUMED_MS, "one hour is assumed"),
        };
        (millis, odd.map(|odd| format!("{odd}; {taken}")))
    }

    /// The first member with a senseless end of the access token. Some issuers write a zero or empty point in time if
    /// there is no end.
    fn senseless(self) -> Option<&'static str> {
        let is_none = |value: &Value| number(value) == Some(0.0) || value.as_str() == Some("");
        let lifetime = LIFETIMES.into_iter().find(|name| self.value(name).is_some());
        let end =
            || ENDS.into_iter().find(|name| self.value(name).is_some_and(|value| !is_none(value)));
        lifetime.or_else(end)
    }

    /// True if the answer, or else the access token itself, names an end in the past.
    pub(super) fn has_ended(self, access_token: &str) -> bool {
        if self.named(&LIFETIMES, &ENDS).is_some() {
            return false;
        }
        let lifetime = LIFETIMES.iter().find_map(|name| number(self.value(name)?));
        let mut ends = ENDS.iter().filter_map(|name| point(self.value(name)?));
        let own = || jwt::exp(access_token).known();
        lifetime.is_some_and(|secs| secs <= 0.0)
            || ends.next().or_else(own).is_some_and(|end| end <= self.sent)
    }

    /// The lifetime of the refresh token in milliseconds, if the answer names it. Zero (Keycloak's word for a token
    /// without end) and senseless values count as no lifetime.
    pub(super) fn of_refresh_token(self) -> Option<i64> {
        self.named(&REFRESH_LIFETIMES, &REFRESH_ENDS)
    }

    /// The note about an end of the refresh token in an unknown form.
    pub(super) fn odd_refresh_end(self) -> Option<String> {
        if self.of_refresh_token().is_some() {
            return None;
        }
        let is_none = |value: &Value| {
            number(value) == Some(0.0)
                || value.as_str() == Some("")
                || value.is_null()
                || *value == Value::Bool(false)
        };
        let names = REFRESH_LIFETIMES.iter().chain(&REFRESH_ENDS);
        let odd = names.copied().find(|name| {
            let value = self.value(name);
            value.is_some_and(|value| {
                !is_none(value) && number(value).is_none() && point(value).is_none()
            })
        })?;
        Some(format!(
            "The token response's '{odd}' is not understood, so evertoken can't warn before the \
             refresh token ends"
        ))
    }

    /// The first sensible lifetime among these members.
    fn named(self, lifetimes: &[&str], ends: &[&str]) -> Option<i64> {
        let lifetimes =
            lifetimes.iter().filter_map(|name| number(self.value(name)?).map(to_millis));
        let ends =
            ends.iter().filter_map(|name| Some(point(self.value(name)?)?.millis_since(self.sent)));
        lifetimes.chain(ends).find(|millis| is_sane(*millis))
    }
}

/// A number, or a number in a text.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

/// A point in time in any known form.
pub(super) fn point(value: &Value) -> Option<Timestamp> {
    expiry::read(value, Some(ISSUERS_ZONE))
}

#[expect(clippy::cast_possible_truncation, reason = "a float beyond i64 saturates, as is wanted")]
pub(super) fn to_millis(secs: f64) -> i64 {
    (secs * 1000.0) as i64
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    const SENT: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn times(answer: &Value) -> Times<'_> {
        static FIELDS: LazyLock<TokenFields> = LazyLock::new(TokenFields::default);
        Times { answer, fields: &FIELDS, sent: SENT }
    }

    /// A JWT with these claims.
    fn jwt(claims: &Value) -> String {
        format!("aa.{}.cc", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn lifetimes_by_the_answer_else_by_the_token_else_an_hour() {
        let plain = "opaque";
        let lives_two_minutes = jwt(&json!({"exp": 1_800_000_120}));
        let ended = jwt(&json!({"exp": 1_799_999_999}));
        let meant_for_ten = jwt(&json!({"iat": 1_700_000_000, "exp": 1_700_000_600.0}));
        let hour = LIFETIME_ASSUMED_MS;
        let cases = [
            (json!({"expires_in": 60}), plain, 60_000, false),
            (json!({"expires_in": "60"}), plain, 60_000, false),
            (json!({"expires_in": " 60 "}), plain, 60_000, false),
            (json!({"expires_in": 59.5}), plain, 59_500, false),
            (json!({"expires_in": 1e3}), plain, 1_000_000, false),
            (json!({}), plain, hour, false),
            (json!({"expires_in": null}), plain, hour, false),
            (json!({"expires_in": 0}), plain, hour, true),
            (json!({"expires_in": -1}), plain, hour, true),
            (json!({"expires_in": "soon"}), plain, hour, true),
            (json!({"expires_in": "1h"}), plain, hour, true),
            (json!({"expires_in": [60]}), plain, hour, true),
            (json!({"expires_in": 316_224_000}), plain, LIFETIME_MAX_MS, false),
            (json!({"expires_in": 316_224_001}), plain, hour, true),
            (json!({"expires_in": "NaN"}), plain, hour, true),
            (json!({"expires_in": 60, "expires_on": "1999999999"}), plain, 60_000, false),
            (json!({"expires_on": "1800000090"}), plain, 90_000, false),
            (json!({"expires_at": 1_800_000_090_500_i64}), plain, 90_500, false),
            (json!({"expires_at": "2027-01-15T08:01:30Z"}), plain, 90_000, false),
            (json!({"expires_at": 0}), &lives_two_minutes, 120_000, false),
            (json!({}), &lives_two_minutes, 120_000, false),
            (json!({"expires_in": 1e300}), &lives_two_minutes, 120_000, true),
            (json!({}), &ended, hour, true),
            (json!({}), &meant_for_ten, 600_000, true),
            (json!({}), &jwt(&json!({"exp": 1_800_000_000})), hour, true),
            (json!({}), &jwt(&json!({"exp": 1_800_000_001})), 1_000, false),
            (json!({}), "aa.bb.cc", hour, false),
            // The forms of credential files.
            (json!({"expires_at": "2027-01-15T08:01:30+0000"}), plain, 90_000, false),
            (json!({"expires_at": "2027-01-15 08:01:30"}), plain, 90_000, false),
            (json!({"expires_at": "Fri, 15 Jan 2027 08:01:30 GMT"}), plain, 90_000, false),
            (json!({"expires_at": "2027-01-15 16:01:30 +0800 CST"}), plain, 90_000, false),
            (json!({"expires_at": 1_800_000_090_000_000_i64}), plain, 90_000, false),
            // An unknown form is reported.
            (json!({"expires_at": "soon"}), plain, hour, true),
            (json!({"expires_at": [1]}), plain, hour, true),
            (json!({"expires_at": "soon"}), &lives_two_minutes, 120_000, true),
            (json!({"expires_on": 1_799_999_999}), plain, hour, true),
            (json!({"expires_on": "0", "expires_at": ""}), plain, hour, false),
            (json!({}), &jwt(&json!({"exp": "soon"})), hour, true),
            (json!({}), &jwt(&json!({"exp": "1800000120"})), 120_000, false),
            (json!({}), &jwt(&json!({"exp": 1_800_000_120_000_i64})), 120_000, false),
        ];
        for (answer, token, lifetime, warns) in cases {
            let (millis, odd) = times(&answer).of_access_token(token);
            assert_eq!((millis, odd.is_some()), (lifetime, warns), "{answer} {token}: {odd:?}");
        }
    }

    #[test]
    fn the_end_of_a_refresh_token_under_each_name() {
        let cases = [
            (json!({"refresh_token_expires_in": 604_799}), Some(604_799_000)),
            (json!({"refresh_token_expires_in": "15897600"}), Some(15_897_600_000)),
            (json!({"refresh_expires_in": 1800}), Some(1_800_000)),
            (json!({"x_refresh_token_expires_in": 8_726_400}), Some(8_726_400_000)),
            (json!({"refresh_token_expires_at": 1_800_000_060}), Some(60_000)),
            (json!({"refresh_token_expires_at": "2027-01-15T08:01:00Z"}), Some(60_000)),
            (json!({"refresh_expires_in": 0}), None),
            (json!({"refresh_token_expires_in": -5}), None),
            (json!({"refresh_token_expires_in": 316_224_000}), Some(LIFETIME_MAX_MS)),
            (json!({"refresh_token_expires_in": 316_224_001}), None),
            (json!({"refresh_token_expires_in": null}), None),
            (json!({"refresh_token_expires_in": "never"}), None),
            (json!({"refresh_token_expires_at": 1_799_999_999}), None),
            (json!({"expires_in": 60}), None),
        ];
        for (answer, expected) in cases {
            let millis = times(&answer).of_refresh_token();
            assert_eq!(millis, expected, "{answer}");
        }
    }

    #[test]
    fn an_end_of_the_refresh_token_in_words_nobody_knows_is_told() {
        let odd = |answer| times(&answer).odd_refresh_end();
        for (answer, name) in [
            (json!({"refresh_token_expires_in": "P30D"}), "refresh_token_expires_in"),
            (json!({"refresh_expires_at": "next month"}), "refresh_expires_at"),
            (json!({"refresh_token_expires_at": {"days": 3}}), "refresh_token_expires_at"),
        ] {
            assert!(odd(answer).is_some_and(|told| told.contains(&format!("'{name}'"))), "{name}");
        }
        for none in [json!(0), json!("0"), json!(""), json!(null), json!(false), json!(60)] {
            assert_eq!(odd(json!({"refresh_token_expires_in": none})), None);
        }
        assert_eq!(odd(json!({"expires_in": 60})), None);
    }
}
