//! Values of configured header fields: a text, a text with claims of the access token in it, or none. Pure.

use serde_json::Value;

/// The beginning of every placeholder for a claim.
const CLAIM: &str = "token.claims.";
/// The longest wrong placeholder that is shown.
const SHOWN_MAX_CHARS: usize = 60;

/// A provider's `headers` entry for one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// The field is sent with this value.
    Text(String),
    /// The field is sent with claims of the access token.
    Claims(Template),
    /// The client's field with that name is removed.
    Removed,
}

/// A text with placeholders: `{token.claims.NAME}` stands for a claim of the access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Claim(String),
}

/// The reason why a template has no value for a token; `Display` names the claim, never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoValue {
    /// There is no token.
    #[error("there is no access token whose claims could be used")]
    NoToken,
    /// The token is not a JWT.
    #[error("the access token is not a JWT, so it has no claims")]
    NoJwt,
    /// The token has no such claim.
    #[error("the access token has no claim '{0}'")]
    Missing(String),
    /// The claim is an object, a list or null.
    #[error("the claim '{0}' of the access token is not a text, number or flag")]
    NotText(String),
    /// The claim is empty, or contains a byte that no header field may contain.
    #[error(
        "the claim '{0}' of the access token is empty, or holds a character that no header may hold"
    )]
    Unsendable(String),
}

/// The mistake in a placeholder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPlaceholder {
    /// Its brace is not closed.
    #[error("a placeholder is not closed with '}}'")]
    Open,
    /// The text between its braces is unknown.
    #[error("{}", unknown(.0))]
    Unknown(String),
}

fn unknown(inner: &str) -> String {
    let shown: String = inner.chars().take(SHOWN_MAX_CHARS).collect();
    let is_token = inner.eq_ignore_ascii_case("token");
    let hint = if is_token { "; the token itself is sent in 'auth_header'" } else { "" };
    format!("there is no placeholder '{{{shown}}}', only {{token.claims.NAME}}{hint}")
}

impl Template {
    /// Parses `text`; None if it has no placeholder.
    pub fn parse(text: &str) -> Result<Option<Self>, BadPlaceholder> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            if !begins_placeholder(after) {
                plain.push('{');
                rest = after;
                continue;
            }
            let (inner, behind) = after.split_once('}').ok_or(BadPlaceholder::Open)?;
            let name = inner.strip_prefix(CLAIM).filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| BadPlaceholder::Unknown(inner.to_owned()))?;
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Claim(name.to_owned()));
            rest = behind;
        }
        if parts.is_empty() {
            return Ok(None);
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Some(Self(parts)))
    }

    /// The value for a token with these `claims`; `claims` is None for a token that is not a JWT.
    pub fn value(&self, claims: Option<&Value>) -> Result<String, NoValue> {
        let claims = claims.ok_or(NoValue::NoJwt)?;
        let mut value = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => value.push_str(text),
                Part::Claim(name) => value.push_str(&text_of(claims, name)?),
            }
        }
        Ok(value)
    }
}

/// True if the text after a `{` is meant as a placeholder: a word and a dot, or `token`. JSON is not.
fn begins_placeholder(after: &str) -> bool {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let end = after.find(|character| !is_word(character)).unwrap_or(after.len());
    let (word, rest) = after.split_at(end);
    word.starts_with(|first: char| first.is_ascii_alphabetic())
        && (rest.starts_with('.') || word.eq_ignore_ascii_case("token"))
}

fn text_of(claims: &Value, name: &str) -> Result<String, NoValue> {
    let text = match find(claims, name).ok_or_else(|| NoValue::Missing(name.to_owned()))? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => {
            return Err(NoValue::NotText(name.to_owned()));
        }
    };
    let is_sendable = !text.trim().is_empty() && !text.chars().any(char::is_control);
    if is_sendable { Ok(text) } else { Err(NoValue::Unsendable(name.to_owned())) }
}

/// The claim `name`, or the one that `name` leads to: a name for each level with dots between them. A level's name
/// may itself contain dots, as URLs do; then the longest name that leads to a claim counts.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    if let Some(whole) = object.get(name) {
        return Some(whole);
    }
    let mut end = name.len();
    while let Some(at) = name[..end].rfind('.') {
        let below = object.get(&name[..at]).and_then(|inner| find(inner, &name[at + 1..]));
        if below.is_some() {
            return below;
        }
        end = at;
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str, claims: &Value) -> Result<String, NoValue> {
        Template::parse(text).unwrap().unwrap().value(Some(claims))
    }

    #[test]
    fn placeholders_stand_for_claims_of_any_level() {
        let claims = json!({
            "sub": "u1", "n": 7, "admin": true, "a.b": "dotted", "a": {"b": "nested", "c": {"d": "deep"}},
            "https://api.openai.com/auth": {"chatgpt_account_id": "acc-1", "list": [1]},
            "https://api.openai.com": {"x": 1}, "ü": "é", "": {"": "empty names"}
        });
        for (text, expected) in [
            ("{token.claims.sub}", "u1"),
            ("a {token.claims.sub}/{token.claims.n} z", "a u1/7 z"),
            ("{token.claims.admin}", "true"),
            ("{token.claims.a.b}", "dotted"),
            ("{token.claims.a.c.d}", "deep"),
            ("{token.claims.https://api.openai.com/auth.chatgpt_account_id}", "acc-1"),
            ("{\"json\": {}} {token.claims.sub} {", "{\"json\": {}} u1 {"),
            ("{token.claims.ü}", "é"),
            ("{token.claims..}", "empty names"),
        ] {
            assert_eq!(value(text, &claims).as_deref(), Ok(expected), "{text}");
        }
        for (name, why) in [
            ("none", NoValue::Missing as fn(String) -> NoValue),
            ("a.none", NoValue::Missing),
            ("sub.x", NoValue::Missing),
            ("https://api.openai.com/auth", NoValue::NotText),
            ("https://api.openai.com/auth.list", NoValue::NotText),
        ] {
            let text = format!("{{token.claims.{name}}}");
            assert_eq!(value(&text, &claims), Err(why(name.to_owned())), "{name}");
        }
        let template = Template::parse("{token.claims.sub}").unwrap().unwrap();
        assert_eq!(template.value(None), Err(NoValue::NoJwt));
    }

    #[test]
    fn a_claim_that_no_header_may_hold_is_not_sent() {
        for bad in ["", " ", "a\r\nx: y", "a\0", "a\u{7f}", "\u{85}"] {
            let told = value("x{token.claims.a}", &json!({"a": bad}));
            assert_eq!(told, Err(NoValue::Unsendable("a".to_owned())), "{bad:?}");
        }
        let told = value("{token.claims.a}", &json!({"a": null}));
        assert_eq!(told, Err(NoValue::NotText("a".to_owned())));
    }

    #[test]
    fn what_is_no_placeholder_stays_as_it_is_and_a_wrong_one_is_told() {
        for plain in ["", "a", "{}", "{", "{\"a\":1}", "{a}", "{1.2}", "}{", "{ token.claims.a }"] {
            assert_eq!(Template::parse(plain), Ok(None), "{plain}");
        }
        for (wrong, part) in [
            ("{token.claims.a", "not closed"),
            ("x {token", "not closed"),
            ("{token.claims.}", "'{token.claims.}', only {token.claims.NAME}"),
            ("{token.claim.a}", "'{token.claim.a}'"),
            ("{claims.a}", "'{claims.a}'"),
            ("{Token.Claims.a}", "'{Token.Claims.a}'"),
            ("Bearer {token}", "the token itself is sent in 'auth_header'"),
        ] {
            let told = Template::parse(wrong).unwrap_err().to_string();
            assert!(told.contains(part), "{wrong}: {told}");
        }
        let long = format!("{{token.{}}}", "x".repeat(1000));
        assert!(Template::parse(&long).unwrap_err().to_string().len() < 200);
    }
}
