//! Reads a JSON Web Token (RFC 7519) without verifying it, which is its recipient's task. Pure.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::expiry;
use crate::json;

/// The expiry in a token's claim `exp` (RFC 7519 §4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exp {
    /// The token is not a JWT, or has no such claim.
    Unnamed,
    /// The token expires at this time.
    At(Timestamp),
    /// The claim is there, but not in a known form.
    NotUnderstood,
}

impl Exp {
    /// The time, if it is known.
    pub(crate) fn known(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::Unnamed | Self::NotUnderstood => None,
        }
    }
}

/// The claims of `token`; None if it is not a JWT. Some issuers pad its parts, or use the common base64 alphabet.
pub(crate) fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = payload.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    json::read(&payload).ok()
}

/// The expiry of `token`: in seconds, as the RFC asks, or in another known form, in UTC.
pub(crate) fn exp(token: &str) -> Exp {
    let claims = claims(token);
    match claims.as_ref().and_then(|claims| claims.get("exp")).filter(|exp| !exp.is_null()) {
        None => Exp::Unnamed,
        Some(exp) => expiry::read(exp, Some("")).map_or(Exp::NotUnderstood, Exp::At),
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};

    use super::*;

    #[test]
    fn the_end_of_a_jwt() {
        let jwt = |claims: &str| format!("aa.{}.cc", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let at = |millis| Exp::At(Timestamp::from_millis(millis));
        let cases = [
            (jwt(r#"{"exp":1800000120}"#), at(1_800_000_120_000)),
            (jwt(r#"{"exp":1800000120.5}"#), at(1_800_000_120_500)),
            (jwt(r#"{"exp":"1800000120"}"#), at(1_800_000_120_000)),
            (jwt(r#"{"exp":1800000120000}"#), at(1_800_000_120_000)),
            (jwt(r#"{"exp":0}"#), Exp::NotUnderstood),
            (jwt(r#"{"exp":"soon"}"#), Exp::NotUnderstood),
            (jwt(r#"{"exp":null}"#), Exp::Unnamed),
            (jwt("{}"), Exp::Unnamed),
            (jwt("no JSON"), Exp::Unnamed),
            ("aa.b!.cc".to_owned(), Exp::Unnamed),
            ("opaque".to_owned(), Exp::Unnamed),
        ];
        for (token, expected) in cases {
            assert_eq!(exp(&token), expected, "{token}");
        }
    }

    #[test]
    fn claims_in_each_kind_of_base64() {
        // Contains both characters that differ between the alphabets, and has a length that needs padding.
        let text = r#"{"n":"ÿþ?>?>~~","exp":1800000120}"#;
        let engines =
            [BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD, BASE64_STANDARD, BASE64_STANDARD_NO_PAD];
        let payloads = engines.map(|engine| engine.encode(text));
        assert!(payloads[2].contains(['+', '/']) && payloads[2].ends_with('='), "{}", payloads[2]);
        for payload in payloads {
            assert_eq!(
                claims(&format!("aa.{payload}.cc")).unwrap()["exp"],
                1_800_000_120,
                "{payload}"
            );
        }
    }
}
