//! What is kept of a provider's token life between runs, and its JSON. Pure.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::record::mark::Mark;
use crate::record::refresh_end::RefreshEnd;
use crate::secret::Secret;

/// The version of the format. A later one keeps the names of these fields, so that this one can go on with
/// what it finds.
pub(super) const FORMAT: u64 = 1;
/// The most seeds that are remembered as superseded: a host that was away while there were as many others would
/// begin a chain with its old one.
const SUPERSEDED_MAX_SEEDS: usize = 32;

/// What is kept of a provider's tokens between runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Counts the writes, so that a reader sees whether the file is newer than what it knows.
    pub revision: u64,
    /// The fencing number of the lease it was written under; 0 where no other host has a part in it.
    pub fence: u64,
    /// When it was written.
    pub saved_at: Timestamp,
    /// Hash of the seed that the chain began with, where it began with one.
    pub seed_hash: Option<String>,
    /// Hash of the refresh token that a login brought, where the chain began with that.
    pub login_hash: Option<String>,
    /// The scope that the login was granted; None where the chain began with a seed, or nobody knows.
    pub granted_scope: Option<String>,
    /// Hashes of the seeds that came before the login or the seed that the chain began with: they begin no
    /// chain any more.
    pub superseded_seeds: Vec<String>,
    /// Hash of the seed that this host's configuration named when this was written; never shared.
    pub configured_seed: Option<String>,
    /// Hash of the `token_url` and the client that this host refreshes with: the same refresh token at another
    /// issuer, or of another client, is another chain. Older versions did not write it; never shared.
    pub client: Option<String>,
    /// What the token store's clock showed more than the writer's, in milliseconds; only in the store.
    pub store_offset_ms: Option<i64>,
    /// The refresh token to use next.
    pub refresh_token: Option<Secret>,
    /// When that ends, where its issuer says so.
    pub refresh_end: Option<RefreshEnd>,
    /// The last access token.
    pub access: Option<SavedAccess>,
    /// A refresh that was begun and whose outcome is not known.
    pub pending: Option<Marker>,
    /// A permanent failure.
    pub failure: Option<SavedFailure>,
}

/// The last access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedAccess {
    /// The token.
    pub token: Secret,
    /// When the request that got it was sent.
    pub obtained_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When to refresh it.
    pub refresh_at: Timestamp,
    /// How many refreshes in a row, each for a token that the provider refused, brought it.
    pub rejections: u32,
}

/// Written before a refresh and taken away by its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Hash of the refresh token that is being used up.
    pub refresh_token_hash: String,
    /// When, in RFC 3339.
    pub at: Timestamp,
}

/// A permanent failure and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFailure {
    /// Hash of the refresh token that was refused.
    pub refresh_token_hash: String,
    /// Hash of the rest of the request: a changed client ends the failure.
    pub client_hash: String,
    /// What happened, as in the log.
    pub what: String,
    /// When to try again.
    pub retry_at: Timestamp,
    /// The answer to the refresh before had gone missing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub answer_lost: bool,
    /// The chain's refresh token was refused, and the seed is tried in its place.
    #[serde(default, skip_serializing_if = "is_false")]
    pub seed_is_next: bool,
    /// Hash of the chain's refresh token, where the seed was refused in its place: both are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_hash: Option<String>,
}

/// The file's JSON. Secrets are plain text here and nowhere else.
#[derive(Serialize)]
struct Image {
    format: u64,
    revision: u64,
    #[serde(skip_serializing_if = "is_zero")]
    fence: u64,
    saved_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_scope: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    superseded_seeds: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configured_seed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_offset_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_end: Option<RefreshEnd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<ImageAccess>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<Marker>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<SavedFailure>,
}

#[derive(Serialize)]
struct ImageAccess {
    token: String,
    obtained_at: Timestamp,
    expires_at: Timestamp,
    refresh_at: Timestamp,
    #[serde(skip_serializing_if = "is_zero")]
    rejections: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(it: &bool) -> bool {
    !it
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl Saved {
    /// Where it stands in the row of what was written.
    pub fn mark(&self) -> Mark {
        Mark { fence: self.fence, generation: self.revision }
    }

    /// The file's text.
    pub fn to_json(&self) -> Secret {
        let image = Image {
            format: FORMAT,
            revision: self.revision,
            fence: self.fence,
            saved_at: self.saved_at,
            seed_hash: self.seed_hash.clone(),
            login_hash: self.login_hash.clone(),
            granted_scope: self.granted_scope.clone(),
            superseded_seeds: self.superseded_seeds.clone(),
            configured_seed: self.configured_seed.clone(),
            client: self.client.clone(),
            store_offset_ms: self.store_offset_ms,
            refresh_token: self.refresh_token.as_ref().map(|token| token.expose().to_owned()),
            refresh_end: self.refresh_end,
            access: self.access.as_ref().map(|access| ImageAccess {
                token: access.token.expose().to_owned(),
                obtained_at: access.obtained_at,
                expires_at: access.expires_at,
                refresh_at: access.refresh_at,
                rejections: access.rejections,
            }),
            pending: self.pending.clone(),
            failure: self.failure.clone(),
        };
        let json =
            serde_json::to_string_pretty(&image).expect("texts and numbers always serialize");
        Secret::new(json)
    }

    /// Moves every time by `ms`: they were written by another clock.
    pub fn shift(&mut self, ms: i64) {
        let mut times = vec![&mut self.saved_at];
        if let Some(access) = &mut self.access {
            times.extend([&mut access.obtained_at, &mut access.expires_at, &mut access.refresh_at]);
        }
        if let Some(end) = &mut self.refresh_end {
            times.extend([&mut end.at, &mut end.known_since]);
        }
        times.extend(self.pending.as_mut().map(|marker| &mut marker.at));
        times.extend(self.failure.as_mut().map(|failure| &mut failure.retry_at));
        for time in times {
            *time = time.plus_millis(ms);
        }
    }

    /// Notes that the chain begins with `seed`; the one before it is superseded.
    pub fn begin_with_seed(&mut self, seed: &Secret) {
        let hash = seed.hash();
        if let Some(before) = self.seed_hash.replace(hash.clone()) {
            self.supersede_seed(before);
        }
        self.superseded_seeds.retain(|one| *one != hash);
        self.login_hash = None;
        self.granted_scope = None;
    }

    /// Notes that the seed with this hash begins no chain any more.
    pub fn supersede_seed(&mut self, hash: String) {
        if !self.superseded_seeds.contains(&hash) {
            self.superseded_seeds.push(hash);
        }
        if self.superseded_seeds.len() > SUPERSEDED_MAX_SEEDS {
            self.superseded_seeds.remove(0);
        }
    }

    /// Whether the seed with this hash began the chain, or came before what did.
    pub fn knows_seed(&self, hash: &str) -> bool {
        self.seed_hash.as_deref() == Some(hash) || self.has_superseded(hash)
    }

    /// Whether there is a chain that does not tell what it began with, as in a file that could be read in part.
    pub fn has_no_beginning(&self) -> bool {
        self.refresh_token.is_some() && self.seed_hash.is_none() && self.login_hash.is_none()
    }

    /// As [`Saved::knows_seed`]; or the seed with this hash was tried, and began no chain yet.
    pub fn tells_of_seed(&self, hash: &str) -> bool {
        let is_begun = self.refresh_token.is_some() || self.login_hash.is_some();
        let is_marked =
            || self.pending.as_ref().is_some_and(|marker| marker.refresh_token_hash == hash);
        let has_failed = || self.failure.as_ref().is_some_and(|failure| failure.concerns(hash));
        self.knows_seed(hash) || !is_begun && (is_marked() || has_failed())
    }

    /// As [`Saved::knows_seed`]; a chain without a beginning may have begun with any seed.
    pub fn may_know_seed(&self, hash: &str) -> bool {
        self.has_no_beginning() || self.knows_seed(hash)
    }

    /// Whether the seed with this hash came before what the chain began with.
    pub fn has_superseded(&self, hash: &str) -> bool {
        self.superseded_seeds.iter().any(|one| one == hash)
    }
}

impl SavedFailure {
    /// Whether the refresh token with this hash was refused.
    pub fn concerns(&self, hash: &str) -> bool {
        self.refresh_token_hash == hash || self.chain_hash.as_deref() == Some(hash)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// With a value in each place, for the tests of those who store one.
    pub(crate) fn full() -> Saved {
        let at = Timestamp::from_millis(1_800_000_000_123);
        Saved {
            revision: 3,
            fence: 2,
            saved_at: at,
            seed_hash: Some("h".into()),
            login_hash: Some("l".into()),
            granted_scope: Some("a b".into()),
            superseded_seeds: vec!["s".into()],
            configured_seed: Some("e".into()),
            client: Some("i".into()),
            store_offset_ms: Some(-7),
            refresh_token: Some(Secret::new("rt")),
            refresh_end: Some(RefreshEnd { at, known_since: at, moves: true }),
            access: Some(SavedAccess {
                token: Secret::new("at"),
                obtained_at: at,
                expires_at: at.plus_millis(60_000),
                refresh_at: at.plus_millis(30_000),
                rejections: 4,
            }),
            pending: Some(Marker { refresh_token_hash: "p".into(), at }),
            failure: Some(SavedFailure {
                refresh_token_hash: "f".into(),
                client_hash: "c".into(),
                answer_lost: true,
                seed_is_next: true,
                chain_hash: Some("k".into()),
                what: "400 Bad Request (invalid_grant)".into(),
                retry_at: at,
            }),
        }
    }

    #[test]
    fn every_time_is_moved() {
        let mut moved = full();
        moved.shift(-90_000);
        let (before, after) = (full().to_json(), moved.to_json());
        let times = |json: &Secret| -> Vec<Timestamp> {
            json.expose().split('"').filter_map(Timestamp::parse_rfc3339).collect()
        };
        let expected: Vec<_> = times(&before).iter().map(|at| at.plus_millis(-90_000)).collect();
        assert_eq!((times(&after), expected.len()), (expected, 8));
        moved.shift(90_000);
        assert_eq!(moved, full());
    }

    #[test]
    fn superseded_seeds_on_both_sides_of_their_limit() {
        let mut saved = Saved::default();
        for number in 0..=SUPERSEDED_MAX_SEEDS {
            saved.supersede_seed(number.to_string());
            saved.supersede_seed(number.to_string());
        }
        assert_eq!(saved.superseded_seeds.len(), SUPERSEDED_MAX_SEEDS);
        let last = SUPERSEDED_MAX_SEEDS.to_string();
        assert!(!saved.knows_seed("0") && saved.knows_seed("1") && saved.knows_seed(&last));
    }

    #[test]
    fn a_seed_that_begins_a_chain_supersedes_the_one_before() {
        let (one, other) = (Secret::new("one"), Secret::new("other"));
        let mut saved = Saved { login_hash: Some("l".into()), ..Saved::default() };
        saved.supersede_seed("before".into());
        for (seed, superseded) in [
            (&one, vec!["before".to_owned()]),
            (&one, vec!["before".to_owned()]),
            (&other, vec!["before".to_owned(), one.hash()]),
            (&one, vec!["before".to_owned(), other.hash()]),
        ] {
            saved.begin_with_seed(seed);
            assert_eq!((&saved.seed_hash, &saved.login_hash), (&Some(seed.hash()), &None));
            assert_eq!(saved.superseded_seeds, superseded);
        }
    }
}
