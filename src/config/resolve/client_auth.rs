//! `client_auth`, with the secret or the assertion that it needs.

use crate::config::ClientAuth;
use crate::config::raw::Section;
use crate::config::resolve::assertion;
use crate::config::resolve::grant::GrantChoice;
use crate::config::resolve::sources::Sources;

/// The written word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    SecretPost,
    SecretBasic,
    None,
    PrivateKeyJwt,
    SecretJwt,
    Tls,
}

/// The configured credentials of the client, besides a `client_assertion`.
#[derive(Clone, Copy)]
pub(super) struct Has {
    pub(super) secret: bool,
    pub(super) certificate: bool,
}

/// Reads the keys and reports their problems.
pub(super) fn read(
    section: &Section<'_>,
    grant: GrantChoice,
    has: Has,
    sources: &Sources<'_>,
) -> ClientAuth {
    let written = section.has("client_auth");
    let has_assertion = section.has("client_assertion");
    let chosen = section.known_choice(
        "client_auth",
        &[
            ("client_secret_post", Choice::SecretPost),
            ("client_secret_basic", Choice::SecretBasic),
            ("none", Choice::None),
            ("private_key_jwt", Choice::PrivateKeyJwt),
            ("client_secret_jwt", Choice::SecretJwt),
            ("tls_client_auth", Choice::Tls),
            ("self_signed_tls_client_auth", Choice::Tls),
        ],
    );
    let choice = match chosen {
        Some(chosen) if written => chosen,
        _ if has_assertion => Choice::PrivateKeyJwt,
        // An unknown word is reported, and its consequences are not.
        None => return ClientAuth::SecretPost,
        Some(_) if has.secret => Choice::SecretPost,
        Some(_) if has.certificate => Choice::Tls,
        Some(_) => Choice::None,
    };
    let needs_secret =
        matches!(choice, Choice::SecretPost | Choice::SecretBasic | Choice::SecretJwt);
    if needs_secret && !has.secret {
        section.error(
            "client_auth",
            "this 'client_auth' needs a client_secret_env or client_secret_file",
        );
    }
    match choice {
        Choice::None if has.secret => {
            section.warn("client_auth", "'client_auth' is \"none\", so the secret is not sent");
        }
        Choice::None if grant == GrantChoice::ClientCredentials => section.error(
            "grant_type",
            "client_credentials needs a client_secret_env or client_secret_file, a client_assertion or a client_cert_file",
        ),
        Choice::Tls if !has.certificate => {
            section.error("client_auth", "this 'client_auth' needs a 'client_cert_file'");
        }
        Choice::Tls if has.secret => {
            let message = "the client is authenticated by its certificate, so the secret is not sent";
            section.warn("client_auth", message);
        }
        Choice::PrivateKeyJwt if has.secret => {
            let message = "the client is authenticated by its 'client_assertion', so the secret is not sent";
            section.warn("client_auth", message);
        }
        _ => {}
    }
    let own = section.section("client_assertion");
    match choice {
        Choice::SecretPost => without_assertion(&own, section, ClientAuth::SecretPost),
        Choice::SecretBasic => without_assertion(&own, section, ClientAuth::SecretBasic),
        Choice::None => without_assertion(&own, section, ClientAuth::None),
        Choice::Tls => without_assertion(&own, section, ClientAuth::Tls),
        Choice::SecretJwt => {
            let content = assertion::read_content(&own);
            for key in ["key_file", "token_file"].into_iter().filter(|key| own.has(key)) {
                own.error(key, format!("client_secret_jwt is signed with the client's secret, so '{key}' is not used; for a key, \
                                        write client_auth \"private_key_jwt\""));
            }
            own.finish(&[]);
            ClientAuth::SecretJwt(content)
        }
        Choice::PrivateKeyJwt => {
            if !has_assertion {
                let message = "'client_auth' is \"private_key_jwt\", which needs a 'client_assertion' with a 'key_file' or a 'token_file'";
                section.error("client_auth", message);
                return ClientAuth::None;
            }
            let read = assertion::read(&own, "client_assertion", sources);
            read.map_or(ClientAuth::None, ClientAuth::PrivateKeyJwt)
        }
    }
}

/// `client_auth`, for which a `client_assertion` has no use.
fn without_assertion(
    own: &Section<'_>,
    section: &Section<'_>,
    client_auth: ClientAuth,
) -> ClientAuth {
    if section.has("client_assertion") && !own.is_unreadable() {
        section.error(
            "client_assertion",
            "'client_assertion' is for client_auth \"private_key_jwt\" or \"client_secret_jwt\"",
        );
    }
    client_auth
}
