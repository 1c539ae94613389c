//! The server's answers, and the errors on the way.

use std::fmt;
use std::time::Duration;

use crate::record::BadRecord;

/// The time limit of a connection, and of an answer on it.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);

/// A problem with the server or the connection; `Display` holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "without a client nothing answers"))]
pub enum StoreError {
    /// It does not answer in time.
    NoAnswer,
    /// The connection to it failed, in the words of the client library.
    Connection(String),
    /// It refuses, in its own words, which begin with a code (`READONLY`, `NOPERM`).
    Refused(String),
    /// It refuses the user or the password, in its own words.
    LoginRefused(String),
    /// Its answer is unknown here.
    Unexpected,
    /// Its record can't be opened, or one can't be sealed for it.
    Seal(&'static str),
    /// Its record makes no sense.
    Record(BadRecord),
    /// A Sentinel knows no master of the name.
    NoMaster,
    /// The server at this host and port is not the master any more.
    Demoted(String, u16),
    /// None of the Sentinels leads to a master: the host and port of each, and the reason.
    Sentinels(Vec<(String, u16, StoreError)>),
    /// This program was built without a client.
    NotBuilt,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("it does not answer in time"),
            Self::Connection(words) | Self::Refused(words) => f.write_str(words),
            Self::LoginRefused(words) => write!(f, "it refuses the user or password: {words}"),
            Self::Unexpected => f.write_str("it answered in a way that is not known here"),
            Self::Seal(why) => f.write_str(why),
            Self::Record(bad) => write!(f, "its record makes no sense: {bad}"),
            Self::NoMaster => f.write_str("it knows no master of this name"),
            Self::Demoted(host, port) => write!(f, "{host}:{port} is not the master any more"),
            Self::Sentinels(all) => {
                let why = all.iter().map(|(host, port, error)| format!("{host}:{port}: {error}"));
                let why: Vec<_> = why.collect();
                write!(f, "no Sentinel leads to a master: {}", why.join("; "))
            }
            Self::NotBuilt => f.write_str("this evertoken was built without the feature 'redis'"),
        }
    }
}

/// An answer of the server, as far as it matters here.
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
