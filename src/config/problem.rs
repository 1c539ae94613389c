//! A problem in a configuration file or an option, with its position. Pure.

use std::fmt;

use crate::visible::visible;

/// Line and column, from 1.
pub(crate) type Position = (usize, usize);

/// A problem in a configuration file, or in an option that adds to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The file's name as given, or the option.
    pub source: String,
    /// Line and column, from 1; None for the source as a whole.
    pub position: Option<Position>,
    /// The mistake and the correction. Holds no secret.
    pub message: String,
    /// True if the file can still be used.
    pub is_warning: bool,
    /// The unset environment variables that would solve it.
    pub unset: Vec<String>,
    /// True for a file that the server alone needs.
    pub is_of_server: bool,
}

impl Problem {
    /// A mistake in `source` as a whole.
    pub fn of(source: &str, message: impl Into<String>) -> Self {
        Self { source: source.to_owned(), message: message.into(), ..Self::default() }
    }

    /// The problem for a command without the server, which does without the files that the server alone needs.
    pub(crate) fn without_server(self) -> Self {
        Self { is_warning: self.is_warning || self.is_of_server, ..self }
    }

    /// The words for a log line, whose level shows a warning.
    pub fn in_log(&self) -> String {
        Self { is_warning: false, ..self.clone() }.to_string()
    }
}

/// `file:line:column: message`, on one line whatever the names in it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(&self.source))?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        let warning = if self.is_warning { "warning: " } else { "" };
        write!(f, ": {warning}{}", visible(&self.message))
    }
}
