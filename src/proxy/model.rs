//! The `model` of a JSON request body: found without parsing other values, and changed without touching another byte.

use std::ops::Range;

/// The top-level member `model` of a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelField {
    /// Its value.
    pub name: String,
    /// The place of the value in the bytes, including its quotes.
    pub place: Range<usize>,
}

/// Finds the model in `bytes`, which may be only the beginning of a body. The last one of several counts, as in the
/// parsers that will read it.
pub fn find(bytes: &[u8]) -> Option<ModelField> {
    let mut found = None;
    // A cut or invalid text ends the search; earlier findings count.
    let _ = ModelScanner { bytes, at: 0 }.object(&mut found);
    found
}

/// `bytes` with the value at `field` replaced by `name`.
pub fn rename(bytes: &[u8], field: &ModelField, name: &str) -> Vec<u8> {
    parts(bytes, field, &quoted(name)).concat()
}

/// The parts that [`rename`] joins; `value` is the name from [`quoted`].
pub(crate) fn parts<'a>(bytes: &'a [u8], field: &ModelField, value: &'a str) -> [&'a [u8]; 3] {
    [&bytes[..field.place.start], value.as_bytes(), &bytes[field.place.end..]]
}

/// `name` as a JSON string.
pub(crate) fn quoted(name: &str) -> String {
    serde_json::Value::from(name).to_string()
}

/// Reads a JSON text from left to right, with just enough of RFC 8259 to skip values.
struct ModelScanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl ModelScanner<'_> {
    fn object(&mut self, found: &mut Option<ModelField>) -> Option<()> {
        self.expect(b'{')?;
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            if self.peek()? == b'"' && self.text(&key).as_deref() == Some("model") {
                let place = self.string()?;
                let name = self.text(&place)?;
                *found = Some(ModelField { name, place });
            } else {
                self.skip_value()?;
            }
            self.expect(b',')?;
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes.get(self.at)?, b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// The place of the next string, including its quotes.
    fn string(&mut self) -> Option<Range<usize>> {
        if self.peek()? != b'"' {
            return None;
        }
        let start = self.at;
        self.at += 1;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(start..self.at)
    }

    fn text(&self, place: &Range<usize>) -> Option<String> {
        serde_json::from_slice(&self.bytes[place.clone()]).ok()
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => self.at += 1,
                _ => self.skip_word()?,
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// Skips a number, `true`, `false` or `null`.
    fn skip_word(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.bytes.get(self.at)?, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.')
        {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_where_they_stand() {
        let cases = [
            (r#"{"model":"a"}"#, Some("a")),
            (r#" { "x" : 1 , "model" : "a b" } "#, Some("a b")),
            (r#"{"messages":[{"model":"no"},"]}\"",{"a":{}}],"model":"yes"}"#, Some("yes")),
            (r#"{"m\u006fdel":"e\u0073caped\n"}"#, Some("escaped\n")),
            (r#"{"a":"model","b":true,"c":null,"d":-1.5e+3,"model":"x"}"#, Some("x")),
            (r#"{"model":"first","model":"last"}"#, Some("last")),
            (r#"{"model":"cut off","messages":[{"con"#, Some("cut off")),
            (r#"{"model":"cut o"#, None),
            (r#"{"model":7,"x":1}"#, None),
            (r#"{"model":["a"]}"#, None),
            (r#"{"Model":"a"}"#, None),
            (r#"{"x":{"model":"a"}}"#, None),
            (r#"[{"model":"a"}]"#, None),
            (r#""model":"a""#, None),
            (r#"{"x" "model":"a"}"#, None),
            (r#"{"x":}"model":"a"}"#, None),
            ("{", None),
            ("", None),
            ("no json", None),
        ];
        for (body, expected) in cases {
            let found = find(body.as_bytes());
            assert_eq!(found.as_ref().map(|one| one.name.as_str()), expected, "{body}");
        }
    }

    #[test]
    fn a_rename_changes_one_value_and_nothing_else() {
        let body = "\t{ \"a\" :\r\n[1,  2],\"model\"  :  \"old\" ,\"z\":\"\\u00e4\" }\n";
        let field = find(body.as_bytes()).unwrap();
        let renamed = rename(body.as_bytes(), &field, "new \"quoted\"");
        let expected = body.replace("\"old\"", r#""new \"quoted\"""#);
        assert_eq!(String::from_utf8(renamed).unwrap(), expected);
    }
}
