//! `grant_type`, with the keys that only one grant has.

use crate::config::assertion::doubt_about;
use crate::config::raw::Section;
use crate::config::resolve::sources::Sources;
use crate::config::resolve::{assertion, token_request};
use crate::config::{Assertion, GrantType, JwtBearer, TokenExchange};

/// The written word of `grant_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrantChoice {
    RefreshToken,
    ClientCredentials,
    JwtBearer,
    TokenExchange,
    /// No word, but the key `token_request`.
    Request,
}

/// The keys of the token exchange.
const EXCHANGE_KEYS: [&str; 6] = [
    "subject_token_env", "subject_token_file", "subject_token_type", "audience", "resource",
    "requested_token_type",
];
/// The beginning of the token types of RFC 8693 §3, and the words for the rest.
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";
const TOKEN_TYPES: [&str; 6] =
    ["jwt", "access_token", "id_token", "refresh_token", "saml1", "saml2"];

impl GrantChoice {
    /// Reads the word; None for an unknown one, which is reported.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        if section.has("token_request") {
            if section.has("grant_type") {
                let message = "a 'token_request' takes the place of a 'grant_type'";
                section.error("grant_type", message);
            }
            return Some(Self::Request);
        }
        section.known_choice(
            "grant_type",
            &[
                ("refresh_token", Self::RefreshToken),
                ("client_credentials", Self::ClientCredentials),
                ("jwt_bearer", Self::JwtBearer),
                ("token_exchange", Self::TokenExchange),
            ],
        )
    }

    /// The word.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
            Self::JwtBearer => "jwt_bearer",
            Self::TokenExchange => "token_exchange",
            Self::Request => "a 'token_request'",
        }
    }

    /// True if the grant names the client by itself, or needs none.
    pub(super) const fn needs_no_client(self) -> bool {
        matches!(self, Self::JwtBearer | Self::TokenExchange | Self::Request)
    }
}

/// Reads the keys of the chosen grant, and reports those of others.
pub(super) fn read(
    section: &Section<'_>,
    choice: Option<GrantChoice>,
    is_enabled: bool,
    sources: &Sources<'_>,
) -> GrantType {
    let Some(choice) = choice else {
        // An unknown word was reported; the keys of no grant are wrong because of it.
        let _ = EXCHANGE_KEYS.iter().chain(&["assertion"]).filter(|key| section.has(key)).count();
        return GrantType::RefreshToken;
    };
    if choice != GrantChoice::JwtBearer {
        refuse(section, &["assertion"], "jwt_bearer");
    }
    if choice != GrantChoice::TokenExchange {
        refuse(section, &EXCHANGE_KEYS, "token_exchange");
    }
    match choice {
        GrantChoice::RefreshToken => GrantType::RefreshToken,
        GrantChoice::ClientCredentials => GrantType::ClientCredentials,
        GrantChoice::JwtBearer => {
            let own = section.section("assertion");
            if is_enabled && !own.is_unreadable() {
                section.require("assertion", "jwt_bearer needs an 'assertion'");
            }
            let is_bearer = own.choice("as", &[("assertion", false), ("bearer", true)]);
            if !section.has("assertion") {
                return GrantType::ClientCredentials;
            }
            let read = assertion::read(&own, "assertion", sources);
            // The stand-in is never used, because the lack was reported.
            read.map_or(GrantType::ClientCredentials, |assertion| {
                GrantType::JwtBearer(Box::new(JwtBearer { assertion, is_bearer }))
            })
        }
        GrantChoice::TokenExchange => read_exchange(section, is_enabled, sources),
        GrantChoice::Request => GrantType::Request(Box::new(token_request::read(section, sources))),
    }
}

fn refuse(section: &Section<'_>, keys: &[&'static str], grant: &str) {
    for key in keys.iter().filter(|key| section.has(key)) {
        let other = match *key {
            "audience" | "resource" => "; for other grants, write it in 'extra_params'",
            _ => "",
        };
        section.error(key, format!("'{key}' is for grant_type \"{grant}\"{other}"));
    }
}

fn read_exchange(section: &Section<'_>, is_enabled: bool, sources: &Sources<'_>) -> GrantType {
    let subject = sources.secret(section, "subject_token_env", "subject_token_file", is_enabled);
    if is_enabled && subject.is_none() {
        let message = "token_exchange needs a 'subject_token_file' or a 'subject_token_env'";
        section.require("subject_token_file", message);
    }
    let requested = token_type(section, "requested_token_type");
    let parameters = [
        ("audience", section.text("audience")),
        ("resource", section.text("resource")),
        ("requested_token_type", requested),
    ];
    let subject_token_type = token_type(section, "subject_token_type");
    let Some(subject) = subject else { return GrantType::ClientCredentials };
    if let Some(doubt) = doubt_about(&subject.found, sources.now) {
        match &subject.file {
            Some(path) => {
                section.warn("subject_token_file", format!("'{}' {doubt}", path.display()));
            }
            None => section.warn("subject_token_env", format!("its variable {doubt}")),
        }
    }
    GrantType::TokenExchange(Box::new(TokenExchange {
        subject_token: subject.found,
        subject_token_file: subject.file,
        subject_token_type: subject_token_type.unwrap_or_else(|| format!("{TOKEN_TYPE}jwt")),
        parameters: parameters.into_iter().filter_map(|(name, text)| Some((name, text?))).collect(),
    }))
}

/// A token type: a URI, or a word for one of RFC 8693.
fn token_type(section: &Section<'_>, key: &'static str) -> Option<String> {
    let written = section.text(key)?;
    if TOKEN_TYPES.contains(&written.as_str()) {
        return Some(format!("{TOKEN_TYPE}{written}"));
    }
    if !written.contains(':') {
        let words = TOKEN_TYPES.map(|word| format!("\"{word}\"")).join(", ");
        section.error(key, format!("'{key}' must be one of {words}, or a URI, not \"{written}\""));
    }
    Some(written)
}

/// Reports a grant whose assertion would not say who issued it.
pub(super) fn check_issuer(section: &Section<'_>, grant: &GrantType, has_client: bool) {
    let GrantType::JwtBearer(bearer) = grant else { return };
    let Assertion::Signed(signed) = &bearer.assertion else { return };
    let is_claimed = signed.content.claims.iter().any(|(name, _)| name == "iss");
    let is_known = is_claimed || has_client || signed.key.found.is_err();
    if !is_known && signed.account().is_none() {
        let message =
            "the assertion needs an 'iss': write it in its 'claims', or give a client_id_env";
        section.error("assertion", message);
    }
}
