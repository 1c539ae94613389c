//! What the server answers, and what can go wrong on the way to it.

use std::time::Duration;

/// How long a connection, and an answer on it, may take.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What is wrong with the server or the way to it, in words without a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An answer of the server, as far as it is used here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "without a client nothing answers"))]
pub(crate) enum Reply {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Reply {
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Number(number) => u64::try_from(*number).unwrap_or(0),
            Self::Text(text) => text.parse().unwrap_or(0),
            Self::Nothing | Self::List(_) => 0,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            _ => &[],
        }
    }
}
