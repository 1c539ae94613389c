//! `evertoken login --discover`: asks a protected resource for its metadata (RFC 9728), its issuer for the same
//! (RFC 8414), and registers a client there (RFC 7591).
//!
//! [`resource`], [`registration`] and [`entry`] are pure.

use std::net::TcpListener;

use crate::config::redirect::Loopback;
use crate::config::url::origin_of;
use crate::http::message::Headers;
use crate::token::discovery::{
    self, BadMetadata, DiscoveryError, Metadata, REQUEST_MAX, answered, read_json, shown,
};
use crate::token::grant::{self, Reached, What};
use crate::token::sender::Send;

pub(crate) mod entry;
pub(crate) mod registration;
mod resource;

use registration::Client;
use resource::{BadResource, Challenge, Resource, address_of, may_be_asked};

/// The reason why a resource can't be logged in to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoverError {
    /// No answer.
    #[error("{0} can't be read: {1}")]
    Unanswered(String, What),
    /// Another address, from which nothing may be concluded.
    #[error("{0} redirects to {1}: write that address, if you trust it")]
    Redirected(String, String),
    /// The resource does not describe itself: the answers of the addresses where it could.
    #[error(
        "{0} does not describe itself ({answers}); name its issuer with --issuer, or write the entry by hand",
        answers = .1.join("; ")
    )]
    NoMetadata(String, Vec<String>),
    /// An address of the resource's that is not asked.
    #[error("{0} names \"{1}\" as its {2}, which must be https (http is for this machine alone)")]
    Plain(String, String, &'static str),
    /// A description that is no JSON, or too large.
    #[error("The metadata at {0} {1}")]
    Unreadable(String, BadMetadata),
    /// A description that can't be used.
    #[error("The metadata at {0} {1}")]
    Bad(String, BadResource),
    /// None of its issuers is the wanted one, or it names none.
    #[error("{0}")]
    Issuer(String),
    /// The issuer's metadata.
    #[error("{0}")]
    NoIssuer(#[from] DiscoveryError),
    /// The metadata of an issuer, where the resource has others.
    #[error("{0}; the resource names other issuers too, for --issuer: {others}", others = .1.join(", "))]
    NoFirstIssuer(DiscoveryError, Vec<String>),
    /// The issuer registers no clients by itself.
    #[error(
        "The issuer {0} registers no clients by itself: register one there, as a native application with the redirect \
         URI http://127.0.0.1/callback, and give its id with --client-id"
    )]
    NoRegistration(String),
    /// The issuer refused the registration.
    #[error(
        "No client was registered: {0}. Register one at the issuer, and give its id with --client-id"
    )]
    NotRegistered(String),
    /// No port can be had for the browser's return.
    #[error("No port on 127.0.0.1 is free: {0}")]
    NoPort(std::io::Error),
}

/// The findings about a resource and its issuer.
#[derive(Debug)]
pub(crate) struct Found {
    /// The resource's identifier.
    pub resource: String,
    pub issuer: Metadata,
    /// The scope to ask for.
    pub scope: Option<String>,
}

/// Asks the resource at `url`, and its issuer, which is `wanted` if several are named.
pub(crate) fn ask(url: &str, wanted: Option<&str>, send: &Send) -> Result<Found, DiscoverError> {
    let challenge = challenge_of(url, send)?;
    let (resource, undescribed) = match describe(url, &challenge, send) {
        Ok(resource) => (resource, None),
        Err(error @ DiscoverError::NoMetadata(..)) => {
            // MCP servers from before RFC 9728 are their own issuers.
            let own = wanted.unwrap_or_else(|| origin_of(url)).to_owned();
            let (issuers, scopes) = (vec![own], Vec::new());
            (Resource { identifier: url.to_owned(), issuers, scopes }, Some(error))
        }
        Err(error) => return Err(error),
    };
    let named = resource.issuer(wanted).map_err(DiscoverError::Issuer)?;
    if !may_be_asked(&named, url) {
        return Err(DiscoverError::Plain(url.to_owned(), shown(&named), "authorization server"));
    }
    let issuer = match (fetch(&named, send), undescribed) {
        // It has the name that --issuer needs.
        (Err(error @ DiscoveryError::Bad(_, BadMetadata::OfAnother { .. })), Some(_)) => {
            return Err(error.into());
        }
        (Err(_), Some(undescribed)) if wanted.is_none() => return Err(undescribed),
        (Err(error), _) if wanted.is_none() && resource.issuers.len() > 1 => {
            let others = resource.issuers.iter().filter(|other| **other != named);
            let others = others.map(|other| shown(other)).collect();
            return Err(DiscoverError::NoFirstIssuer(error, others));
        }
        (fetched, _) => fetched?,
    };
    let scope = entry::scope(challenge.scope.as_deref(), &resource.scopes, &issuer.scopes);
    Ok(Found { resource: resource.identifier, issuer, scope })
}

/// The metadata of the issuer that a resource named.
fn fetch(named: &str, send: &Send) -> Result<Metadata, DiscoveryError> {
    match discovery::fetch(named, send) {
        // Some frameworks add a slash to the issuers that a resource names.
        Err(DiscoveryError::Bad(_, BadMetadata::OfAnother { found, .. }))
            if found.trim_end_matches('/') == named.trim_end_matches('/') =>
        {
            discovery::fetch(&found, send)
        }
        fetched => fetched,
    }
}

/// The challenge for a request without a token; empty if the resource has none.
fn challenge_of(url: &str, send: &Send) -> Result<Challenge, DiscoverError> {
    let answer = match send(&grant::get(url), REQUEST_MAX.into(), &|| false) {
        Ok(answer) => answer,
        Err(failure) if failure.reached == Reached::No => {
            return Err(DiscoverError::Unanswered(url.to_owned(), failure.what));
        }
        // A stream that does not end, for example: the resource may describe itself all the same.
        Err(_) => return Ok(Challenge::default()),
    };
    if let (300..=399, Some(location)) = (answer.status, location_of(&answer.headers)) {
        return Err(DiscoverError::Redirected(url.to_owned(), location));
    }
    Ok(Challenge::of(&answer.headers))
}

fn location_of(headers: &Headers) -> Option<String> {
    headers.first("location").map(|location| shown(&String::from_utf8_lossy(location)))
}

/// The resource's description: at the address that its challenge names, else at the well-known ones.
fn describe(url: &str, challenge: &Challenge, send: &Send) -> Result<Resource, DiscoverError> {
    let (mut addresses, mut answers, mut bad) = (Vec::new(), Vec::new(), None);
    if let Some(named) = &challenge.resource_metadata {
        match address_of(named, url) {
            Some(address) if may_be_asked(&address, url) => addresses.push(address),
            Some(_) => {
                return Err(DiscoverError::Plain(url.to_owned(), shown(named), "metadata"));
            }
            None => {
                answers.push(format!("its challenge names \"{}\", which is no URL", shown(named)));
            }
        }
    }
    addresses.extend(discovery::of_resource(url));
    addresses.dedup();
    for address in addresses {
        let answer = match send(&grant::get(&address), REQUEST_MAX.into(), &|| false) {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => {
                answers.push(format!("{address} answers {}", answered(answer.status)));
                continue;
            }
            Err(failure) => {
                let is_final = failure.reached == Reached::No;
                let error = bad.unwrap_or(DiscoverError::Unanswered(address, failure.what));
                if is_final {
                    return Err(error);
                }
                bad = Some(error);
                continue;
            }
        };
        let found = match read_json(&answer.headers, &answer.body) {
            Ok(document) => {
                Resource::of(&document, url).map_err(|why| DiscoverError::Bad(address, why))
            }
            Err(why) => Err(DiscoverError::Unreadable(address, why)),
        };
        match found {
            Ok(resource) => return Ok(resource),
            // A site may answer every address with a page, so the others are tried too.
            Err(why) => bad = bad.or(Some(why)),
        }
    }
    Err(bad.unwrap_or_else(|| DiscoverError::NoMetadata(url.to_owned(), answers)))
}

/// Registers a client at the issuer, for a browser's return to `redirect_uri` or for a device code.
pub(crate) fn register(
    found: &Found,
    redirect_uri: Option<&str>,
    send: &Send,
) -> Result<Client, DiscoverError> {
    let issuer = &found.issuer;
    let Some(url) = &issuer.registration_endpoint else {
        return Err(DiscoverError::NoRegistration(issuer.issuer.clone()));
    };
    let request = registration::request(url, issuer, redirect_uri, found.scope.as_deref());
    let answer = send(&request, REQUEST_MAX.into(), &|| false)
        .map_err(|failure| DiscoverError::Unanswered(url.clone(), failure.what))?;
    registration::read(url, &answer).map_err(DiscoverError::NotRegistered)
}

/// A redirect URI with a port that is free now: some issuers compare it with the registered one, port included.
pub(crate) fn redirect_uri() -> Result<String, DiscoverError> {
    let loopback = Loopback::default();
    let listener = TcpListener::bind((loopback.host.as_str(), 0)).map_err(DiscoverError::NoPort)?;
    let port = listener.local_addr().map_err(DiscoverError::NoPort)?.port();
    Ok(loopback.uri(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::grant::Failure;
    use crate::token::sender::TokenAnswer;

    type Page = (&'static str, u16, &'static [(&'static str, &'static str)], &'static str);

    /// A world with these pages: address, status, header fields, body.
    fn world(pages: &'static [Page]) -> Send {
        Box::new(move |request, _, _| {
            let page = pages.iter().find(|(url, ..)| *url == request.url);
            let Some((_, status, fields, body)) = page else {
                let (headers, body) = (Headers::new(), Vec::new());
                return Ok(TokenAnswer { status: 404, headers, body, said: None });
            };
            if *status == 0 {
                return Err(Failure::no_answer(Reached::Perhaps, *body));
            }
            let mut headers = Headers::new();
            fields.iter().for_each(|(name, value)| headers.push(name, value));
            Ok(TokenAnswer { status: *status, headers, body: body.as_bytes().to_vec(), said: None })
        })
    }

    const ISSUER: Page = (
        "https://i/.well-known/oauth-authorization-server",
        200,
        &[],
        r#"{"issuer":"https://i","token_endpoint":"https://i/t","scopes_supported":["offline_access"]}"#,
    );
    const DESCRIBED: Page = (
        "https://r/.well-known/oauth-protected-resource/mcp",
        200,
        &[],
        r#"{"resource":"https://r/mcp","authorization_servers":["https://i/"],"scopes_supported":["a"]}"#,
    );

    #[test]
    fn a_resource_is_found_by_its_challenge_or_by_its_address() {
        const NAMED: &[(&str, &str)] =
            &[("WWW-Authenticate", r#"Bearer resource_metadata="https://r/x", scope="b""#)];
        let by_challenge: &[Page] = &[
            ("https://r/mcp", 401, NAMED, ""),
            (
                "https://r/x",
                200,
                &[],
                r#"{"resource":"https://r","authorization_servers":["https://i"]}"#,
            ),
            ISSUER,
        ];
        let found = ask("https://r/mcp", None, &world(by_challenge)).unwrap();
        assert_eq!(
            (found.resource.as_str(), found.issuer.issuer.as_str()),
            ("https://r", "https://i")
        );
        assert_eq!(found.scope.as_deref(), Some("b offline_access"));
        // Without a challenge, and with a stream that never ends, the well-known address counts. The slash at the end
        // of the issuer is the framework's.
        let streams: &[Page] = &[("https://r/mcp", 0, &[], "no answer"), DESCRIBED, ISSUER];
        for pages in [&[DESCRIBED, ISSUER][..], streams] {
            let found = ask("https://r/mcp", None, &world(pages)).unwrap();
            assert_eq!(
                (found.resource.as_str(), found.issuer.issuer.as_str()),
                ("https://r/mcp", "https://i")
            );
            assert_eq!(found.scope.as_deref(), Some("a offline_access"));
        }
        // A resource that does not describe itself needs a named issuer.
        let found = ask("https://r/mcp", Some("https://i"), &world(&[ISSUER])).unwrap();
        assert_eq!(found.resource, "https://r/mcp");
    }

    /// Servers that are behind a proxy or a catch-all page often get one of the addresses wrong.
    #[test]
    fn an_address_without_metadata_does_not_hide_the_next_one() {
        const GONE: &[(&str, &str)] =
            &[("WWW-Authenticate", r#"Bearer resource_metadata="https://r/gone""#)];
        const RELATIVE: &[(&str, &str)] =
            &[("WWW-Authenticate", r#"Bearer resource_metadata="/x", scope="b""#)];
        const SENSELESS: &[(&str, &str)] =
            &[("WWW-Authenticate", r#"Bearer resource_metadata="::""#)];
        const AT_X: Page = ("https://r/x", 200, &[], DESCRIBED.3);
        const AT_ORIGIN: Page = (
            "https://r/.well-known/oauth-protected-resource",
            200,
            &[],
            r#"{"resource":"https://r","authorization_servers":["https://i"]}"#,
        );
        const PAGE: Page = (DESCRIBED.0, 200, &[], "<html>");
        const OTHER: Page = (DESCRIBED.0, 200, &[], r#"{"resource":"https://other/mcp"}"#);
        const CUT: Page = (DESCRIBED.0, 0, &[], "the connection was closed");
        for (pages, resource) in [
            (&[("https://r/mcp", 401, GONE, ""), DESCRIBED, ISSUER][..], "https://r/mcp"),
            (&[("https://r/mcp", 401, RELATIVE, ""), AT_X, ISSUER], "https://r/mcp"),
            (&[("https://r/mcp", 401, SENSELESS, ""), DESCRIBED, ISSUER], "https://r/mcp"),
            (&[PAGE, AT_ORIGIN, ISSUER], "https://r"),
            (&[OTHER, AT_ORIGIN, ISSUER], "https://r"),
            (&[CUT, AT_ORIGIN, ISSUER], "https://r"),
        ] {
            let found = ask("https://r/mcp", None, &world(pages)).unwrap();
            assert_eq!(found.resource, resource, "{pages:?}");
        }
        let told = ask("https://r/mcp", None, &world(&[("https://r/mcp", 401, SENSELESS, "")]));
        let told = told.unwrap_err().to_string();
        assert!(
            told.contains("(its challenge names \"::\", which is no URL; https://r/.w"),
            "{told}"
        );
    }

    /// MCP's specification of March 2025, which knew no metadata of resources.
    #[test]
    fn a_server_without_metadata_may_be_its_own_issuer() {
        const OWN: Page = (
            "https://r/.well-known/oauth-authorization-server",
            200,
            &[],
            r#"{"issuer":"https://r/","token_endpoint":"https://r/t"}"#,
        );
        let found = ask("https://r/mcp", None, &world(&[OWN])).unwrap();
        assert_eq!(
            (found.resource.as_str(), found.issuer.issuer.as_str()),
            ("https://r/mcp", "https://r/")
        );
        let named = ask("https://r/mcp", Some("https://i"), &world(&[OWN, ISSUER])).unwrap();
        assert_eq!(named.issuer.issuer, "https://i");
    }

    #[test]
    fn an_issuer_that_fails_is_told_with_the_others_of_the_resource() {
        const TWO: Page = (
            DESCRIBED.0,
            200,
            &[],
            r#"{"resource":"https://r/mcp","authorization_servers":["https://dead","https://i"]}"#,
        );
        let told = ask("https://r/mcp", None, &world(&[TWO, ISSUER])).unwrap_err().to_string();
        assert!(
            told.starts_with("The issuer https://dead has no metadata: ")
                && told
                    .ends_with("; the resource names other issuers too, for --issuer: https://i"),
            "{told}"
        );
        assert!(ask("https://r/mcp", Some("https://i"), &world(&[TWO, ISSUER])).is_ok());
    }

    #[test]
    fn what_leads_nowhere_is_told() {
        const PLAIN: &[(&str, &str)] =
            &[("WWW-Authenticate", r#"Bearer resource_metadata="http://r/x""#)];
        const WELL_KNOWN: &str = "https://r/.well-known/oauth-protected-resource/mcp";
        const OTHER: Page = (
            "https://r/.well-known/oauth-authorization-server",
            200,
            &[],
            r#"{"issuer":"https://i"}"#,
        );
        let told =
            |pages, wanted| ask("https://r/mcp", wanted, &world(pages)).unwrap_err().to_string();
        assert_eq!(
            told(&[], None),
            "https://r/mcp does not describe itself (https://r/.well-known/oauth-protected-resource/mcp answers 404 Not \
             Found; https://r/.well-known/oauth-protected-resource answers 404 Not Found); name its issuer with \
             --issuer, or write the entry by hand"
        );
        let misnamed = told(&[OTHER], None);
        assert!(
            misnamed.contains("is of the issuer \"https://i\""),
            "--issuer needs it: {misnamed}"
        );
        assert_eq!(
            told(&[("https://r/mcp", 307, &[("Location", "https://r/mcp/")], "")], None),
            "https://r/mcp redirects to https://r/mcp/: write that address, if you trust it"
        );
        assert_eq!(
            told(&[("https://r/mcp", 401, PLAIN, "")], None),
            "https://r/mcp names \"http://r/x\" as its metadata, which must be https (http is for this machine alone)"
        );
        assert_eq!(
            told(&[(WELL_KNOWN, 200, &[], r#"{"resource":"https://other/mcp"}"#)], None),
            format!(
                "The metadata at {WELL_KNOWN} is of the resource \"https://other/mcp\", and not of \"https://r/mcp\": \
                 use the address that it names, if you trust it"
            )
        );
        assert_eq!(
            told(&[(WELL_KNOWN, 200, &[], "<html>")], None),
            format!("The metadata at {WELL_KNOWN} is no JSON object")
        );
        assert_eq!(
            told(
                &[(
                    WELL_KNOWN,
                    200,
                    &[],
                    r#"{"resource":"https://r/mcp","authorization_servers":["http://i"]}"#
                )],
                None
            ),
            "https://r/mcp names \"http://i\" as its authorization server, which must be https (http is for this \
             machine alone)"
        );
        assert!(told(&[DESCRIBED], None).starts_with("The issuer https://i/ has no metadata: "));
        assert!(
            told(&[DESCRIBED], Some("https://j")).contains("does not name the issuer https://j")
        );
    }

    #[test]
    fn an_issuer_without_registration_needs_a_client_id() {
        let found = ask("https://r/mcp", None, &world(&[DESCRIBED, ISSUER])).unwrap();
        let told = register(&found, None, &world(&[])).unwrap_err().to_string();
        assert!(
            told.contains("registers no clients by itself") && told.ends_with("with --client-id"),
            "{told}"
        );
        let url = Some("https://i/register".to_owned());
        let issuer = Metadata { registration_endpoint: url, ..found.issuer };
        let found = Found { issuer, ..found };
        let refused: &[Page] = &[("https://i/register", 403, &[], r#"{"error":"access_denied"}"#)];
        let told = register(&found, None, &world(refused)).unwrap_err().to_string();
        assert!(told.starts_with("No client was registered: https://i/register answers 403 Forbidden (access_denied)."), "{told}");
    }
}
