//! The device grant (RFC 8628): its requests, its instructions for the person, and its polling, as pure functions.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::token_fields::TokenFields;
use crate::config::{AutoRefresh, Missing};
use crate::login::callback::printable;
use crate::login::refused;
use crate::secret::Secret;
use crate::token::assertion::Assertions;
use crate::token::grant::codes::{Meaning, without_detail};
use crate::token::grant::{self, Class, Failure, TokenRequest, What, request_with};
use crate::token::sender::TokenAnswer;

/// RFC 8628 §3.4.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// RFC 8628 §3.5: the default interval, and the step of `slow_down`.
const INTERVAL_MS: u64 = 5_000;
const SLOW_DOWN_MS: u64 = 5_000;
/// The shortest and the longest time between two polls.
const INTERVAL_MIN_MS: u64 = 1_000;
const INTERVAL_MAX_MS: u64 = 60_000;
/// The default and the longest lifetime of a code.
const LIFETIME_MS: u64 = 900_000;
const LIFETIME_MAX_MS: u64 = 3_600_000;
/// A device authorization response (RFC 8628 §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceAuthorization {
    /// The code that each poll presents.
    pub device_code: Secret,
    user_code: String,
    verification_uri: String,
    complete: Option<String>,
    /// The lifetime of the codes, in milliseconds from their request.
    pub lifetime_ms: u64,
    /// The wait between two polls, in milliseconds.
    pub interval_ms: u64,
}

/// The reason why a device grant brought no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceError {
    /// The issuer gives no code, with its reason if it states one.
    #[error("The issuer gives no device code: {}", with_advice(.0.as_ref()))]
    NoCode(Option<Failure>),
    /// The answer lacks this field.
    #[error("The issuer's answer has no '{0}'; is device_authorization_url right?")]
    Lacks(&'static str),
    /// The code's lifetime ended.
    #[error("The code expired before it was typed in; try again")]
    Expired,
    /// The person, or the issuer, refused (`access_denied`).
    #[error("The login was refused, by you or by the issuer")]
    Denied,
    /// The issuer ended the login for another reason.
    #[error("The issuer ended the login: {0}")]
    Ended(What),
}

impl DeviceError {
    /// The same without a code that quotes one of `secrets`.
    pub(crate) fn without<'a>(self, secrets: impl Iterator<Item = &'a Secret>) -> Self {
        match self {
            Self::NoCode(failure) => Self::NoCode(failure.map(|failure| failure.without(secrets))),
            Self::Ended(what) => Self::Ended(what.without(secrets)),
            other => other,
        }
    }
}

fn with_advice(failure: Option<&Failure>) -> String {
    failure.map_or_else(String::new, |one| refused::with_advice(one, "device_authorization_url"))
}

/// The request that is repeated until the person is done (RFC 8628 §3.4).
pub(crate) fn token_request(
    config: &AutoRefresh,
    pending: &DeviceAuthorization,
    assertions: &Assertions,
) -> Result<TokenRequest, Missing> {
    let params = vec![("grant_type", GRANT_TYPE), ("device_code", pending.device_code.expose())];
    request_with(config, &config.token_url, params, None, assertions)
}

impl DeviceAuthorization {
    /// Reads the answer to a request sent at `sent`.
    pub(crate) fn read(answer: &TokenAnswer, sent: Timestamp) -> Result<Self, DeviceError> {
        let json = grant::parse(&answer.headers, &answer.body).unwrap_or_default();
        let is_fine = (200..300).contains(&answer.status) && json.get("error").is_none();
        if !is_fine {
            let fields = TokenFields::default();
            let failure =
                grant::read(answer.status, &answer.headers, &answer.body, &fields, sent).err();
            return Err(DeviceError::NoCode(failure));
        }
        let text =
            |key: &str| json.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let needed = |key| text(key).ok_or(DeviceError::Lacks(key));
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let millis =
            |key: &str| json.get(key).and_then(number).map(|secs: u64| secs.saturating_mul(1000));
        Ok(Self {
            device_code: Secret::new(needed("device_code")?),
            user_code: printable(needed("user_code")?),
            // Google's name for it is older than the RFC.
            verification_uri: printable(
                text("verification_url").map_or_else(|| needed("verification_uri"), Ok)?,
            ),
            // A cut address leads nowhere.
            complete: text("verification_uri_complete")
                .filter(|address| printable(address) == *address)
                .map(str::to_owned),
            lifetime_ms: millis("expires_in")
                .filter(|ms| *ms > 0)
                .unwrap_or(LIFETIME_MS)
                .min(LIFETIME_MAX_MS),
            interval_ms: millis("interval")
                .unwrap_or(INTERVAL_MS)
                .clamp(INTERVAL_MIN_MS, INTERVAL_MAX_MS),
        })
    }

    /// The instructions for the person (RFC 8628 §3.3).
    pub(crate) fn instructions(&self) -> String {
        let mut told = format!(
            "Open this address in a browser, on any machine:\n\n  {}\n\nand type in this code: {}\n",
            self.verification_uri, self.user_code
        );
        if let Some(complete) = &self.complete {
            told.push_str("\nThis address has the code in it already; compare it there:\n\n  ");
            told.push_str(complete);
            told.push('\n');
        }
        let minutes = self.lifetime_ms.div_ceil(60_000);
        told + &format!("\nWaiting for that, at most {minutes} minutes.")
    }

    /// The address to open, if a browser may be sent there.
    pub(crate) fn address(&self) -> Option<&str> {
        let address = self.complete.as_deref().unwrap_or(&self.verification_uri);
        // Programs that open addresses open other things, too.
        (address.starts_with("https://") || address.starts_with("http://")).then_some(address)
    }
}

/// The polling of the issuer.
#[derive(Debug)]
pub(crate) struct Poll {
    /// The wait before the next poll, which begins with the issuer's.
    pub(crate) interval_ms: u64,
}

impl Poll {
    /// After a poll without a token: the wait until the next poll, or the reason to stop (RFC 8628 §3.5).
    pub(crate) fn after_error(&mut self, failure: &Failure) -> Result<u64, DeviceError> {
        let (status, code) = match &failure.what {
            What::Status(status, code) => (*status, code.as_deref().unwrap_or_default()),
            _ => (0, ""),
        };
        // A refresh is retried after an unknown refusal; a person would wait in vain.
        let is_refused = matches!(status, 400..=499 if !matches!(status, 408 | 425 | 429))
            && !code.is_empty()
            && Meaning::of(code) == Meaning::Unknown;
        // Microsoft's own code follows (`authorization_pending/AADSTS70016`).
        match without_detail(code) {
            "authorization_pending" => Ok(self.interval_ms),
            "slow_down" => Ok(self.slower(self.interval_ms + SLOW_DOWN_MS)),
            // The second of each is Microsoft's.
            "expired_token" | "code_expired" => Err(DeviceError::Expired),
            "access_denied" | "authorization_declined" => Err(DeviceError::Denied),
            _ if failure.class == Class::Transient && !is_refused => {
                let wait_ms = self.slower(self.interval_ms * 2);
                Ok(failure
                    .retry_after_ms
                    .map_or(wait_ms, |asked| asked.clamp(wait_ms, INTERVAL_MAX_MS)))
            }
            _ => Err(DeviceError::Ended(failure.what.clone())),
        }
    }

    /// After a poll without an answer: the wait until the next poll.
    pub(crate) fn after_silence(&mut self) -> u64 {
        self.slower(self.interval_ms * 2)
    }

    fn slower(&mut self, interval_ms: u64) -> u64 {
        self.interval_ms = interval_ms.min(INTERVAL_MAX_MS);
        self.interval_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::Headers;
    use crate::token::grant::Reached;
    use crate::token::grant::tests::config;

    const SENT: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn read(status: u16, body: &str) -> Result<DeviceAuthorization, DeviceError> {
        let answer = TokenAnswer {
            status,
            headers: Headers::new(),
            body: body.as_bytes().to_vec(),
            said: None,
        };
        DeviceAuthorization::read(&answer, SENT)
    }

    fn with(more: &str) -> DeviceAuthorization {
        let body = format!(
            r#"{{"device_code":"dc","user_code":"AB-CD","verification_uri":"https://i/d"{more}}}"#
        );
        read(200, &body).unwrap()
    }

    #[test]
    fn codes_and_their_times() {
        for (more, lifetime_ms, interval_ms) in [
            ("", LIFETIME_MS, 5_000),
            (r#","expires_in":600,"interval":7"#, 600_000, 7_000),
            (r#","expires_in":0,"interval":0"#, LIFETIME_MS, 1_000),
            (r#","expires_in":3600,"interval":60"#, 3_600_000, 60_000),
            (r#","expires_in":3601,"interval":61"#, 3_600_000, 60_000),
            (r#","expires_in":"soon","interval":-1"#, LIFETIME_MS, 5_000),
        ] {
            let pending = with(more);
            assert_eq!(
                (pending.lifetime_ms, pending.interval_ms),
                (lifetime_ms, interval_ms),
                "{more}"
            );
        }
    }

    #[test]
    fn what_the_person_is_told() {
        let plain = with("");
        assert!(plain.instructions().contains("  https://i/d\n\nand type in this code: AB-CD\n"));
        assert!(plain.instructions().ends_with("at most 15 minutes."));
        assert!(!plain.instructions().contains("dc"));
        assert_eq!(plain.address(), Some("https://i/d"));
        let complete = with(r#","verification_uri_complete":"https://i/d?c=AB-CD""#);
        assert!(complete.instructions().contains("  https://i/d?c=AB-CD\n"));
        assert_eq!(complete.address(), Some("https://i/d?c=AB-CD"));
        let google =
            read(200, r#"{"device_code":"d","user_code":"u","verification_url":"https://g"}"#);
        assert_eq!(google.unwrap().verification_uri, "https://g");
        let github = read(
            200,
            "device_code=d&expires_in=899&interval=7&user_code=u&verification_uri=https%3A%2F%2Fg",
        );
        let github = github.unwrap();
        assert_eq!(github.verification_uri, "https://g");
        assert_eq!((github.lifetime_ms, github.interval_ms), (899_000, 7_000));
        let long = format!(r#","verification_uri_complete":"https://i/{}""#, "x".repeat(400));
        assert_eq!(with(&long).address(), Some("https://i/d"), "it is not cut");
        let odd = with(r#","verification_uri_complete":"file:///etc/passwd""#);
        assert_eq!(odd.address(), None);
        let escape = read(
            200,
            "{\"device_code\":\"d\",\"user_code\":\"u\\u001b[2J\",\"verification_uri\":\"x\"}",
        );
        assert_eq!(escape.unwrap().user_code, "u[2J");
    }

    #[test]
    fn answers_without_a_code() {
        for (status, body, part) in [
            (200, "{}", "has no 'device_code'"),
            (200, "<html>", "has no 'device_code'"),
            (200, r#"{"device_code":"d","user_code":"u"}"#, "has no 'verification_uri'"),
            (200, r#"{"error":"invalid_client"}"#, "200 OK (invalid_client)"),
            (401, r#"{"error":"invalid_client"}"#, "401 Unauthorized (invalid_client)"),
            (404, "", "404 Not Found"),
        ] {
            let why = read(status, body).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn requests() {
        let mut config = config();
        config.scope = Some("a b".into());
        let none = Assertions::default();
        let asked =
            request_with(&config, "https://i/d", Vec::new(), config.scope.as_deref(), &none)
                .unwrap();
        assert_eq!(asked.url, "https://i/d");
        assert_eq!(asked.body.expose(), "client_id=id+with+space&client_secret=s%26cret&scope=a+b");
        let poll = token_request(&config, &with(""), &none).unwrap();
        assert_eq!(poll.url, config.token_url);
        assert_eq!(
            poll.body.expose(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=dc\
             &client_id=id+with+space&client_secret=s%26cret"
        );
    }

    fn failure(status: u16, code: &str) -> Failure {
        failure_of(status, &format!(r#"{{"error":"{code}"}}"#))
    }

    fn failure_of(status: u16, body: &str) -> Failure {
        let fields = TokenFields::default();
        grant::read(status, &Headers::new(), body.as_bytes(), &fields, SENT).unwrap_err()
    }

    /// Microsoft describes each error, and the login ended with the first poll.
    #[test]
    fn microsofts_polls_go_on_and_end_like_all_others() {
        let mut poll = Poll { interval_ms: 5_000 };
        let mut after = |code: &str, described: &str| {
            let body = format!(
                r#"{{"error":"{code}","error_description":"{described}","error_codes":[7]}}"#
            );
            poll.after_error(&failure_of(400, &body))
        };
        let pending =
            "AADSTS70016: OAuth 2.0 device flow error. Authorization is pending. Continue polling.";
        assert_eq!(after("authorization_pending", pending), Ok(5_000));
        assert_eq!(after("slow_down", "AADSTS1: too fast"), Ok(10_000));
        for code in ["expired_token", "code_expired"] {
            assert_eq!(after(code, "AADSTS70020: x"), Err(DeviceError::Expired));
        }
        for code in ["access_denied", "authorization_declined"] {
            assert_eq!(after(code, "AADSTS70000: x"), Err(DeviceError::Denied));
        }
        let bad = after("bad_verification_code", "AADSTS70019: x").unwrap_err().to_string();
        assert!(bad.ends_with("(bad_verification_code/AADSTS70019)"), "{bad}");
    }

    /// Each poll doubled the wait, and the login ended up to a minute late.
    #[test]
    fn twitch_says_in_its_message_that_the_person_is_not_done() {
        let mut poll = Poll { interval_ms: 5_000 };
        let mut after = |message: &str| {
            let body = format!(r#"{{"status":400,"message":"{message}"}}"#);
            poll.after_error(&failure_of(400, &body))
        };
        assert_eq!(after("authorization_pending"), Ok(5_000));
        assert_eq!(after("slow_down"), Ok(10_000));
        assert_eq!(after("authorization_pending"), Ok(10_000));
    }

    #[test]
    fn polls_go_on_slow_down_and_end() {
        let mut poll = Poll { interval_ms: 5_000 };
        assert_eq!(poll.interval_ms, 5_000);
        assert_eq!(poll.after_error(&failure(400, "authorization_pending")), Ok(5_000));
        assert_eq!(poll.after_error(&failure(400, "slow_down")), Ok(10_000));
        assert_eq!(poll.after_error(&failure(400, "authorization_pending")), Ok(10_000));
        assert_eq!(poll.after_error(&failure(200, "slow_down")), Ok(15_000));
        assert_eq!(poll.after_silence(), 30_000);
        assert_eq!(poll.after_error(&failure(503, "x")), Ok(60_000));
        assert_eq!(poll.after_silence(), 60_000);
        assert_eq!(poll.after_error(&failure(400, "slow_down")), Ok(60_000));
        assert_eq!(poll.after_error(&failure(400, "expired_token")), Err(DeviceError::Expired));
        assert_eq!(poll.after_error(&failure(403, "access_denied")), Err(DeviceError::Denied));
        let other = poll.after_error(&failure(400, "invalid_grant")).unwrap_err().to_string();
        assert!(other.ends_with("400 Bad Request (invalid_grant)"), "{other}");
        let github =
            poll.after_error(&failure(400, "incorrect_device_code")).unwrap_err().to_string();
        assert!(github.ends_with("(incorrect_device_code)"), "{github}");
        let mut poll = Poll { interval_ms: 1_000 };
        let asked = Failure { retry_after_ms: Some(9_000), ..failure(429, "x") };
        assert_eq!(poll.after_error(&asked), Ok(9_000));
        let not_a_token =
            grant::read(200, &Headers::new(), b"<html>", &TokenFields::default(), SENT)
                .unwrap_err();
        assert_eq!(not_a_token.reached, Reached::Perhaps);
        assert_eq!(poll.after_error(&not_a_token), Ok(4_000));
    }
}
