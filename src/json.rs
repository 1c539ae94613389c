//! Reads JSON texts of others (RFC 8259), up to a depth that fits the smallest stack that reads any. Pure.
//!
//! A deeper text would end the process: a parser calls itself for each level, and the 128 levels that `serde_json`
//! allows take more than the stack of a worker in a build without optimization.

use serde::de::{DeserializeOwned, Error as _};
use serde_json::Error;

/// The deepest nesting of arrays and objects that is read. Answers of issuers and providers have less than 10.
pub(crate) const DEPTH_MAX: usize = 32;

/// The value in `text`.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    if is_too_deep(text) {
        return Err(too_deep());
    }
    serde_json::from_slice(text)
}

#[cold]
fn too_deep() -> Error {
    Error::custom(format_args!("it is nested more than {DEPTH_MAX} deep"))
}

/// True if `text` opens more than [`DEPTH_MAX`] arrays and objects within each other. In a text that is no JSON, the
/// count means nothing: the parser stops at the first mistake, before which the count is right.
pub(crate) fn is_too_deep(text: &[u8]) -> bool {
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for byte in text {
        if is_quoted {
            (is_quoted, is_escaped) = (*byte != b'"' || is_escaped, *byte == b'\\' && !is_escaped);
            continue;
        }
        match byte {
            b'"' => is_quoted = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::thread::on_own_thread;

    /// A list of lists and objects in turn.
    fn nested(depth: usize) -> String {
        let open = (0..depth).map(|level| if level % 2 == 0 { "[" } else { "{\"a\":" });
        let close = (0..depth).rev().map(|level| if level % 2 == 0 { "]" } else { "}" });
        open.chain(["7"]).chain(close).collect()
    }

    /// The smallest stack that reads JSON is that of a worker, twice as large; half of it may be in use.
    #[test]
    fn the_depth_on_both_sides_of_its_limit_on_a_small_stack() {
        const STACK_BYTES: usize = 64 * 1024;
        let read = |depth: usize| {
            let text = nested(depth);
            // Comparing and dropping are as deep.
            let equal = || read::<Value>(text.as_bytes()).map(|value| value == value.clone());
            on_own_thread("t", STACK_BYTES, equal)
        };
        assert!(read(DEPTH_MAX).is_ok());
        for depth in [DEPTH_MAX + 1, 100, 127, 100_000] {
            let error = read(depth).unwrap_err().to_string();
            assert_eq!(error, "it is nested more than 32 deep");
        }
    }

    #[test]
    fn brackets_in_texts_do_not_count() {
        let many = "[{".repeat(99);
        for text in [
            format!("[\"{many}\"]"),
            format!("[\"\\\"{many}\"]"),
            format!("{{\"\\\\\": \"{many}\\\\\"}}"),
            format!("[{}[]]", "[],".repeat(99)),
        ] {
            assert!(read::<Value>(text.as_bytes()).is_ok(), "{text}");
        }
        let after = format!("[\"\\\\\", {}", nested(DEPTH_MAX));
        assert!(read::<Value>(format!("{after}]").as_bytes()).is_err(), "one level too many");
    }

    #[test]
    fn a_text_that_is_no_json_is_refused_as_before() {
        for text in ["", "[", "{\"a\"", "]]]]", "\"", "\u{feff}{}"] {
            assert!(read::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
