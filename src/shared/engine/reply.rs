//! The server's answers, and the errors on the way.

use crate::record::BadRecord;

/// A problem with the server or the connection; `Display` holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "without a client nothing answers"))]
pub enum StoreError {
    /// It does not answer in time.
    #[error("it does not answer in time")]
    NoAnswer,
    /// The connection to it failed, in the words of the client library.
    #[error("{0}")]
    Connection(String),
    /// It refuses, in its own words, which begin with a code (`READONLY`, `NOPERM`).
    #[error("{0}")]
    Refused(String),
    /// It refuses the user or the password, in its own words.
    #[error("it refuses the user or password: {0}")]
    LoginRefused(String),
    /// Its answer is unknown here.
    #[error("it answered in a way that is not known here")]
    Unexpected,
    /// Its record can't be opened, or one can't be sealed for it.
    #[error("{0}")]
    Seal(&'static str),
    /// Its record makes no sense.
    #[error("its record makes no sense: {0}")]
    Record(BadRecord),
    /// A Sentinel knows no master of the name.
    #[error("it knows no master of this name")]
    NoMaster,
    /// The server at this host and port is not the master any more.
    #[error("{0}:{1} is not the master any more")]
    Demoted(String, u16),
    /// None of the Sentinels leads to a master: the host and port of each, and the reason.
    #[error("no Sentinel leads to a master: {}", words_of_all(.0))]
    Sentinels(Vec<(String, u16, StoreError)>),
    /// This program was built without a client.
    #[error("this evertoken was built without the feature 'redis'")]
    NotBuilt,
}

/// Why each of `sentinels` leads to no master.
fn words_of_all(sentinels: &[(String, u16, StoreError)]) -> String {
    let why: Vec<_> =
        sentinels.iter().map(|(host, port, error)| format!("{host}:{port}: {error}")).collect();
    why.join("; ")
}

/// An answer of the server, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "without a client nothing answers"))]
pub(crate) enum EngineReply {
    Nothing,
    Number(i64),
    Text(String),
    List(Vec<EngineReply>),
}

impl EngineReply {
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
