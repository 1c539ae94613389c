//! A text within a page. Pure.

use std::fmt::{self, Display, Write};

use crate::visible::is_unseen;

/// A text between tags or in a quoted attribute.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                unseen if is_unseen(unseen) => write!(f, "{}", unseen.escape_default())?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}
