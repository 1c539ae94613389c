//! The file as written, with the problems found so far.

use std::cell::RefCell;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::problem::{Position, Problem};
use crate::config::raw::mistake;
use crate::config::raw::place::{self, YamlPath};
use crate::config::raw::tree::Node;

/// A document with its problems so far.
pub(crate) struct Document<'a> {
    text: &'a str,
    /// The tree as it is written.
    written: Node,
    /// The tree with the keys that merge keys bring.
    pub(super) root: Node,
    problems: RefCell<Vec<(YamlPath, Problem)>>,
}

impl<'a> Document<'a> {
    /// Parses `text`. The error is the mistake and its place.
    pub(crate) fn parse(text: &'a str) -> Result<Self, (Option<Position>, String)> {
        // Some editors begin a file with a byte order mark, which the parser would read as a document.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let told = |error: serde_yaml::Error| {
            let position = error.location().map(|place| (place.line(), place.column()));
            let message = words_of(&error);
            if IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(text)).is_ok() {
                // The text is YAML; the tree reports its mistakes.
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

    /// The problems found so far, with their places in `file`.
    pub(crate) fn problems(&self, file: &str) -> Vec<Problem> {
        let place = |(path, problem): &(YamlPath, Problem)| Problem {
            source: file.to_owned(),
            position: self.locate(path),
            ..problem.clone()
        };
        self.problems.borrow().iter().map(place).collect()
    }

    /// The position of `path`, or of the nearest value above it.
    fn locate(&self, path: &YamlPath) -> Option<Position> {
        place::locate(self.text, &self.written, path)
    }

    /// True if the value at `path`, or each of its entries, has an anchor (`&name`), and so is there to be referred
    /// to.
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

    pub(super) fn report(&self, path: YamlPath, problem: Problem) {
        self.problems.borrow_mut().push((path, problem));
    }
}

/// The parser's words without the position, which is printed before a problem. Only this function takes the parser's
/// words apart.
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
            // The words may repeat the file's content.
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
