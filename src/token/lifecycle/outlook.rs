//! The consequences of a new record, which the chain passes to the schedule.

use crate::clock::Timestamp;

/// The consequences of a new record for the next try.
pub(super) struct Outlook {
    /// The failures that delayed the next try are over.
    pub(super) is_settled: bool,
    /// A stored failure delays the next try until this time.
    pub(super) retry_at: Option<Timestamp>,
    /// The next try is made at once: with the seed, since the chain's refresh token was refused elsewhere.
    pub(super) seed_is_due: bool,
    /// The marker of a try, here or elsewhere.
    pub(super) marker: MarkerNews,
}

/// The news of a record about tries with the next refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerNews {
    /// None is under way, and each had its answer.
    Gone,
    /// One has no known outcome, as the record before said.
    Known,
    /// One has begun, and its outcome is not known.
    Begun,
}
