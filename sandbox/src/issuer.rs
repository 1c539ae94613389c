//! The token endpoint's logic: valid refresh tokens and the treatment of used ones (RFC 9700 §4.14), the client
//! credentials grant, and valid access tokens. Pure.

use std::collections::{HashMap, HashSet};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::assertions::{CLIENT_ASSERTION_TYPE, JWT_BEARER, Judge, TOKEN_EXCHANGE};
pub use crate::common::CLIENT_ID;
use crate::common::{Answer, random, refusal};
use crate::discovery;
use crate::exchange::{Asked, Exchange};
use crate::logins::Logins;
use crate::manners::answer::Values;
use crate::manners::request::{TokenRequest, Wrong};
use crate::manners::{ClientAuth, Manners, UsedToken};

/// The counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Successful grants.
    pub granted: u64,
    /// Refused requests.
    pub refused: u64,
    /// Refresh tokens that were used again after a refresh had replaced them, and after the overlap.
    pub reused: u64,
    /// Refresh tokens that were used again within the overlap.
    pub overlapped: u64,
    /// Tokens that a client revoked.
    pub revoked: u64,
}

/// The issuer. Times are milliseconds since 1970 on a clock that never goes back.
#[derive(Debug)]
pub struct Issuer {
    manners: Manners,
    client_secret: String,
    refresh: HashMap<String, Refresh>,
    access: HashMap<String, Access>,
    families: Vec<Family>,
    rng: fastrand::Rng,
    logins: Logins,
    /// The ids of the public clients that registered.
    registered: HashSet<String>,
    /// Judges assertions and subject tokens.
    judge: Judge,
    /// The audiences of assertions: this issuer, and its token endpoint.
    audiences: Vec<String>,
    /// The counts since the start.
    pub counts: Counts,
}

#[derive(Debug)]
struct Refresh {
    family: usize,
    /// The time of its first use.
    used_ms: Option<u64>,
    expires_ms: Option<u64>,
}

#[derive(Debug)]
struct Access {
    family: usize,
    expires_ms: u64,
}

/// All tokens that followed from one login.
#[derive(Debug, Default)]
struct Family {
    began_ms: u64,
    revoked: bool,
    /// The latest access token.
    latest: Option<String>,
}

/// The outcome of a token request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Tokens.
    Granted(Values),
    /// The client is unknown, or may not authenticate like this.
    WrongClient,
    /// The request has the wrong form.
    WrongRequest,
    /// A required header field is missing.
    HeaderMissing,
    /// The refresh token is unknown, expired or revoked.
    Dead,
    /// The refresh token was used before.
    Used,
    /// Another OAuth error, in a login.
    Other(Answer),
}

impl Issuer {
    /// An issuer with no tokens.
    pub fn new(manners: Manners, mut rng: fastrand::Rng) -> Self {
        Self {
            manners,
            client_secret: random(&mut rng, "sandbox-cs-"),
            refresh: HashMap::new(),
            access: HashMap::new(),
            families: Vec::new(),
            rng,
            logins: Logins::default(),
            registered: HashSet::new(),
            judge: Judge::default(),
            audiences: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Assertions are for `audiences` from now on.
    pub fn serves(&mut self, audiences: Vec<String>) {
        self.audiences = audiences;
    }

    /// Takes assertions and subject tokens that are signed with the private half of `pem`; false if it is no public key.
    pub fn learn_key(&mut self, pem: &str) -> bool {
        self.judge.learn(pem)
    }

    /// The secret of [`CLIENT_ID`], unless it is a public client.
    pub fn client_secret(&self) -> &str {
        &self.client_secret
    }

    /// Its manners.
    pub fn manners(&self) -> &Manners {
        &self.manners
    }

    /// The first refresh token of a new family, as after a login.
    pub fn login(&mut self, now_ms: u64) -> String {
        let family = self.new_family(now_ms);
        self.new_refresh(family, now_ms)
    }

    fn new_family(&mut self, began_ms: u64) -> usize {
        self.families.push(Family { began_ms, ..Family::default() });
        self.families.len() - 1
    }

    fn new_refresh(&mut self, family: usize, now_ms: u64) -> String {
        let token = random(&mut self.rng, &self.manners.tokens.refresh_token_prefix);
        let lifetime = self.manners.tokens.refresh_token_lifetime_seconds;
        let expires_ms = lifetime.map(|seconds| now_ms + seconds * 1000);
        self.refresh.insert(token.clone(), Refresh { family, used_ms: None, expires_ms });
        token
    }

    /// True if `token` may be used at `now_ms`.
    pub fn is_valid(&self, token: &str, now_ms: u64) -> bool {
        self.account(token, now_ms).is_some()
    }

    /// The account of `token`, a number for each login; None if it may not be used at `now_ms`.
    pub fn account(&self, token: &str, now_ms: u64) -> Option<usize> {
        let one = self.access.get(token)?;
        (now_ms < one.expires_ms && !self.families[one.family].revoked).then_some(one.family)
    }

    /// Revokes every access token, as an administrator would.
    pub fn revoke_access_tokens(&mut self) {
        self.access.clear();
    }

    /// Ends every login and revokes all its tokens.
    pub fn revoke_logins(&mut self) {
        for family in &mut self.families {
            family.revoked = true;
        }
    }

    /// The outcome of a token request (RFC 6749 §5, §6).
    pub fn token(
        &mut self,
        request: &TokenRequest,
        has_header: impl Fn(&str) -> bool,
        now_ms: u64,
    ) -> Outcome {
        let wrong = request.wrong(&self.manners, has_header);
        let is_own = request.client_auth == ClientAuth::None && self.is_registered(&request.params);
        let asserts = self.asserts_client(&request.params, now_ms);
        let needs_none = asserts == Some(true) || is_own || is_without_client(&request.params);
        let outcome = match wrong.filter(|wrong| *wrong != Wrong::Client || !needs_none) {
            Some(Wrong::Request) => Outcome::WrongRequest,
            Some(Wrong::Header) => Outcome::HeaderMissing,
            Some(Wrong::Client) => Outcome::WrongClient,
            None if asserts == Some(false) => Outcome::WrongClient,
            None if !needs_none && !self.knows_client(&request.params) => Outcome::WrongClient,
            None => self.decide(&request.params, now_ms),
        };
        match outcome {
            Outcome::Granted(_) => self.counts.granted += 1,
            _ => self.counts.refused += 1,
        }
        outcome
    }

    fn decide(&mut self, params: &HashMap<String, String>, now_ms: u64) -> Outcome {
        let get = |name: &str| params.get(name).map_or("", String::as_str);
        let now_secs = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        match get("grant_type") {
            JWT_BEARER => {
                let audiences = self.audiences.clone();
                let is_good = self.judge.of_grant(get("assertion"), &audiences, now_secs);
                self.granted_if(is_good, now_ms)
            }
            TOKEN_EXCHANGE => {
                let is_good = self.judge.of_subject(get("subject_token"), now_secs);
                self.granted_if(is_good && !get("subject_token_type").is_empty(), now_ms)
            }
            "authorization_code" if self.logins.redeem(params, now_ms) => self.logged_in(now_ms),
            "authorization_code" => Outcome::Dead,
            "urn:ietf:params:oauth:grant-type:device_code" => {
                match self.logins.poll(get("device_code"), now_ms) {
                    Ok(()) => self.logged_in(now_ms),
                    Err(answer) => Outcome::Other(answer),
                }
            }
            "refresh_token" => self.refresh(get("refresh_token"), now_ms),
            "client_credentials" => {
                let family = self.new_family(now_ms);
                self.grant(family, None, now_ms)
            }
            "" => Outcome::WrongRequest,
            _ => Outcome::Other(refusal(400, "unsupported_grant_type")),
        }
    }

    fn granted_if(&mut self, is_good: bool, now_ms: u64) -> Outcome {
        if !is_good {
            return Outcome::Other(refusal(400, "invalid_grant"));
        }
        let family = self.new_family(now_ms);
        self.grant(family, None, now_ms)
    }

    /// Whether the client's assertion is to be believed (RFC 7523 §2.2); None without one.
    fn asserts_client(&mut self, params: &HashMap<String, String>, now_ms: u64) -> Option<bool> {
        let token = params.get("client_assertion")?;
        let now_secs = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
        let is_jwt =
            params.get("client_assertion_type").map(String::as_str) == Some(CLIENT_ASSERTION_TYPE);
        let (secret, audiences) = (self.client_secret.clone(), self.audiences.clone());
        Some(is_jwt && self.judge.of_client(token, (CLIENT_ID, &secret), &audiences, now_secs))
    }

    /// True if the client of a request authenticates in one way or another.
    fn is_authenticated(&mut self, params: &HashMap<String, String>, now_ms: u64) -> bool {
        let asserts = self.asserts_client(params, now_ms);
        asserts.unwrap_or_else(|| self.knows_client(params))
    }

    fn knows_client(&self, params: &HashMap<String, String>) -> bool {
        let secret = params.get("client_secret");
        let is_public = self.manners.request.client_auth.contains(&ClientAuth::None);
        if self.is_registered(params) {
            return secret.is_none();
        }
        params.get("client_id").map(String::as_str) == Some(CLIENT_ID)
            && secret.map_or(is_public, |secret| *secret == self.client_secret)
    }

    /// True if the client of a request registered itself.
    fn is_registered(&self, params: &HashMap<String, String>) -> bool {
        params.get("client_id").is_some_and(|id| self.registered.contains(id))
    }

    /// Answers a registration (RFC 7591 §3).
    pub fn register(&mut self, asked: &Value) -> Answer {
        match discovery::register(asked, &mut self.rng) {
            Ok((answer, id)) => {
                self.registered.insert(id);
                answer
            }
            Err(refused) => refused,
        }
    }

    /// Answers a revocation (RFC 7009 §2): a refresh token ends its login, and an unknown token is no error.
    pub fn revoke(&mut self, params: &HashMap<String, String>, now_ms: u64) -> Answer {
        if !self.is_authenticated(params, now_ms) {
            return refusal(401, "invalid_client");
        }
        let Some(token) = params.get("token") else { return refusal(400, "invalid_request") };
        if let Some(known) = self.refresh.get(token) {
            self.families[known.family].revoked = true;
            self.counts.revoked += 1;
        } else if self.access.remove(token).is_some() {
            self.counts.revoked += 1;
        }
        (200, json!({}))
    }

    /// Answers a request to an endpoint that is no OAuth. A refresh token of a login stands for GitHub's own token.
    pub(crate) fn exchange(
        &mut self,
        endpoint: Exchange,
        asked: &Asked<'_>,
        now_ms: u64,
    ) -> Answer {
        let knows = |token: &str| self.refresh.contains_key(token) || self.is_valid(token, now_ms);
        if let Err(refused) = endpoint.check(asked, knows) {
            self.counts.refused += 1;
            return refused;
        }
        self.counts.granted += 1;
        let family = self.new_family(now_ms);
        let token = self.new_access(family, now_ms);
        let seconds = self.manners.tokens.lifetime_seconds;
        endpoint.answer(&token, seconds, now_ms / 1000 + seconds)
    }

    /// The tokens at the end of a login.
    fn logged_in(&mut self, now_ms: u64) -> Outcome {
        let refresh = self.login(now_ms);
        self.grant(self.families.len() - 1, Some(refresh), now_ms)
    }

    /// Answers an authorization request with the browser's next address; see [`Logins::authorize`].
    pub fn authorize(
        &mut self,
        params: &HashMap<String, String>,
        own: &str,
        now_ms: u64,
    ) -> Result<String, &'static str> {
        let is_registered = self.is_registered(params);
        self.logins.authorize(params, is_registered, own, &mut self.rng, now_ms)
    }

    /// Answers a device authorization request.
    pub fn device(&mut self, params: &HashMap<String, String>, own: &str, now_ms: u64) -> Answer {
        if !self.is_authenticated(params, now_ms) {
            return refusal(401, "invalid_client");
        }
        self.logins.new_device(own, &mut self.rng, now_ms)
    }

    /// The person at the device page accepts or refuses; false for an unknown code.
    pub fn answer_device(&mut self, user_code: &str, agreed: bool) -> bool {
        self.logins.decide(user_code, agreed)
    }

    fn refresh(&mut self, presented: &str, now_ms: u64) -> Outcome {
        let Some(known) = self.refresh.get(presented) else { return Outcome::Dead };
        let (family, used_ms, expires_ms) = (known.family, known.used_ms, known.expires_ms);
        let ended = expires_ms.is_some_and(|end| end <= now_ms)
            || self.session_end_ms(family).is_some_and(|end| end <= now_ms);
        if ended || self.families[family].revoked {
            return Outcome::Dead;
        }
        if let Some(used_ms) = used_ms {
            let overlap_ms = self.manners.rotation.overlap_seconds * 1000;
            if now_ms - used_ms < overlap_ms {
                self.counts.overlapped += 1;
            } else if self.manners.rotation.used_token != UsedToken::Works {
                self.counts.reused += 1;
                self.families[family].revoked =
                    self.manners.rotation.used_token == UsedToken::RevokesAll;
                return Outcome::Used;
            }
        }
        if !self.manners.rotation.rotates {
            return self.grant(family, None, now_ms);
        }
        if let Some(known) = self.refresh.get_mut(presented) {
            known.used_ms.get_or_insert(now_ms);
        }
        let next = self.new_refresh(family, now_ms);
        self.grant(family, Some(next), now_ms)
    }

    fn session_end_ms(&self, family: usize) -> Option<u64> {
        let session = self.manners.tokens.session_seconds?;
        Some(self.families[family].began_ms + session * 1000)
    }

    fn grant(&mut self, family: usize, refresh_token: Option<String>, now_ms: u64) -> Outcome {
        self.access.retain(|_, one| one.expires_ms > now_ms);
        let latest = self.families[family].latest.take();
        let repeated = latest
            .clone()
            .filter(|token| self.manners.tokens.repeats && self.access.contains_key(token));
        if let Some(latest) = latest.filter(|_| self.manners.rotation.ends_access_token) {
            self.access.remove(&latest);
        }
        let token = repeated.unwrap_or_else(|| self.new_access(family, now_ms));
        let expires_ms = self.access.get(&token).map_or(now_ms, |one| one.expires_ms);
        self.families[family].latest = Some(token.clone());
        Outcome::Granted(Values {
            access_token: Some(token),
            refresh_expires_in: self.refresh_left_seconds(family, refresh_token.as_deref(), now_ms),
            refresh_token,
            expires_in: Some((expires_ms - now_ms) / 1000),
            issued_at_ms: now_ms,
        })
    }

    fn new_access(&mut self, family: usize, now_ms: u64) -> String {
        let expires_ms = now_ms + self.manners.tokens.lifetime_seconds * 1000;
        let tokens = &self.manners.tokens;
        let token = match tokens.access_token_prefix.as_deref() {
            Some(prefix) => random(&mut self.rng, prefix),
            None => jwt(&random(&mut self.rng, ""), expires_ms / 1000, &tokens.claims),
        };
        self.access.insert(token.clone(), Access { family, expires_ms });
        token
    }

    fn refresh_left_seconds(&self, family: usize, token: Option<&str>, now_ms: u64) -> Option<u64> {
        let own = self.refresh.get(token?)?.expires_ms;
        let end = own.into_iter().chain(self.session_end_ms(family)).min()?;
        Some(end.saturating_sub(now_ms) / 1000)
    }
}

/// An unsigned JSON Web Token (RFC 7519).
fn jwt(id: &str, exp: u64, more: &Map<String, Value>) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let mut claims = json!({ "exp": exp, "jti": id, "sub": "sandbox" });
    for (name, value) in more {
        claims[name] = value.clone();
    }
    format!("{}.{}.{}", part(&json!({"alg": "none", "typ": "JWT"})), part(&claims), "c2FuZGJveA")
}

/// True for a grant that is its own proof, from nobody in particular.
fn is_without_client(params: &HashMap<String, String>) -> bool {
    let grant = params.get("grant_type").map(String::as_str);
    matches!(grant, Some(JWT_BEARER | TOKEN_EXCHANGE)) && !params.contains_key("client_secret")
}

#[cfg(test)]
mod tests;
