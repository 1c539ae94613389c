//! `token_command`: a program that prints a token.

use std::path::PathBuf;

use crate::secret::Secret;

/// A program that prints a token, and its surroundings. It runs without a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCommand {
    /// The program, as written.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// All its environment variables.
    pub variables: Vec<(String, Secret)>,
    /// The folder in which it runs: that of the configuration file.
    pub folder: PathBuf,
}

impl TokenCommand {
    /// Its time zone, in the form of the variable `TZ`; None for the system's.
    pub fn zone(&self) -> Option<&str> {
        self.variable("TZ").map(Secret::expose)
    }

    /// Differs for commands that may print different accounts' tokens: those with other words, variables or folder.
    pub fn hash(&self) -> String {
        let variables = self.variables.iter().flat_map(|(name, value)| [name, value.expose()]);
        let words =
            std::iter::once(self.program.as_str()).chain(self.arguments.iter().map(String::as_str));
        let mut all = format!("token_command\0{}", self.folder.display());
        for text in words.chain(["="]).chain(variables) {
            all.extend(["\0", text]);
        }
        Secret::new(all).hash()
    }

    /// The value of one of its environment variables.
    pub fn variable(&self, name: &str) -> Option<&Secret> {
        self.variables.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}
