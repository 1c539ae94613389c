//! Discovery: an issuer's metadata (RFC 8414, `OpenID` Connect Discovery), which names the endpoints that the
//! configuration leaves out.
//!
//! `addresses` knows where a document stands, `metadata` reads it, `kept` keeps a copy in the state folder, so that a
//! start needs no network, and `complete` puts the values into the configuration of a provider.

use std::path::Path;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::AutoRefresh;
use crate::token::grant::{self, Reached, What};
use crate::token::sender::Send;

mod addresses;
mod complete;
mod error;
mod kept;
mod metadata;

pub(crate) use addresses::of_resource;
pub(crate) use complete::{complete, complete_login};
pub(crate) use error::DiscoveryError;
pub(crate) use kept::{KEPT_MAX_MS, KeptMetadata};
pub(crate) use metadata::{BadMetadata, Metadata, read_json, shown};

/// The longest time for a request of discovery.
pub(crate) const REQUEST_MAX: Duration = Duration::from_secs(10);

/// The issuer whose metadata token requests need, because the token endpoint is not written.
pub(crate) fn issuer_of(config: &AutoRefresh) -> Option<&str> {
    config.login.issuer.as_deref().filter(|_| config.unwritten.token_url)
}

/// Asks `issuer` for its metadata.
pub(crate) fn fetch(issuer: &str, send: &Send) -> Result<Metadata, DiscoveryError> {
    let (mut answers, mut bad) = (Vec::new(), None);
    for url in addresses::of_issuer(issuer) {
        let answer = match send(&grant::get(&url), REQUEST_MAX.into(), &|| false) {
            Ok(answer) => answer,
            Err(failure) => {
                let is_final = failure.reached == Reached::No;
                let error = bad.unwrap_or(DiscoveryError::Unanswered(url, failure.what));
                if is_final {
                    return Err(error);
                }
                // It broke off, or was far too long: another address may have the document.
                bad = Some(error);
                continue;
            }
        };
        if answer.status != 200 {
            answers.push(format!("{url} answers {}", answered(answer.status)));
            continue;
        }
        match Metadata::read(&answer.headers, &answer.body, issuer) {
            Ok(metadata) => return Ok(metadata),
            // A site may answer every address with a page, so the others are tried too.
            Err(why) => bad = bad.or(Some(DiscoveryError::Bad(url, why))),
        }
    }
    Err(bad.unwrap_or_else(|| DiscoveryError::NotFound { issuer: issuer.to_owned(), answers }))
}

/// A status in words.
pub(crate) fn answered(status: u16) -> String {
    let words = What::Status(status, None);
    match status {
        300..=399 => format!("{words}, a redirect, which is not followed"),
        _ => words.to_string(),
    }
}

/// The metadata of `issuer` for a command: the copy in `folder` if it is of today, else fetched and kept. If that
/// fails, an older copy serves, with the reason as a warning.
pub(crate) fn find(
    issuer: &str,
    folder: &Path,
    send: &Send,
    now: Timestamp,
) -> Result<(KeptMetadata, Option<String>), DiscoveryError> {
    let known = kept::load(folder, issuer);
    if let Some(known) = known.as_ref().filter(|known| known.is_of_today(now)) {
        return Ok((known.clone(), None));
    }
    match (fetch(issuer, send), known) {
        (Ok(metadata), _) => {
            let found = KeptMetadata { metadata, fetched_at: now };
            let unkept = keep(folder, &found).err();
            Ok((found, unkept))
        }
        (Err(error), Some(known)) => {
            let warning = format!("{error}; the copy of {} is used", known.fetched_at);
            Ok((known, Some(warning)))
        }
        (Err(error), None) => Err(error),
    }
}

/// Keeps a copy in `folder`; the error says in words why that failed.
pub(crate) fn keep(folder: &Path, found: &KeptMetadata) -> Result<(), String> {
    kept::store(folder, found).map_err(|error| {
        let path = kept::path(folder, &found.metadata.issuer);
        format!("The issuer's metadata can't be kept in {}: {error}", path.display())
    })
}

/// The copy in `folder`, whatever its age.
pub(crate) fn load(folder: &Path, issuer: &str) -> Option<KeptMetadata> {
    kept::load(folder, issuer)
}

/// `config`, completed with the copy in `folder`, if there is one, as a refresher would at its start.
pub(crate) fn completed(config: &AutoRefresh, folder: &Path) -> AutoRefresh {
    let mut config = config.clone();
    if let Some(kept) = issuer_of(&config).and_then(|issuer| kept::load(folder, issuer)) {
        // A copy without a token endpoint completes nothing.
        let _ = complete(&mut config, &kept.metadata);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::Headers;
    use crate::token::grant::Failure;
    use crate::token::sender::TokenAnswer;

    /// An issuer with these answers by the end of the address; no answer for an address that ends in `gone`.
    fn issuer(answers: &'static [(&'static str, u16, &'static str)]) -> Send {
        Box::new(move |request, _, _| {
            assert_eq!((request.method, request.body.len()), ("GET", 0));
            let known = answers.iter().find(|(end, ..)| request.url.ends_with(end));
            match known {
                Some((_, 0, why)) => Err(Failure::no_answer(Reached::No, *why)),
                Some((_, 1, why)) => Err(Failure::no_answer(Reached::Perhaps, *why)),
                Some((_, status, body)) => Ok(TokenAnswer {
                    status: *status,
                    headers: Headers::new(),
                    body: body.as_bytes().to_vec(),
                    said: None,
                }),
                None => Ok(TokenAnswer {
                    status: 404,
                    headers: Headers::new(),
                    body: Vec::new(),
                    said: None,
                }),
            }
        })
    }

    const GOOD: &str = r#"{"issuer":"https://i/t","token_endpoint":"https://i/token"}"#;

    #[test]
    fn the_first_address_with_a_document_counts() {
        for end in [
            "https://i/.well-known/oauth-authorization-server/t",
            "https://i/t/.well-known/openid-configuration",
            "https://i/.well-known/openid-configuration/t",
        ] {
            let answers = Box::leak(Box::new([(end, 200, GOOD)]));
            let found = fetch("https://i/t", &issuer(answers)).unwrap();
            assert_eq!(found.token_endpoint.as_deref(), Some("https://i/token"), "{end}");
        }
        // A page at the first address does not hide the document at the second.
        let both =
            &[("server/t", 200, "<html>"), ("t/.well-known/openid-configuration", 200, GOOD)];
        assert!(fetch("https://i/t", &issuer(both)).is_ok());
        // Neither does an answer that breaks off, or is far too long.
        let cut = &[
            ("server/t", 1, "the answer is over 1048576 bytes"),
            ("t/.well-known/openid-configuration", 200, GOOD),
        ];
        assert!(fetch("https://i/t", &issuer(cut)).is_ok());
    }

    #[test]
    fn an_issuer_without_usable_metadata_is_told_with_its_address_and_answer() {
        let told = |answers| fetch("https://i/t", &issuer(answers)).unwrap_err().to_string();
        assert_eq!(
            told(&[("server/t", 302, "")]),
            "The issuer https://i/t has no metadata: https://i/.well-known/oauth-authorization-server/t answers 302 \
             Found, a redirect, which is not followed; https://i/t/.well-known/openid-configuration answers 404 Not \
             Found; https://i/.well-known/openid-configuration/t answers 404 Not Found"
        );
        assert_eq!(
            told(&[("server/t", 200, r#"{"issuer":"https://i/T"}"#)]),
            "The metadata at https://i/.well-known/oauth-authorization-server/t is of the issuer \"https://i/T\", and \
             not of \"https://i/t\": 'issuer' must be exactly as the issuer writes it"
        );
        assert_eq!(
            told(&[("server/t", 1, "the connection was closed")]),
            "The metadata at https://i/.well-known/oauth-authorization-server/t can't be read: the connection was closed"
        );
        assert_eq!(
            told(&[("server/t", 0, "no connection: refused")]),
            "The metadata at https://i/.well-known/oauth-authorization-server/t can't be read: no connection: refused"
        );
    }

    #[test]
    fn a_copy_of_today_needs_no_issuer_and_an_older_one_serves_while_the_issuer_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Timestamp::from_secs(1_800_000_000);
        let up = issuer(&[("server/t", 200, GOOD)]);
        let down = issuer(&[("server/t", 0, "no connection")]);
        let find = |send, now| find("https://i/t", folder.path(), send, now);
        assert!(find(&down, begun).is_err());
        assert_eq!(find(&up, begun).unwrap().1, None);
        let day = i64::try_from(KEPT_MAX_MS).unwrap();
        for (now, warns) in [(day - 1, false), (day, true), (-1, true)] {
            let (kept, warning) = find(&down, begun.plus_millis(now)).unwrap();
            assert_eq!(kept.fetched_at, begun);
            assert_eq!(warning.is_some(), warns, "{now}: {warning:?}");
        }
        let later = begun.plus_millis(day);
        assert_eq!(find(&up, later).unwrap().0.fetched_at, later);
    }
}
