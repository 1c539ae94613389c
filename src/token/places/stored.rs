//! Finds the token of a provider that uses one without refreshing it.

use std::path::{Path, PathBuf};

use crate::secret::Secret;
use crate::token::places::contents::Contents;
use crate::token::places::whose::{Claim, freshness};
use crate::token::state_file::StateFile;

/// The file with the token of a provider that does not refresh it: `own`, or the file of another provider whose chain
/// began with the same refresh token, at the same issuer.
pub(crate) fn of_stored(own: &Path, seed: Option<&Secret>, client: Option<&str>) -> PathBuf {
    let (Some(seed), Some(folder)) = (seed, own.parent()) else { return own.to_owned() };
    let hash = seed.hash();
    let contents = Contents::read(folder);
    let rated = contents.files.iter().filter_map(|(slug, saved)| {
        let path = StateFile::new(folder, slug.as_str()).path();
        let is_same = client.zip(saved.client.as_deref()).map(|(own, other)| own == other);
        let claim = match (is_same, path == own) {
            (None | Some(true), true) => (Claim::Own, true),
            (Some(true), false) => (Claim::Own, false),
            (Some(false), true) => (Claim::ByName, true),
            (None, false) => (Claim::Perhaps, false),
            (Some(false), false) => return None,
        };
        saved.knows_seed(&hash).then(|| (claim, freshness(saved), path))
    });
    let surest = rated.max_by_key(|(claim, freshness, _)| (*claim, *freshness));
    surest.map_or_else(|| own.to_owned(), |(.., path)| path)
}
