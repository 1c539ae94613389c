//! The file as it is written, with the problems that were found in it so far.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::raw::mistake;
use crate::config::raw::place::{self, Path, Position};
use crate::config::raw::tree::Node;

/// A problem with a place that is still to be found.
#[derive(Clone, Debug)]
pub struct RawProblem {
    /// Where.
    pub path: Path,
    /// What.
    pub message: String,
    /// Whether the file can be used all the same.
    pub is_warning: bool,
}

/// A document with its problems so far.
pub struct Document<'a> {
    text: &'a str,
    /// The tree as it is written.
    written: Node,
    /// The tree with what merge keys bring.
    pub(super) root: Node,
    problems: RefCell<Vec<RawProblem>>,
}

impl<'a> Document<'a> {
    /// Parses `text`. The error says what is wrong, and where.
    pub fn parse(text: &'a str) -> Result<Self, (Option<Position>, String)> {
        // Some editors begin a file with a byte order mark, which the parser takes for a document.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let told = |error: serde_yaml::Error| {
            let position = error.location().map(|place| (place.line(), place.column()));
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            if IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(text)).is_ok() {
                // It is YAML; what is wrong with it is said by the tree.
                return (position, message.to_owned());
            }
            mistake::explain(text, position, message)
        };
        let written = Node::read(text).map_err(told)?;
        if let Some((position, message)) = mistake::odd_blank(text) {
            return Err((Some(position), message));
        }
        let root = written.merged().map_err(|steps| {
            let message = "'<<' takes keys from a mapping, or from a list of them: write an alias of one, as '*name'";
            (place::locate(text, &written, &Path { steps, of_key: false }), message.to_owned())
        })?;
        Ok(Self { text, written, root, problems: RefCell::default() })
    }

    /// The problems found so far.
    pub fn problems(&self) -> Vec<RawProblem> {
        self.problems.borrow().clone()
    }

    /// Where `path` stands, or the nearest thing above it.
    pub fn locate(&self, path: &Path) -> Option<Position> {
        place::locate(self.text, &self.written, path)
    }

    /// Whether the value at `path`, or each entry of it, is what an anchor (`&name`) stands before: it is there to be
    /// referred to.
    pub(super) fn holds_anchors(&self, path: &Path, value: &Node) -> bool {
        if self.begins_with_anchor(path) {
            return true;
        }
        match value {
            Node::Map(entries) if !entries.is_empty() => {
                entries.iter().all(|(key, _)| self.begins_with_anchor(&path.key(key)))
            }
            Node::List(list) if !list.is_empty() => {
                (0..list.len()).all(|index| self.begins_with_anchor(&path.index(index)))
            }
            _ => false,
        }
    }

    fn begins_with_anchor(&self, path: &Path) -> bool {
        let Some((line, column)) = self.locate(path) else { return false };
        let line = self.text.lines().nth(line - 1).unwrap_or_default();
        line.chars().nth(column - 1) == Some('&')
    }

    pub(super) fn report(&self, path: Path, message: String, is_warning: bool) {
        self.problems.borrow_mut().push(RawProblem { path, message, is_warning });
    }
}
