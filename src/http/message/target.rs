//! The target of a request, with the end of its path. Each thread keeps the memory of one for its next request.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::ops::Deref;

use memchr::memchr;

/// The largest text that is kept.
const KEPT_MAX_BYTES: usize = 256;

thread_local! {
    static KEPT: Cell<String> = const { Cell::new(String::new()) };
}

/// Path and query in origin form.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: String,
    path_bytes: usize,
}

impl Target {
    /// The part before the query.
    pub(crate) fn path(&self) -> &str {
        &self.text[..self.path_bytes]
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Target {
    fn from(text: &str) -> Self {
        // A thread that ends keeps nothing.
        let mut own = KEPT.try_with(Cell::take).unwrap_or_default();
        own.push_str(text);
        Self { path_bytes: path_of(text).len(), text: own }
    }
}

impl Deref for Target {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let mut text = mem::take(&mut self.text);
        if (1..=KEPT_MAX_BYTES).contains(&text.capacity()) {
            text.clear();
            let _ = KEPT.try_with(|kept| kept.set(text));
        }
    }
}

/// `target` up to its query.
pub(crate) fn path_of(target: &str) -> &str {
    &target[..memchr(b'?', target.as_bytes()).unwrap_or(target.len())]
}

/// Frees this thread's memory for targets.
pub(super) fn free() {
    drop(KEPT.take());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_unless_it_is_large() {
        free();
        for (length, expected) in [(KEPT_MAX_BYTES, KEPT_MAX_BYTES), (KEPT_MAX_BYTES + 1, 0)] {
            let mut target = Target::from("");
            target.text.reserve_exact(length);
            drop(target);
            let mut next = Target::from("");
            assert_eq!((next.as_str(), next.text.capacity()), ("", expected));
            // Nothing is kept of it.
            next.text = String::new();
        }
    }

    #[test]
    fn the_path_ends_before_the_query() {
        for (text, path) in [("/a?b?c", "/a"), ("/a", "/a"), ("/?", "/")] {
            let target = Target::from(text);
            assert_eq!((target.as_str(), target.path()), (text, path));
            assert_eq!(format!("{target:?}"), format!("{text:?}"));
        }
    }
}
