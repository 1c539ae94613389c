//! A failed refresh in words: what happened, and what the log says to do about it. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A failed refresh in words. As JSON it is a text, as in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct FailureText {
    /// What happened, and what to do about it: as in the log.
    pub whole: String,
    /// What happened alone.
    pub what: String,
    /// Whether the command for a login is in it.
    pub names_login: bool,
}

impl fmt::Display for FailureText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

/// Of a text that says what happened and no more.
impl From<String> for FailureText {
    fn from(what: String) -> Self {
        Self { whole: what.clone(), what, names_login: false }
    }
}

impl From<FailureText> for String {
    fn from(text: FailureText) -> Self {
        text.whole
    }
}
