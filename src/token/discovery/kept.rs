//! The copy of an issuer's metadata in the state folder, so that a start needs no network.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::json;
use crate::regular_file;
use crate::secret::Secret;
use crate::token::discovery::metadata::{METADATA_MAX_BYTES, Metadata};
use crate::token::state_file::write_whole;

/// The age at which a copy is read anew.
pub(crate) const KEPT_MAX_MS: u64 = 24 * 3600 * 1000;
/// No slug begins with a dot, so the name is no state file's.
const NAME_PREFIX: &str = ".issuer-";
/// So much of the hash of the issuer tells issuers apart.
const NAME_HASH_CHARS: usize = 16;

/// Metadata, and its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptMetadata {
    pub metadata: Metadata,
    /// The time at which it was fetched.
    pub fetched_at: Timestamp,
}

impl KeptMetadata {
    /// True if it need not be fetched again at `now`. A copy from the future was written under a wrong clock.
    pub(crate) fn is_of_today(&self, now: Timestamp) -> bool {
        u64::try_from(now.millis_since(self.fetched_at)).is_ok_and(|age_ms| age_ms < KEPT_MAX_MS)
    }
}

/// The file with the copy of `issuer`.
pub(super) fn path(folder: &Path, issuer: &str) -> PathBuf {
    let mut name = Secret::new(issuer).hash();
    name.truncate(NAME_HASH_CHARS);
    folder.join(format!("{NAME_PREFIX}{name}.json"))
}

/// The copy of `issuer`; None if there is none, or none that makes sense.
pub(super) fn load(folder: &Path, issuer: &str) -> Option<KeptMetadata> {
    let mut bytes = Vec::new();
    let most = METADATA_MAX_BYTES as u64;
    regular_file::open(&path(folder, issuer)).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    let document: Value = json::read(&bytes).ok()?;
    let fetched_at = Timestamp::parse_rfc3339(document.get("fetched_at")?.as_str()?)?;
    Some(KeptMetadata {
        metadata: Metadata::of(document.get("metadata")?, issuer).ok()?,
        fetched_at,
    })
}

/// Writes the copy with mode 0600, in one step: who could change it could redirect tokens.
pub(super) fn store(folder: &Path, kept: &KeptMetadata) -> io::Result<()> {
    let document = json!({
        "fetched_at": kept.fetched_at.to_string(),
        "metadata": kept.metadata.to_document(),
    });
    write_whole(&path(folder, &kept.metadata.issuer), document.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_is_read_back_and_only_for_its_issuer() {
        let folder = tempfile::tempdir().unwrap();
        let kept = KeptMetadata {
            metadata: Metadata {
                issuer: "https://i".into(),
                token_endpoint: Some("https://i/t".into()),
                ..Metadata::default()
            },
            fetched_at: Timestamp::from_secs(1_800_000_000),
        };
        assert_eq!(load(folder.path(), "https://i"), None);
        store(folder.path(), &kept).unwrap();
        assert_eq!(load(folder.path(), "https://i"), Some(kept.clone()));
        assert_eq!(load(folder.path(), "https://j"), None);
        let path = path(folder.path(), "https://i");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Another issuer's copy under this name, and what is no copy, are as if there were none.
        std::fs::copy(&path, super::path(folder.path(), "https://j")).unwrap();
        assert_eq!(load(folder.path(), "https://j"), None);
        for wrong in ["", "{", "{}", "[]"] {
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(load(folder.path(), "https://i"), None, "{wrong}");
        }
        assert!(store(&folder.path().join("none"), &kept).is_err());
    }
}
