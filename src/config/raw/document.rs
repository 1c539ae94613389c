//! The file as it is written, with the problems that were found in it so far.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::raw::mistake;
use crate::config::raw::place::{self, Position, YamlPath};
use crate::config::raw::tree::Node;

/// A problem with a place that is still to be found.
#[derive(Clone, Debug)]
pub struct RawProblem {
    /// Where.
    pub path: YamlPath,
    /// What.
    pub message: String,
    /// Whether the file can be used all the same.
    pub is_warning: bool,
    /// The environment variables that would mend it, which are not set.
    pub unset: Vec<String>,
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
            let message = words_of(&error);
            if IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(text)).is_ok() {
                // It is YAML; what is wrong with it is said by the tree.
                return (position, message);
            }
            mistake::explain(text, position, &message)
        };
        let written = Node::read(text).map_err(told)?;
        if let Some((position, message)) = mistake::odd_blank(text) {
            return Err((Some(position), message));
        }
        let root = written.merged().map_err(|steps| {
            let message = "'<<' takes keys from a mapping, or from a list of them: write an alias of one, as '*name'";
            (place::locate(text, &written, &YamlPath { steps, of_key: false }), message.to_owned())
        })?;
        Ok(Self { text, written, root, problems: RefCell::default() })
    }

    /// The problems found so far.
    pub fn problems(&self) -> Vec<RawProblem> {
        self.problems.borrow().clone()
    }

    /// Where `path` stands, or the nearest thing above it.
    pub fn locate(&self, path: &YamlPath) -> Option<Position> {
        place::locate(self.text, &self.written, path)
    }

    /// Whether the value at `path`, or each entry of it, is what an anchor (`&name`) stands before: it is there to be
    /// referred to.
    pub(super) fn holds_anchors(&self, path: &YamlPath, value: &Node) -> bool {
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

    fn begins_with_anchor(&self, path: &YamlPath) -> bool {
        let Some((line, column)) = self.locate(path) else { return false };
        let line = self.text.lines().nth(line - 1).unwrap_or_default();
        line.chars().nth(column - 1) == Some('&')
    }

    pub(super) fn report(&self, problem: RawProblem) {
        self.problems.borrow_mut().push(problem);
    }
}

/// What the parser says is wrong, without the place that it names there: that stands before a problem's words. This is the
/// one place that takes its words apart.
fn words_of(error: &serde_yaml::Error) -> String {
    let words = error.to_string();
    let Some(place) = error.location() else { return words };
    let place = format!(" at line {} column {}", place.line(), place.column());
    words.split_once(&place).map_or(words.as_str(), |(words, _)| words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_writes_places_into_its_words_as_it_did_when_this_was_written() {
        for (text, words, place) in [
            (
                "a: [1\nb: 2\n",
                "did not find expected ',' or ']'",
                " at line 2 column 2, while parsing a flow sequence at line 1 column 4",
            ),
            ("a: &a [*b]\n", "unknown anchor", " at line 1 column 8"),
            // The words may hold what stands in the file.
            (
                "x at line 7: 1\nx at line 7: 2\n",
                "the key 'x at line 7' stands here a second time; remove one of the two",
                " at line 2 column 1",
            ),
        ] {
            let error = Node::read(text).unwrap_err();
            assert_eq!(error.to_string(), format!("{words}{place}"));
            assert_eq!(words_of(&error), words);
        }
    }
}
