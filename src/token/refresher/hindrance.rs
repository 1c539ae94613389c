//! The hindrances of a refresh before anything is sent, and of a command before it ends.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hindrance {
    /// Another process or host is refreshing.
    Busy,
    /// The shared store can't be used, and nothing may be refreshed without it.
    StoreAway,
    /// The state file exists and can't be read.
    Unread,
    /// The refresher has an unread event that ends the command in its place.
    CalledOff,
    /// The state file can't be written, and a command would lose the next refresh token with its end.
    Unwritable,
}
