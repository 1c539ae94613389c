//! The client, answers and random texts, for token requests and logins alike.

use serde_json::{Value, json};

/// The client that may ask for tokens.
pub const CLIENT_ID: &str = "sandbox-client";

/// A status and a JSON body.
pub(crate) type Answer = (u16, Value);

/// A refusal as in RFC 6749 §5.2.
pub(crate) fn refusal(status: u16, error: &str) -> Answer {
    (status, json!({ "error": error, "error_description": "said by the sandbox" }))
}

/// A token that begins with `prefix` and can't be guessed from another.
pub(crate) fn random(rng: &mut fastrand::Rng, prefix: &str) -> String {
    let tail: String = std::iter::repeat_with(|| rng.alphanumeric()).take(40).collect();
    format!("{prefix}{tail}")
}
