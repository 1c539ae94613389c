//! Judges signed assertions (RFC 7523 §3) and subject tokens (RFC 8693 §2.1) as an issuer does that knows their keys. Pure.

use std::collections::HashSet;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

/// `client_assertion_type`.
pub(crate) const CLIENT_ASSERTION_TYPE: &str =
    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// `grant_type` of RFC 7523 and of RFC 8693.
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(crate) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The longest time from `iat` to `exp` that is taken, as Google's.
const LIFETIME_MAX_SECONDS: i64 = 3600;
/// The difference between clocks that is taken.
const LEEWAY_SECONDS: i64 = 5;
/// The bytes of a public key in DER before the key itself: of P-256 and of Ed25519.
const P256_PREFIX_BYTES: usize = 26;
const ED25519_PREFIX_BYTES: usize = 12;

/// The keys that an issuer knows, and the identifiers that it has seen.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    keys: Vec<PublicKey>,
    seen: HashSet<String>,
}

/// A public key.
#[derive(Debug)]
enum PublicKey {
    Rsa(Vec<u8>),
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// The key in a PEM file (`BEGIN PUBLIC KEY`); None for another kind.
    fn parse(pem: &str) -> Option<Self> {
        let lines = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
        let der = BASE64_STANDARD.decode(lines.collect::<String>()).ok()?;
        match der.len() {
            44 => Some(Self::Ed25519(der[ED25519_PREFIX_BYTES..].to_vec())),
            91 => Some(Self::P256(der[P256_PREFIX_BYTES..].to_vec())),
            // SEQUENCE, the algorithm (15 bytes), and a bit string whose lengths have two bytes.
            length if length > 280 && der[19] == 0x03 => Some(Self::Rsa(der[24..].to_vec())),
            _ => None,
        }
    }

    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let (rule, key): (&'static dyn VerificationAlgorithm, _) = match (self, algorithm) {
            (Self::Rsa(key), "RS256") => (&RSA_PKCS1_2048_8192_SHA256, key),
            (Self::Rsa(key), "PS256") => (&RSA_PSS_2048_8192_SHA256, key),
            (Self::P256(key), "ES256") => (&ECDSA_P256_SHA256_FIXED, key),
            (Self::Ed25519(key), "EdDSA") => (&ED25519, key),
            _ => return false,
        };
        UnparsedPublicKey::new(rule, key).verify(message, signature).is_ok()
    }
}

impl Judge {
    /// Knows the key in `pem` from now on; false if it can't be read.
    pub(crate) fn learn(&mut self, pem: &str) -> bool {
        let key = PublicKey::parse(pem);
        let is_known = key.is_some();
        self.keys.extend(key);
        is_known
    }

    /// The claims of a client's assertion, signed with a known key or with `secret`.
    pub(crate) fn of_client(
        &mut self,
        token: &str,
        client: (&str, &str),
        audiences: &[String],
        now_secs: i64,
    ) -> bool {
        let (client_id, secret) = client;
        let Some((claims, is_signed)) = self.read(token, Some(secret)) else { return false };
        let is_own = claims["iss"] == client_id && claims["sub"] == client_id;
        is_signed && is_own && self.is_fresh(&claims, audiences, now_secs)
    }

    /// True if a grant's assertion, signed with a known key, is to be believed.
    pub(crate) fn of_grant(&mut self, token: &str, audiences: &[String], now_secs: i64) -> bool {
        let Some((claims, is_signed)) = self.read(token, None) else { return false };
        is_signed && claims["iss"].is_string() && self.is_fresh(&claims, audiences, now_secs)
    }

    /// True if a subject token, signed with a known key, has not ended; it may come several times.
    pub(crate) fn of_subject(&self, token: &str, now_secs: i64) -> bool {
        let Some((claims, is_signed)) = self.read(token, None) else { return false };
        is_signed && claims["exp"].as_i64().is_some_and(|end| end > now_secs)
    }

    /// RFC 7523 §3: the audience, the times, and an identifier that comes once.
    fn is_fresh(&mut self, claims: &Value, audiences: &[String], now_secs: i64) -> bool {
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|own| audiences.iter().any(|known| known == own))
        };
        let audience = &claims["aud"];
        let is_for_us =
            is_ours(audience) || audience.as_array().is_some_and(|all| all.iter().any(is_ours));
        let time = |name: &str| claims[name].as_i64();
        let (Some(issued), Some(end)) = (time("iat"), time("exp")) else { return false };
        let is_in_time = issued <= now_secs + LEEWAY_SECONDS
            && time("nbf").is_none_or(|begin| begin <= now_secs + LEEWAY_SECONDS)
            && end > now_secs - LEEWAY_SECONDS
            && end - issued <= LIFETIME_MAX_SECONDS;
        let is_new = claims["jti"].as_str().is_none_or(|id| self.seen.insert(id.to_owned()));
        is_for_us && is_in_time && is_new
    }

    /// The claims of a JWT, and whether its signature is good.
    fn read(&self, token: &str, secret: Option<&str>) -> Option<(Value, bool)> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let header = json(header)?;
        let is_signed = match (header["alg"].as_str()?, secret) {
            ("HS256", Some(secret)) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                hmac::verify(&key, message.as_bytes(), &signature).is_ok()
            }
            (algorithm, _) => {
                self.keys.iter().any(|key| key.verifies(algorithm, message.as_bytes(), &signature))
            }
        };
        Some((json(claims)?, is_signed))
    }
}
