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
    fn a_rename_changes_one_value_and_nothing_else() {
        let body = "\t{ \"a\" :\r\n[1,  2],\"model\"  :  \"old\" ,\"z\":\"\\u00e4\" }\n";
        let field = find(body.as_bytes()).unwrap();
        let renamed = rename(body.as_bytes(), &field, "new \"quoted\"");
        let expected = body.replace("\"old\"", r#""new \"quoted\"""#);
        assert_eq!(String::from_utf8(renamed).unwrap(), expected);
    }
}
