//! Where the two sides differ: which of the liberties that peers take with RFC 9112 are granted.

/// The liberties that a decoder grants. Each can be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A line of a head may end with a line feed alone (§2.2).
    pub bare_line_feeds: bool,
    /// Blanks may stand between the name of a field and its colon (§5.1).
    pub blanks_after_name: bool,
    /// Blanks may fill up the line of a chunk's size: Apache 1.3, IIS and some Java servers.
    pub blanks_after_size: bool,
}

impl Rules {
    /// For what clients send: another server behind or before us must not read it in another way.
    pub const STRICT: Self =
        Self { bare_line_feeds: false, blanks_after_name: false, blanks_after_size: false };
    /// For what providers send, which are taken as they are.
    pub const LENIENT: Self =
        Self { bare_line_feeds: true, blanks_after_name: true, blanks_after_size: true };
}
