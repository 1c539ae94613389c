//! The owner of a state file, by its name, the refresh token that its chain began with, and its issuer and client.
//! Pure.

use crate::clock::Timestamp;
use crate::record::Saved;
use crate::secret::Secret;
use crate::token::group::Group;

/// The strength of the claim that a file belongs to a chain; the strongest comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// A file of another name, from an older version, which did not note the issuer and the client.
    Perhaps,
    /// A file with the name of one of its providers, but of another issuer or client, which was corrected since.
    ByName,
    /// The chain's own file.
    Own,
}

/// The claim of the chain of `group`, which is one of `all`, to the file called `slug`.
pub(super) fn claim(group: &Group, all: &[Group], slug: &str, saved: &Saved) -> Option<Claim> {
    group.identity.as_ref()?;
    let by_name = group.slugs.contains(slug);
    let Some(hash) = group.seed_hash() else {
        // Without the seed, only the name and the client tell the owner.
        let is_own = by_name && is_same_client(group, saved) != Some(false);
        return (is_own && saved.refresh_token.is_some()).then_some(Claim::Own);
    };
    if saved.has_no_beginning() {
        // The same holds if the file does not say how its chain began.
        return by_name.then_some(Claim::Own);
    }
    if !saved.tells_of_seed(&hash) {
        return None;
    }
    let others = || all.iter().filter(|other| other.identity != group.identity);
    let own = nearness(group, saved);
    if others().any(|other| nearness(other, saved) > own) {
        // The other one spends what is in it, whatever the file is called: its name changes some time after a reload.
        return None;
    }
    let is_owned =
        || others().any(|other| is_owner(other, slug, saved) && nearness(other, saved) == own);
    match (is_same_client(group, saved), by_name) {
        (None | Some(true), true) => Some(Claim::Own),
        (Some(true), false) => (!is_owned()).then_some(Claim::Own),
        (None, false) => (!is_owned()).then_some(Claim::Perhaps),
        (Some(false), true) => {
            let is_of = |other: &Group| {
                is_same_client(other, saved) == Some(true)
                    && other.seed_hash().is_some_and(|hash| saved.tells_of_seed(&hash))
            };
            (!others().any(is_of)).then_some(Claim::ByName)
        }
        (Some(false), false) => None,
    }
}

/// The nearness of `group`'s refresh token to the chain of the file that tells of it: true if the chain began with it, and
/// true if it was the configured one when the file was written. Otherwise it came before the beginning, which may hold for
/// another group's too.
fn nearness(group: &Group, saved: &Saved) -> (bool, bool) {
    let tells_of = |hash: &String| saved.tells_of_seed(hash);
    let Some(hash) = group.seed_hash().filter(tells_of) else { return (false, false) };
    if is_same_client(group, saved) == Some(false) {
        return (false, false);
    }
    let is_hash = |known: &Option<String>| known.as_ref() == Some(&hash);
    (is_hash(&saved.seed_hash), is_hash(&saved.configured_seed))
}

/// True if `saved` is of the issuer and client of `group`; None if one of the two does not name them.
pub(super) fn is_same_client(group: &Group, saved: &Saved) -> Option<bool> {
    Some(group.config.client_hash()? == *saved.client.as_ref()?)
}

/// True if a file belongs to a group with a provider of its name: it names that provider's seed, or a login if the
/// provider has none.
fn is_owner(group: &Group, slug: &str, saved: &Saved) -> bool {
    let tells_of_it = match group.seed_hash() {
        Some(hash) => saved.has_no_beginning() || saved.tells_of_seed(&hash),
        None => saved.login_hash.is_some(),
    };
    group.slugs.contains(slug) && tells_of_it && is_same_client(group, saved) != Some(false)
}

/// Orders the files of one chain: first by whether the refresh token was refused, then by the time of the last token.
pub(super) fn freshness(saved: &Saved) -> (bool, Option<Timestamp>, u64, u64) {
    let hash = saved.refresh_token.as_ref().map(Secret::hash);
    let refused = saved.failure.as_ref().map(|failure| failure.refresh_token_hash.clone());
    let obtained_at = saved.access.as_ref().map(|access| access.obtained_at);
    (hash.is_some() && hash != refused, obtained_at, saved.fence, saved.revision)
}
