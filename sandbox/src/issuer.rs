//! The token endpoint's logic: rotating single-use refresh tokens with reuse detection (RFC 9700
//! §4.14), the client credentials grant, and which access tokens are valid.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::logins::Logins;

/// Who may ask for tokens.
pub const CLIENT_ID: &str = "sandbox-client";

/// How the issuer behaves.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How long an access token lives, in milliseconds.
    pub lifetime_ms: u64,
    /// Whether a refresh token can be used once only.
    pub rotates: bool,
    /// How long a used refresh token is still taken, for clients that lost the answer, in milliseconds.
    pub overlap_ms: u64,
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Successful grants.
    pub granted: u64,
    /// Refused ones.
    pub refused: u64,
    /// Refresh tokens that were used twice; each revoked its family.
    pub reused: u64,
    /// Refresh tokens that were used twice within the overlap.
    pub overlapped: u64,
}

/// The issuer. Times are milliseconds on any clock that never goes back.
#[derive(Debug)]
pub struct Issuer {
    rules: Rules,
    client_secret: String,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
    revoked: Vec<u64>,
    families: u64,
    rng: fastrand::Rng,
    logins: Logins,
    /// What happened since the start.
    pub counts: Counts,
}

#[derive(Debug)]
struct Refresh {
    family: u64,
    /// When it was used first.
    used_ms: Option<u64>,
}

#[derive(Debug)]
struct Access {
    family: u64,
    expires_ms: u64,
}

/// A status and a JSON body.
pub type Answer = (u16, Value);

impl Issuer {
    /// An issuer with no tokens.
    pub fn new(rules: Rules, mut rng: fastrand::Rng) -> Self {
        let client_secret = random(&mut rng, "cs");
        Self {
            rules,
            client_secret,
            refresh: HashMap::new(),
            access: HashMap::new(),
            revoked: Vec::new(),
            families: 0,
            rng,
            logins: Logins::default(),
            counts: Counts::default(),
        }
    }

    /// The secret of [`CLIENT_ID`].
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// The first refresh token of a new family, as a login would give.
    pub fn login(&mut self) -> String {
        self.families += 1;
        self.new_refresh(self.families)
    }

    fn new_refresh(&mut self, family: u64) -> String {
        let token = random(&mut self.rng, "rt");
        self.refresh.insert(token.clone(), Refresh { family, used_ms: None });
        token
    }

    /// Whether `token` may be used at `now_ms`.
    pub fn is_valid(&self, token: &str, now_ms: u64) -> bool {
        self.access
            .get(token)
            .is_some_and(|one| now_ms < one.expires_ms && !self.revoked.contains(&one.family))
    }

    /// Revokes every access token, as an administrator would.
    pub fn revoke_access_tokens(&mut self) {
        self.access.clear();
    }

    /// Answers a token request with these parameters (RFC 6749 §5, §6).
    pub fn token(&mut self, params: &HashMap<String, String>, now_ms: u64) -> Answer {
        let answer = self.decide(params, now_ms);
        match answer.0 {
            200 => self.counts.granted += 1,
            _ => self.counts.refused += 1,
        }
        answer
    }

    fn decide(&mut self, params: &HashMap<String, String>, now_ms: u64) -> Answer {
        let get = |name: &str| params.get(name).map_or("", String::as_str);
        if !self.knows_client(params) {
            return refusal(401, "invalid_client");
        }
        match get("grant_type") {
            "authorization_code" if self.logins.redeem(params, now_ms) => self.logged_in(now_ms),
            "authorization_code" => refusal(400, "invalid_grant"),
            "urn:ietf:params:oauth:grant-type:device_code" => {
                match self.logins.poll(get("device_code"), now_ms) {
                    Ok(()) => self.logged_in(now_ms),
                    Err(answer) => answer,
                }
            }
            "refresh_token" => self.refresh(get("refresh_token"), now_ms),
            "client_credentials" => {
                self.families += 1;
                self.grant(self.families, None, now_ms)
            }
            "" => refusal(400, "invalid_request"),
            _ => refusal(400, "unsupported_grant_type"),
        }
    }

    fn knows_client(&self, params: &HashMap<String, String>) -> bool {
        let get = |name: &str| params.get(name).map_or("", String::as_str);
        get("client_id") == CLIENT_ID && get("client_secret") == self.client_secret
    }

    /// The tokens that a login ends with.
    fn logged_in(&mut self, now_ms: u64) -> Answer {
        let refresh = self.login();
        self.grant(self.families, Some(refresh), now_ms)
    }

    /// Answers an authorization request: where to send the browser, see [`Logins::authorize`].
    pub fn authorize(
        &mut self,
        params: &HashMap<String, String>,
        own: &str,
        now_ms: u64,
    ) -> Result<String, &'static str> {
        self.logins.authorize(params, own, &mut self.rng, now_ms)
    }

    /// Answers a device authorization request.
    pub fn device(&mut self, params: &HashMap<String, String>, own: &str, now_ms: u64) -> Answer {
        if !self.knows_client(params) {
            return refusal(401, "invalid_client");
        }
        self.logins.new_device(own, &mut self.rng, now_ms)
    }

    /// The person at the device page agrees or refuses; false where the code is not known.
    pub fn answer_device(&mut self, user_code: &str, agreed: bool) -> bool {
        self.logins.decide(user_code, agreed)
    }

    fn refresh(&mut self, presented: &str, now_ms: u64) -> Answer {
        let Some(known) = self.refresh.get_mut(presented) else {
            return refusal(400, "invalid_grant");
        };
        let family = known.family;
        match known.used_ms {
            None => {}
            Some(used_ms) if now_ms - used_ms < self.rules.overlap_ms => {
                self.counts.overlapped += 1;
            }
            Some(_) => {
                self.counts.reused += 1;
                self.revoked.push(family);
            }
        }
        if self.revoked.contains(&family) {
            return refusal(400, "invalid_grant");
        }
        if !self.rules.rotates {
            return self.grant(family, None, now_ms);
        }
        known.used_ms.get_or_insert(now_ms);
        let next = self.new_refresh(family);
        self.grant(family, Some(next), now_ms)
    }

    fn grant(&mut self, family: u64, refresh: Option<String>, now_ms: u64) -> Answer {
        let token = random(&mut self.rng, "at");
        let expires_ms = now_ms + self.rules.lifetime_ms;
        self.access.retain(|_, one| one.expires_ms > now_ms);
        self.access.insert(token.clone(), Access { family, expires_ms });
        let mut body = json!({
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.rules.lifetime_ms / 1000,
        });
        if let Some(refresh) = refresh {
            body["refresh_token"] = refresh.into();
        }
        (200, body)
    }
}

pub(crate) fn refusal(status: u16, error: &str) -> Answer {
    (status, json!({ "error": error, "error_description": "said by the sandbox" }))
}

pub(crate) fn random(rng: &mut fastrand::Rng, kind: &str) -> String {
    let tail: String = std::iter::repeat_with(|| rng.alphanumeric()).take(40).collect();
    format!("sandbox-{kind}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(rotates: bool) -> Issuer {
        Issuer::new(
            Rules { lifetime_ms: 30_000, rotates, overlap_ms: 0 },
            fastrand::Rng::with_seed(1),
        )
    }

    fn refresh(issuer: &mut Issuer, token: &str, now_ms: u64) -> Answer {
        let secret = issuer.client_secret().to_owned();
        let params = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("client_id", CLIENT_ID),
            ("client_secret", &secret),
        ];
        let params = params.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        issuer.token(&params, now_ms)
    }

    fn text<'a>(answer: &'a Answer, key: &str) -> &'a str {
        answer.1[key].as_str().unwrap_or("")
    }

    #[test]
    fn tokens_rotate_and_expire() {
        let mut issuer = issuer(true);
        let first = issuer.login();
        let answer = refresh(&mut issuer, &first, 0);
        let access = text(&answer, "access_token").to_owned();
        assert!(issuer.is_valid(&access, 29_999));
        assert!(!issuer.is_valid(&access, 30_000));
        assert_ne!(text(&answer, "refresh_token"), first);
        let next = text(&answer, "refresh_token").to_owned();
        assert_eq!(refresh(&mut issuer, &next, 1).0, 200);
        assert!(issuer.is_valid(&access, 1));
        issuer.revoke_access_tokens();
        assert!(!issuer.is_valid(&access, 1));
    }

    #[test]
    fn reuse_revokes_the_family() {
        let mut issuer = issuer(true);
        let first = issuer.login();
        let other = issuer.login();
        let answer = refresh(&mut issuer, &first, 0);
        let again = refresh(&mut issuer, &first, 0);
        assert_eq!((again.0, text(&again, "error")), (400, "invalid_grant"));
        assert!(!issuer.is_valid(text(&answer, "access_token"), 1));
        let next = text(&answer, "refresh_token").to_owned();
        assert_eq!(refresh(&mut issuer, &next, 0).0, 400);
        assert_eq!(refresh(&mut issuer, &other, 0).0, 200);
        assert_eq!(issuer.counts, Counts { granted: 2, refused: 2, reused: 1, overlapped: 0 });
    }

    #[test]
    fn within_the_overlap_a_lost_answer_costs_nothing() {
        let rules = Rules { lifetime_ms: 30_000, rotates: true, overlap_ms: 1000 };
        let mut issuer = Issuer::new(rules, fastrand::Rng::with_seed(1));
        let first = issuer.login();
        for at in [5, 6, 1004] {
            assert_eq!(refresh(&mut issuer, &first, at).0, 200);
        }
        assert_eq!(refresh(&mut issuer, &first, 1005).0, 400);
        assert_eq!((issuer.counts.overlapped, issuer.counts.reused), (2, 1));
    }

    #[test]
    fn without_rotation_a_token_can_be_used_again() {
        let mut issuer = issuer(false);
        let first = issuer.login();
        for _ in 0..3 {
            let answer = refresh(&mut issuer, &first, 0);
            assert_eq!((answer.0, text(&answer, "refresh_token")), (200, ""));
        }
    }

    #[test]
    fn clients_and_grants_are_checked() {
        let mut issuer = issuer(true);
        let ask = |issuer: &mut Issuer, grant: &str, secret: &str| {
            let params =
                [("grant_type", grant), ("client_id", CLIENT_ID), ("client_secret", secret)];
            let params = params.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            issuer.token(&params, 0)
        };
        let secret = issuer.client_secret().to_owned();
        assert_eq!(ask(&mut issuer, "client_credentials", &secret).0, 200);
        assert_eq!(ask(&mut issuer, "client_credentials", "x").0, 401);
        assert_eq!(text(&ask(&mut issuer, "password", &secret), "error"), "unsupported_grant_type");
        assert_eq!(text(&ask(&mut issuer, "", &secret), "error"), "invalid_request");
        assert_eq!(text(&ask(&mut issuer, "refresh_token", &secret), "error"), "invalid_grant");
    }
}
