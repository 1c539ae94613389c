//! Descriptions of wrong keys and values. Pure.

use crate::config::raw::mistake::is_odd_blank;
use crate::config::raw::tree::{Node, ScalarKind};
use crate::visible::is_unseen;

/// The longest wrong value that is shown; a longer one may be a misplaced secret.
const SHOWN_MAX_CHARS: usize = 32;

/// The message that a key, and the `others` beside it, belong to another section.
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

/// A wrong value as written, for keys whose values are not secret.
pub(super) fn shown(value: &Node) -> String {
    match value {
        Node::Scalar(scalar) if scalar.text.chars().count() <= SHOWN_MAX_CHARS => {
            if scalar.kind == ScalarKind::Text {
                format!("\"{}\"", scalar.text.escape_debug())
            } else {
                scalar.text.clone()
            }
        }
        Node::Scalar(scalar) if scalar.kind == ScalarKind::Text => {
            format!("a text of {} characters", scalar.text.chars().count())
        }
        other => what_is(other).to_owned(),
    }
}

/// A character at the start or end of `text` that looks like a space but became part of the text.
pub(super) fn odd_blank_around(text: &str) -> Option<char> {
    let ends = [text.chars().next(), text.chars().next_back()];
    ends.into_iter().flatten().find(|one| is_odd_blank(*one))
}

/// A hint for a text that is meant as a key and its value: `port:8080`, `port = 8080`.
pub(super) fn pair_in(value: &Node) -> String {
    let text = value.scalar().map_or("", |scalar| scalar.text.as_str());
    let parts = text.split_once(':').or_else(|| text.split_once('='));
    let parts = parts.map(|(key, value)| (key.trim(), value.trim()));
    let is_key = |key: &str| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    match parts.filter(|(key, _)| is_key(key)) {
        Some((key, _)) => format!("; write a colon and a space after '{key}'"),
        None => String::new(),
    }
}

/// A hint for writing a list, if keys and values stand in its place.
pub(super) fn dash_for(value: &Node, name: &str) -> String {
    match value {
        Node::Map(_) => {
            let entry = name.strip_prefix("a ").or_else(|| name.strip_prefix("an "));
            format!("; begin each {} with '- '", entry.unwrap_or("entry"))
        }
        _ => String::new(),
    }
}

/// A hint that a character of `text` is invisible.
pub(super) fn invisible_in(text: &str) -> String {
    let found = text.chars().find(|one| is_unseen(*one)).map(u32::from);
    found.map_or_else(String::new, |code| {
        format!("; it holds a character that can't be seen (U+{code:04X}): type the key anew")
    })
}

/// The unit of the number under `key`, if `text` has one: `5m`, `32MB`.
pub(super) fn unit_in(key: &str, text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|one: char| !one.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else { return String::new() };
    let unit = unit.trim();
    if key.ends_with("_bytes") && !unit.is_empty() {
        return "; it counts bytes: write the number alone".to_owned();
    }
    let seconds = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 24 * 3600,
        _ => return String::new(),
    };
    // These keys have no unit.
    if key == "port" || key.starts_with("max_") {
        return String::new();
    }
    format!("; it counts seconds: write {}", number.saturating_mul(seconds))
}

/// The kind of a wrong value, without its text.
pub(super) fn what_is(value: &Node) -> &'static str {
    match value {
        Node::Null => "nothing",
        Node::Scalar(scalar) => match scalar.kind {
            ScalarKind::Text => "a text",
            ScalarKind::Flag(_) => "true or false",
            ScalarKind::Whole(_) | ScalarKind::Number => "a number",
        },
        Node::List(_) => "a list",
        Node::Map(_) => "keys and values",
        Node::Tagged => "a value with a tag",
    }
}
