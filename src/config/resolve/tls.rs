//! `settings.tls`: reads it and its files, and reports their problems.

use crate::clock::Timestamp;
use crate::config::assertion::SecretFile;
use crate::config::problem::Problem;
use crate::config::raw::{Document, Section};
use crate::config::resolve::assertion::{read_file, warn_if_open};
use crate::config::resolve::certificate_names::{ClientHosts, mismatches};
use crate::config::resolve::sources::Sources;
use crate::config::{ListenAddress, OwnTls, ServerKind, Settings};

const CERTIFICATE: &str = "cert_file";
const KEY: &str = "key_file";

/// Reads `tls` of `settings`, whose clients come under `hosts`, and reports its problems.
pub(super) fn read(
    settings: &Section<'_>,
    server: ServerKind,
    hosts: ClientHosts<'_>,
    sources: &Sources<'_>,
) -> Option<OwnTls> {
    if !settings.has("tls") {
        // Without keys, or with the other server, the address itself is a mistake.
        if hosts.has_keys && server == ServerKind::Builtin {
            warn_of_plain(settings, hosts.listen);
        }
        return None;
    }
    let section = settings.section("tls");
    section.require(CERTIFICATE, format!("'tls' needs a '{CERTIFICATE}'"));
    let certificate = read_file(&section, CERTIFICATE, sources);
    let own_key = read_file(&section, KEY, sources);
    section.finish(&[]);
    if server == ServerKind::TinyHttp {
        settings.error_at_key("tls", "\"tiny_http\" can't speak TLS; leave out 'server' or 'tls'");
    }
    let certificate = certificate?;
    let key_key = if own_key.is_some() { KEY } else { CERTIFICATE };
    let tls = OwnTls { key: own_key.unwrap_or_else(|| certificate.clone()), certificate };
    judge_files(&section, key_key, &tls, sources);
    if let Some(own) = tls.fitting_certificate() {
        for mismatch in mismatches(&own, hosts) {
            section.warn(CERTIFICATE, mismatch.message);
        }
    }
    // An address with a mistake is not among them.
    let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix { .. });
    if !hosts.listen.is_empty() && hosts.listen.iter().all(is_unix) {
        settings.warn("tls", "'tls' is for addresses with a port, and unix sockets stay without");
    }
    Some(tls)
}

/// Warns about addresses that other machines reach without TLS.
fn warn_of_plain(settings: &Section<'_>, listen: &[ListenAddress]) {
    if let Some(message) = plain_to_others(listen) {
        let key = if settings.has("listen") { "listen" } else { "host" };
        settings.warn(key, message);
    }
}

/// The warning about addresses without TLS, if other machines reach one of them.
pub(crate) fn plain_to_others(listen: &[ListenAddress]) -> Option<String> {
    let open = listen.iter().find(|address| !address.is_local())?;
    Some(format!(
        "other machines reach {open} without TLS, so keys and answers cross the network unencrypted: set 'tls', or put a \
         proxy that ends TLS before evertoken"
    ))
}

fn judge_files(section: &Section<'_>, key_key: &'static str, tls: &OwnTls, sources: &Sources<'_>) {
    if !is_there(section, CERTIFICATE, &tls.certificate) || !is_there(section, key_key, &tls.key) {
        return;
    }
    let shown = |file: &SecretFile| file.path.display().to_string();
    let unusable = |key: &'static str, file: &SecretFile, why: &dyn std::fmt::Display| {
        section.error_of_server(key, format!("'{}' can't be used: {why}", shown(file)));
    };
    match (tls.key.signing_key(), tls.certificate.certificate()) {
        (Ok(Ok(key)), Ok(Ok(own))) if !own.is_of(&key) => {
            let shown = shown(&tls.certificate);
            let place = tls.certificate.place_of(&key);
            let message = match place {
                Some(place) => format!(
                    "the first certificate in '{shown}' belongs to another key, and certificate {place} to this one: put it \
                     first, and those of its issuers behind it"
                ),
                None => format!("the certificate in '{shown}' belongs to another key"),
            };
            section.error_of_server(CERTIFICATE, message);
        }
        (Ok(Ok(_)), Ok(Ok(own))) => {
            if let Err(why) = tls.certificate.chain() {
                unusable(CERTIFICATE, &tls.certificate, &why);
            } else if let Some(why) = own.unfit_for_servers() {
                section.warn(
                    CERTIFICATE,
                    format!("the certificate in '{}' {why}", shown(&tls.certificate)),
                );
            }
        }
        (key, own) => {
            if let Ok(Err(why)) = key {
                unusable(key_key, &tls.key, &why);
            }
            if let Ok(Err(why)) = own {
                unusable(CERTIFICATE, &tls.certificate, &why);
            }
        }
    }
    warn_if_open(section, key_key, &tls.key.path, sources);
}

/// Reports a file that can't be read.
fn is_there(section: &Section<'_>, key: &'static str, file: &SecretFile) -> bool {
    if let Err(missing) = &file.found {
        section.error_of_server(key, missing.to_string());
    }
    file.found.is_ok()
}

/// The problems of the certificate in `settings` at `now` that a check reports and no start refuses, with their places in
/// `file`: a clock may be wrong while a machine starts, and clients may come under a name that the file does not tell.
pub(crate) fn judge(
    text: &str,
    file: &str,
    settings: Option<&Settings>,
    now: Timestamp,
) -> Vec<Problem> {
    let own = settings.and_then(|settings| Some((settings, settings.tls.as_ref()?)));
    let (Some((settings, own)), Ok(document)) = (own, Document::parse(text)) else {
        return Vec::new();
    };
    let Ok(Ok(certificate)) = own.certificate.certificate() else { return Vec::new() };
    let section = Section::root(&document).section("settings").section("tls");
    if certificate.ends < now {
        section.error(CERTIFICATE, format!("the certificate expired at {}", certificate.ends));
    } else if now < certificate.begins {
        let begins = certificate.begins;
        section.error(CERTIFICATE, format!("the certificate is not valid before {begins}"));
    }
    let hosts = ClientHosts {
        listen: &settings.listen,
        allowed: &settings.allowed_hosts,
        // A certain mismatch is one in both cases.
        are_written: true,
        has_keys: settings.inbound_keys.is_some(),
    };
    let fitting = own.fitting_certificate();
    let all = fitting.iter().flat_map(|own| mismatches(own, hosts));
    all.filter(|one| one.is_certain).for_each(|one| section.error(CERTIFICATE, one.message));
    document.problems(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{document, fine, refused, sources, told};

    const FINE: &str = "tls: {cert_file: /keys/p256-server-cert.pem, key_file: /p256}";

    #[test]
    fn a_certificate_and_its_key_from_two_files_or_none() {
        let tls = |settings: &str| fine(&document(settings, "auth_type: none")).settings.tls;
        assert_eq!(tls("tls: null"), None);
        let paths = tls(FINE).unwrap().paths();
        assert_eq!(paths.certificate.display().to_string(), "/keys/p256-server-cert.pem");
        assert_eq!(paths.key.display().to_string(), "/p256");
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let with = |settings: &str| document(settings, "auth_type: none");
        refused(
            &with(&format!("{FINE}, server: tiny_http")),
            "f:1:12: \"tiny_http\" can't speak TLS; leave out 'server' or 'tls'",
        );
        refused(
            &with("tls: {cert_file: /keys/rsa-cert.pem, key_file: /p256}"),
            "f:1:29: the certificate in '/keys/rsa-cert.pem' belongs to another key",
        );
        for (settings, line) in [
            (
                "tls: {cert_file: /keys/rsa-cert.pem, key_file: /open}",
                "f:1:59: warning: the private key '/open' has mode 640, so group or others can read it; chmod 600 it",
            ),
            (
                "listen: ['unix:/s'], tls: {cert_file: /keys/rsa-cert.pem, key_file: /rsa}",
                "f:1:38: warning: 'tls' is for addresses with a port, and unix sockets stay without",
            ),
            (
                "tls: {cert_file: /keys/rsa-cert.pem, key_file: /rsa}, host: a.example, auth: {enabled: true, \
                 api_key_env: KEYS}",
                "f:1:29: warning: the certificate in '/keys/rsa-cert.pem' names no host (subjectAltName), so \
                 browsers and programs in Go or Rust refuse it, whatever its CN is; openssl req has -addext \
                 'subjectAltName=DNS:NAME'",
            ),
            (
                "tls: {cert_file: /keys/rsa-cert.pem, key_file: /rsa}, host: a.example, auth: {enabled: true, \
                 api_key_env: KEYS}",
                "f:1:29: warning: the certificate is for no host but its CN evertoken-tests, and not for a.example: \
                 clients that use this name refuse it. If they come under a name of the certificate, add that to \
                 allowed_hosts",
            ),
        ] {
            let told = told(&with(settings));
            assert!(told.iter().any(|one| one == line), "{settings}: {told:?}");
        }
    }

    #[test]
    fn an_address_with_a_mistake_was_taken_for_a_unix_socket() {
        let told = told(&document(
            "listen: ['proxy.example:1'], tls: {cert_file: /keys/rsa-cert.pem, key_file: /rsa}",
            "auth_type: none",
        ));
        assert!(told[0].starts_with("f:1:21: proxy.example:1 is not a loopback"), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("unix")), "{told:?}");
    }

    /// It was a warning alone, so `check` went well.
    #[test]
    fn a_certificate_for_no_host_of_the_file_is_an_error_of_a_check_alone() {
        let judged = |settings: &str| {
            let text = document(&format!("{FINE}, {settings}"), "auth_type: none");
            let (config, warnings) = resolve(&text, "f", &sources()).unwrap();
            let now = Timestamp::from_secs(1_800_000_000);
            (warnings, judge(&text, "f", Some(&config.settings), now))
        };
        let keys = "auth: {enabled: true, api_key_env: KEYS}";
        let (warnings, errors) = judged(&format!("host: proxy.corp.example, {keys}"));
        let (warning, error) = (&warnings[0], &errors[0]);
        assert!(warning.is_warning && !error.is_warning);
        assert_eq!((&warning.message, warning.position), (&error.message, error.position));
        assert!(error.to_string().starts_with(
            "f:1:29: the certificate is for localhost, *.example, 127.0.0.1, and not for proxy.corp.example:"
        ));
        let named = format!("host: 192.0.2.1, allowed_hosts: [localhost], {keys}");
        assert_eq!(judged(&named), (Vec::new(), Vec::new()));
    }
}
