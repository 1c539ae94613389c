//! The source of a provider's credential in the configuration.

use std::path::PathBuf;

use crate::config::auto_refresh::AutoRefresh;
use crate::config::missing::Missing;
use crate::secret::Secret;

/// The source of a provider's credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// No credential is sent.
    None,
    /// The client's own is passed on.
    Passthrough,
    /// A fixed text.
    Static(Secret),
    /// A fixed text that is missing; the message names it.
    Missing(Missing),
    /// In a file that is read again when it changes: a file with only the credential, or a file that another program
    /// keeps fresh.
    Watched(WatchedFile),
    /// From a token endpoint, and kept fresh.
    Refreshed(Box<AutoRefresh>),
}

impl Credential {
    /// The reason why a credential other than [`Credential::Refreshed`] is not refreshed.
    pub fn why_not_refreshed(&self) -> &'static str {
        match self {
            Self::Watched(file) if matches!(file.form, FileFormat::Stored { .. }) => {
                "its auto_refresh_config.enabled is false"
            }
            Self::Watched(_) => "its credential is in a file that another program keeps",
            _ => "it has no auto_refresh_config, or one that is not used",
        }
    }
}

/// A file with a credential, read again when it changes. Two such files are equal regardless of their content at the
/// start.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The form of its content.
    pub form: FileFormat,
    /// The reason why it could not be read at the start.
    pub missing: Option<Missing>,
}

impl PartialEq for WatchedFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.form) == (&other.path, &other.form)
    }
}

impl Eq for WatchedFile {}

/// The content of a file with a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// The credential alone, followed at most by a line end.
    Text,
    /// JSON, as Claude Code keeps it, with the places of the access token and its expiry.
    Json(CredentialFields),
    /// A state file of evertoken whose token is used but not refreshed, because `auto_refresh_config.enabled` is
    /// false. A token that began with another refresh token may belong to another account, and is not used.
    Stored {
        /// The configured refresh token, if it is there.
        seed: Option<Secret>,
        /// Hash of the configured `token_url` and client, if they are there: the same refresh token at another issuer
        /// belongs to another account.
        client: Option<String>,
    },
}

/// Paths into a JSON file, a name for each level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFields {
    /// The place of the access token, a text.
    pub access_token: Vec<String>,
    /// The place of its expiry. A token without any expiry is sent until it is rejected.
    pub expires_at: Vec<String>,
    /// True if the configuration names the place of the expiry, so that there must be one.
    pub expires_at_is_written: bool,
    /// The time zone of an expiry without an offset, from the variable `TZ`; None for the system's.
    pub zone: Option<String>,
}
