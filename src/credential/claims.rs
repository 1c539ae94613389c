//! Header fields with claims of the access token, computed once for each token.

use std::sync::{Arc, Mutex, PoisonError};

use log::warn;

use crate::config::ProviderConfig;
use crate::config::request_fields::{FieldValue, NoValue};
use crate::jwt;
use crate::secret::Secret;

/// One entry for each of a provider's `headers`, with the value of those that contain claims.
pub(crate) type ClaimValues = Arc<[Option<String>]>;

/// The fields with claims of one provider, for the last used token.
#[derive(Debug, Default)]
pub struct ClaimFields(Mutex<LastClaims>);

#[derive(Debug, Default)]
struct LastClaims {
    token: Option<Secret>,
    values: ClaimValues,
    /// The missing claims that were logged, so that they are logged again only after a change.
    told: Vec<String>,
}

impl ClaimFields {
    /// The values for `token`; None if none of the provider's fields contains a claim. A field whose claim is missing
    /// has no value, and the log says so.
    pub fn of(&self, provider: &ProviderConfig, token: Option<&Secret>) -> Option<ClaimValues> {
        let is_claim = |(_, value): &(String, FieldValue)| matches!(value, FieldValue::Claims(_));
        provider.headers.iter().any(is_claim).then(|| self.values(provider, token))
    }

    /// The values for `token`, worked out once for each token.
    // Not inlined: keeps worker stacks small.
    #[inline(never)]
    fn values(&self, provider: &ProviderConfig, token: Option<&Secret>) -> ClaimValues {
        // The values are replaced as a whole, so a panic leaves no half of them.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.token.is_none() || last.token.as_ref() != token {
            let (values, missing) = work_out(provider, token);
            for line in missing.iter().filter(|line| !last.told.contains(line)) {
                warn!(provider = provider.name.as_str(); "Provider {}: {line}", provider.name);
            }
            *last = LastClaims { token: token.cloned(), values, told: missing };
        }
        last.values.clone()
    }
}

/// The headers left out for `token`, one line for each that lacks its claim.
pub(crate) fn left_out(provider: &ProviderConfig, token: &Secret) -> Vec<String> {
    work_out(provider, Some(token)).1
}

fn work_out(provider: &ProviderConfig, token: Option<&Secret>) -> (ClaimValues, Vec<String>) {
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
