//! An access token that leaves evertoken as such, and its JSON. Pure.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::json;
use crate::secret::Secret;

/// An access token and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessToken {
    /// The token's text.
    pub secret: Secret,
    /// The time from which it must not be used, if it is known.
    pub expires_at: Option<Timestamp>,
}

impl AccessToken {
    /// The answer of `/-/token/<slug>` at `now`, with the names of a token response (RFC 6749 §5.1).
    pub(crate) fn to_json(&self, now: Timestamp) -> String {
        let mut members = json!({ "access_token": self.secret.expose(), "token_type": "Bearer" });
        if let Some(at) = self.expires_at {
            members["expires_at"] = at.to_string().into();
            members["expires_in"] = at.millis_since(now).div_euclid(1000).max(0).into();
        }
        members.to_string()
    }

    /// The token in such an answer; None if `text` is none.
    pub(crate) fn of_json(text: &str) -> Option<Self> {
        let members: Value = json::read(text.as_bytes()).ok()?;
        let secret = Secret::new(members["access_token"].as_str()?);
        let expires_at = match &members["expires_at"] {
            Value::Null => None,
            at => Some(Timestamp::parse_rfc3339(at.as_str()?)?),
        };
        Some(Self { secret, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_names_of_a_token_response_and_is_read_back() {
        let now = Timestamp::from_secs(1_800_000_000);
        let expires_at = Some(now.plus_millis(59_999));
        let token = AccessToken { secret: Secret::new("a\"b"), expires_at };
        let text = token.to_json(now);
        assert_eq!(
            text,
            r#"{"access_token":"a\"b","expires_at":"2027-01-15T08:00:59.999Z","expires_in":59,"token_type":"Bearer"}"#
        );
        assert_eq!(AccessToken::of_json(&text), Some(token.clone()));
        let endless = AccessToken { expires_at: None, ..token };
        assert!(!endless.to_json(now).contains("expires"));
        assert_eq!(AccessToken::of_json(&endless.to_json(now)), Some(endless));
        for text in ["", "{}", r#"{"access_token":1}"#, r#"{"access_token":"a","expires_at":"x"}"#]
        {
            assert_eq!(AccessToken::of_json(text), None, "{text}");
        }
    }
}
