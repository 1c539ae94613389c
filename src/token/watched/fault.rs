//! The reasons why a watched file gives no credential. None of them holds any of the file's content.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::clock::Timestamp;

/// The largest file that is read.
pub(crate) const WATCHED_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// There is no credential to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    pub(super) path: PathBuf,
    /// True if the file is the state file of a provider that is not refreshed.
    pub(super) is_stored: bool,
    pub(super) why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The file can't be used.
    Unusable(FileFault),
    /// Its credential has expired.
    Expired {
        at: Timestamp,
        /// True if the mount may hide a newer credential.
        is_detached: bool,
    },
}

/// The fault of a file, in words that follow the path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FileFault {
    #[error("can't be read: {0}")]
    Unreadable(String),
    #[error("is not a file of at most {WATCHED_FILE_MAX_BYTES} bytes")]
    NoSmallFile,
    #[error("was not read yet")]
    NotRead,
    /// A look at it has not come back.
    #[error("can't be read: its disk does not answer")]
    Silent,
    /// The credential is empty, or has bytes that no header field may hold.
    #[error("holds a credential that is empty, or has bytes that no header may hold")]
    NoHeaderValue,
    #[error("holds no JSON")]
    NoJson,
    /// There is no text at this path of the JSON.
    #[error("has no text at '{0}'")]
    NoTextAt(String),
    #[error("can't be used")]
    NoState,
    #[error("holds a token that began with another refresh token")]
    OtherChain,
    #[error("holds no access token")]
    NoAccessToken,
}

impl FileFault {
    pub(super) fn unreadable(error: impl fmt::Display) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const OFF: &str = "auto_refresh_config.enabled is false";
        let path = self.path.display();
        match &self.why {
            Why::Unusable(fault) if self.is_stored => {
                write!(f, "{OFF}, and no stored token can be used: {path} {fault}")
            }
            Why::Unusable(fault) => write!(f, "{path} {fault}"),
            Why::Expired { at, .. } if self.is_stored => {
                write!(f, "the stored token expired at {at}, and {OFF}, so it is not refreshed")
            }
            Why::Expired { at, is_detached: true } => {
                write!(f, "the token in {path} expired at {at}; {}", detached(&self.path))
            }
            Why::Expired { at, is_detached: false } => write!(
                f,
                "the token in {path} expired at {at}; the program that keeps this file has to refresh it"
            ),
        }
    }
}

/// The words for a file that was replaced although its mount does not show that.
pub(super) fn detached(path: &Path) -> String {
    format!(
        "{} was replaced behind a mount of this one file, which still shows the old content; mount \
         the folder that holds it",
        path.display()
    )
}
