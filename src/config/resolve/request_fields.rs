//! A provider's changes to each request: `auth_header`, `auth_prefix`, `headers` and `query`.

use crate::config::raw::Section;
use crate::config::request_fields::{FieldValue, NoValue, Template};
use crate::config::{AuthType, Credential, ProviderConfig};
use crate::jwt;

/// Header fields that frame a message or belong to a connection, which can't be configured.
const FORBIDDEN_FIELDS: [&str; 11] = [
    "host", "content-length", "transfer-encoding", "connection", "keep-alive", "te", "trailer",
    "upgrade", "expect", "proxy-connection", "proxy-authorization",
];

/// The header fields of token requests.
pub(super) fn read_headers(section: &Section<'_>) -> Vec<(String, String)> {
    let headers = section.text_map("headers");
    for (name, value) in &headers {
        check_field(section, name, Some(value));
    }
    headers
}

/// The header fields of a provider's requests.
pub(super) fn read_field_values(section: &Section<'_>) -> Vec<(String, FieldValue)> {
    let mut fields = Vec::new();
    for (name, value) in section.optional_text_map("headers") {
        check_field(section, &name, value.as_deref());
        let value = match value {
            None => FieldValue::Removed,
            Some(text) => match Template::parse(&text) {
                Ok(Some(template)) => FieldValue::Claims(template),
                Ok(None) => FieldValue::Text(text),
                Err(problem) => {
                    section.error_in("headers", &name, format!("the value of '{name}': {problem}"));
                    FieldValue::Text(text)
                }
            },
        };
        fields.push((name, value));
    }
    fields
}

fn check_field(section: &Section<'_>, name: &str, value: Option<&str>) {
    if !is_field_name(name) {
        section.error_in("headers", name, format!("'{name}' is not a valid header field name"));
    } else if is_forbidden(name) {
        section.error_in("headers", name, format!("'{name}' is set by evertoken itself"));
    } else if value.is_some_and(has_control) {
        let message = format!("the value of '{name}' holds a control character");
        section.error_in("headers", name, message);
    }
}

fn is_field_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

fn is_forbidden(name: &str) -> bool {
    FORBIDDEN_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field))
}

fn has_control(text: &str) -> bool {
    text.chars().any(|character| character != '\t' && character.is_control())
}

/// The field for the credential, if it is not the type's usual one.
pub(super) fn read_auth_header(section: &Section<'_>) -> Option<String> {
    let name = section.text("auth_header")?;
    if !is_field_name(&name) {
        let shown = name.escape_debug();
        let message = format!("'auth_header' must be the name of a header field, not \"{shown}\"");
        section.error("auth_header", message);
    } else if is_forbidden(&name) {
        let message = format!("'auth_header' can't be '{name}', which evertoken sets itself");
        section.error("auth_header", message);
    }
    Some(name)
}

/// The text before the credential, if it is not the usual one.
pub(super) fn read_auth_prefix(section: &Section<'_>) -> Option<String> {
    let prefix = section.text("auth_prefix")?;
    if prefix.bytes().any(|byte| !(0x20..=0x7e).contains(&byte)) {
        let message = "'auth_prefix' holds a character that no header field may hold";
        section.error("auth_prefix", message);
    } else if prefix.starts_with(' ') {
        section.error("auth_prefix", "'auth_prefix' begins with a space, which would be lost");
    } else if prefix.ends_with(|last: char| last.is_ascii_alphanumeric()) {
        let message = format!(
            "the credential follows 'auth_prefix' at once; did you mean \"{prefix} \", with a blank at its end?"
        );
        section.warn("auth_prefix", message);
    }
    Some(prefix)
}

/// The parameters of `query`, in file order.
pub(super) fn read_query(section: &Section<'_>) -> Vec<(String, String)> {
    let query = section.text_map("query");
    for (name, _) in &query {
        if name.is_empty() {
            section.error_in("query", name, "a parameter of 'query' needs a name");
        }
    }
    query
}

/// Warns about keys without effect for this credential, and about claims that its token lacks.
pub(super) fn check_use(section: &Section<'_>, provider: &ProviderConfig) {
    let why = match (provider.auth_type, &provider.credential) {
        (AuthType::None, _) => Some("'auth_type' is \"none\""),
        (_, Credential::Passthrough) => Some("the client's own credential is sent as it came"),
        _ => None,
    };
    for key in ["auth_header", "auth_prefix"] {
        if let Some(why) = why.filter(|_| section.has(key)) {
            section.warn(key, format!("'{key}' is not used, since {why}"));
        }
    }
    for (name, value) in &provider.headers {
        let FieldValue::Claims(template) = value else { continue };
        let missing = match &provider.credential {
            Credential::None | Credential::Passthrough => Some(NoValue::NoToken),
            Credential::Static(secret) => {
                template.value(jwt::claims(secret.expose()).as_ref()).err()
            }
            Credential::Missing(_) | Credential::Watched(_) | Credential::Refreshed(_) => None,
        };
        if let Some(why) = missing {
            let message = format!("the header '{name}' will be left out: {why}");
            section.warn_in("headers", name, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::request_fields::FieldValue;
    use crate::config::resolve::tests::{document, fine, refused, told};

    #[test]
    fn what_goes_into_each_request() {
        let lines = "auth_value: a\nauth_header: X-Goog-Api-Key\nauth_prefix: 'k='\n\
                     headers: {a: b, c: ~, d: 'x {token.claims.e.f}'}\nquery: {api-version: 1.10, b: ''}";
        // The credential is not a JWT, which is reported.
        let text = document("", lines);
        let (config, warnings) =
            crate::config::resolve::resolve(&text, "f", &crate::config::resolve::tests::sources())
                .unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let provider = &config.providers[0];
        assert_eq!(provider.auth_header.as_deref(), Some("X-Goog-Api-Key"));
        assert_eq!(provider.auth_prefix.as_deref(), Some("k="));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(provider.query, [pair("api-version", "1.10"), pair("b", "")]);
        assert_eq!(provider.headers[0].1, FieldValue::Text("b".to_owned()));
        assert_eq!(provider.headers[1].1, FieldValue::Removed);
        assert!(matches!(provider.headers[2].1, FieldValue::Claims(_)));
        let plain = fine(&document("", "auth_value: a"));
        assert_eq!(plain.providers[0].auth_header, None);
        assert!(plain.providers[0].query.is_empty());
    }

    #[test]
    fn the_recipes_are_valid() {
        let page = include_str!("../../../docs/recipes.md");
        let blocks: Vec<&str> =
            page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        for block in &blocks {
            let text = if block.starts_with("settings:") {
                let providers = document("", "auth_type: none");
                format!("{block}{}", providers.split_once('\n').unwrap().1)
            } else {
                format!("providers:\n{block}")
            };
            fine(&text);
        }
        assert_eq!(blocks.len(), 6);
    }

    #[test]
    fn what_is_wrong_with_the_fields_of_a_request() {
        for (lines, message) in [
            (
                "auth_header: 'a b'",
                "f:7:18: 'auth_header' must be the name of a header field, not \"a b\"",
            ),
            (
                "auth_header: ''",
                "f:7:18: 'auth_header' must be the name of a header field, not \"\"",
            ),
            (
                "auth_header: Content-Length",
                "f:7:18: 'auth_header' can't be 'Content-Length', which evertoken sets itself",
            ),
            (
                "auth_header: host",
                "f:7:18: 'auth_header' can't be 'host', which evertoken sets itself",
            ),
            (
                "auth_header: connection",
                "f:7:18: 'auth_header' can't be 'connection', which evertoken sets itself",
            ),
            ("auth_header: [a]", "f:7:18: 'auth_header' must be a text in quotes"),
            (
                "auth_prefix: \"a\\n\"",
                "f:7:18: 'auth_prefix' holds a character that no header field may hold",
            ),
            (
                "auth_prefix: é",
                "f:7:18: 'auth_prefix' holds a character that no header field may hold",
            ),
            (
                "auth_prefix: ' x '",
                "f:7:18: 'auth_prefix' begins with a space, which would be lost",
            ),
            ("query: [a]", "f:7:12: 'query' must hold names and texts, not a list"),
            ("query: a=b", "f:7:12: 'query' must hold names and texts, not a text"),
            ("query: {a: [b]}", "f:7:13: 'a' in query must be a text, not a list"),
            ("query: {a: ~}", "f:7:13: 'a' in query must be a text, not nothing"),
            ("query: {'': a}", "f:7:13: a parameter of 'query' needs a name"),
            (
                "headers: {a: '{token.claims.x'}",
                "f:7:15: the value of 'a': a placeholder is not closed with '}'",
            ),
            (
                "headers: {a: '{token.claim.x}'}",
                "f:7:15: the value of 'a': there is no placeholder '{token.claim.x}', only {token.claims.NAME}",
            ),
            ("headers: {Host: ~}", "f:7:15: 'Host' is set by evertoken itself"),
        ] {
            refused(&document("", &format!("auth_value: a\n{lines}")), message);
        }
    }

    #[test]
    fn what_changes_nothing_is_said() {
        for (lines, expected) in [
            (
                "auth_type: none\nauth_header: a",
                "f:7:18: warning: 'auth_header' is not used, since 'auth_type' is \"none\"",
            ),
            (
                "auth_value: passthrough\nauth_prefix: 'a '",
                "f:7:18: warning: 'auth_prefix' is not used, since the client's own credential is sent as it came",
            ),
            (
                "auth_value: x\nauth_prefix: Bearer",
                "f:7:18: warning: the credential follows 'auth_prefix' at once; did you mean \"Bearer \", with a \
                 blank at its end?",
            ),
            (
                "auth_value: passthrough\nheaders: {a: '{token.claims.x}'}",
                "f:7:15: warning: the header 'a' will be left out: there is no access token whose claims could be used",
            ),
            (
                "auth_value: opaque\nheaders: {a: '{token.claims.x}'}",
                "f:7:15: warning: the header 'a' will be left out: the access token is not a JWT, so it has no claims",
            ),
            (
                "auth_value: aa.e30.cc\nheaders: {a: '{token.claims.x}'}",
                "f:7:15: warning: the header 'a' will be left out: the access token has no claim 'x'",
            ),
        ] {
            assert_eq!(told(&document("", lines)), [expected], "{lines}");
        }
        fine(&document("", "auth_value: a\nauth_prefix: 'token '"));
        // {"x":"y"}
        fine(&document("", "auth_value: aa.eyJ4IjoieSJ9.cc\nheaders: {a: '{token.claims.x}'}"));
    }
}
