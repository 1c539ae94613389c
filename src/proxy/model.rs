//! The `model` of a JSON request body: found without parsing other values, and changed without touching another byte.

use std::ops::Range;

use crate::proxy::skim::Skimmer;

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
    let _ = members(&mut Skimmer::new(bytes), &mut found);
    found
}

/// Lists of models to fall back to: `OpenRouter`'s and `LiteLLM`'s.
const LISTS: [&str; 2] = ["models", "fallbacks"];

/// Every model that `bytes` name at the top level, as `model` in any case or in one of [`LISTS`], so that no parser reads
/// another one. None if they are no whole JSON object, or such a member is no text.
pub(crate) fn all(bytes: &[u8]) -> Option<Vec<String>> {
    let mut skim = Skimmer::new(bytes);
    let mut names = Vec::new();
    skim.expect(b'{')?;
    let mut has_ended = skim.expect(b'}').is_some();
    while !has_ended {
        let key = skim.key()?;
        let key = skim.text(&key)?;
        skim.peek()?;
        let start = skim.place();
        skim.skip_value()?;
        let value = &bytes[start..skim.place()];
        if key.eq_ignore_ascii_case("model") {
            names.push(serde_json::from_slice(value).ok()?);
        } else if LISTS.iter().any(|list| key.eq_ignore_ascii_case(list)) {
            names.append(&mut serde_json::from_slice(value).ok()?);
        }
        has_ended = skim.expect(b'}').is_some();
        if !has_ended {
            skim.expect(b',')?;
        }
    }
    // Nothing but white space follows.
    skim.peek().is_none().then_some(names)
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

fn members(skim: &mut Skimmer<'_>, found: &mut Option<ModelField>) -> Option<()> {
    skim.expect(b'{')?;
    loop {
        let key = skim.key()?;
        if skim.peek()? == b'"' && skim.is(&key, "model") {
            let place = skim.string()?;
            let name = skim.text(&place)?;
            *found = Some(ModelField { name, place });
        } else {
            skim.skip_value()?;
        }
        skim.expect(b',')?;
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
    fn every_model_that_some_parser_may_read_is_named() {
        for (body, expected) in [
            (r#"{"model":"a"}"#, Some(&["a"][..])),
            (r#" {"x":[{"model":"n"}], "model" : "a" , "y":{}} "#, Some(&["a"])),
            (r#"{"model":"a","model":"b"}"#, Some(&["a", "b"])),
            (r#"{"mod\u0065l":"a","MODEL":"b","Model":"c"}"#, Some(&["a", "b", "c"])),
            (r#"{"models":["a","b"],"model":"c"}"#, Some(&["a", "b", "c"])),
            (r#"{"x":"model","model_x":1}"#, Some(&[])),
            ("{}", Some(&[])),
            (" { } ", Some(&[])),
            (r#"{"model":null}"#, None),
            (r#"{"model":["a"]}"#, None),
            (r#"{"models":{"a":1}}"#, None),
            (r#"{"model":"a""#, None),
            (r#"{"model":"a","x":"#, None),
            (r#"{"model":"a"}{"model":"b"}"#, None),
            (r#"{"model":"a",}"#, None),
            (r#"{"model":"a",'x':1,"model":"b"}"#, None),
            (r#"[{"model":"a"}]"#, None),
            ("model=a", None),
            ("", None),
        ] {
            let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
            assert_eq!(all(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(all(b"\xef\xbb\xbf{\"model\":\"a\"}"), None, "a mark before it");
        let cut = r#"{"a":"\"","model":"m","b":[1,{"c":null}]}"#;
        for end in 0..cut.len() {
            assert_eq!(all(&cut.as_bytes()[..end]), None, "{end}");
        }
        assert!(all(cut.as_bytes()).is_some());
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
