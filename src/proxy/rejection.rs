//! Decides whether a provider's answer rejects the request's access token. Pure.

use crate::http::message::{AnswerLength, ResponseHead, members};
use crate::quota::body::{BODY_MAX_BYTES, RefusalBody};

mod words;

/// The verdict from an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// The token is rejected.
    Rejects,
    /// The token is accepted.
    Accepts,
    /// The body decides.
    AsksBody,
}

/// Judges by the head: a 401 rejects the token, a 403 if its `WWW-Authenticate` or its body says so. A large body or
/// a stream is not held back for that.
pub(crate) fn of_head(head: &ResponseHead, length: AnswerLength) -> Head {
    match head.status {
        401 => return Head::Rejects,
        403 => {}
        _ => return Head::Accepts,
    }
    let mut challenges = head.headers.all("www-authenticate");
    if let Some(rejects) = challenges.find_map(challenge) {
        return if rejects { Head::Rejects } else { Head::Accepts };
    }
    let kind = head.headers.first("content-type").unwrap_or_default().to_ascii_lowercase();
    match length {
        AnswerLength::Absent => Head::Accepts,
        AnswerLength::Sized(bytes) if bytes > BODY_MAX_BYTES as u64 => Head::Accepts,
        _ if kind.starts_with(b"text/event-stream") => Head::Accepts,
        _ => Head::AsksBody,
    }
}

/// The verdict of a challenge by its `error` and `error_description` (RFC 6750 §3.1); None if it has no error and its
/// description names no dead token.
fn challenge(value: &[u8]) -> Option<bool> {
    let parts: Vec<(String, &str)> = members(value)
        .filter_map(|part| {
            let (name, value) = std::str::from_utf8(part).ok()?.split_once('=')?;
            // The first one has the scheme before it.
            let name = name.trim().rsplit(' ').next()?;
            Some((name.to_ascii_lowercase(), value.trim().trim_matches('"')))
        })
        .collect();
    let part = |wanted| parts.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    let (error, description) = (part("error"), part("error_description"));
    let texts: Vec<&str> = error.into_iter().chain(description).collect();
    let rejects = words::name_dead_token(&texts);
    (rejects || error.is_some()).then_some(rejects)
}

/// True if the body of a 403 says that the token is rejected.
pub(crate) fn of_body(body: &RefusalBody) -> bool {
    words::name_dead_token(&body.texts())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::http::inflate::tests::gzip;
    use crate::http::message::Headers;

    fn of_body(headers: &Headers, body: &[u8]) -> bool {
        super::of_body(&RefusalBody::read(headers, body))
    }

    fn head(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead { status, headers: Headers::new() };
        for (name, value) in fields {
            head.headers.push(name, value);
        }
        head
    }

    #[test]
    fn what_the_head_says() {
        let authenticate = |value| ("WWW-Authenticate", value);
        let cases = [
            (head(401, &[]), Head::Rejects),
            (head(400, &[authenticate("Bearer error=\"invalid_token\"")]), Head::Accepts),
            (head(403, &[]), Head::AsksBody),
            (
                head(403, &[authenticate("Bearer realm=\"x\", error=\"invalid_token\"")]),
                Head::Rejects,
            ),
            (head(403, &[authenticate("Bearer error=invalid_token")]), Head::Rejects),
            (
                head(
                    403,
                    &[authenticate("BEARER Error=\"expired_token\", error_description=\"a, b\"")],
                ),
                Head::Rejects,
            ),
            (
                head(
                    403,
                    &[
                        authenticate("Basic realm=\"token\""),
                        authenticate("Bearer error=\"invalid_token\""),
                    ],
                ),
                Head::Rejects,
            ),
            (
                head(
                    403,
                    &[authenticate("Bearer error=\"insufficient_scope\", scope=\"invalid_token\"")],
                ),
                Head::Accepts,
            ),
            (head(403, &[authenticate("Bearer realm=\"invalid token\"")]), Head::AsksBody),
            (head(403, &[("content-type", "Text/Event-Stream; charset=utf-8")]), Head::Accepts),
            (head(200, &[]), Head::Accepts),
        ];
        for (head, expected) in cases {
            assert_eq!(of_head(&head, AnswerLength::Unknown), expected, "{head:?}");
        }
        let bound = BODY_MAX_BYTES as u64;
        assert_eq!(of_head(&head(403, &[]), AnswerLength::Sized(bound)), Head::AsksBody);
        assert_eq!(of_head(&head(403, &[]), AnswerLength::Sized(bound + 1)), Head::Accepts);
        assert_eq!(of_head(&head(403, &[]), AnswerLength::Absent), Head::Accepts);
    }

    #[test]
    fn bodies_that_name_a_dead_token_and_others() {
        let cases = [
            (r#"{"error":{"message":"OAuth token has expired"}}"#, true),
            (
                r#"{"error":{"type":"permission_error","message":"OAuth token has been revoked."}}"#,
                true,
            ),
            (
                r#"{"code":"unauthenticated:bad-credentials","error":"The OAuth2 access token could not be validated."}"#,
                true,
            ),
            (r#"{"error":"invalid_token"}"#, true),
            (r#"{"error":{"code":"token_expired"}}"#, true),
            (r#"{"detail":"Could not validate credentials"}"#, true),
            (r#"{"message":"Bad credentials"}"#, true),
            (r#"{"error":{"code":"InvalidAuthenticationToken","message":"x"}}"#, true),
            (
                r#"{"message":"The security token included in the request is expired","__type":"ExpiredTokenException"}"#,
                true,
            ),
            (r#"{"errors":["Invalid access token"]}"#, true),
            (r#"{"error":{"message":"Your session has expired. Please sign in again."}}"#, true),
            (r#"{"error":"The token is no longer valid"}"#, true),
            ("The access TOKEN expired", true),
            ("\u{feff}{\"error\":\"invalid_token\"}", true),
            ("{}", false),
            ("", false),
            (
                r#"{"type":"error","error":{"type":"permission_error","message":"Request not allowed"}}"#,
                false,
            ),
            (r#"{"error":{"message":"I can't help with that request."}}"#, false),
            (r#"{"error":{"message":"Your credit has expired"}}"#, false),
            (r#"{"error":{"message":"Your subscription has expired. Buy a token."}}"#, false),
            (r#"{"error":{"message":"Your free trial token has expired"}}"#, false),
            (r#"{"error":{"message":"max_tokens is invalid"}}"#, false),
            (
                r#"{"error":{"message":"OAuth token does not meet scope requirement user:profile"}}"#,
                false,
            ),
            (r#"{"error":{"message":"This token is not allowed to use the model"}}"#, false),
            (r#"{"error":{"message":"CSRF token invalid"}}"#, false),
            (r#"{"error":{"message":"x"},"prompt":"my token expired"}"#, false),
            (r#"{"error":{"message":"blocked","input":{"text":"invalid token"}}}"#, false),
            ("<html>Your session token expired</html>", false),
            (r#"{"error":{"message":"the token expired"#, false),
        ];
        for (body, expected) in cases {
            assert_eq!(of_body(&Headers::new(), body.as_bytes()), expected, "{body}");
            assert_eq!(of_body(&Headers::new(), &gzip(body.as_bytes())), expected, "gzip: {body}");
        }
    }

    #[test]
    fn each_403_of_the_cases() {
        let cases = include_str!("../../tests/data/cases/forbidden-answers.jsonl");
        let mut wrong = Vec::new();
        for case in cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let fields = case["headers"].as_object().unwrap().iter();
            let fields: Vec<_> =
                fields.map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
            let head = head(403, &fields);
            let rejects = match of_head(&head, AnswerLength::Unknown) {
                Head::Rejects => true,
                Head::Accepts => false,
                Head::AsksBody => of_body(&head.headers, case["body"].as_str().unwrap().as_bytes()),
            };
            if case["rejects_token"] != rejects {
                wrong.push(case["name"].to_string());
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_body_is_inflated_up_to_its_bound() {
        let body = |length: usize| {
            let text = r#"{"error":"invalid_token"}"#;
            gzip(format!("{text}{}", " ".repeat(length - text.len())).as_bytes())
        };
        assert!(of_body(&Headers::new(), &body(BODY_MAX_BYTES)));
        // The end is cut off, but the existing texts are whole.
        assert!(of_body(&Headers::new(), &body(BODY_MAX_BYTES + 1)));
        let long = format!(r#"{{"pad":"{}","error":"invalid_token"}}"#, "x".repeat(BODY_MAX_BYTES));
        assert!(!of_body(&Headers::new(), &gzip(long.as_bytes())));
    }

    #[test]
    fn a_refusal_compressed_by_zstd_is_read() {
        let refusal = include_bytes!("../../tests/data/zstd/refusal.zst");
        assert!(of_body(&Headers::new(), refusal));
        let mut headers = Headers::new();
        headers.push("content-encoding", "zstd");
        assert!(of_body(&headers, refusal));
        assert!(!of_body(&headers, &refusal[..refusal.len() / 2]), "it is cut");
    }
}
