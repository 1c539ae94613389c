//! Tallies in the server: a hash `<prefix>tally:<name>` holds the text of each host and its version.

use crate::shared::engine::reply::{EngineReply, StoreError};

/// One host's text under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The name, the same on all hosts.
    pub name: String,
    /// Grows with every change; 0 writes nothing.
    pub version: u64,
    /// The text.
    pub text: String,
    /// The time for which it is kept without a change.
    pub kept_ms: u64,
}

/// The texts of all hosts under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// The sum of all versions.
    pub sum: u64,
    /// The host and its text; None if nothing changed.
    pub texts: Option<Vec<(String, String)>>,
}

impl Tallies {
    /// The answer of the script.
    pub(super) fn of(reply: &EngineReply) -> Result<Self, StoreError> {
        match reply.list() {
            [sum] => Ok(Self { sum: sum.number(), texts: None }),
            [sum, list] => Ok(Self { sum: sum.number(), texts: Some(texts(list.list())) }),
            _ => Err(StoreError::Unexpected),
        }
    }
}

/// The hosts and their texts.
fn texts(list: &[EngineReply]) -> Vec<(String, String)> {
    let pairs = list.chunks_exact(2);
    let text =
        |pair: &[EngineReply]| Some((pair[0].text()?.to_owned(), pair[1].text()?.to_owned()));
    pairs.filter_map(text).collect()
}
