//! A failed refresh in words: the failure, and the log's advice about it. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A failed refresh in words. Its JSON is a text, as in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct FailureText {
    /// The failure and the advice, as in the log.
    pub whole: String,
    /// The failure alone.
    pub what: String,
    /// True if the text contains the command for a login.
    pub names_login: bool,
}

impl fmt::Display for FailureText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

/// A text without advice.
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
