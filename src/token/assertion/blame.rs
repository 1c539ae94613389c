//! Finds the probable cause if an issuer refuses an assertion or a token to exchange: a clock, or a token that has ended.
//! Pure.

use crate::clock::Timestamp;
use crate::config::assertion::end_of;
use crate::config::{Assertion, AutoRefresh, ClientAuth, GrantType, SecretFile};
use crate::http::message::Headers;
use crate::token::assertion::SKEW_SECONDS;
use crate::token::grant::codes::Meaning;
use crate::token::grant::{AssertionFault, Class, Failure, What};

/// The failure of a request of `config`, with the fault of its assertion or subject token, if one of them is to blame.
/// `headers` are the answer's, which came between `sent` and `received`.
pub(crate) fn blamed(
    failure: Failure,
    config: &AutoRefresh,
    headers: &Headers,
    (sent, received): (Timestamp, Timestamp),
) -> Failure {
    let What::Status(status, code) = &failure.what else { return failure };
    let meaning = Meaning::of(code.as_deref().unwrap_or(""));
    let is_about_it =
        matches!(meaning, Meaning::TokenDead | Meaning::Client | Meaning::Form | Meaning::Unknown);
    if !(400..=403).contains(status) || !is_about_it {
        return failure;
    }
    let date = headers.date().filter(|_| signs(config));
    let gap = date.map_or(0, |date| seconds_ahead(date, sent, received));
    let (fault, class) = if gap.abs() > SKEW_SECONDS {
        // A clock may be set at any time.
        (AssertionFault::Clock(gap), Class::Transient)
    } else if let Some((what, end)) = ended(config, received) {
        (AssertionFault::Ended(what, end), Class::Transient)
    } else if is_grant(config) && failure.class == Class::TokenDead {
        (AssertionFault::Unknown, Class::Permanent)
    } else {
        return failure;
    };
    Failure { class, what: What::Assertion(*status, code.clone(), fault), ..failure }
}

/// The seconds by which this machine's clock is ahead of the issuer's, negative if it is behind. `date` was between
/// `sent` and `received`, if both clocks agree.
fn seconds_ahead(date: Timestamp, sent: Timestamp, received: Timestamp) -> i64 {
    if date < sent {
        sent.millis_since(date) / 1000
    } else if date > received {
        -(date.millis_since(received) / 1000)
    } else {
        0
    }
}

/// True if this machine's clock gives an assertion its times.
fn signs(config: &AutoRefresh) -> bool {
    let mut all = config.assertions();
    matches!(config.client_auth, ClientAuth::SecretJwt(_))
        || all.any(|assertion| matches!(assertion, Assertion::Signed(_)))
}

/// True if the grant itself is an assertion or another issuer's token.
fn is_grant(config: &AutoRefresh) -> bool {
    matches!(config.grant_type, GrantType::JwtBearer(_) | GrantType::TokenExchange(_))
}

/// The token of another program that has ended, in words, and its end.
fn ended(config: &AutoRefresh, now: Timestamp) -> Option<(String, Timestamp)> {
    let of_file = |file: &SecretFile| {
        Some((format!("the assertion in {}", file.path.display()), end_of(&file.found)?))
    };
    let ready = config.assertions().filter_map(|assertion| match assertion {
        Assertion::Ready(file) => of_file(file),
        Assertion::Signed(_) => None,
    });
    let subject = match &config.grant_type {
        GrantType::TokenExchange(exchange) => end_of(&exchange.subject_token).map(|end| {
            let file = exchange.subject_token_file.as_ref();
            let place = file.map(|path| format!(" in {}", path.display())).unwrap_or_default();
            (format!("the subject token{place}"), end)
        }),
        _ => None,
    };
    ready.chain(subject).find(|(_, end)| *end <= now)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;
    use crate::config::token_fields::TokenFields;
    use crate::config::{JwtBearer, TokenExchange};
    use crate::secret::Secret;
    use crate::signing::tests::P256;
    use crate::token::assertion::tests::signed;
    use crate::token::grant::{self, tests::config};

    const SENT: i64 = 1_800_000_000;

    /// The failure of a request of `config`, answered by an issuer whose clock is so many seconds ahead.
    fn failure(config: &AutoRefresh, status: u16, body: &str, issuer_ahead: i64) -> Failure {
        let (sent, received) = (Timestamp::from_secs(SENT), Timestamp::from_secs(SENT + 1));
        let mut headers = Headers::new();
        let date = Timestamp::from_secs(SENT + issuer_ahead).to_system_time();
        headers.push("date", httpdate::fmt_http_date(date).as_bytes());
        let fields = TokenFields::default();
        let failure = grant::read(status, &headers, body.as_bytes(), &fields, sent).unwrap_err();
        blamed(failure, config, &headers, (sent, received))
    }

    fn jwt_bearer() -> AutoRefresh {
        let assertion = signed(P256, &[]);
        let bearer = JwtBearer { assertion, is_bearer: false };
        AutoRefresh { grant_type: GrantType::JwtBearer(Box::new(bearer)), ..config() }
    }

    const REFUSED: &str = r#"{"error":"invalid_grant","error_description":"iat is in the future"}"#;

    #[test]
    fn a_clock_that_is_off_is_said_with_the_difference() {
        let config = jwt_bearer();
        for (issuer_ahead, words) in [
            (-31, "this machine's clock is 31 s ahead of the issuer's"),
            (-3600, "this machine's clock is 3600 s ahead of the issuer's"),
            (32, "this machine's clock is 31 s behind the issuer's"),
        ] {
            let failure = failure(&config, 400, REFUSED, issuer_ahead);
            assert!(failure.what.to_string().contains(words), "{}", failure.what);
            assert!(failure.what.to_string().starts_with("400 Bad Request (invalid_grant); this"));
            assert_eq!(failure.class, Class::Transient);
        }
        for issuer_ahead in [-30, 0, 1, 31] {
            let failure = failure(&config, 400, REFUSED, issuer_ahead);
            assert_eq!(failure.what.to_string(), "400 Bad Request (invalid_grant)");
            assert_eq!(failure.class, Class::Permanent, "no login helps");
        }
        // Without a code, as GitHub.
        let github = failure(&config, 401, r#"{"message":"'Issued at' claim ('iat')"}"#, -90);
        assert!(github.what.to_string().contains("90 s ahead"), "{}", github.what);
        // Other faults are no clock's.
        for (status, body) in [(400, r#"{"error":"invalid_scope"}"#), (500, ""), (429, "")] {
            let failure = failure(&config, status, body, -90);
            assert!(matches!(failure.what, What::Status(..)), "{}", failure.what);
        }
    }

    #[test]
    fn a_client_s_assertion_depends_on_the_clock_too_and_its_secret_does_not() {
        let refused = r#"{"error":"invalid_client"}"#;
        let secret = failure(&config(), 401, refused, -90);
        assert_eq!(secret.what.to_string(), "401 Unauthorized (invalid_client)");
        let client_auth = ClientAuth::PrivateKeyJwt(signed(P256, &[]));
        let key = AutoRefresh { client_auth, ..config() };
        assert!(failure(&key, 401, refused, -90).what.to_string().contains("90 s ahead"));
        assert!(matches!(failure(&key, 401, refused, 0).what, What::Status(..)));
        // A refresh token that is dead stays dead.
        assert_eq!(failure(&key, 400, REFUSED, 0).class, Class::TokenDead);
    }

    #[test]
    fn a_subject_token_that_has_ended_is_named_with_its_end() {
        let token = |end: i64| {
            Secret::new(format!(
                "a.{}.c",
                BASE64_URL_SAFE_NO_PAD.encode(json!({"exp": end}).to_string())
            ))
        };
        let exchange = |end: i64| {
            let exchange = TokenExchange {
                subject_token: Ok(token(end)),
                subject_token_file: Some(PathBuf::from("/t")),
                subject_token_type: String::new(),
                parameters: Vec::new(),
            };
            let client_auth = ClientAuth::None;
            let grant_type = GrantType::TokenExchange(Box::new(exchange));
            failure(&AutoRefresh { grant_type, client_auth, ..config() }, 400, REFUSED, -90)
        };
        let ended = exchange(SENT);
        assert_eq!(
            ended.what.to_string(),
            "400 Bad Request (invalid_grant); the subject token in /t ended at 2027-01-15T08:00:00.000Z"
        );
        assert_eq!(ended.class, Class::Transient, "somebody renews it");
        let good = exchange(SENT + 2);
        assert_eq!(
            (good.what.to_string().as_str(), good.class),
            ("400 Bad Request (invalid_grant)", Class::Permanent)
        );
        let found = Ok(token(SENT));
        let file = SecretFile { path: PathBuf::from("/svid"), found };
        let client_auth = ClientAuth::PrivateKeyJwt(Assertion::Ready(file));
        let config = AutoRefresh { client_auth, ..config() };
        let told = failure(&config, 401, r#"{"error":"invalid_client"}"#, 0).what.to_string();
        assert!(told.contains("the assertion in /svid ended at"), "{told}");
    }
}
