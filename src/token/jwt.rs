//! What a JSON Web Token says of itself (RFC 7519), unverified: the token is for somebody else to verify. Pure.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::Timestamp;

/// The claims of `token`; None where it is no JWT.
pub fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// When `token` ends by its claim `exp`, in seconds since 1970 (RFC 7519 §4.1.4).
pub fn expiry(token: &str) -> Option<Timestamp> {
    let seconds = claims(token)?.get("exp")?.as_f64().filter(|seconds| *seconds > 0.0)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float beyond i64 saturates, as is wanted"
    )]
    let millis = (seconds * 1000.0) as i64;
    Some(Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_jwt() {
        let jwt = |claims: &str| format!("aa.{}.cc", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let cases = [
            (jwt(r#"{"exp":1800000120}"#), Some(1_800_000_120_000)),
            (jwt(r#"{"exp":1800000120.5}"#), Some(1_800_000_120_500)),
            (jwt(r#"{"exp":0}"#), None),
            (jwt(r#"{"exp":"soon"}"#), None),
            (jwt("{}"), None),
            (jwt("no JSON"), None),
            ("aa.b!.cc".to_owned(), None),
            ("opaque".to_owned(), None),
        ];
        for (token, expected) in cases {
            assert_eq!(expiry(&token).map(Timestamp::as_millis), expected, "{token}");
        }
    }
}
