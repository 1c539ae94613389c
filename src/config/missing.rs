//! Secrets that the configuration names: found, or what is missing.

use crate::secret::Secret;

/// A secret that the configuration names and the environment or the disk does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An environment variable that is not set or empty.
    Variable(String),
    /// A file that can't be read or is empty: its path and why.
    File(String, String),
    /// A refresh token that only a login can bring: the command for it.
    Login(String),
    /// The configuration names no credential at all.
    Credential,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "Missing environment variable: '{name}'"),
            Self::File(path, why) => write!(f, "Missing secret file: '{path}' ({why})"),
            Self::Login(command) => write!(f, "There is no refresh token yet; run: {command}"),
            Self::Credential => f.write_str(
                "There is no credential: give auto_refresh_config, auth_value, auth_value_env or \
                 auth_value_file, or auth_type \"none\"",
            ),
        }
    }
}

/// A secret named in the configuration: found, or what is missing.
pub type Found = Result<Secret, Missing>;
