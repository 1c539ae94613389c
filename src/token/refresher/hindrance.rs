//! What keeps a refresh off before anything is sent.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// Another process or host is at it.
    Busy,
    /// The shared store can't be used, and nothing is refreshed without it.
    StoreAway,
    /// The state file is there and can't be read.
    Unread,
}
