//! Positions in the YAML.
//!
//! `serde_yaml` keeps no positions. Only problems need them, so a position is found when a problem is reported: a
//! visitor parses the text again, walks down the path and fails on purpose at its end, and the error has the
//! position.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use crate::config::problem::Position;
use crate::config::raw::tree::{MERGE_KEY, Node, PathStep, ReadKey};

/// The way to a value, or to a key itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct YamlPath {
    pub(super) steps: Vec<PathStep>,
    /// True if the path means the last key itself, not its value.
    pub(super) of_key: bool,
}

impl YamlPath {
    /// The path to the value of `key` below this.
    pub(super) fn key(&self, key: &str) -> Self {
        self.below(PathStep::Key(key.to_owned()))
    }

    /// The path to an element below this.
    pub(super) fn index(&self, index: usize) -> Self {
        self.below(PathStep::Index(index))
    }

    /// The path to the key itself, from the path to its value.
    pub(super) fn itself(self) -> Self {
        Self { of_key: true, ..self }
    }

    fn below(&self, step: PathStep) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { steps, of_key: false }
    }
}

/// The position of `path` in `text`, whose tree is `tree`, or of the nearest value above it.
pub(super) fn locate(text: &str, tree: &Node, path: &YamlPath) -> Option<Position> {
    let mut path = YamlPath { steps: through_merges(tree, &path.steps), of_key: path.of_key };
    loop {
        let is_found = Cell::new(false);
        let locator = Locator { steps: &path.steps, of_key: path.of_key, is_found: &is_found };
        let error = locator.deserialize(serde_yaml::Deserializer::from_str(text)).err();
        let error = error.filter(|_| is_found.get());
        if let Some(place) = error.and_then(|error| error.location()) {
            return Some((place.line(), place.column()));
        }
        path.steps.pop()?;
        path.of_key = false;
    }
}

/// The steps as written, in which a key from a merge key is below that merge key.
fn through_merges(tree: &Node, steps: &[PathStep]) -> Vec<PathStep> {
    let mut written = Vec::new();
    let mut node = Some(tree);
    for step in steps {
        let below = match (node, step) {
            (Some(node), PathStep::Key(key)) => find_key(node, key),
            _ => None,
        };
        let below = below.unwrap_or_else(|| vec![step.clone()]);
        for step in &below {
            node = node.and_then(|node| child(node, step));
        }
        written.extend(below);
    }
    written
}

/// The steps from `node` to the value of `key`, through merge keys if `node` lacks it.
fn find_key(node: &Node, key: &str) -> Option<Vec<PathStep>> {
    match node {
        Node::Map(_) if node.get(key).is_some() => Some(vec![PathStep::Key(key.to_owned())]),
        Node::Map(_) => {
            let mut way = vec![PathStep::Key(MERGE_KEY.to_owned())];
            way.extend(find_key(node.get(MERGE_KEY)?, key)?);
            Some(way)
        }
        Node::List(list) => list.iter().enumerate().find_map(|(index, one)| {
            let mut way = vec![PathStep::Index(index)];
            way.extend(find_key(one, key)?);
            Some(way)
        }),
        _ => None,
    }
}

fn child<'a>(node: &'a Node, step: &PathStep) -> Option<&'a Node> {
    match (node, step) {
        (Node::Map(_), PathStep::Key(key)) => node.get(key),
        (Node::List(list), PathStep::Index(index)) => list.get(*index),
        _ => None,
    }
}

/// Walks down the steps and fails at their end, which it notes in `is_found`: at the last key itself, or at its value,
/// where it accepts no kind of value.
#[derive(Clone, Copy)]
struct Locator<'a> {
    steps: &'a [PathStep],
    of_key: bool,
    is_found: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Locator<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.is_found.set(self.steps.is_empty());
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locator<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((PathStep::Key(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("a mapping"));
        };
        let is_wanted = |key: &str| {
            let is_target = key == wanted && rest.is_empty() && self.of_key;
            self.is_found.set(is_target);
            if is_target { Err("the place".to_owned()) } else { Ok(key == wanted) }
        };
        while let Some(is_wanted) = map.next_key_seed(ReadKey(is_wanted))? {
            if is_wanted {
                return map.next_value_seed(Locator { steps: rest, ..self });
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((PathStep::Index(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("a list"));
        };
        for _ in 0..*wanted {
            seq.next_element::<IgnoredAny>()?;
        }
        seq.next_element_seed(Locator { steps: rest, ..self }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
a: 1
b:
  - name: x
    deep: {one: 1, two: [3, 4]}
  - name: \"y\"
    tokn_url: z
base: &base
  c: 1
  d: {e: 2}
f:
  <<: *base
  g: 3
h:
  <<: [{i: 4}, *base]
";

    fn place(steps: &[PathStep], of_key: bool) -> Option<Position> {
        let tree = Node::read(TEXT).unwrap();
        locate(TEXT, &tree, &YamlPath { steps: steps.to_vec(), of_key })
    }

    #[test]
    fn places_of_keys_and_values() {
        let key = |key: &str| PathStep::Key(key.to_owned());
        let index = PathStep::Index;
        let cases = [
            (vec![key("a")], false, (1, 4)),
            (vec![key("a")], true, (1, 1)),
            (vec![key("b"), index(1), key("name")], false, (5, 11)),
            (vec![key("b"), index(1), key("tokn_url")], true, (6, 5)),
            (vec![key("b"), index(0), key("deep"), key("two")], true, (4, 20)),
            (vec![key("b"), index(0), key("deep"), key("two"), index(1)], false, (4, 29)),
            // A value from an anchor has the anchor's position, even through a merge key.
            (vec![key("f"), key("c")], false, (8, 6)),
            (vec![key("f"), key("d"), key("e")], true, (9, 7)),
            (vec![key("f"), key("g")], false, (12, 6)),
            (vec![key("h"), key("i")], true, (14, 9)),
            (vec![key("h"), key("c")], false, (8, 6)),
        ];
        for (steps, of_key, expected) in cases {
            assert_eq!(place(&steps, of_key), Some(expected), "{steps:?} {of_key}");
        }
        // A missing value has the position where it would belong.
        let absent = place(&[key("b"), index(1), key("none")], false);
        assert_eq!(absent, place(&[key("b"), index(1)], false));
        assert!(absent.is_some());
    }

    /// These were reported at the mapping around them.
    #[test]
    fn a_value_with_a_tag_or_a_number_of_more_than_64_bits_has_its_own_place() {
        let text = "a: {b: !x c, d: 18446744073709551616}";
        let tree = Node::read(text).unwrap();
        for (key, column) in [("b", 8), ("d", 17)] {
            let path = YamlPath::default().key("a").key(key);
            assert_eq!(locate(text, &tree, &path), Some((1, column)), "{key}");
        }
    }
}
