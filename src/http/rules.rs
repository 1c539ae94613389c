//! The difference between the two sides: the liberties that each side's peers may take with RFC 9112.

/// The liberties that a decoder grants. None of them is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A line of a head may end with a line feed alone (§2.2).
    pub bare_line_feeds: bool,
    /// Blanks may stand between the name of a field and its colon (§5.1).
    pub blanks_after_name: bool,
    /// Blanks may fill up the line of a chunk's size: Apache 1.3, IIS and some Java servers.
    pub blanks_after_size: bool,
    /// The most empty lines before a head (§2.2 asks for one).
    pub empty_lines_before_max: usize,
    /// The most fields in a head.
    pub head_fields_max: usize,
}

impl Rules {
    /// For clients' messages, because another server before or after this one must not read them in another way.
    pub const STRICT: Self = Self {
        bare_line_feeds: false,
        blanks_after_name: false,
        blanks_after_size: false,
        empty_lines_before_max: 4,
        head_fields_max: 128,
    };
    /// For providers' messages, which are taken as they are.
    pub const LENIENT: Self = Self {
        bare_line_feeds: true,
        blanks_after_name: true,
        blanks_after_size: true,
        empty_lines_before_max: 0,
        head_fields_max: 256,
    };
}
