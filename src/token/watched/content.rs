//! The content of a watched file: the credential and its end. Pure.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::{CredentialFields, FileFormat};
use crate::expiry;
use crate::json;
use crate::jwt::{self, Exp};
use crate::record::salvage;
use crate::secret::Secret;
use crate::token::watched::fault::FileFault;

/// The content of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The credential.
    pub(super) secret: Secret,
    /// The time from which it must not be sent.
    pub(super) expires_at: Option<Timestamp>,
    /// An oddity, if there is one.
    pub(super) doubt: Option<String>,
}

pub(super) fn parse(text: &str, form: &FileFormat) -> Result<Content, FileFault> {
    match form {
        FileFormat::Text => {
            let secret = credential(text.trim_end_matches(['\r', '\n']))?;
            Ok(Content { secret, expires_at: None, doubt: None })
        }
        FileFormat::Json(fields) => of_json(text, fields),
        FileFormat::Stored { seed, .. } => of_state(text, seed.as_ref()),
    }
}

/// Names the account of a credential. The claims are those that stay the same when a token is refreshed.
pub(super) fn origin(secret: &Secret) -> u64 {
    const CLAIMS: [&str; 4] = ["iss", "sub", "https://api.openai.com/auth", "organization_id"];
    let claims = jwt::claims(secret.expose()).filter(|claims| claims.get("sub").is_some());
    let Some(claims) = claims else { return secret.fingerprint() };
    let account = |name: &str| match claims.get(name) {
        // The other members of this claim may change.
        Some(Value::Object(object)) => object.get("chatgpt_account_id").map(Value::to_string),
        other => other.map(Value::to_string),
    };
    Secret::new(CLAIMS.map(|name| account(name).unwrap_or_default()).join("\n")).fingerprint()
}

/// Returns `text` if a header field may hold it.
fn credential(text: &str) -> Result<Secret, FileFault> {
    if text.is_empty() || !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err(FileFault::NoHeaderValue);
    }
    Ok(Secret::new(text))
}

fn of_json(text: &str, fields: &CredentialFields) -> Result<Content, FileFault> {
    // The error's own words may quote the text, which holds tokens.
    let json: Value = json::read(text.as_bytes()).map_err(|_| FileFault::NoJson)?;
    let token = at(&json, &fields.access_token).and_then(Value::as_str);
    let token = token.ok_or_else(|| FileFault::NoTextAt(fields.access_token.join(".")))?;
    let written = at(&json, &fields.expires_at).filter(|value| !value.is_null());
    let expires_at = written.and_then(|value| expiry::read(value, fields.zone.as_deref()));
    let place = fields.expires_at.join(".");
    let (expires_at, doubt) = match (expires_at, written) {
        (Some(at), _) => (Some(at), None),
        (None, written) => {
            let end = jwt::exp(token);
            let of_jwt = end.known();
            let instead = match of_jwt {
                Some(_) => "the token's own 'exp' counts",
                None => "the token is sent until it is refused",
            };
            let doubt = match written {
                Some(_) => Some(format!("holds no known time format at '{place}'; {instead}")),
                None if fields.expires_at_is_written && of_jwt.is_none() => {
                    Some(format!("has nothing at '{place}', where the expiry should be; {instead}"))
                }
                None if end == Exp::NotUnderstood => Some(format!(
                    "holds a token whose own 'exp' has no known time format; {instead}"
                )),
                None => None,
            };
            (of_jwt, doubt)
        }
    };
    Ok(Content { secret: credential(token)?, expires_at, doubt })
}

fn of_state(text: &str, seed: Option<&Secret>) -> Result<Content, FileFault> {
    let saved = salvage(text).map_err(|_| FileFault::NoState)?.saved;
    if seed.is_some_and(|seed| !saved.may_know_seed(&seed.hash())) {
        return Err(FileFault::OtherChain);
    }
    let access = saved.access.ok_or(FileFault::NoAccessToken)?;
    Ok(Content { secret: access.token, expires_at: Some(access.expires_at), doubt: None })
}

fn at<'a>(json: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(json, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(is_written: bool) -> FileFormat {
        let path = |last: &str| vec!["a".to_owned(), last.to_owned()];
        FileFormat::Json(CredentialFields {
            access_token: path("token"),
            expires_at: path("end"),
            expires_at_is_written: is_written,
            zone: Some("CST-8".to_owned()),
        })
    }

    // {"exp":1800000120}
    const JWT: &str = "aa.eyJleHAiOjE4MDAwMDAxMjB9.cc";

    #[test]
    fn where_the_end_of_a_token_is_taken_from() {
        let unknown = "holds no known time format at 'a.end'";
        let cases = [
            (r#"{"a":{"token":"t","end":1800000000}}"#, Some(1_800_000_000), None),
            (r#"{"a":{"token":"t","end":"2027-01-15T16:00:00"}}"#, Some(1_800_000_000), None),
            (r#"{"a":{"token":"t","end":"soon"}}"#, None, Some(unknown)),
            (r#"{"a":{"token":"t","end":0}}"#, None, Some(unknown)),
            (r#"{"a":{"token":"JWT","end":"soon"}}"#, Some(1_800_000_120), Some(unknown)),
            (r#"{"a":{"token":"JWT","end":1800000000}}"#, Some(1_800_000_000), None),
            (r#"{"a":{"token":"JWT","end":null}}"#, Some(1_800_000_120), None),
            (r#"{"a":{"token":"JWT"}}"#, Some(1_800_000_120), None),
            (r#"{"a":{"token":"t","end":null}}"#, None, Some("has nothing at 'a.end'")),
            (r#"{"a":{"token":"t"}}"#, None, Some("has nothing at 'a.end'")),
        ];
        for (text, expires_at, doubt) in cases {
            let content = parse(&text.replace("JWT", JWT), &fields(true)).unwrap();
            assert_eq!(content.expires_at, expires_at.map(Timestamp::from_secs), "{text}");
            assert_eq!(content.doubt.is_some(), doubt.is_some(), "{text}: {:?}", content.doubt);
            assert!(
                content.doubt.unwrap_or_default().contains(doubt.unwrap_or_default()),
                "{text}"
            );
        }
        // No end is configured.
        assert_eq!(parse(r#"{"a":{"token":"t"}}"#, &fields(false)).unwrap().doubt, None);
        // {"exp":"1800000120"}, {"exp":1800000120000}, with padding, {"exp":"soon"}
        let tokens = [
            ("aa.eyJleHAiOiIxODAwMDAwMTIwIn0.cc", Some(1_800_000_120)),
            ("aa.eyJleHAiOjE4MDAwMDAxMjAwMDB9.cc", Some(1_800_000_120)),
            ("aa.eyJleHAiOjE4MDAwMDAxMjB9IA==.cc", Some(1_800_000_120)),
            ("aa.eyJleHAiOiJzb29uIn0.cc", None),
        ];
        for (token, expires_at) in tokens {
            let text = format!(r#"{{"a":{{"token":"{token}"}}}}"#);
            let content = parse(&text, &fields(false)).unwrap();
            assert_eq!(content.expires_at, expires_at.map(Timestamp::from_secs), "{token}");
            assert_eq!(content.doubt.is_some(), expires_at.is_none(), "{token}");
        }
    }

    #[test]
    fn what_holds_no_credential() {
        let cases = [
            (FileFormat::Text, "", "is empty"),
            (FileFormat::Text, "\n", "is empty"),
            (FileFormat::Text, "a b", "no header may hold"),
            (FileFormat::Text, "x\u{7}", "no header may hold"),
            (fields(true), "", "holds no JSON"),
            (fields(true), "{\"a\":{\"token\":\"secret", "holds no JSON"),
            (fields(true), r#"{"a":{"token":5}}"#, "has no text at 'a.token'"),
            (fields(true), r#"{"a":{"token":""}}"#, "is empty"),
            (FileFormat::Stored { seed: None, client: None }, "{}", "can't be used"),
        ];
        for (form, text, part) in cases {
            let why = parse(text, &form).unwrap_err().to_string();
            assert!(why.contains(part) && !why.contains("secret"), "{text:?}: {why}");
        }
    }
}
