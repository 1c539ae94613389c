//! A protected resource's description of itself (RFC 9728): its challenge and its metadata. Pure.

use serde_json::Value;

use crate::config::url::{is_loopback, origin_of, split_url};
use crate::http::message::Headers;
use crate::token::discovery::shown;

/// The parameters of a `Bearer` challenge (RFC 9110 §11.6.1) that a login uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The address of the resource's metadata (RFC 9728 §5.1).
    pub resource_metadata: Option<String>,
    /// The scope that a request needs (RFC 6750 §3).
    pub scope: Option<String>,
}

/// A resource's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Its identifier, which token requests name (RFC 8707).
    pub identifier: String,
    /// Its issuers.
    pub issuers: Vec<String>,
    /// The scopes that requests to it use.
    pub scopes: Vec<String>,
}

/// The reason why a resource's metadata can't be used; `Display` continues after its address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadResource {
    #[error("has no 'resource'")]
    NoIdentifier,
    #[error(
        "is of the resource \"{}\", and not of \"{asked}\": use the address that it names, if you trust it",
        shown(found)
    )]
    OfAnother { found: String, asked: String },
    #[error("names no authorization server; name one with --issuer")]
    NoIssuer,
}

impl Challenge {
    /// The `Bearer` challenge of an answer; empty if there is none.
    pub(crate) fn of(headers: &Headers) -> Self {
        let mut challenge = Self::default();
        for value in headers.all("www-authenticate") {
            let text = String::from_utf8_lossy(value);
            for (name, value) in bearer_parameters(&text) {
                match name.as_str() {
                    "resource_metadata" => challenge.resource_metadata = Some(value),
                    "scope" => challenge.scope = Some(value),
                    _ => {}
                }
            }
        }
        challenge
    }
}

/// The parameters of the `Bearer` challenges in a field value, names in lower case.
fn bearer_parameters(value: &str) -> Vec<(String, String)> {
    let (mut parameters, mut is_bearer, mut rest) = (Vec::new(), false, value);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches([' ', '\t']);
        if word.is_empty() && after.is_empty() {
            return parameters;
        }
        let Some(written) = after.strip_prefix('=').filter(|_| !word.is_empty()) else {
            // A scheme, which is followed by its parameters.
            is_bearer = word.eq_ignore_ascii_case("bearer");
            rest = after.strip_prefix('=').unwrap_or(after);
            continue;
        };
        let (value, after) = parameter_value(written.trim_start_matches([' ', '\t']));
        if is_bearer {
            parameters.push((word.to_ascii_lowercase(), value));
        }
        rest = after;
    }
}

/// A token or a quoted text at the start of `text`, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, one)) = chars.next() {
        match one {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            one => value.push(one),
        }
    }
    (value, "")
}

impl Resource {
    /// Reads the metadata of the resource at `url`. Its identifier must be that URL, or one above it on the same server.
    pub(crate) fn of(document: &Value, url: &str) -> Result<Self, BadResource> {
        let texts = |key: &str| -> Vec<String> {
            match document.get(key) {
                Some(Value::Array(list)) => {
                    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                }
                // Some servers write a single value without its list.
                Some(Value::String(single)) => vec![single.clone()],
                _ => Vec::new(),
            }
        };
        let identifier = document.get("resource").and_then(Value::as_str);
        let identifier = identifier.ok_or(BadResource::NoIdentifier)?.to_owned();
        if !covers(&identifier, url) {
            let asked = url.to_owned();
            return Err(BadResource::OfAnother { found: identifier, asked });
        }
        let issuers = texts("authorization_servers");
        Ok(Self { identifier, issuers, scopes: texts("scopes_supported") })
    }

    /// The issuer to use: `wanted`, which must be one of the resource's if it names any, else its first.
    pub(crate) fn issuer(&self, wanted: Option<&str>) -> Result<String, String> {
        match (wanted, self.issuers.first()) {
            (Some(wanted), None) => Ok(wanted.to_owned()),
            (Some(wanted), Some(_)) if self.issuers.iter().any(|one| one == wanted) => {
                Ok(wanted.to_owned())
            }
            (Some(wanted), Some(_)) => {
                let known: Vec<_> = self.issuers.iter().map(|one| shown(one)).collect();
                let known = known.join(", ");
                Err(format!("The resource does not name the issuer {wanted}; it names: {known}"))
            }
            (None, Some(first)) => Ok(first.clone()),
            (None, None) => Err(format!(
                "The metadata of {} {}",
                shown(&self.identifier),
                BadResource::NoIssuer
            )),
        }
    }
}

/// True if the resource `identifier` is `url`, or above it: the same server, and the start of its path.
fn covers(identifier: &str, url: &str) -> bool {
    let (Some(own), Some(asked)) = (parts(identifier), parts(url)) else { return false };
    let below = asked.1.strip_prefix(own.1.trim_end_matches('/'));
    own.0 == asked.0 && below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// The origin, in lower case and without the usual port of its scheme, and the rest.
fn parts(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let url_again = format!("{}://{rest}", scheme.to_ascii_lowercase());
    let (scheme, _, path) = split_url(&url_again)?;
    let path_length = path.len();
    let usual_port = if scheme == "https" { ":443" } else { ":80" };
    let origin = url_again[..url_again.len() - path_length].to_ascii_lowercase();
    let origin = origin.strip_suffix(usual_port).unwrap_or(&origin).to_owned();
    Some((origin, &url[url.len() - path_length..]))
}

/// The address that the resource at `url` `named`, which may be a path on its server; None if it is no URL.
pub(super) fn address_of(named: &str, url: &str) -> Option<String> {
    let origin = origin_of(url);
    let is_path = named.starts_with('/') && !named.starts_with("//");
    let address = if is_path { format!("{origin}{named}") } else { named.to_owned() };
    split_url(&address).is_some().then_some(address)
}

/// True if an address that a resource at `origin` names may be asked: https, or on this machine if the resource is too.
pub(crate) fn may_be_asked(address: &str, origin: &str) -> bool {
    match split_url(address) {
        Some(("https", ..)) => true,
        Some(_) => is_loopback(address) && is_loopback(origin),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn challenge(value: &str) -> (Option<String>, Option<String>) {
        let mut headers = Headers::new();
        headers.push("WWW-Authenticate", value);
        let found = Challenge::of(&headers);
        (found.resource_metadata, found.scope)
    }

    #[test]
    fn challenges() {
        let url = || Some("https://r/.well-known/x".to_owned());
        for (value, expected) in [
            (r#"Bearer resource_metadata="https://r/.well-known/x""#, (url(), None)),
            (
                r#"bearer Resource_Metadata = "https://r/.well-known/x" , scope="a b""#,
                (url(), Some("a b".to_owned())),
            ),
            (
                r#"Bearer error="invalid_token", error_description="a, \"b\" = c", resource_metadata="https://r/.well-known/x""#,
                (url(), None),
            ),
            (
                r#"Basic realm="scope=x", Bearer scope=one, resource_metadata="https://r/.well-known/x""#,
                (url(), Some("one".to_owned())),
            ),
            (r#"Bearer scope="a", Basic scope="b""#, (None, Some("a".to_owned()))),
            (r#"DPoP resource_metadata="https://r/.well-known/x""#, (None, None)),
            ("Bearer", (None, None)),
            ("", (None, None)),
            (", =,= x=", (None, None)),
            (r#"Bearer scope="never ends"#, (None, Some("never ends".to_owned()))),
        ] {
            assert_eq!(challenge(value), expected, "{value}");
        }
    }

    #[test]
    fn a_resource_covers_its_own_address_and_those_below_it() {
        for (identifier, url, expected) in [
            ("https://r/mcp", "https://r/mcp", true),
            ("https://r/mcp/", "https://r/mcp", true),
            ("https://r", "https://r/mcp", true),
            ("https://r/", "https://r/mcp?x", true),
            ("https://R", "https://r/mcp", true),
            ("https://r/mcp", "https://r/mcp/tools", true),
            ("https://r/mcp", "https://r/mcp2", false),
            ("https://r/mcp", "https://r/", false),
            ("http://r/mcp", "https://r/mcp", false),
            ("https://other/mcp", "https://r/mcp", false),
            ("https://r:8443", "https://r/mcp", false),
            ("r", "https://r/mcp", false),
            // Written otherwise, it is the same server (RFC 3986 §6.2).
            ("HTTPS://r:443/mcp", "https://r/mcp", true),
            ("https://r/mcp", "https://R:443/mcp", true),
            ("http://127.0.0.1:80", "http://127.0.0.1/mcp", true),
            ("https://r:80/mcp", "https://r/mcp", false),
            ("https://r:443:443/mcp", "https://r/mcp", false),
        ] {
            assert_eq!(covers(identifier, url), expected, "{identifier} {url}");
        }
    }

    #[test]
    fn the_first_issuer_or_the_wanted_one() {
        let document = json!({
            "resource": "https://r/mcp", "authorization_servers": ["https://a", 7, "https://b"],
            "scopes_supported": ["s", "t"],
        });
        let found = Resource::of(&document, "https://r/mcp").unwrap();
        assert_eq!(found.scopes, ["s", "t"]);
        assert_eq!(found.issuer(None).unwrap(), "https://a");
        assert_eq!(found.issuer(Some("https://b")).unwrap(), "https://b");
        let told = found.issuer(Some("https://c")).unwrap_err();
        assert_eq!(
            told,
            "The resource does not name the issuer https://c; it names: https://a, https://b"
        );
        let none = Resource { issuers: Vec::new(), ..found };
        assert_eq!(none.issuer(Some("https://c")).unwrap(), "https://c");
        assert!(none.issuer(None).unwrap_err().ends_with("name one with --issuer"));
        let other = Resource::of(&document, "https://r/other").unwrap_err();
        assert_eq!(
            other.to_string(),
            "is of the resource \"https://r/mcp\", and not of \"https://r/other\": use the address that it names, if \
             you trust it"
        );
        assert_eq!(Resource::of(&json!({}), "https://r").unwrap_err(), BadResource::NoIdentifier);
    }

    #[test]
    fn a_single_issuer_may_be_written_without_a_list() {
        let document = json!({"resource": "https://r", "authorization_servers": "https://a"});
        let found = Resource::of(&document, "https://r").unwrap();
        assert_eq!(found.issuer(None).unwrap(), "https://a");
    }

    #[test]
    fn http_is_for_resources_on_this_machine() {
        assert!(may_be_asked("https://i", "https://r"));
        assert!(may_be_asked("http://127.0.0.1:1/x", "http://localhost:2/"));
        assert!(!may_be_asked("http://127.0.0.1:1/x", "https://r"));
        assert!(!may_be_asked("http://i", "http://localhost:2/"));
        assert!(!may_be_asked("file:///x", "http://localhost:2/"));
    }
}
