//! `assertion` and `client_assertion`: the sections, and the key files that they name.

use std::path::Path;

use crate::config::assertion::doubt_about;
use crate::config::key_file::{KeyFile, KeyFileProblem};
use crate::config::raw::Section;
use crate::config::resolve::sources::Sources;
use crate::config::{Assertion, AssertionContent, SecretFile, SignedAssertion, secret_of_file};
use crate::signing::{Algorithm, SigningKey};

/// Bounds of `lifetime`: an assertion begins half a minute early, and nobody takes one that is good for longer than a
/// day.
const LIFETIME_MIN_SECONDS: u64 = 60;
const LIFETIME_MAX_SECONDS: u64 = 24 * 3600;
/// Claims that are new for each assertion.
const OWN_CLAIMS: [&str; 4] = ["iat", "nbf", "exp", "jti"];
/// Keys that only a signed assertion has.
const SIGNED_KEYS: [&str; 6] =
    ["key_file", "algorithm", "key_id", "cert_file", "claims", "lifetime"];

/// The assertion in `section`, which is called `key`; None if it names no file, which is reported. Further keys of the
/// section were read before.
pub(super) fn read(section: &Section<'_>, key: &str, sources: &Sources<'_>) -> Option<Assertion> {
    let token_file = read_file(section, "token_file", sources);
    if let Some(file) = token_file {
        for other in SIGNED_KEYS.into_iter().filter(|other| section.has(other)) {
            section.error(
                other,
                format!("'{other}' does not go with 'token_file', whose token is signed already"),
            );
        }
        if let Some(doubt) = doubt_about(&file.found, sources.now) {
            section.warn("token_file", format!("'{}' {doubt}", file.path.display()));
        }
        section.finish(&[]);
        return Some(Assertion::Ready(file));
    }
    let key_file = read_file(section, "key_file", sources);
    let algorithms = Algorithm::ALL.map(|algorithm| (algorithm.name(), Some(algorithm)));
    let written = section.has("algorithm");
    let algorithm = section.known_choice("algorithm", &algorithms).flatten().filter(|_| written);
    let (key_id, content) = (section.text("key_id"), read_content(section));
    let certificate = read_file(section, "cert_file", sources);
    let signed =
        key_file.map(|key| SignedAssertion { key, algorithm, key_id, certificate, content });
    match &signed {
        Some(signed) => check_key(section, signed, sources),
        None if section.is_unreadable() || section.has("key_file") => {}
        None => {
            section.require("key_file", format!("'{key}' needs a 'key_file' or a 'token_file'"));
        }
    }
    section.finish(&[]);
    signed.map(|signed| Assertion::Signed(Box::new(signed)))
}

/// The claims and the lifetime in `section`.
pub(super) fn read_content(section: &Section<'_>) -> AssertionContent {
    let claims = section.json_map("claims");
    for (name, value) in &claims {
        if OWN_CLAIMS.contains(&name.as_str()) && !value.is_null() {
            let message = format!(
                "'{name}' is new in each assertion, so it can't be written; 'lifetime' sets the time between 'iat' \
                 and 'exp', and null takes a claim out"
            );
            section.error_in("claims", name, message);
        }
    }
    let lifetime = section.seconds("lifetime", 300, LIFETIME_MIN_SECONDS, LIFETIME_MAX_SECONDS);
    AssertionContent { claims, lifetime }
}

/// The file that `key` names, with its content.
pub(super) fn read_file(
    section: &Section<'_>,
    key: &'static str,
    sources: &Sources<'_>,
) -> Option<SecretFile> {
    let path = sources.path(section, key)?;
    if path.as_os_str().is_empty() {
        section.error(key, format!("'{key}' is empty, and there has to be one"));
        return None;
    }
    let found = secret_of_file(&path, (sources.files)(&path));
    Some(SecretFile { path, found })
}

/// Reports a file without a usable key, and one that others can read. A missing file is reported as other missing
/// secrets are.
fn check_key(section: &Section<'_>, signed: &SignedAssertion, sources: &Sources<'_>) {
    let Ok(text) = &signed.key.found else { return };
    let shown = signed.key.path.display();
    let checked = KeyFile::read(text).and_then(|file| Ok(file.key(signed.algorithm)?.0));
    match checked {
        Ok(key) => {
            if let Some(certificate) = &signed.certificate {
                check_certificate(section, "cert_file", certificate, &key, sources);
            }
        }
        Err(problem @ KeyFileProblem::Unfit(..)) => {
            section.error("algorithm", format!("'algorithm' does not fit '{shown}': {problem}"));
        }
        Err(problem) => section.error("key_file", format!("'{shown}' can't be used: {problem}")),
    }
    warn_if_open(section, "key_file", &signed.key.path, sources);
}

/// Reports a certificate that can't be read or that belongs to another key, and warns about one that has expired.
pub(super) fn check_certificate(
    section: &Section<'_>,
    key: &'static str,
    file: &SecretFile,
    signing_key: &SigningKey,
    sources: &Sources<'_>,
) {
    let shown = file.path.display();
    let Ok(found) = file.certificate() else { return };
    match found {
        Err(problem) => section.error(key, format!("'{shown}' can't be used: {problem}")),
        Ok(certificate) if !certificate.is_of(signing_key) => {
            section.error(key, format!("the certificate in '{shown}' belongs to another key"));
        }
        Ok(certificate) if certificate.ends < sources.now => {
            section
                .warn(key, format!("the certificate in '{shown}' expired at {}", certificate.ends));
        }
        Ok(_) => {}
    }
}

/// Warns about a private key that group or others can read.
pub(super) fn warn_if_open(
    section: &Section<'_>,
    key: &'static str,
    path: &Path,
    sources: &Sources<'_>,
) {
    // systemd opens its copies to their one reader by an access list, which looks like the group's right to read.
    let handed_over = sources.variable("CREDENTIALS_DIRECTORY");
    if handed_over.is_some_and(|folder| path.starts_with(folder)) {
        return;
    }
    let mode = (sources.file_modes)(path).unwrap_or_default() & 0o7777;
    if mode & 0o044 != 0 {
        let message = format!(
            "the private key '{}' has mode {mode:o}, so group or others can read it; chmod 600 it",
            path.display()
        );
        section.warn(key, message);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::config::resolve::tests::{fine, lacks, refresh, refused, told, with_config};
    use crate::config::{Assertion, AutoRefresh, ClientAuth, GrantType};

    const MACHINE: &str =
        "token_url: https://i/t\nclient_id_env: ID\ngrant_type: client_credentials\n";

    fn read(lines: &str) -> AutoRefresh {
        refresh(&fine(&with_config(lines))).clone()
    }

    #[test]
    fn a_client_with_a_key_needs_no_secret() {
        for auth in ["", "client_auth: private_key_jwt\n"] {
            let config = read(&format!(
                "{MACHINE}{auth}client_assertion: {{key_file: /p256, key_id: k, lifetime: 60, claims: {{aud: [a, b], n: 7, \
                 deep: {{t: true}}, nbf: null, x: 1.5}}}}"
            ));
            let ClientAuth::PrivateKeyJwt(Assertion::Signed(signed)) = config.client_auth else {
                panic!("{auth}")
            };
            assert_eq!(signed.key_id.as_deref(), Some("k"));
            assert_eq!(signed.content.lifetime.as_secs(), 60);
            let claims: serde_json::Map<_, _> = signed.content.claims.into_iter().collect();
            assert_eq!(
                json!(claims),
                json!({"aud": ["a", "b"], "n": 7, "deep": {"t": true}, "nbf": null, "x": 1.5})
            );
        }
        let config = read(&format!("{MACHINE}client_assertion: {{token_file: /token}}"));
        let ClientAuth::PrivateKeyJwt(Assertion::Ready(file)) = config.client_auth else {
            panic!()
        };
        assert_eq!(file.found.unwrap().expose(), "from-file");
        let config =
            read(&format!("{MACHINE}client_secret_env: SECRET\nclient_auth: client_secret_jwt"));
        assert!(matches!(config.client_auth, ClientAuth::SecretJwt(_)));
        assert!(config.client_secret.is_some());
    }

    #[test]
    fn the_file_of_a_service_account_gives_the_token_endpoint() {
        let lines = "grant_type: jwt_bearer\nassertion: {key_file: /account}";
        let config = read(lines);
        assert_eq!(config.token_url, "https://oauth2.test/token");
        assert!(matches!(config.grant_type, GrantType::JwtBearer(_)));
        let written = read(&format!("{lines}\ntoken_url: https://other/t"));
        assert_eq!(written.token_url, "https://other/t");
        // As other secret files, one that is not there yet is no mistake.
        let config = fine(&with_config("grant_type: jwt_bearer\nassertion: {key_file: /none}"));
        assert_eq!(lacks(&config).len(), 1);
        assert_eq!(refresh(&config).client_hash(), None);
    }

    #[test]
    fn another_account_of_the_same_file_is_another_client() {
        let hash = |claims: &str| {
            let lines = format!(
                "grant_type: jwt_bearer\nassertion: {{key_file: /account, claims: {{{claims}}}}}"
            );
            read(&lines).client_hash().unwrap()
        };
        assert_eq!(hash("sub: a"), hash("sub: a"));
        assert_ne!(hash("sub: a"), hash("sub: b"));
        assert_ne!(hash("sub: a"), hash(""));
    }

    #[test]
    fn keys_that_can_t_sign_are_told_with_their_place() {
        let place = "f:10:36: '/keys/";
        for (file, part) in [
            ("public", "it holds a public key"),
            ("encrypted", "its key is encrypted with a passphrase"),
            ("rsa-cert", "it holds a certificate and no private key"),
            ("rsa1024", "its RSA key has 1024 bits"),
            ("ed448", "its key is of the kind Ed448"),
            ("openssh", "ssh-keygen -p -m PKCS8"),
        ] {
            let lines = format!("{MACHINE}client_assertion: {{key_file: /keys/{file}.pem}}");
            let all = told(&with_config(&lines));
            assert_eq!(all.len(), 1, "{all:?}");
            assert!(all[0].starts_with(place) && all[0].contains(part), "{all:?}");
        }
        for (more, message) in [
            (
                "key_file: /p256, algorithm: RS256",
                "f:10:54: 'algorithm' does not fit '/p256': it holds a key of the kind P-256, but 'algorithm' is RS256; \
                 ES256 fits this key",
            ),
            (
                "key_file: /p256, algorithm: HS256",
                "f:10:54: 'algorithm' must be one of \"RS256\", \"PS256\", \"ES256\", \"ES384\", \"EdDSA\", not \
                 \"HS256\"; did you mean \"ES256\"?",
            ),
            (
                "key_file: /p256, cert_file: /keys/rsa-cert.pem",
                "f:10:54: the certificate in '/keys/rsa-cert.pem' belongs to another key",
            ),
            (
                "key_file: /p256, cert_file: /p256",
                "f:10:54: '/p256' can't be used: there is no PEM certificate in it (it would begin with -----BEGIN \
                 CERTIFICATE-----)",
            ),
            (
                "key_file: /p256, lifetime: 59",
                "f:10:53: 'lifetime' must be a whole number from 60 to 86400, not 59",
            ),
            (
                "key_file: /p256, lifetime: 86401",
                "f:10:53: 'lifetime' must be a whole number from 60 to 86400, not 86401",
            ),
            (
                "key_file: /p256, claims: {exp: 7}",
                "f:10:52: 'exp' is new in each assertion, so it can't be written; 'lifetime' sets the time between 'iat' \
                 and 'exp', and null takes a claim out",
            ),
            (
                "key_file: /p256, token_file: /token",
                "f:10:36: 'key_file' does not go with 'token_file', whose token is signed already",
            ),
            ("key_id: k", "f:10:25: 'client_assertion' needs a 'key_file' or a 'token_file'"),
            (
                "key_file: /p256, keyid: k",
                "f:10:43: unknown key 'keyid' in client_assertion, did you mean 'key_id'?",
            ),
        ] {
            refused(&with_config(&format!("{MACHINE}client_assertion: {{{more}}}")), message);
        }
        fine(&with_config(&format!(
            "{MACHINE}client_assertion: {{key_file: /p256, lifetime: 86400}}"
        )));
    }

    #[test]
    fn a_key_that_others_can_read_and_a_certificate_that_has_expired_are_warned_about() {
        let told =
            |more: &str| told(&with_config(&format!("{MACHINE}client_assertion: {{{more}}}")));
        assert_eq!(
            told("key_file: /open"),
            [
                "f:10:36: warning: the private key '/open' has mode 640, so group or others can read it; chmod 600 it"
            ]
        );
        assert_eq!(
            told("key_file: /p256, cert_file: /keys/p256-expired-cert.pem"),
            [
                "f:10:54: warning: the certificate in '/keys/p256-expired-cert.pem' expired at 2026-11-28T07:03:43.000Z"
            ]
        );
        assert_eq!(told("key_file: /p256, cert_file: /keys/p256-cert.pem"), [""; 0]);
    }

    #[test]
    fn keys_of_another_grant_or_authentication_are_told() {
        let grant = |lines: &str| format!("token_url: https://i/t\nclient_id_env: ID\n{lines}");
        for (lines, message) in [
            ("grant_type: jwt_bearer", "f:7:7: jwt_bearer needs an 'assertion'"),
            (
                "grant_type: token_exchange",
                "f:7:7: token_exchange needs a 'subject_token_file' or a 'subject_token_env'",
            ),
            (
                "grant_type: token_exchange\nsubject_token_file: /token\nsubject_token_type: jwtt",
                "f:11:27: 'subject_token_type' must be one of \"jwt\", \"access_token\", \"id_token\", \
                 \"refresh_token\", \"saml1\", \"saml2\", or a URI, not \"jwtt\"",
            ),
            (
                "grant_type: jwt_bearer\nassertion: {key_file: /p256}\nrefresh_token_env: TOKEN",
                "f:9:19: jwt_bearer uses no refresh token",
            ),
            (
                "refresh_token_env: TOKEN\nassertion: {key_file: /p256}",
                "f:10:18: 'assertion' is for grant_type \"jwt_bearer\"",
            ),
            (
                "refresh_token_env: TOKEN\naudience: a",
                "f:10:17: 'audience' is for grant_type \"token_exchange\"; for other grants, write it in 'extra_params'",
            ),
            (
                "grant_type: client_credentials\nclient_secret_env: SECRET\nclient_auth: client_secret_post\n\
                 client_assertion: {key_file: /p256}",
                "f:12:25: 'client_assertion' is for client_auth \"private_key_jwt\" or \"client_secret_jwt\"",
            ),
            (
                "grant_type: client_credentials\nclient_auth: private_key_jwt",
                "f:10:20: 'client_auth' is \"private_key_jwt\", which needs a 'client_assertion' with a 'key_file' or \
                 a 'token_file'",
            ),
        ] {
            refused(&with_config(&grant(lines)), message);
        }
        // An unknown word is told, and not what only follows from it.
        refused(
            &with_config(
                "token_url: https://i/t\ngrant_type: jwt-bearer\nassertion: {key_file: /p256}",
            ),
            "f:8:19: 'grant_type' must be one of \"refresh_token\", \"client_credentials\", \"jwt_bearer\", \
             \"token_exchange\", not \"jwt-bearer\"; did you mean \"jwt_bearer\"?",
        );
        refused(
            &with_config(
                "token_url: https://i/t\ngrant_type: jwt_bearer\nassertion: {key_file: /p256}",
            ),
            "f:9:18: the assertion needs an 'iss': write it in its 'claims', or give a client_id_env",
        );
        fine(&with_config(
            "token_url: https://i/t\ngrant_type: jwt_bearer\nassertion: {key_file: /p256, claims: {iss: 123}}",
        ));
    }

    #[test]
    fn the_blocks_of_the_page_on_ways_to_a_token_are_valid() {
        let page = include_str!("../../../docs/tokens.md");
        let blocks = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut count = 0;
        for block in blocks {
            let config = fine(&format!("providers:\n{block}"));
            let account = block.contains("credentials.json") || block.contains("token_command");
            assert_eq!(refresh(&config).token_url.is_empty(), account, "{block}");
            count += 1;
        }
        assert!(count >= 8, "{count}");
    }

    #[test]
    fn a_token_exchange_needs_no_client() {
        let config = read(
            "token_url: https://i/t\ngrant_type: token_exchange\nsubject_token_file: /token\naudience: //a\n\
             requested_token_type: access_token",
        );
        let GrantType::TokenExchange(exchange) = &config.grant_type else { panic!() };
        assert_eq!(exchange.subject_token_type, "urn:ietf:params:oauth:token-type:jwt");
        let of = |text: &str| text.to_owned();
        assert_eq!(
            exchange.parameters,
            [
                ("audience", of("//a")),
                ("requested_token_type", of("urn:ietf:params:oauth:token-type:access_token")),
            ]
        );
        assert!(config.client_hash().is_some());
        assert_eq!((config.client_auth, config.client_id), (ClientAuth::None, Ok(String::new())));
    }
}
