//! What the chain tells the schedule of a record that was taken up.

use crate::clock::Timestamp;

/// The consequences of a record that was taken up for the next try.
pub(super) struct Outlook {
    /// The failures that delayed it are over.
    pub(super) is_settled: bool,
    /// A stored failure delays it until then.
    pub(super) retry_at: Option<Timestamp>,
    /// It is made at once.
    pub(super) is_due: bool,
}
