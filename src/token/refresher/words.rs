//! What a refresher says of a failure, and how it shortens a client id.

use crate::token::grant::{Class, Failure, What};
use crate::token::lifecycle::{ANSWER_LOST, AfterFailure};

/// The failure in the words that the log fixes.
pub(super) fn tell(failure: &Failure, after: AfterFailure) -> String {
    let mut told = match &failure.what {
        What::Missing(missing) => missing.to_string(),
        what => format!("Failed to refresh token: {what}"),
    };
    if after.falls_back_to_seed {
        told.push_str("; trying the refresh token of the configuration");
    } else if after.answer_lost {
        told.push_str("; ");
        told.push_str(ANSWER_LOST);
    } else if failure.class == Class::TokenDead {
        told.push_str(
            "; the refresh token is no good any more, or somebody else uses it too: log in again",
        );
    }
    told
}

/// The first five characters of a client id.
pub(super) fn shortened(client_id: &str) -> String {
    let start: String = client_id.chars().take(5).collect();
    format!("{start}...")
}
