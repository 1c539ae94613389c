//! The YAML as written: values with the place each stands at, and unknown keys.
//!
//! `serde_yaml` keeps no positions. They are needed for problems alone, so a place is found when a
//! problem is reported: the text is parsed again by a visitor that walks down the path and fails on
//! purpose where it ends, and the error says where that was.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_yaml::Value;

/// One step down into the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the value of this key.
    Key(String),
    /// To the element of this index.
    Index(usize),
}

/// The way to a value, or to a key itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    steps: Vec<Step>,
    /// The last key is meant, not its value.
    of_key: bool,
}

impl Path {
    fn key(&self, key: &str) -> Self {
        let mut steps = self.steps.clone();
        steps.push(Step::Key(key.to_owned()));
        Self { steps, of_key: false }
    }

    fn index(&self, index: usize) -> Self {
        let mut steps = self.steps.clone();
        steps.push(Step::Index(index));
        Self { steps, of_key: false }
    }
}

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
    root: Value,
    problems: RefCell<Vec<RawProblem>>,
}

/// Where something stands: line and column, from 1.
pub type Position = (usize, usize);

impl<'a> Document<'a> {
    /// Parses `text`. The error is what the parser says, and where.
    pub fn parse(text: &'a str) -> Result<Self, (Option<Position>, String)> {
        // Some editors begin a file with a byte order mark, which the parser takes for a document.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let told = |error: serde_yaml::Error| {
            let position = error.location().map(|place| (place.line(), place.column()));
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            (position, message)
        };
        let mut root: Value = serde_yaml::from_str(text).map_err(told)?;
        root.apply_merge().map_err(told)?;
        Ok(Self { text, root, problems: RefCell::default() })
    }

    /// The document as a section; an empty document is an empty section.
    pub fn root(&self) -> Section<'_> {
        Section::new(self, &self.root, Path::default(), "the file".to_owned())
    }

    /// The problems found so far.
    pub fn problems(&self) -> Vec<RawProblem> {
        self.problems.borrow().clone()
    }

    /// Where `path` stands, or the nearest thing above it.
    pub fn locate(&self, path: &Path) -> Option<Position> {
        let mut path = path.clone();
        loop {
            let locator = Locator { steps: &path.steps, of_key: path.of_key };
            let parser = serde_yaml::Deserializer::from_str(self.text);
            let error = locator.deserialize(parser).err();
            let found = error.filter(|error| error.to_string().contains(FOUND));
            if let Some(place) = found.and_then(|error| error.location()) {
                return Some((place.line(), place.column()));
            }
            path.steps.pop()?;
            path.of_key = false;
        }
    }

    fn report(&self, path: Path, message: String, is_warning: bool) {
        self.problems.borrow_mut().push(RawProblem { path, message, is_warning });
    }
}

/// What a visitor says when it fails on purpose.
const FOUND: &str = "this is the place";

/// Walks down the steps and fails where they end.
#[derive(Clone, Copy)]
struct Locator<'a> {
    steps: &'a [Step],
    of_key: bool,
}

impl<'de> DeserializeSeed<'de> for Locator<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locator<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        let stop_at_key = rest.is_empty() && self.of_key;
        while let Some(matched) = map.next_key_seed(KeyLocator { wanted, stop_at_key })? {
            if matched {
                return map.next_value_seed(Locator { steps: rest, of_key: self.of_key });
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom(FOUND));
        };
        for _ in 0..*wanted {
            seq.next_element::<IgnoredAny>()?;
        }
        seq.next_element_seed(Locator { steps: rest, of_key: self.of_key }).map(drop)
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom(FOUND))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Err(E::custom(FOUND))
    }
}

/// Whether a key is the wanted one; fails on purpose there if it is the key that is looked for.
#[derive(Clone, Copy)]
struct KeyLocator<'a> {
    wanted: &'a str,
    stop_at_key: bool,
}

impl<'de> DeserializeSeed<'de> for KeyLocator<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for KeyLocator<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        if key == self.wanted && self.stop_at_key {
            return Err(E::custom(FOUND));
        }
        Ok(key == self.wanted)
    }

    fn visit_bool<E: serde::de::Error>(self, key: bool) -> Result<bool, E> {
        self.visit_str(if key { "true" } else { "false" })
    }

    fn visit_i64<E: serde::de::Error>(self, key: i64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, key: u64) -> Result<bool, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// A mapping that is read key by key; what is wrong with it is reported as it is read.
pub struct Section<'a> {
    document: &'a Document<'a>,
    value: &'a Value,
    path: Path,
    name: String,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    fn new(document: &'a Document<'a>, value: &'a Value, path: Path, name: String) -> Self {
        if !matches!(value, Value::Mapping(_) | Value::Null) {
            document.report(path.clone(), format!("{name} must hold keys and values"), false);
        }
        Self { document, value, path, name, known: RefCell::default() }
    }

    /// The value of `key`; None where it is left out or null.
    fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(key);
        self.value.as_mapping()?.get(key).filter(|value| !value.is_null())
    }

    /// Whether `key` is there with a value.
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Reports what is wrong with the value of `key`.
    pub fn error(&self, key: &str, message: impl Into<String>) {
        self.document.report(self.path.key(key), message.into(), false);
    }

    /// Reports what is odd about the value of `key`.
    pub fn warn(&self, key: &str, message: impl Into<String>) {
        self.document.report(self.path.key(key), message.into(), true);
    }

    /// Reports what is wrong with the section as a whole.
    pub fn error_here(&self, message: impl Into<String>) {
        self.document.report(self.path.clone(), message.into(), false);
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        if let Value::String(text) = value {
            return Some(text.clone());
        }
        self.error(key, format!("'{key}' must be a text in quotes"));
        None
    }

    /// `true` or `false`.
    pub fn flag(&self, key: &'static str, default: bool) -> bool {
        match self.value(key) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.error(key, format!("'{key}' must be true or false"));
                default
            }
        }
    }

    /// A whole number from `least` to `most`.
    pub fn integer(&self, key: &'static str, default: u64, least: u64, most: u64) -> u64 {
        let Some(value) = self.value(key) else { return default };
        if let Some(number) = value.as_u64().filter(|number| (least..=most).contains(number)) {
            number
        } else {
            self.error(key, format!("'{key}' must be a whole number from {least} to {most}"));
            default
        }
    }

    /// One of several words, each with its meaning; the first is the default.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> T {
        let default = choices[0].1;
        let Some(value) = self.value(key) else { return default };
        let chosen = value.as_str().and_then(|word| choices.iter().find(|(name, _)| *name == word));
        if let Some((_, meaning)) = chosen {
            return *meaning;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.error(key, format!("'{key}' must be one of {}", names.join(", ")));
        default
    }

    /// A list of texts.
    pub fn texts(&self, key: &'static str) -> Vec<String> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let texts = value
            .as_sequence()
            .and_then(|list| list.iter().map(|one| one.as_str().map(str::to_owned)).collect());
        texts.unwrap_or_else(|| {
            self.error(key, format!("'{key}' must be a list of texts"));
            Vec::new()
        })
    }

    /// A mapping of texts, in file order; numbers and flags are taken as they are written.
    pub fn text_map(&self, key: &'static str) -> Vec<(String, String)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let plain = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        };
        let pairs = value.as_mapping().and_then(|mapping| {
            mapping.iter().map(|(name, value)| Some((plain(name)?, plain(value)?))).collect()
        });
        pairs.unwrap_or_else(|| {
            self.error(key, format!("'{key}' must hold names and texts"));
            Vec::new()
        })
    }

    /// The section under `key`; an empty one where it is left out.
    pub fn section(&self, key: &'static str) -> Section<'a> {
        const LEFT_OUT: &Value = &Value::Null;
        let value = self.value(key).unwrap_or(LEFT_OUT);
        Section::new(self.document, value, self.path.key(key), key.to_owned())
    }

    /// The sections in the list under `key`, called `name`.
    pub fn sections(&self, key: &'static str, name: &str) -> Vec<Section<'a>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        self.list(value, &self.path.key(key), key, name)
    }

    /// Each key of the section under `key`, with the sections in its list.
    pub fn lists(&self, key: &'static str, name: &str) -> Vec<(String, Vec<Section<'a>>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Some(mapping) = value.as_mapping() else {
            self.error(key, format!("'{key}' must hold keys and values"));
            return Vec::new();
        };
        let path = self.path.key(key);
        let named = mapping.iter().filter_map(|(name, value)| Some((name.as_str()?, value)));
        named
            .map(|(own, value)| (own.to_owned(), self.list(value, &path.key(own), own, name)))
            .collect()
    }

    fn list(&self, value: &'a Value, path: &Path, key: &str, name: &str) -> Vec<Section<'a>> {
        let Some(list) = value.as_sequence() else {
            self.document.report(path.clone(), format!("'{key}' must be a list"), false);
            return Vec::new();
        };
        let section = |(index, value): (usize, &'a Value)| {
            Section::new(self.document, value, path.index(index), name.to_owned())
        };
        list.iter().enumerate().map(section).collect()
    }

    /// Reports the keys that nobody asked for: `unused` ones as warnings, others as errors.
    pub fn finish(&self, unused: &[&str]) {
        let Some(mapping) = self.value.as_mapping() else { return };
        let known = self.known.borrow();
        for key in mapping.keys() {
            let Some(key) = key.as_str() else {
                self.error_here(format!("every key in {} must be a text", self.name));
                continue;
            };
            if known.contains(&key) {
                continue;
            }
            let path = Path { of_key: true, ..self.path.key(key) };
            if unused.contains(&key) {
                let message = format!("'{key}' in {} is not used by evertoken", self.name);
                self.document.report(path, message, true);
            } else {
                let near = nearest(key, known.iter().copied());
                let hint = near.map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
                let message = format!("unknown key '{key}' in {}{hint}", self.name);
                self.document.report(path, message, false);
            }
        }
    }
}

/// The nearest of `known` to `key`, if it is near at all.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(&key.to_lowercase(), other);
    let near = known.map(|other| (distance(other), other)).min()?;
    (near.0 <= key.chars().count().max(3) / 3).then_some(near.1)
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
";

    fn place(steps: &[Step], of_key: bool) -> Option<Position> {
        let document = Document::parse(TEXT).unwrap();
        document.locate(&Path { steps: steps.to_vec(), of_key })
    }

    #[test]
    fn places_of_keys_and_values() {
        let key = |key: &str| Step::Key(key.to_owned());
        let index = Step::Index;
        assert_eq!(place(&[key("a")], false), Some((1, 4)));
        assert_eq!(place(&[key("a")], true), Some((1, 1)));
        assert_eq!(place(&[key("b"), index(1), key("name")], false), Some((5, 11)));
        assert_eq!(place(&[key("b"), index(1), key("tokn_url")], true), Some((6, 5)));
        assert_eq!(place(&[key("b"), index(0), key("deep"), key("two")], true), Some((4, 20)));
        assert_eq!(
            place(&[key("b"), index(0), key("deep"), key("two"), index(1)], false),
            Some((4, 29))
        );
        // What is not there stands where it would belong.
        let absent = place(&[key("b"), index(1), key("none")], false);
        assert_eq!(absent, place(&[key("b"), index(1)], false));
        assert!(absent.is_some());
    }

    #[test]
    fn unknown_keys_and_their_nearest() {
        let document = Document::parse("tokn_url: a\nzzz: b\nreload: c\n").unwrap();
        let root = document.root();
        root.text("token_url");
        root.text("scope");
        root.finish(&["reload"]);
        let problems = document.problems();
        let messages: Vec<_> =
            problems.iter().map(|p| (p.message.as_str(), p.is_warning)).collect();
        assert_eq!(
            messages,
            [
                ("unknown key 'tokn_url' in the file, did you mean 'token_url'?", false),
                ("unknown key 'zzz' in the file", false),
                ("'reload' in the file is not used by evertoken", true),
            ]
        );
        assert_eq!(document.locate(&problems[1].path), Some((2, 1)));
    }

    #[test]
    fn broken_yaml_says_where() {
        let (position, message) = Document::parse("a: [1\nb: 2\n").err().unwrap();
        assert_eq!(position.map(|(line, _)| line), Some(2), "{message}");
        let (position, message) = Document::parse("a: 1\na: 2\n").err().unwrap();
        assert!(message.contains("duplicate"), "{message} {position:?}");
    }
}
