//! Reads defective JSON that some issuers write, after strict parsing has refused it. Pure.
//!
//! A rotated refresh token is lost with its answer, so a defect elsewhere must not cost it. A value counts only if it
//! is complete: a closed text with a valid successor.

use serde_json::{Map, Value};

/// The deepest level of containers that is read; deeper ones are skipped.
const DEPTH_MAX: u32 = 16;
/// Replaces characters that a JSON text may not hold: a token with this character is not used.
const DAMAGED: char = char::REPLACEMENT_CHARACTER;
/// The blanks that may stand between values.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// The readable values of `text`, which begins with a brace or a bracket, and true if `text` is cut: it ends, or
/// becomes unreadable, before its last brace. Anything after that brace is skipped.
pub(super) fn read(text: &str) -> (Value, bool) {
    let mut scanner = Scanner { rest: text, is_cut: false };
    let value = scanner.value(DEPTH_MAX).unwrap_or_default();
    (value, scanner.is_cut)
}

struct Scanner<'a> {
    rest: &'a str,
    is_cut: bool,
}

impl Scanner<'_> {
    /// Parses the next value; None if it is incomplete.
    fn value(&mut self, depth: u32) -> Option<Value> {
        self.rest = self.rest.trim_start_matches(BLANKS);
        match self.rest.chars().next()? {
            '{' | '[' if depth == 0 => self.pass_over(),
            '{' => Some(Value::Object(self.object(depth - 1))),
            '[' => Some(Value::Array(self.list(depth - 1))),
            '"' => self.text().map(Value::String),
            _ => self.word(),
        }
    }

    fn object(&mut self, depth: u32) -> Map<String, Value> {
        let mut members = Map::new();
        self.each('}', |scanner| {
            let name = scanner.rest.starts_with('"').then(|| scanner.text()).flatten()?;
            scanner.rest = scanner.rest.trim_start_matches(BLANKS).strip_prefix(':')?;
            let value = scanner.value(depth)?;
            scanner.is_followed_by('}').then(|| members.insert(name, value))
        });
        members
    }

    fn list(&mut self, depth: u32) -> Vec<Value> {
        let mut values = Vec::new();
        self.each(']', |scanner| {
            let value = scanner.value(depth)?;
            scanner.is_followed_by(']').then(|| values.push(value))
        });
        values
    }

    /// Reads members with `read` up to the bracket `end`, or to the point where the text becomes unreadable.
    fn each<T>(&mut self, end: char, mut read: impl FnMut(&mut Self) -> Option<T>) {
        self.rest = &self.rest[1..];
        while !self.is_cut {
            let is_between = |character| character == ',' || BLANKS.contains(&character);
            self.rest = self.rest.trim_start_matches(is_between);
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return;
            }
            self.is_cut |= read(self).is_none();
        }
    }

    /// True if a comma, the bracket `end` or nothing follows; else the value was misread.
    fn is_followed_by(&mut self, end: char) -> bool {
        self.rest = self.rest.trim_start_matches(BLANKS);
        self.rest.is_empty() || self.rest.starts_with([',', end])
    }

    /// Parses a text in quotes, with any content.
    fn text(&mut self) -> Option<String> {
        let mut is_escaped = true; // the first quote
        let is_end = |character: char| {
            let ends = character == '"' && !is_escaped;
            is_escaped = character == '\\' && !is_escaped;
            ends
        };
        let (whole, rest) = self.rest.split_at(self.rest.find(is_end)? + 1);
        self.rest = rest;
        let text = serde_json::from_str(whole);
        Some(text.unwrap_or_else(|_| format!("{DAMAGED}{}", &whole[1..whole.len() - 1])))
    }

    /// Parses a number, `true`, `false` or `null`; anything else, such as `NaN`, is null. At the end of the text the
    /// word may be incomplete.
    fn word(&mut self) -> Option<Value> {
        let is_end =
            |character: char| BLANKS.contains(&character) || ",:}]{[\"".contains(character);
        let (word, rest) = self.rest.split_at(self.rest.find(is_end)?);
        self.rest = rest;
        (!word.is_empty()).then(|| serde_json::from_str(word).unwrap_or_default())
    }

    /// Skips a container, however deep it is.
    fn pass_over(&mut self) -> Option<Value> {
        let mut open = 0_u32;
        loop {
            match self.rest.chars().next()? {
                '"' => {
                    self.text()?;
                    continue;
                }
                '{' | '[' => open += 1,
                '}' | ']' => open -= 1,
                _ => {}
            }
            let mut rest = self.rest.chars();
            rest.next();
            self.rest = rest.as_str();
            if open == 0 {
                return Some(Value::Null);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_can_be_read_of_a_text_with_defects() {
        let cases = [
            ("{}", json!({}), false),
            (
                r#"{"a":1,"b":[true,null,-2.5e3],"c":{"d":"e"}}"#,
                json!({"a":1,"b":[true,null,-2500.0],"c":{"d":"e"}}),
                false,
            ),
            ("{\"a\":\"\\u00e9\\\"\\\\\"}", json!({"a":"é\"\\"}), false),
            ("{\"a\":\"x\ty\",\"b\":1}", json!({"a":"\u{fffd}x\ty","b":1}), false),
            (r#"{"a":"\ud83d","b":1}"#, json!({"a":"\u{fffd}\\ud83d","b":1}), false),
            (r#"{"a":NaN,"b":1e400,"c":True}"#, json!({"a":null,"b":null,"c":null}), false),
            (r#"{ , "a" : 1 , , } x"#, json!({"a":1}), false),
            (r#"{"a":[1,]}{"#, json!({"a":[1]}), false),
            (r#"{"a":"x"b"}"#, json!({}), true),
            (r#"{"a":"x" "b":1}"#, json!({}), true),
            (r#"{"a":1]}"#, json!({}), true),
            (r#"{"a":[1}"#, json!({"a":[]}), true),
            ("{a:1}", json!({}), true),
            (r#"{"a" 1}"#, json!({}), true),
            (r#"{"a":}"#, json!({}), true),
            (r#"{"a":"x""#, json!({"a":"x"}), true),
            (r#"{"a":"x\""#, json!({}), true),
            (r#"{"a":12"#, json!({}), true),
            (r#"{"a":{"b":"c","#, json!({"a":{"b":"c"}}), true),
            ("{", json!({}), true),
        ];
        for (text, expected, is_cut) in cases {
            assert_eq!(read(text), (expected, is_cut), "{text}");
        }
    }

    #[test]
    fn containers_are_read_to_their_depth_and_passed_over_below_it() {
        let nested = |levels: u32| {
            let (open, close) = ("[".repeat(levels as usize), "]".repeat(levels as usize));
            read(&format!(r#"{{"x":{open}"]"{close},"a":1}}"#)).0
        };
        // The object itself is the first level.
        let pointer = |levels: usize| format!("/x{}", "/0".repeat(levels));
        assert_eq!(nested(15).pointer(&pointer(15)), Some(&json!("]")));
        assert_eq!(nested(16).pointer(&pointer(15)), Some(&json!(null)));
        assert_eq!(nested(100_000)["a"], 1);
        assert!(read(&"{\"a\":".repeat(100_000)).1);
    }

    #[test]
    fn a_text_that_is_cut_at_any_byte_gives_whole_values_alone() {
        let text = r#"{"a":"x\"y","b":[12,"z"],"c":34}"#;
        let whole = json!({"a":"x\"y","b":[12,"z"],"c":34});
        for end in 1..text.len() {
            let (value, is_cut) = read(&text[..end]);
            assert!(is_cut, "{end}");
            for (name, value) in value.as_object().unwrap() {
                let is_list = value
                    .as_array()
                    .is_some_and(|list| whole["b"].as_array().unwrap().starts_with(list));
                assert!(*value == whole[name] || is_list, "{end}: {value}");
            }
        }
    }
}
