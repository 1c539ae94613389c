//! `token_request`: an endpoint that is no OAuth and answers with a token.

use std::path::PathBuf;

use crate::config::missing::{Missing, SecretLookup};
use crate::secret::Secret;

/// A request to an endpoint that is no OAuth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRequest {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Its own credential, if it has one.
    pub bearer: Option<Bearer>,
    /// The header field for it.
    pub bearer_header: String,
    /// The text before it.
    pub bearer_prefix: String,
    /// More header fields.
    pub headers: Vec<(String, String)>,
}

/// The credential of an [`EndpointRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// A fixed text, from a variable or a file.
    Secret {
        found: SecretLookup,
        /// Its file; None for a variable.
        file: Option<PathBuf>,
    },
    /// The token of the provider with this name or slug.
    Provider(String),
}

impl EndpointRequest {
    /// The header field with `secret` as its credential.
    pub fn credential(&self, secret: &Secret) -> (String, Secret) {
        let value = format!("{}{}", self.bearer_prefix, secret.expose());
        (self.bearer_header.clone(), Secret::new(value))
    }

    /// The provider whose token it needs.
    pub fn provider(&self) -> Option<&str> {
        match &self.bearer {
            Some(Bearer::Provider(name)) => Some(name),
            _ => None,
        }
    }

    /// Its credential that is missing.
    pub fn missing(&self) -> Option<&Missing> {
        match &self.bearer {
            Some(Bearer::Secret { found, .. }) => found.as_ref().err(),
            _ => None,
        }
    }

    /// The file with its credential.
    pub fn file(&self) -> Option<&PathBuf> {
        match &self.bearer {
            Some(Bearer::Secret { file, .. }) => file.as_ref(),
            _ => None,
        }
    }

    /// Whoever the token is for, as far as that is known without another file's content; None if a variable is missing.
    pub fn account(&self) -> Option<String> {
        let bearer = match &self.bearer {
            None => String::new(),
            Some(Bearer::Provider(name)) => format!("provider {name}"),
            Some(Bearer::Secret { file: Some(path), .. }) => format!("file {}", path.display()),
            Some(Bearer::Secret { found, file: None }) => found.as_ref().ok()?.hash(),
        };
        Some(format!("token_request {} {bearer}", self.method))
    }
}
