//! The YAML as a tree that keeps every scalar as written: `1.10` is a number and stays `1.10`.

use std::collections::HashSet;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde_json::Value;

/// The key whose value is a mapping, or a list of mappings, that supplies keys (<https://yaml.org/type/merge.html>).
pub(super) const MERGE_KEY: &str = "<<";

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Nothing, `~` or `null`.
    Null,
    /// A text, a number or a flag.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// Keys, as written, with their values, in file order.
    Map(Vec<(String, Node)>),
    /// A value with a tag (`!name`) that YAML does not define.
    Tagged,
}

/// A text, a number or a flag.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scalar {
    /// The text as written, without quotes and escapes.
    pub(super) text: String,
    /// Its kind in YAML.
    pub(super) kind: ScalarKind,
}

/// The kind of a scalar in YAML.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ScalarKind {
    /// A text.
    Text,
    /// `true` or `false`.
    Flag(bool),
    /// A number that is whole and not negative.
    Whole(u64),
    /// Any other number.
    Number,
}

impl Node {
    /// Reads a document; an empty one is [`Node::Null`].
    pub(super) fn read(text: &str) -> Result<Self, serde_yaml::Error> {
        let guide = ByKind.deserialize(serde_yaml::Deserializer::from_str(text))?;
        match guide {
            Self::Null => Ok(Self::Null),
            guide => AsWritten(&guide).deserialize(serde_yaml::Deserializer::from_str(text)),
        }
    }

    /// The value of `key`, if this is a mapping with that key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(own, _)| own == key).map(|(_, value)| value)
    }

    /// The scalar, if this is one, of any kind.
    pub(super) fn scalar(&self) -> Option<&Scalar> {
        match self {
            Self::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The same value in JSON. A text with a tag of its own is null.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Null | Self::Tagged => Value::Null,
            Self::Scalar(scalar) => match scalar.kind {
                ScalarKind::Text => scalar.text.clone().into(),
                ScalarKind::Flag(flag) => flag.into(),
                ScalarKind::Whole(number) => number.into(),
                ScalarKind::Number => serde_json::from_str(&scalar.text)
                    .unwrap_or_else(|_| scalar.text.clone().into()),
            },
            Self::List(list) => list.iter().map(Self::to_json).collect(),
            Self::Map(entries) => {
                entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
            }
        }
    }

    /// This tree with every merge key replaced by the keys that it brings. The error is the path to a merge key whose
    /// value can't be merged.
    pub(super) fn merged(&self) -> Result<Self, Vec<PathStep>> {
        match self {
            Self::List(list) => {
                let merge = |(index, one): (usize, &Self)| {
                    one.merged().map_err(|way| below(PathStep::Index(index), way))
                };
                list.iter().enumerate().map(merge).collect::<Result<_, _>>().map(Self::List)
            }
            Self::Map(entries) => {
                let mut own = Vec::new();
                let mut brought = Vec::new();
                for (key, value) in entries {
                    let value =
                        value.merged().map_err(|way| below(PathStep::Key(key.clone()), way))?;
                    if key == MERGE_KEY {
                        brought =
                            entries_of(value).ok_or_else(|| vec![PathStep::Key(key.clone())])?;
                    } else {
                        own.push((key.clone(), value));
                    }
                }
                for (key, value) in brought {
                    if !own.iter().any(|(known, _)| *known == key) {
                        own.push((key, value));
                    }
                }
                Ok(Self::Map(own))
            }
            other => Ok(other.clone()),
        }
    }
}

/// The entries that a merge key with this value brings; the first of a list takes precedence.
fn entries_of(value: Node) -> Option<Vec<(String, Node)>> {
    match value {
        Node::Map(entries) => Some(entries),
        Node::List(list) => {
            let each = list.into_iter().map(|one| match one {
                Node::Map(entries) => Some(entries),
                _ => None,
            });
            each.collect::<Option<Vec<_>>>().map(|all| all.into_iter().flatten().collect())
        }
        _ => None,
    }
}

fn below(step: PathStep, mut way: Vec<PathStep>) -> Vec<PathStep> {
    way.insert(0, step);
    way
}

/// One step down into the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathStep {
    /// To the value under this key.
    Key(String),
    /// To the element with this index.
    Index(usize),
}

/// Reads a tree whose scalars have kinds but no texts, because the parser gives either one or the other.
struct ByKind;

impl<'de> DeserializeSeed<'de> for ByKind {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        from.deserialize_any(self)
    }
}

fn scalar(kind: ScalarKind) -> Node {
    Node::Scalar(Scalar { text: String::new(), kind })
}

impl<'de> Visitor<'de> for ByKind {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        let mut new = |key: &str| {
            if seen.insert(key.to_owned()) { Ok(key.to_owned()) } else { Err(twice(key)) }
        };
        while let Some(key) = map.next_key_seed(ReadKey(&mut new))? {
            entries.push((key, map.next_value_seed(Self)?));
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(one) = seq.next_element_seed(Self)? {
            list.push(one);
        }
        Ok(Node::List(list))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (_, value) = tagged.variant::<IgnoredAny>()?;
        value.newtype_variant::<IgnoredAny>()?;
        Ok(Node::Tagged)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Node, E> {
        Ok(scalar(ScalarKind::Text))
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<Node, E> {
        Ok(scalar(ScalarKind::Flag(flag)))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Node, E> {
        Ok(scalar(u64::try_from(number).map_or(ScalarKind::Number, ScalarKind::Whole)))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Node, E> {
        Ok(scalar(ScalarKind::Whole(number)))
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Node, E> {
        Ok(scalar(ScalarKind::Number))
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Node, E> {
        Ok(scalar(ScalarKind::Number))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Node, E> {
        Ok(scalar(ScalarKind::Number))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    /// An empty document.
    fn visit_none<E: serde::de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
}

/// Reads a key as written and hands it to the function inside, whose error gets the key's position.
pub(super) struct ReadKey<F>(pub(super) F);

impl<'de, T, F: FnOnce(&str) -> Result<T, String>> DeserializeSeed<'de> for ReadKey<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<T, D::Error> {
        from.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for ReadKey<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is a text")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<T, E> {
        (self.0)(key).map_err(E::custom)
    }
}

/// The message about a key that stands twice in one mapping.
fn twice(key: &str) -> String {
    let dash = match key {
        "name" | "provider" => ", or put the dash before it that begins the next entry",
        _ => "",
    };
    format!("the key '{key}' stands here a second time; remove one of the two{dash}")
}

/// Reads the tree of [`ByKind`] once more, to get the text of each scalar.
struct AsWritten<'a>(&'a Node);

impl<'de> DeserializeSeed<'de> for AsWritten<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        match self.0 {
            Node::Map(_) => from.deserialize_map(self),
            Node::List(_) => from.deserialize_seq(self),
            Node::Scalar(_) => from.deserialize_str(self),
            Node::Null | Node::Tagged => {
                from.deserialize_ignored_any(IgnoredAny)?;
                Ok(self.0.clone())
            }
        }
    }
}

impl<'de> Visitor<'de> for AsWritten<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was there before")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let Node::Map(guide) = self.0 else { return Err(A::Error::custom("no mapping")) };
        let mut entries = Vec::new();
        for (_, value) in guide {
            let Some(key) = map.next_key()? else { break };
            entries.push((key, map.next_value_seed(AsWritten(value))?));
        }
        // Reads the end of the mapping.
        map.next_key::<IgnoredAny>()?;
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let Node::List(guide) = self.0 else { return Err(A::Error::custom("no list")) };
        let mut list = Vec::new();
        for one in guide {
            let Some(one) = seq.next_element_seed(AsWritten(one))? else { break };
            list.push(one);
        }
        seq.next_element::<IgnoredAny>()?;
        Ok(Node::List(list))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Node, E> {
        let Node::Scalar(known) = self.0 else { return Err(E::custom("no scalar")) };
        Ok(Node::Scalar(Scalar { text: text.to_owned(), kind: known.kind }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Node {
        Node::read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn texts(text: &str) -> Vec<(String, ScalarKind)> {
        let Node::List(list) = read(text) else { panic!("{text}") };
        list.into_iter()
            .map(|one| one.scalar().cloned().map(|scalar| (scalar.text, scalar.kind)).unwrap())
            .collect()
    }

    #[test]
    fn scalars_stay_as_they_are_written() {
        let text = "[1.10, 0x10, 1e3, no, 2026-01-01, .5, +1, 010, 1_000, 18446744073709551616, -3, true, True, \
                    '1.10', \"a\\tb\", .inf, 12:30, !!str 1.10, &a 1.20, *a]";
        let expected = [
            ("1.10", ScalarKind::Number),
            ("0x10", ScalarKind::Whole(16)),
            ("1e3", ScalarKind::Number),
            ("no", ScalarKind::Text),
            ("2026-01-01", ScalarKind::Text),
            (".5", ScalarKind::Number),
            ("+1", ScalarKind::Whole(1)),
            ("010", ScalarKind::Text),
            ("1_000", ScalarKind::Text),
            ("18446744073709551616", ScalarKind::Number),
            ("-3", ScalarKind::Number),
            ("true", ScalarKind::Flag(true)),
            ("True", ScalarKind::Flag(true)),
            ("1.10", ScalarKind::Text),
            ("a\tb", ScalarKind::Text),
            (".inf", ScalarKind::Number),
            ("12:30", ScalarKind::Text),
            ("1.10", ScalarKind::Text),
            ("1.20", ScalarKind::Number),
            ("1.20", ScalarKind::Number),
        ];
        assert_eq!(texts(text), expected.map(|(text, kind)| (text.to_owned(), kind)));
    }

    #[test]
    fn keys_stay_as_they_are_written() {
        let Node::Map(entries) = read("{1.10: a, no: b, ~: c, 0x1: d}") else { panic!() };
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["1.10", "no", "~", "0x1"]);
        assert_eq!(read("{a: ~, b: , c: null, d: !x y}"), {
            let key = |key: &str, node| (key.to_owned(), node);
            Node::Map(vec![
                key("a", Node::Null),
                key("b", Node::Null),
                key("c", Node::Null),
                key("d", Node::Tagged),
            ])
        });
        assert_eq!(read(""), Node::Null);
        assert_eq!(read("# nothing\n"), Node::Null);
    }

    #[test]
    fn a_key_that_stands_twice_is_named_with_its_place() {
        let error = Node::read("a:\n  b: 1\n  c: 2\n  b: 3\n").unwrap_err();
        let place = error.location().map(|place| (place.line(), place.column()));
        assert_eq!(place, Some((4, 3)), "{error}");
        assert!(error.to_string().contains(&twice("b")), "{error}");
        assert!(Node::read("{1: a, 1: b}").is_err());
        assert!(Node::read("[{a: 1}, {a: 1}]").is_ok());
    }

    #[test]
    fn merge_keys_bring_what_is_not_there() {
        let plain = |text: &str| read(text).merged().unwrap();
        let base = "base: &base {a: 1, b: 2}\nmore: &more {<<: *base, c: 3}\n";
        let with = |text: &str| plain(&format!("{base}{text}")).get("x").cloned();
        assert_eq!(with("x: {b: 9, <<: *base}"), Some(plain("{b: 9, a: 1}")));
        assert_eq!(with("x: {<<: *base, b: 9}"), Some(plain("{b: 9, a: 1}")));
        // A mapping with its own merge key, and a list, whose first element takes precedence.
        assert_eq!(with("x: {<<: *more}"), Some(plain("{c: 3, a: 1, b: 2}")));
        assert_eq!(with("x: {<<: [{c: 0}, *more]}"), Some(plain("{c: 0, a: 1, b: 2}")));
        assert_eq!(with("x: [{y: {<<: *base}}]"), Some(plain("[{y: {a: 1, b: 2}}]")));
        let way = |text: &str| read(text).merged().unwrap_err();
        let key = |key: &str| PathStep::Key(key.to_owned());
        assert_eq!(way("x: [{<<: 5}]"), [key("x"), PathStep::Index(0), key("<<")]);
        assert_eq!(way("{<<: [a]}"), [key("<<")]);
        assert_eq!(way("{<<: }"), [key("<<")]);
    }
}
