//! Lists of texts in a section, and messages about their elements. Pure.

use crate::config::raw::section::Section;
use crate::config::raw::tree::{Node, ScalarKind};

impl Section<'_> {
    /// Reports a problem with an element of the list under `key`.
    pub(crate) fn error_at(&self, key: &str, index: usize, message: impl Into<String>) {
        self.report(self.path.key(key).index(index), message.into(), false);
    }

    /// Warns about an element of the list under `key`.
    pub(crate) fn warn_at(&self, key: &str, index: usize, message: impl Into<String>) {
        self.report(self.path.key(key).index(index), message.into(), true);
    }

    /// True if the value of `key` is a list that is not empty.
    pub(crate) fn is_filled_list(&self, key: &'static str) -> bool {
        matches!(self.value(key), Some(Node::List(list)) if !list.is_empty())
    }

    /// True if an element of the list under `key` is a text, and no number or flag.
    pub(crate) fn is_text_at(&self, key: &'static str, index: usize) -> bool {
        let Some(Node::List(list)) = self.value(key) else { return false };
        let element = list.get(index).and_then(Node::scalar);
        element.is_some_and(|element| element.kind == ScalarKind::Text)
    }

    /// A list of texts; numbers and flags count as written.
    pub(crate) fn texts(&self, key: &'static str) -> Vec<String> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let texts = match value {
            Node::List(list) => {
                list.iter().map(|one| one.scalar().map(|one| one.text.clone())).collect()
            }
            _ => None,
        };
        texts.unwrap_or_else(|| {
            self.error(key, format!("'{key}' must be a list of texts"));
            Vec::new()
        })
    }
}
