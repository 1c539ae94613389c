//! The reason why an issuer's metadata is not known, in words.

use crate::token::discovery::metadata::BadMetadata;
use crate::token::grant::{Failure, What};

/// The reason why an issuer's metadata is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    /// No address has a document: each with its answer.
    #[error("The issuer {issuer} has no metadata: {}", answers.join("; "))]
    NotFound { issuer: String, answers: Vec<String> },
    /// A document that can't be used.
    #[error("The metadata at {0} {1}")]
    Bad(String, BadMetadata),
    /// No answer.
    #[error("The metadata at {0} can't be read: {1}")]
    Unanswered(String, What),
    /// The metadata lacks an endpoint that the configuration lacks too.
    #[error("The metadata of the issuer {0} names no '{1}'; write '{2}' into auto_refresh_config")]
    Lacks(String, &'static str, &'static str),
}

impl From<DiscoveryError> for Failure {
    fn from(error: DiscoveryError) -> Self {
        Self::no_metadata(error.to_string())
    }
}
