//! How a wrong key or value is described. Pure.

use crate::config::raw::mistake::is_odd_blank;
use crate::config::raw::tree::{Kind, Node};

/// The longest wrong value that is shown: what is longer may be a secret in a wrong place.
const SHOWN_MAX_CHARS: usize = 32;

/// Where a key belongs, and the `others` beside it.
pub(super) fn belongs_to(home: &str, others: &[&str]) -> String {
    let names: Vec<_> = others.iter().map(|key| format!("'{key}'")).collect();
    match names.as_slice() {
        [] => format!("; it belongs to {home}: is the line indented as it should be?"),
        names => format!(
            "; it belongs to {home}, and so {} {}: are the lines indented as they should be?",
            if names.len() == 1 { "does" } else { "do" },
            names.join(", ")
        ),
    }
}

/// A wrong value as it stands there, for keys whose values are no secrets.
pub(super) fn shown(value: &Node) -> String {
    match value {
        Node::Scalar(scalar) if scalar.text.chars().count() <= SHOWN_MAX_CHARS => {
            if scalar.kind == Kind::Text {
                format!("\"{}\"", scalar.text.escape_debug())
            } else {
                scalar.text.clone()
            }
        }
        other => what_is(other).to_owned(),
    }
}

/// A blank at the start or the end of `text` that is none for YAML, and so became part of it.
pub(super) fn odd_blank_around(text: &str) -> Option<char> {
    let ends = [text.chars().next(), text.chars().next_back()];
    ends.into_iter().flatten().find(|one| is_odd_blank(*one))
}

/// What to write, where a text is meant to be a key and its value: `port:8080`, `port = 8080`.
pub(super) fn pair_in(value: &Node) -> String {
    let text = value.scalar().map_or("", |scalar| scalar.text.as_str());
    let parts = text.split_once(':').or_else(|| text.split_once('='));
    let parts = parts.map(|(key, value)| (key.trim(), value.trim()));
    let is_key = |key: &str| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    match parts.filter(|(key, _)| is_key(key)) {
        Some((key, _)) => format!("; write a colon and a blank behind '{key}'"),
        None => String::new(),
    }
}

/// What a wrong value is, without its text.
pub(super) fn what_is(value: &Node) -> &'static str {
    match value {
        Node::Null => "nothing",
        Node::Scalar(scalar) => match scalar.kind {
            Kind::Text => "a text",
            Kind::Flag(_) => "true or false",
            Kind::Whole(_) | Kind::Number => "a number",
        },
        Node::List(_) => "a list",
        Node::Map(_) => "keys and values",
        Node::Tagged => "a value with a tag",
    }
}
