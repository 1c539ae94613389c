//! The order of the records of one chain.

/// Where a record stands in the row of a provider's records: the later one is the larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The fencing number it was written with.
    pub fence: u64,
    /// Counts the writes.
    pub generation: u64,
}
