//! Logins at the issuer: authorization codes with PKCE (RFC 6749 §4.1, RFC 7636) and device codes (RFC 8628). There
//! is no person: the sandbox accepts, or refuses if told to.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::json;

use crate::common::{Answer, CLIENT_ID, random, refusal};

/// The lifetime of an authorization code, in milliseconds.
const CODE_LIFETIME_MS: u64 = 60_000;
/// The lifetime of a device code, in seconds.
const DEVICE_LIFETIME_SECONDS: u64 = 600;
/// The interval of a device's polls, in seconds.
const DEVICE_INTERVAL_SECONDS: u64 = 1;

/// The logins in progress.
#[derive(Debug, Default)]
pub struct Logins {
    codes: HashMap<String, Code>,
    devices: HashMap<String, Device>,
}

#[derive(Debug)]
struct Code {
    challenge: String,
    redirect_uri: String,
    expires_ms: u64,
}

#[derive(Debug)]
struct Device {
    user_code: String,
    decided: Option<bool>,
    asked_ms: Option<u64>,
    expires_ms: u64,
}

impl Logins {
    /// Answers an authorization request with the browser's next address, or the request's mistake. The parameter
    /// `deny` refuses it; `is_registered` says that the client registered itself.
    pub fn authorize(
        &mut self,
        params: &HashMap<String, String>,
        is_registered: bool,
        issuer: &str,
        rng: &mut fastrand::Rng,
        now_ms: u64,
    ) -> Result<String, &'static str> {
        let get = |name: &str| params.get(name).map_or("", String::as_str);
        if get("client_id") != CLIENT_ID && !is_registered {
            return Err("the client is not known");
        }
        if get("redirect_uri").is_empty() {
            return Err("there is no redirect_uri");
        }
        let mut answer = vec![("state", get("state").to_owned()), ("iss", issuer.to_owned())];
        if params.contains_key("deny") {
            answer.push(("error", "access_denied".to_owned()));
            answer.push(("error_description", "The sandbox was told to refuse".to_owned()));
        } else if get("response_type") != "code"
            || get("code_challenge_method") != "S256"
            || get("code_challenge").len() != 43
        {
            answer.push(("error", "invalid_request".to_owned()));
        } else {
            let code = random(rng, "sandbox-code-");
            let challenge = get("code_challenge").to_owned();
            let redirect_uri = get("redirect_uri").to_owned();
            let expires_ms = now_ms + CODE_LIFETIME_MS;
            self.codes.insert(code.clone(), Code { challenge, redirect_uri, expires_ms });
            answer.push(("code", code));
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(answer).finish();
        let joint = if get("redirect_uri").contains('?') { '&' } else { '?' };
        Ok(format!("{}{joint}{query}", get("redirect_uri")))
    }

    /// True if the code of a token request is valid; a code works once.
    pub fn redeem(&mut self, params: &HashMap<String, String>, now_ms: u64) -> bool {
        let get = |name: &str| params.get(name).map_or("", String::as_str);
        let Some(code) = self.codes.remove(get("code")) else { return false };
        let challenge =
            BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, get("code_verifier").as_bytes()));
        challenge == code.challenge
            && get("redirect_uri") == code.redirect_uri
            && now_ms < code.expires_ms
    }

    /// Answers a device authorization request of a known client.
    pub fn new_device(&mut self, issuer: &str, rng: &mut fastrand::Rng, now_ms: u64) -> Answer {
        let device_code = random(rng, "sandbox-dc-");
        let user_code: String = std::iter::repeat_with(|| rng.uppercase()).take(8).collect();
        let device = Device {
            user_code: user_code.clone(),
            decided: None,
            asked_ms: None,
            expires_ms: now_ms + DEVICE_LIFETIME_SECONDS * 1000,
        };
        self.devices.insert(device_code.clone(), device);
        let body = json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": format!("{issuer}/device"),
            "verification_uri_complete": format!("{issuer}/device?user_code={user_code}"),
            "expires_in": DEVICE_LIFETIME_SECONDS,
            "interval": DEVICE_INTERVAL_SECONDS,
        });
        (200, body)
    }

    /// The person accepts or refuses; false for an unknown code.
    pub fn decide(&mut self, user_code: &str, agreed: bool) -> bool {
        let device = self.devices.values_mut().find(|device| device.user_code == user_code);
        device.map(|device| device.decided = Some(agreed)).is_some()
    }

    /// Succeeds once the device code of a token request is valid; a code works once.
    pub fn poll(&mut self, device_code: &str, now_ms: u64) -> Result<(), Answer> {
        let Some(device) = self.devices.get_mut(device_code) else {
            return Err(refusal(400, "invalid_grant"));
        };
        let too_soon = device
            .asked_ms
            .is_some_and(|asked_ms| now_ms - asked_ms < DEVICE_INTERVAL_SECONDS * 1000);
        device.asked_ms = Some(now_ms);
        let error = match device.decided {
            _ if now_ms >= device.expires_ms => "expired_token",
            Some(true) => {
                self.devices.remove(device_code);
                return Ok(());
            }
            Some(false) => "access_denied",
            None if too_soon => "slow_down",
            None => "authorization_pending",
        };
        // As Microsoft describes each error of a poll, with a code of its own.
        let described = "AADSTS70016: OAuth 2.0 device flow error. Continue polling, or not.";
        Err((400, json!({ "error": error, "error_description": described })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const REQUEST: [(&str, &str); 6] = [
        ("client_id", CLIENT_ID),
        ("response_type", "code"),
        ("redirect_uri", "http://127.0.0.1:1/cb"),
        ("state", "s"),
        ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method", "S256"),
    ];

    fn code_of(logins: &mut Logins) -> String {
        let mut rng = fastrand::Rng::with_seed(1);
        let target = logins.authorize(&params(&REQUEST), false, "http://i", &mut rng, 0).unwrap();
        assert!(target.starts_with("http://127.0.0.1:1/cb?state=s&iss=http%3A%2F%2Fi&code="));
        target.split("code=").nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_code_is_tied_to_its_verifier_and_used_once() {
        let mut logins = Logins::default();
        for (verifier, redirect_uri, now_ms, good) in [
            (VERIFIER, REQUEST[2].1, 59_999, true),
            (VERIFIER, REQUEST[2].1, 60_000, false),
            ("another", REQUEST[2].1, 0, false),
            (VERIFIER, "http://127.0.0.1:2/cb", 0, false),
        ] {
            let code = code_of(&mut logins);
            let redeemed = params(&[
                ("code", &code),
                ("code_verifier", verifier),
                ("redirect_uri", redirect_uri),
            ]);
            assert_eq!(logins.redeem(&redeemed, now_ms), good);
            assert!(!logins.redeem(&redeemed, now_ms));
        }
    }

    #[test]
    fn what_is_refused() {
        let mut logins = Logins::default();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut with = |name: &str, value: &str| {
            let mut changed = params(&REQUEST);
            changed.insert(name.to_owned(), value.to_owned());
            logins.authorize(&changed, false, "http://i", &mut rng, 0)
        };
        assert!(with("client_id", "x").is_err());
        assert!(with("redirect_uri", "").is_err());
        assert!(with("code_challenge_method", "plain").unwrap().contains("error=invalid_request"));
        assert!(with("deny", "").unwrap().contains("error=access_denied"));
    }

    #[test]
    fn devices_wait_for_a_person() {
        let mut logins = Logins::default();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut begin = |logins: &mut Logins| {
            let body = logins.new_device("http://i", &mut rng, 0).1;
            (
                body["device_code"].as_str().unwrap().to_owned(),
                body["user_code"].as_str().unwrap().to_owned(),
            )
        };
        let error = |answer: Result<(), Answer>| {
            answer.unwrap_err().1["error"].as_str().unwrap().to_owned()
        };
        let (device_code, user_code) = begin(&mut logins);
        assert_eq!(error(logins.poll(&device_code, 0)), "authorization_pending");
        assert_eq!(error(logins.poll(&device_code, 999)), "slow_down");
        assert_eq!(error(logins.poll(&device_code, 1_999)), "authorization_pending");
        assert!(!logins.decide("none", true));
        assert!(logins.decide(&user_code, true));
        assert_eq!(logins.poll(&device_code, 2_000), Ok(()));
        assert_eq!(error(logins.poll(&device_code, 2_001)), "invalid_grant");
        let (device_code, user_code) = begin(&mut logins);
        logins.decide(&user_code, false);
        assert_eq!(error(logins.poll(&device_code, 0)), "access_denied");
        assert_eq!(error(logins.poll(&device_code, 600_000)), "expired_token");
    }
}
