//! A mapping in the file, read key by key; it reports problems as it is read.

use std::cell::RefCell;
use std::time::Duration;

use crate::config::problem::Problem;
use crate::config::raw::document::Document;
use crate::config::raw::homes::home_of;
use crate::config::raw::mistake::is_odd_blank;
use crate::config::raw::nearest::nearest;
use crate::config::raw::place::YamlPath;
use crate::config::raw::tree::{Node, ScalarKind};

mod lists;
mod words;

use words::{
    belongs_to, dash_for, invisible_in, odd_blank_around, pair_in, shown, unit_in, what_is,
};

/// A mapping that is read key by key.
pub(crate) struct Section<'a> {
    document: &'a Document<'a>,
    value: &'a Node,
    path: YamlPath,
    name: String,
    is_unreadable: bool,
    known: RefCell<Vec<&'static str>>,
    /// Required keys that are missing, each with its message.
    lacking: RefCell<Vec<(&'static str, String)>>,
    /// Keys of this section that stand in the section above, which reports them.
    strays: Vec<&'a str>,
}

impl<'a> Section<'a> {
    /// The document itself; an empty one is an empty section.
    pub(crate) fn root(document: &'a Document<'a>) -> Self {
        Self::new(document, &document.root, YamlPath::default(), "the file".to_owned())
    }

    /// A section that may be missing.
    fn new(document: &'a Document<'a>, value: &'a Node, path: YamlPath, name: String) -> Self {
        let is_unreadable = !matches!(value, Node::Map(_) | Node::Null);
        Self::of(document, value, path, name, is_unreadable)
    }

    fn of(
        document: &'a Document<'a>,
        value: &'a Node,
        path: YamlPath,
        name: String,
        is_unreadable: bool,
    ) -> Self {
        if is_unreadable {
            let message = format!(
                "{name} must hold keys and values, not {}{}",
                what_is(value),
                pair_in(value)
            );
            document.report(path.clone(), Problem { message, ..Problem::default() });
        }
        let (known, lacking) = (RefCell::default(), RefCell::default());
        let strays = Vec::new();
        Self { document, value, path, name, is_unreadable, known, lacking, strays }
    }

    /// True if this is not a mapping. That was reported, so nothing else is reported about it.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.is_unreadable
    }

    /// The value of `key`; None if it is missing or null.
    fn value(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        self.value.get(key).filter(|value| !matches!(value, Node::Null))
    }

    /// True if `key` is there with a value.
    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// True if `key` is there without a value.
    pub(crate) fn is_empty(&self, key: &'static str) -> bool {
        matches!(self.value.get(key), Some(Node::Null))
    }

    /// True if keys of the section `home` below stand in this section.
    pub(crate) fn has_strays_of(&self, home: &str) -> bool {
        !self.strays_of(home).is_empty()
    }

    fn strays_of(&self, home: &str) -> Vec<&'a str> {
        let Node::Map(entries) = self.value else { return Vec::new() };
        let keys = entries.iter().map(|(key, _)| key.as_str());
        keys.filter(|key| home_of(key, &self.name) == Some(home)).collect()
    }

    /// Reports a problem with the value of `key`.
    pub(crate) fn error(&self, key: &str, message: impl Into<String>) {
        self.report(self.path.key(key), message.into(), false);
    }

    /// The same, for a problem that the environment variables `unset` would solve.
    pub(crate) fn error_of_unset(&self, key: &str, message: impl Into<String>, unset: &[&str]) {
        let unset = unset.iter().map(ToString::to_string).collect();
        let problem = Problem { message: message.into(), unset, ..Problem::default() };
        self.report_problem(self.path.key(key), problem);
    }

    /// The same, for a file that the server alone needs.
    pub(crate) fn error_of_server(&self, key: &str, message: impl Into<String>) {
        let problem = Problem { message: message.into(), is_of_server: true, ..Problem::default() };
        self.report_problem(self.path.key(key), problem);
    }

    /// Reports a problem with `key` itself, which may have no value.
    pub(crate) fn error_at_key(&self, key: &str, message: impl Into<String>) {
        self.report(self.path.key(key).itself(), message.into(), false);
    }

    /// Reports a problem with the entry `name` in the mapping under `key`.
    pub(crate) fn error_in(&self, key: &str, name: &str, message: impl Into<String>) {
        self.report(self.path.key(key).key(name).itself(), message.into(), false);
    }

    /// Warns about the value of `key`.
    pub(crate) fn warn(&self, key: &str, message: impl Into<String>) {
        self.report(self.path.key(key), message.into(), true);
    }

    /// Warns about the entry `name` in the mapping under `key`.
    pub(crate) fn warn_in(&self, key: &str, name: &str, message: impl Into<String>) {
        self.report(self.path.key(key).key(name).itself(), message.into(), true);
    }

    /// Reports that `key` is required, unless it is there or a similar key is.
    pub(crate) fn require(&self, key: &'static str, message: impl Into<String>) {
        if !self.has(key) && !self.strays.contains(&key) {
            self.lacking.borrow_mut().push((key, message.into()));
        }
    }

    fn report(&self, path: YamlPath, message: String, is_warning: bool) {
        self.report_problem(path, Problem { message, is_warning, ..Problem::default() });
    }

    fn report_problem(&self, path: YamlPath, problem: Problem) {
        if !self.is_unreadable {
            self.document.report(path, problem);
        }
    }

    /// A text.
    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        let Some(scalar) = value.scalar().filter(|scalar| scalar.kind == ScalarKind::Text) else {
            self.error(key, format!("'{key}' must be a text in quotes"));
            return None;
        };
        if let Some(code) = odd_blank_around(&scalar.text).map(u32::from) {
            let message = format!(
                "'{key}' begins or ends with a space of another kind (U+{code:04X}); YAML wants plain spaces"
            );
            self.error(key, message);
        }
        Some(scalar.text.trim_matches(is_odd_blank).to_owned())
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.value(key) else { return default };
        let scalar = value.scalar();
        if let Some(ScalarKind::Flag(flag)) = scalar.map(|scalar| scalar.kind) {
            return flag;
        }
        let hint = match scalar.map(|scalar| scalar.text.to_lowercase()).as_deref() {
            Some("true" | "false") => "; write it without quotes",
            Some("yes" | "on" | "y" | "1") => "; did you mean true?",
            Some("no" | "off" | "n" | "0") => "; did you mean false?",
            _ => "",
        };
        self.error(key, format!("'{key}' must be true or false, not {}{hint}", shown(value)));
        default
    }

    /// True if the value of `key` is a flag or missing.
    pub(crate) fn is_flag(&self, key: &'static str) -> bool {
        self.value(key).is_none_or(|value| {
            value.scalar().is_some_and(|scalar| matches!(scalar.kind, ScalarKind::Flag(_)))
        })
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn integer(&self, key: &'static str, default: u64, least: u64, most: u64) -> u64 {
        let Some(value) = self.value(key) else { return default };
        let is_fine = |number: &u64| (least..=most).contains(number);
        let scalar = value.scalar();
        match scalar.map(|scalar| scalar.kind) {
            Some(ScalarKind::Whole(number)) if is_fine(&number) => return number,
            _ => {}
        }
        let would_be = scalar.and_then(|scalar| scalar.text.parse().ok()).filter(is_fine);
        let hint = match scalar {
            _ if would_be.is_some() => "; write it without quotes".to_owned(),
            Some(scalar) => unit_in(key, &scalar.text),
            None => String::new(),
        };
        let message = format!(
            "'{key}' must be a whole number from {least} to {most}, not {}{hint}",
            shown(value)
        );
        self.error(key, message);
        default
    }

    /// A whole number of seconds from `least` to `most`.
    pub(crate) fn seconds(
        &self,
        key: &'static str,
        default: u64,
        least: u64,
        most: u64,
    ) -> Duration {
        Duration::from_secs(self.integer(key, default, least, most))
    }

    /// One of several words, each with its meaning; the first is the default.
    pub(crate) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> T {
        self.known_choice(key, choices).unwrap_or(choices[0].1)
    }

    /// The same; None for an unknown word, which is reported, so that its consequences are not.
    pub(crate) fn known_choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let Some(value) = self.value(key) else { return Some(choices[0].1) };
        let word = value.scalar().filter(|scalar| scalar.kind == ScalarKind::Text);
        let chosen = word.and_then(|word| choices.iter().find(|(name, _)| *name == word.text));
        if let Some((_, meaning)) = chosen {
            return Some(*meaning);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.not_one_of(key, &names);
        None
    }

    /// Reports that the value of `key` is none of `names`.
    pub(crate) fn not_one_of(&self, key: &'static str, names: &[&str]) {
        let Some(value) = self.value(key) else { return };
        let near = value.scalar().and_then(|word| nearest(&word.text, names.iter().copied()));
        let hint = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        let all: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let message =
            format!("'{key}' must be one of {}, not {}{hint}", all.join(", "), shown(value));
        self.error(key, message);
    }

    /// A mapping of texts, in file order; numbers and flags count as written.
    pub(crate) fn text_map(&self, key: &'static str) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for (name, text) in self.optional_text_map(key) {
            match text {
                Some(text) => texts.push((name, text)),
                None => self.not_a_text(key, &name, &Node::Null),
            }
        }
        texts
    }

    /// A mapping of texts as [`Section::text_map`] reads it, with None for null.
    pub(crate) fn optional_text_map(&self, key: &'static str) -> Vec<(String, Option<String>)> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let Node::Map(entries) = value else {
            self.error(key, format!("'{key}' must hold names and texts, not {}", what_is(value)));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (name, value) in entries {
            match (value, value.scalar()) {
                (_, Some(scalar)) => texts.push((name.clone(), Some(scalar.text.clone()))),
                (Node::Null, None) => texts.push((name.clone(), None)),
                (_, None) => self.not_a_text(key, name, value),
            }
        }
        texts
    }

    /// A mapping of any values, in file order, as JSON.
    pub(crate) fn json_map(&self, key: &'static str) -> Vec<(String, serde_json::Value)> {
        match self.value(key) {
            None => Vec::new(),
            Some(Node::Map(entries)) => {
                entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
            }
            Some(value) => {
                let message = format!("'{key}' must hold names and values, not {}", what_is(value));
                self.error(key, message);
                Vec::new()
            }
        }
    }

    fn not_a_text(&self, key: &str, name: &str, value: &Node) {
        let message = format!("'{name}' in {key} must be a text, not {}", what_is(value));
        self.error_in(key, name, message);
    }

    /// The section under `key`; an empty one if it is missing.
    pub(crate) fn section(&self, key: &'static str) -> Section<'a> {
        const LEFT_OUT: &Node = &Node::Null;
        let value = self.value(key).unwrap_or(LEFT_OUT);
        let section = Section::new(self.document, value, self.path.key(key), key.to_owned());
        Section { strays: self.strays_of(key), ..section }
    }

    /// The sections in the list under `key`, called `name`; None if it is not a list, which is reported.
    pub(crate) fn sections(&self, key: &'static str, name: &str) -> Option<Vec<Section<'a>>> {
        let Some(value) = self.value(key) else { return Some(Vec::new()) };
        self.list(value, &self.path.key(key), key, name)
    }

    /// Each key of the section under `key`, as written, with the sections in its list.
    pub(crate) fn lists(&self, key: &'static str, name: &str) -> Vec<(String, Vec<Section<'a>>)> {
        let section = self.section(key);
        let Node::Map(entries) = section.value else { return Vec::new() };
        let path = self.path.key(key);
        let sections = |(own, value): &'a (String, Node)| {
            let list = self.list(value, &path.key(own), own, name);
            (own.clone(), list.unwrap_or_default())
        };
        entries.iter().map(sections).collect()
    }

    fn list(
        &self,
        value: &'a Node,
        path: &YamlPath,
        key: &str,
        name: &str,
    ) -> Option<Vec<Section<'a>>> {
        let Node::List(list) = value else {
            let message =
                format!("'{key}' must be a list, not {}{}", what_is(value), dash_for(value, name));
            self.report(path.clone(), message, false);
            return None;
        };
        let section = |(index, value): (usize, &'a Node)| {
            let is_unreadable = !matches!(value, Node::Map(_));
            Section::of(self.document, value, path.index(index), name.to_owned(), is_unreadable)
        };
        Some(list.iter().enumerate().map(section).collect())
    }

    /// Reports the unread keys, `unused` ones as warnings and others as errors, and the missing required keys.
    pub(crate) fn finish(&self, unused: &[&str]) {
        let mut meant = Vec::new();
        let mut homes = Vec::new();
        if let Node::Map(entries) = self.value {
            for (key, value) in entries {
                if !self.known.borrow().contains(&key.as_str()) {
                    meant.extend(self.report_unknown(key, value, unused, &mut homes));
                }
            }
        }
        for (key, message) in self.lacking.take() {
            if !meant.contains(&key) {
                self.error(key, message);
            }
        }
    }

    /// The known key that is most similar to `key`, or that begins with its words: `client_id_env` for `client_id`.
    fn near(&self, key: &str) -> Option<&'static str> {
        let known = self.known.borrow();
        let begun =
            |other: &&&str| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('_'));
        let named = known.iter().find(|other| other.strip_prefix(key) == Some("_env"));
        let mut longer = known.iter().filter(begun);
        let only = longer.next().filter(|only| longer.all(|other| other == *only));
        named.or(only).copied().or_else(|| nearest(key, known.iter().copied()))
    }

    /// Reports an unread key and returns the most similar known one. `homes` are the sections of keys that were
    /// already reported: one mistake misplaces all of a section's keys.
    fn report_unknown(
        &self,
        key: &str,
        value: &Node,
        unused: &[&str],
        homes: &mut Vec<&'static str>,
    ) -> Option<&'static str> {
        let path = self.path.key(key);
        if unused.contains(&key) {
            let message = format!("'{key}' in {} is not used by evertoken", self.name);
            self.report(path.itself(), message, true);
            return None;
        }
        let near = self.near(key);
        let is_root = self.path == YamlPath::default();
        if is_root
            && near.is_none()
            && (key.starts_with("x-") || self.document.holds_anchors(&path, value))
        {
            return None;
        }
        let hint = match (near, home_of(key, &self.name)) {
            (Some(near), _) => format!(", did you mean '{near}'?"),
            (None, Some(home)) if homes.contains(&home) => return None,
            (None, Some(home)) => {
                homes.push(home);
                let is_other = |other: &&str| *other != key && self.near(other).is_none();
                let others = self.strays_of(home).into_iter().filter(is_other);
                belongs_to(home, &others.collect::<Vec<_>>())
            }
            (None, None) => String::new(),
        };
        let invisible = invisible_in(key);
        self.report(
            path.itself(),
            format!("unknown key '{key}' in {}{hint}{invisible}", self.name),
            false,
        );
        near
    }
}
