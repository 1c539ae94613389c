//! The order of the records of one chain.

/// A record's position among the records of its chain; a later record has a larger one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The fencing number under which it was written.
    pub fence: u64,
    /// Counts the writes.
    pub generation: u64,
}
