//! Header fields with claims of the access token, worked out once for each token.

use std::sync::{Arc, Mutex, PoisonError};

use log::warn;

use crate::config::Provider;
use crate::config::request_fields::{FieldValue, NoValue};
use crate::jwt;
use crate::secret::Secret;

/// One place for each of a provider's `headers`, with the value of those that hold claims.
pub type ClaimValues = Arc<[Option<String>]>;

/// The fields with claims of one provider, for the token that was used last.
#[derive(Debug, Default)]
pub struct ClaimFields(Mutex<LastClaims>);

#[derive(Debug, Default)]
struct LastClaims {
    token: Option<Secret>,
    values: ClaimValues,
    /// What was said to be missing: it is said again only once it changes.
    told: Vec<String>,
}

impl ClaimFields {
    /// The values for `token`; None where none of the provider's fields holds a claim. A field whose claim is missing
    /// has no value, and the log says so.
    pub fn of(&self, provider: &Provider, token: Option<&Secret>) -> Option<ClaimValues> {
        if !provider.headers.iter().any(|(_, value)| matches!(value, FieldValue::Claims(_))) {
            return None;
        }
        // The values are replaced as a whole.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.token.is_none() || last.token.as_ref() != token {
            let (values, missing) = work_out(provider, token);
            for line in missing.iter().filter(|line| !last.told.contains(line)) {
                warn!(provider = provider.name.as_str(); "Provider {}: {line}", provider.name);
            }
            *last = LastClaims { token: token.cloned(), values, told: missing };
        }
        Some(last.values.clone())
    }
}

/// What is left out for `token`, a line for each of the provider's headers that lacks its claim.
pub fn left_out(provider: &Provider, token: &Secret) -> Vec<String> {
    work_out(provider, Some(token)).1
}

fn work_out(provider: &Provider, token: Option<&Secret>) -> (ClaimValues, Vec<String>) {
    let claims = token.and_then(|token| jwt::claims(token.expose()));
    let mut missing = Vec::new();
    let mut value = |(name, value): &(String, FieldValue)| {
        let FieldValue::Claims(template) = value else { return None };
        let found = match token {
            Some(_) => template.value(claims.as_ref()),
            None => Err(NoValue::NoToken),
        };
        found.map_err(|why| missing.push(format!("the header '{name}' is left out: {why}"))).ok()
    };
    let values = provider.headers.iter().map(&mut value).collect();
    (values, missing)
}
