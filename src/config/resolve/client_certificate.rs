//! `client_cert_file` and `client_key_file` of `auto_refresh_config`, and `client_cert` of a provider.

use crate::config::raw::Section;
use crate::config::resolve::assertion::{check_certificate, read_file, warn_if_open};
use crate::config::resolve::sources::Sources;
use crate::config::{ClientCertificate, ClientCertificateFiles, Credential};

const CHAIN: &str = "client_cert_file";
const KEY: &str = "client_key_file";

/// Reads the two files and reports their problems. Missing ones are reported as other missing secrets are.
pub(super) fn read(section: &Section<'_>, sources: &Sources<'_>) -> Option<ClientCertificate> {
    let chain = read_file(section, CHAIN, sources);
    let own_key = read_file(section, KEY, sources);
    let Some(chain) = chain else {
        if section.has(KEY) && !section.has(CHAIN) {
            section.error(KEY, format!("'{KEY}' needs a '{CHAIN}'"));
        }
        return None;
    };
    let key_key = if own_key.is_some() { KEY } else { CHAIN };
    let read = ClientCertificate { key: own_key.unwrap_or_else(|| chain.clone()), chain };
    if let Ok(key) = read.key.signing_key() {
        match key {
            Ok(key) => check_certificate(section, CHAIN, &read.chain, &key, sources),
            Err(problem) => {
                let hint = if key_key == CHAIN {
                    "; its key may stand in a 'client_key_file'"
                } else {
                    ""
                };
                let shown = read.key.path.display();
                section.error(key_key, format!("'{shown}' can't be used: {problem}{hint}"));
            }
        }
        warn_if_open(section, key_key, &read.key.path, sources);
    }
    Some(read)
}

/// The files for the provider's own connections, if `client_cert` asks for them.
pub(super) fn for_provider(
    section: &Section<'_>,
    credential: &Credential,
) -> Option<ClientCertificateFiles> {
    let wanted = section.flag("client_cert", false);
    let certificate = match credential {
        Credential::Refreshed(refresh) => refresh.client_certificate.as_ref(),
        _ => None,
    };
    if wanted && certificate.is_none() && !section.section("auto_refresh_config").has(CHAIN) {
        let message = "'client_cert' needs a 'client_cert_file' in auto_refresh_config";
        section.error("client_cert", message);
    }
    certificate.filter(|_| wanted).map(ClientCertificate::paths)
}

#[cfg(test)]
mod tests {
    use crate::config::resolve::tests::{document, fine, refresh, refused, told, with_config};
    use crate::config::{ClientAuth, Config};

    const MACHINE: &str =
        "token_url: https://i/t\nclient_id_env: ID\ngrant_type: client_credentials\n";
    const RSA: &str = "client_cert_file: /keys/rsa-cert.pem\nclient_key_file: /rsa";

    #[test]
    fn a_client_with_a_certificate_needs_no_secret() {
        for auth in
            ["", "\nclient_auth: tls_client_auth", "\nclient_auth: self_signed_tls_client_auth"]
        {
            let config = fine(&with_config(&format!("{MACHINE}{RSA}{auth}")));
            assert_eq!(refresh(&config).client_auth, ClientAuth::Tls);
            assert!(refresh(&config).client_certificate.is_some());
        }
        // Banks want both.
        let config = fine(&with_config(&format!("{MACHINE}{RSA}\nclient_secret_env: SECRET")));
        assert_eq!(refresh(&config).client_auth, ClientAuth::SecretPost);
    }

    #[test]
    fn a_file_with_both_that_is_missing_is_told_once() {
        let config = fine(&with_config(&format!("{MACHINE}client_cert_file: /none")));
        assert_eq!(refresh(&config).missing_of_client().len(), 1);
    }

    #[test]
    fn the_provider_s_own_connections_show_it_only_if_they_are_to() {
        let with = |line: &str| {
            let lines: String =
                format!("{MACHINE}{RSA}").lines().map(|line| format!("  {line}\n")).collect();
            document("", &format!("{line}auto_refresh_config:\n{lines}"))
        };
        let shows = |config: &Config| config.providers[0].egress.client_certificate.is_some();
        assert!(shows(&fine(&with("client_cert: true\n"))));
        assert!(!shows(&fine(&with("client_cert: false\n"))) && !shows(&fine(&with(""))));
        assert!(fine(&with("")).providers[0].token_egress().client_certificate.is_some());
        refused(
            &document("", "client_cert: true\nauth_value_env: TOKEN\n"),
            "f:6:18: 'client_cert' needs a 'client_cert_file' in auto_refresh_config",
        );
    }

    #[test]
    fn files_that_do_not_fit_are_told_with_their_place() {
        for (lines, message) in [
            (
                "client_cert_file: /keys/rsa-cert.pem\nclient_key_file: /p256",
                "f:10:25: the certificate in '/keys/rsa-cert.pem' belongs to another key",
            ),
            (
                "client_cert_file: /keys/rsa-cert.pem",
                "f:10:25: '/keys/rsa-cert.pem' can't be used: it holds a certificate and no private key; its key may \
                 stand in a 'client_key_file'",
            ),
            (
                "client_cert_file: /rsa",
                "f:10:25: '/rsa' can't be used: there is no PEM certificate in it (it would begin with -----BEGIN \
                 CERTIFICATE-----)",
            ),
            (
                "client_cert_file: /keys/rsa-cert.pem\nclient_key_file: /keys/encrypted.pem",
                "f:11:24: '/keys/encrypted.pem' can't be used: its key is encrypted with a passphrase, which nobody \
                 could type in; openssl pkey -in FILE -out NEW writes it without one",
            ),
            (
                "client_key_file: /rsa\nclient_secret_env: SECRET",
                "f:10:24: 'client_key_file' needs a 'client_cert_file'",
            ),
            (
                "client_auth: tls_client_auth",
                "f:10:20: this 'client_auth' needs a 'client_cert_file'",
            ),
        ] {
            refused(&with_config(&format!("{MACHINE}{lines}")), message);
        }
        let expired = "client_cert_file: /keys/p256-expired-cert.pem\nclient_key_file: /p256";
        assert_eq!(
            told(&with_config(&format!("{MACHINE}{expired}"))),
            [
                "f:10:25: warning: the certificate in '/keys/p256-expired-cert.pem' expired at 2026-11-28T07:03:43.000Z"
            ]
        );
        let open = "client_cert_file: /keys/rsa-cert.pem\nclient_key_file: /open";
        assert_eq!(
            told(&with_config(&format!("{MACHINE}{open}"))),
            [
                "f:11:24: warning: the private key '/open' has mode 640, so group or others can read it; chmod 600 it"
            ]
        );
    }
}
