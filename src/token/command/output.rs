//! The output of a `token_command`: a bare token, or JSON with a token and its end. Pure.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::secret_file::without_mark;
use crate::config::token_fields::TokenFields;
use crate::json;
use crate::token::grant::{self, Failure, Grant, Shape};

/// Words that programs print in place of a token that is missing.
const NO_TOKENS: [&str; 4] = ["null", "undefined", "None", "nil"];
/// The scheme that some programs print before the token.
const SCHEME: &str = "bearer ";

/// Reads the output of a command that was started at `started`. `fields` names the places of values, `zone` the time
/// zone of the command.
pub(crate) fn read(
    stdout: &[u8],
    fields: &TokenFields,
    zone: Option<&str>,
    started: Timestamp,
) -> Result<Grant, Failure> {
    let failed =
        |why: &str| Failure::of_command(format!("the token_command printed no token: {why}"));
    let text = std::str::from_utf8(stdout).map_err(|_| failed("its output is not UTF-8"))?;
    let text = without_mark(text).trim_matches(|one: char| one.is_ascii_whitespace());
    let oauth = if text.starts_with(['{', '[']) {
        of_json(text, fields, zone).map_err(|why| failed(&why))?
    } else {
        of_text(text).map_err(failed)?
    };
    let grant = grant::of_values(oauth.clone(), started)
        .map_err(|failure| failed(&failure.what.to_string()))?;
    // A program prints a token out of its own store, and by this machine's clock. An hour more would be made up.
    let has_end = oauth.get("expires_at").or(oauth.get("expires_in")).is_some();
    if grant.has_ended && has_end {
        return Err(failed(
            "the token that it printed has ended (is the clock right, and the time zone in TZ?)",
        ));
    }
    Ok(grant)
}

/// A token alone.
fn of_text(text: &str) -> Result<Value, &'static str> {
    // jq without -r, az with --query: a text in JSON.
    let unquoted: Option<String> =
        if text.starts_with('"') { json::read(text.as_bytes()).ok() } else { None };
    // Programs that print for a shell to read.
    let in_shell_quotes = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    let text = unquoted.as_deref().or(in_shell_quotes).unwrap_or(text);
    let scheme = text.get(..SCHEME.len()).filter(|start| start.eq_ignore_ascii_case(SCHEME));
    let token = scheme.map_or(text, |_| text[SCHEME.len()..].trim_start());
    if token.is_empty() {
        return Err("its output is empty");
    }
    if NO_TOKENS.contains(&token) || token.eq_ignore_ascii_case(SCHEME.trim_end()) {
        return Err("it printed the word for a value that is not there");
    }
    if token.contains(['\n', '\r']) {
        return Err("it printed several lines; a token is one line, or a member of JSON");
    }
    if !token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        return Err("its line holds blanks or other characters that no token has");
    }
    Ok(serde_json::json!({ "access_token": token }))
}

/// A token in JSON.
fn of_json(text: &str, fields: &TokenFields, zone: Option<&str>) -> Result<Value, String> {
    let answer: Value =
        json::read(text.as_bytes()).map_err(|_| "its output begins like JSON and is none")?;
    let answer = match answer {
        Value::Array(list) => {
            let only: Result<[Value; 1], _> = list.try_into();
            only.map(|[only]| only).map_err(|_| "its output is a list of several values")?
        }
        answer => answer,
    };
    if let Some(shape) = Shape::of(&answer, fields, zone) {
        return Ok(shape.as_oauth(true));
    }
    if let Some(error) = grant::error_in(&answer, fields) {
        return Err(format!("its JSON holds an error{error}"));
    }
    let is_exec = answer.get("kind").and_then(Value::as_str) == Some("ExecCredential");
    Err(if is_exec {
        "its ExecCredential has no 'status.token'; a client certificate can't be used here"
    } else {
        "its JSON has no token where one is known to stand; name its place in token_fields"
    }
    .to_owned())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;

    use super::*;
    use crate::token::grant::LIFETIME_ASSUMED_MS;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000); // 2027-01-15T08:00:00Z

    fn read_text(stdout: &str) -> Result<Grant, String> {
        read(stdout.as_bytes(), &TokenFields::default(), Some(""), NOW)
            .map_err(|failure| failure.what.to_string())
    }

    fn jwt(claims: &str) -> String {
        format!("eyJhbGciOiJub25lIn0.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_bare_token_is_one_line() {
        for text in [
            "t0ken", "t0ken\n", "t0ken\r\n", " t0ken \n\n", "\u{feff}t0ken", "\"t0ken\"\n",
            "Bearer t0ken", "bearer  t0ken\n", "'t0ken'\n",
        ] {
            let grant = read_text(text).unwrap();
            assert_eq!(grant.access_token.expose(), "t0ken", "{text:?}");
            assert_eq!((grant.lifetime_ms, grant.warning), (LIFETIME_ASSUMED_MS, None));
        }
        let long = jwt(r#"{"exp":1800000600}"#);
        assert_eq!(read_text(&long).unwrap().lifetime_ms, 600_000);
        let cases = [
            ("", "its output is empty"),
            (" \n", "its output is empty"),
            ("\"\"", "its output is empty"),
            ("''", "its output is empty"),
            ("Bearer \n", "the word for a value that is not there"),
            ("null\n", "the word for a value that is not there"),
            ("one\ntwo\n", "several lines"),
            ("one\r\ntwo", "several lines"),
            ("Usage: tool", "holds blanks"),
            ("a\tb\tc", "holds blanks"),
            ("a\u{0}b", "holds blanks"),
            ("a\u{1b}[0m", "holds blanks"),
            ("tökén", "holds blanks"),
        ];
        for (text, part) in cases {
            let told = read_text(text).unwrap_err();
            assert!(told.starts_with("the token_command printed no token: "), "{told}");
            assert!(told.contains(part), "{text:?}: {told}");
        }
        assert!(read(b"\xff\xfe", &TokenFields::default(), None, NOW).is_err());
    }

    /// Samples as the programs print them.
    #[test]
    fn real_programs_outputs_are_read() {
        let in_an_hour = [
            ("gcloud-config-helper.json", Some("")),
            ("az-get-access-token.json", Some("<+08>-8")),
            ("az-get-access-token-2.53.json", Some("<+08>-8")),
            ("exec-credential.json", None),
            ("aws-eks-get-token.json", None),
            ("aws-codeartifact.json", None),
            ("databricks-auth-token.json", None),
        ];
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/token-commands");
        for (name, zone) in in_an_hour {
            let text = std::fs::read(folder.join(name)).unwrap();
            let grant = read(&text, &TokenFields::default(), zone, NOW).unwrap();
            assert_eq!(grant.lifetime_ms, 3_600_000, "{name}");
            assert!(grant.access_token.expose().starts_with("token-of-"), "{name}");
            assert_eq!(grant.warning, None, "{name}");
        }
        let bare = std::fs::read(folder.join("gcloud-print-access-token.json")).unwrap();
        let grant = read(&bare, &TokenFields::default(), None, NOW).unwrap();
        assert_eq!(grant.access_token.expose(), "token-of-gcloud");
        let fields = TokenFields::new(vec![
            ("access_token", vec!["auth".into(), "client_token".into()]),
            ("expires_in", vec!["auth".into(), "lease_duration".into()]),
        ]);
        let vault = std::fs::read(folder.join("vault-token-create.json")).unwrap();
        let grant = read(&vault, &fields, None, NOW).unwrap();
        assert_eq!((grant.access_token.expose(), grant.lifetime_ms), ("token-of-vault", 3_600_000));
        let certificate = std::fs::read(folder.join("exec-credential-certificate.json")).unwrap();
        let told = read(&certificate, &TokenFields::default(), None, NOW).unwrap_err();
        assert!(told.what.to_string().contains("has no 'status.token'"), "{told:?}");
    }

    #[test]
    fn json_without_a_usable_token_says_why() {
        let cases = [
            ("{", "begins like JSON and is none"),
            ("{\"access_token\":\"a\"}{}", "begins like JSON and is none"),
            ("[]", "a list of several values"),
            ("[{\"access_token\":\"a\"},{}]", "a list of several values"),
            ("{}", "no token where one is known to stand"),
            ("{\"error\":\"not logged in\"}", "its JSON holds an error"),
            ("{\"error\":\"s3cretc0de\"}", "its JSON holds an error"),
            ("{\"error\":\"invalid_grant\"}", "its JSON holds an error (invalid_grant)"),
            ("{\"error\":null}", "no token where one is known to stand"),
            ("{\"access_token\":\"\"}", "no 'access_token'"),
            ("{\"access_token\":\"a b\"}", "bytes no header may hold"),
        ];
        for (text, part) in cases {
            let told = read_text(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
        assert_eq!(read_text("[{\"access_token\":\"a\"}]").unwrap().access_token.expose(), "a");
    }

    #[test]
    fn a_token_that_has_ended_was_sent_for_an_hour_more() {
        for ended in [
            r#"{"access_token":"a","expires_at":1799999999}"#,
            r#"{"access_token":"a","expires_in":0}"#,
            r#"{"access_token":"a","expires_in":-5}"#,
            r#"{"kind":"ExecCredential","status":{"token":"a","expirationTimestamp":"2027-01-15T08:00:00Z"}}"#,
        ] {
            let told = read_text(ended).unwrap_err();
            assert!(told.contains("has ended"), "{ended}: {told}");
        }
        // An end that nobody understands is a warning, and a token that an old clock made is the API's to judge.
        let odd = read_text(r#"{"access_token":"a","expires_at":"soon"}"#).unwrap();
        assert!(odd.warning.unwrap().contains("'expires_at' makes no sense; one hour is assumed"));
        assert!(read_text(&jwt(r#"{"exp":1799999999}"#)).unwrap().warning.is_some());
        let last = read_text(r#"{"access_token":"a","expires_at":1800000001}"#).unwrap();
        assert_eq!(last.lifetime_ms, 1_000);
    }
}
