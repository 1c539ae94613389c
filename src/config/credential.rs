//! Where a provider's credential comes from, as the configuration says.

use std::path::PathBuf;

use crate::config::auto_refresh::AutoRefresh;
use crate::config::missing::Missing;
use crate::secret::Secret;

/// Where a provider's credential comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// None is sent.
    None,
    /// The client's own is passed on.
    Passthrough,
    /// A fixed text.
    Static(Secret),
    /// A fixed text that is not there: the message says what is missing.
    Missing(Missing),
    /// In a file that is read again when it changes: one with the credential alone, or one that
    /// another program keeps fresh.
    Watched(WatchedFile),
    /// Got from a token endpoint and kept fresh.
    Refreshed(Box<AutoRefresh>),
}

impl Credential {
    /// Why there is nothing to refresh, for a credential that is not [`Credential::Refreshed`].
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

/// A file with a credential that is read again when it changes. Two are the same whatever could be read of them at
/// the start.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    /// The path of the file.
    pub path: PathBuf,
    /// What is in it.
    pub form: FileFormat,
    /// Why it could not be read at the start, where that is so.
    pub missing: Option<Missing>,
}

impl PartialEq for WatchedFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, &self.form) == (&other.path, &other.form)
    }
}

impl Eq for WatchedFile {}

/// What is in a file with a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// The credential and nothing else, but for a line end.
    Text,
    /// JSON, as Claude Code keeps it: where the access token and its expiry stand.
    Json(CredentialFields),
    /// A state file of evertoken, whose token is used and not refreshed: `auto_refresh_config.enabled` is false. A token
    /// that began with another refresh token than this may belong to another account, and is not used.
    Stored {
        /// The refresh token that the configuration names, where it is there.
        seed: Option<Secret>,
        /// Hash of the `token_url` and the client of the configuration, where they are there: the same refresh token
        /// elsewhere is another account's too.
        client: Option<String>,
    },
}

/// Paths into a JSON file, a name for each level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFields {
    /// Of the access token, a text.
    pub access_token: Vec<String>,
    /// Of its expiry. Where there is none, and the token itself names none, it is sent until it is refused.
    pub expires_at: Vec<String>,
    /// Whether the configuration names the place of the expiry, so that there has to be one.
    pub expires_at_is_written: bool,
    /// The time zone of an expiry without an offset, as the variable `TZ` names it; None for the system's.
    pub zone: Option<String>,
}
