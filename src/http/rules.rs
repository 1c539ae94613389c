//! Where the two sides differ: which of the liberties that peers take with RFC 9112 are granted.

/// What a decoder grants. No liberty can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A line of a head may end with a line feed alone (§2.2).
    pub bare_line_feeds: bool,
    /// Blanks may stand between the name of a field and its colon (§5.1).
    pub blanks_after_name: bool,
    /// Blanks may fill up the line of a chunk's size: Apache 1.3, IIS and some Java servers.
    pub blanks_after_size: bool,
    /// So many empty lines may stand before a head (§2.2 asks for one).
    pub empty_lines_before_max: usize,
    /// So many fields may be in a head.
    pub head_fields_max: usize,
}

impl Rules {
    /// For what clients send: another server behind or before us must not read it in another way.
    pub const STRICT: Self = Self {
        bare_line_feeds: false,
        blanks_after_name: false,
        blanks_after_size: false,
        empty_lines_before_max: 4,
        head_fields_max: 128,
    };
    /// For what providers send, which are taken as they are.
    pub const LENIENT: Self = Self {
        bare_line_feeds: true,
        blanks_after_name: true,
        blanks_after_size: true,
        empty_lines_before_max: 0,
        head_fields_max: 256,
    };
}
