//! The stored state of a provider's tokens between runs, and its JSON. Pure.

use serde::{Deserialize, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::record::mark::Mark;
use crate::record::refresh_end::RefreshEnd;
use crate::secret::{Secret, fingerprint};

/// The version of the format. A later version keeps the names of these fields, so that this version can still use
/// them.
pub(super) const FORMAT: u64 = 1;
/// The most seeds that are remembered as superseded. A host that was away during as many changes would begin a chain
/// with its old seed.
const SUPERSEDED_MAX_SEEDS: usize = 32;

/// The stored state of a provider's tokens between runs. Its JSON holds them as plain text: [`Saved::to_json`] returns it
/// as a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Saved {
    /// Counts the writes, so that a reader sees whether the file is newer than its own knowledge.
    pub revision: u64,
    /// The fencing number of the lease under which it was written; 0 if no other host takes part.
    #[serde(skip_serializing_if = "is_default")]
    pub fence: u64,
    /// The time of writing.
    pub saved_at: Timestamp,
    /// Hash of the seed with which the chain began, if it began with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_hash: Option<String>,
    /// Hash of a login's refresh token, if the chain began with a login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_hash: Option<String>,
    /// The time of the logout that ended the chain: there is no refresh token, and only a login or a new seed begins
    /// another chain. The logout has a hash in the place of a login's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logged_out_at: Option<Timestamp>,
    /// The scope that the login was granted; None if the chain began with a seed, or the scope is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_scope: Option<String>,
    /// Hashes of the seeds before the login or seed with which the chain began: they begin no chain any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub superseded_seeds: Vec<String>,
    /// Hash of the seed in this host's configuration at the time of writing; never shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configured_seed: Option<String>,
    /// Hash of this host's `token_url` and client: the same refresh token at another issuer, or of another client, is
    /// another chain. Older versions did not write it; never shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The token store's clock minus the writer's, in milliseconds; only in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_offset_ms: Option<i64>,
    /// The refresh token to use next.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "plain_texts")]
    pub refresh_token: Option<Secret>,
    /// The end of the refresh token, if its issuer states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_end: Option<RefreshEnd>,
    /// The last access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<SavedAccess>,
    /// A refresh with an unknown outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Marker>,
    /// A permanent failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<SavedFailure>,
}

/// The last access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SavedAccess {
    /// The token.
    #[serde(serialize_with = "plain_text")]
    pub token: Secret,
    /// The time when its request was sent.
    pub obtained_at: Timestamp,
    /// The expiry.
    pub expires_at: Timestamp,
    /// The time for its refresh.
    pub refresh_at: Timestamp,
    /// The number of consecutive refreshes, each for a rejected token, up to this token.
    #[serde(skip_serializing_if = "is_default")]
    pub rejections: u32,
}

/// Written before a refresh and removed by its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Hash of the refresh token that is being used.
    pub refresh_token_hash: String,
    /// The time, in RFC 3339.
    pub at: Timestamp,
}

/// A permanent failure and the request that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFailure {
    /// Hash of the refused refresh token.
    pub refresh_token_hash: String,
    /// Hash of the rest of the request: a changed client ends the failure.
    pub client_hash: String,
    /// The failure, as in the log.
    pub what: String,
    /// The HTTP status of the issuer's answer; None in records from before the first release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Its OAuth error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The time of the next try.
    pub retry_at: Timestamp,
    /// True if the answer to the refresh before was lost.
    #[serde(default, skip_serializing_if = "is_default")]
    pub answer_lost: bool,
    /// True if the chain's refresh token was refused, and the seed is tried instead.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seed_is_next: bool,
    /// Hash of the chain's refresh token, if the seed was refused after it: both are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_hash: Option<String>,
}

/// The file's JSON. Secrets are plain text here and nowhere else.
#[derive(Serialize)]
struct Image<'a> {
    format: u64,
    #[serde(flatten)]
    saved: &'a Saved,
}

fn plain_text<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(secret.expose())
}

#[expect(clippy::ref_option, reason = "serde calls it with a reference")]
fn plain_texts<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(Secret::expose).serialize(to)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Saved {
    /// Its position among the written records.
    pub fn mark(&self) -> Mark {
        Mark { fence: self.fence, generation: self.revision }
    }

    /// The file's text.
    pub fn to_json(&self) -> Secret {
        let image = Image { format: FORMAT, saved: self };
        let json =
            serde_json::to_string_pretty(&image).expect("texts and numbers always serialize");
        Secret::new(json)
    }

    /// Moves every time by `ms`, because another clock wrote them.
    pub fn shift(&mut self, ms: i64) {
        let mut times = vec![&mut self.saved_at];
        if let Some(access) = &mut self.access {
            times.extend([&mut access.obtained_at, &mut access.expires_at, &mut access.refresh_at]);
        }
        if let Some(end) = &mut self.refresh_end {
            times.extend([&mut end.at, &mut end.known_since]);
        }
        times.extend(self.logged_out_at.as_mut());
        times.extend(self.pending.as_mut().map(|marker| &mut marker.at));
        times.extend(self.failure.as_mut().map(|failure| &mut failure.retry_at));
        for time in times {
            *time = time.plus_millis(ms);
        }
    }

    /// Records that the chain begins with `seed`, and that the earlier seed is superseded.
    pub fn begin_with_seed(&mut self, seed: &Secret) {
        let hash = seed.hash();
        if let Some(before) = self.seed_hash.replace(hash.clone()) {
            self.supersede_seed(before);
        }
        self.superseded_seeds.retain(|one| *one != hash);
        self.login_hash = None;
        self.logged_out_at = None;
        self.granted_scope = None;
    }

    /// Records that the seed with this hash begins no chain any more.
    pub fn supersede_seed(&mut self, hash: String) {
        if !self.superseded_seeds.contains(&hash) {
            self.superseded_seeds.push(hash);
        }
        if self.superseded_seeds.len() > SUPERSEDED_MAX_SEEDS {
            self.superseded_seeds.remove(0);
        }
    }

    /// True if the seed with this hash began the chain, or came before its beginning.
    pub fn knows_seed(&self, hash: &str) -> bool {
        self.seed_hash.as_deref() == Some(hash) || self.has_superseded(hash)
    }

    /// Names the login or the seed with which the chain began; 0 for a chain without a known beginning.
    pub fn origin(&self) -> u64 {
        self.login_hash.as_ref().or(self.seed_hash.as_ref()).map_or(0, |hash| fingerprint(hash))
    }

    /// True if a logout ended the chain.
    pub fn is_logged_out(&self) -> bool {
        self.logged_out_at.is_some() && self.refresh_token.is_none()
    }

    /// True if there is a chain without a known beginning, as in a file that could be read only in part.
    pub fn has_no_beginning(&self) -> bool {
        self.refresh_token.is_some() && self.seed_hash.is_none() && self.login_hash.is_none()
    }

    /// As [`Saved::knows_seed`]; or the seed with this hash was tried and began no chain yet.
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

    /// True if the seed with this hash came before the beginning of the chain.
    pub fn has_superseded(&self, hash: &str) -> bool {
        self.superseded_seeds.iter().any(|one| one == hash)
    }
}

impl SavedAccess {
    /// True if `other` is of the same answer of the issuer. The times of one of them may have been moved by
    /// [`Saved::shift`]; a token that is given out again begins a new life only after its end.
    pub fn is_same_answer(&self, other: &Self) -> bool {
        let lifetime_ms = |access: &Self| access.expires_at.millis_since(access.obtained_at);
        let apart_ms = self.obtained_at.millis_since(other.obtained_at).abs();
        self == other
            || self.token == other.token
                && lifetime_ms(self) == lifetime_ms(other)
                && apart_ms < lifetime_ms(self)
    }
}

impl SavedFailure {
    /// True if the refresh token with this hash was refused.
    pub fn concerns(&self, hash: &str) -> bool {
        self.refresh_token_hash == hash || self.chain_hash.as_deref() == Some(hash)
    }

    /// True if `other` is the same but for the time of the next try, which [`Saved::shift`] may have moved.
    pub fn is_same_refusal(&self, other: &Self) -> bool {
        Self { retry_at: other.retry_at, ..self.clone() } == *other
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A permanent failure with this status and code, for tests.
    pub(crate) fn failure(status: Option<u16>, code: Option<&str>) -> SavedFailure {
        SavedFailure {
            refresh_token_hash: String::new(),
            client_hash: String::new(),
            what: String::new(),
            status,
            code: code.map(str::to_owned),
            retry_at: Timestamp::from_millis(0),
            answer_lost: false,
            seed_is_next: false,
            chain_hash: None,
        }
    }

    /// A record with every field set, for tests.
    pub(crate) fn full() -> Saved {
        let at = Timestamp::from_millis(1_800_000_000_123);
        Saved {
            revision: 3,
            fence: 2,
            saved_at: at,
            seed_hash: Some("h".into()),
            login_hash: Some("l".into()),
            logged_out_at: Some(at),
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
                status: Some(400),
                code: Some("invalid_grant".into()),
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
        assert_eq!((times(&after), expected.len()), (expected, 9));
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
