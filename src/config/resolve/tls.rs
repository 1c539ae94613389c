//! `settings.tls`: reads it and its files, and reports their problems.

use crate::clock::Timestamp;
use crate::config::assertion::SecretFile;
use crate::config::problem::Problem;
use crate::config::raw::{Document, Section};
use crate::config::resolve::assertion::{read_file, warn_if_open};
use crate::config::resolve::sources::Sources;
use crate::config::{ListenAddress, OwnTls, ServerKind};
use crate::signing::Certificate;

const CERTIFICATE: &str = "cert_file";
const KEY: &str = "key_file";

/// Reads `tls` of `settings`, which listens on `listen`, and reports its problems.
pub(super) fn read(
    settings: &Section<'_>,
    server: ServerKind,
    listen: &[ListenAddress],
    has_keys: bool,
    sources: &Sources<'_>,
) -> Option<OwnTls> {
    if !settings.has("tls") {
        // Without keys, or with the other server, the address itself is a mistake.
        if has_keys && server == ServerKind::Builtin {
            warn_of_plain(settings, listen);
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
    if listen.iter().all(|address| matches!(address, ListenAddress::Unix { .. })) {
        settings.warn("tls", "'tls' is for addresses with a port, and unix sockets stay without");
    }
    if let Ok(Ok(own)) = tls.certificate.certificate() {
        warn_of_names(&section, &own, listen);
    }
    Some(tls)
}

/// Warns about addresses that other machines reach without TLS.
fn warn_of_plain(settings: &Section<'_>, listen: &[ListenAddress]) {
    if let Some(open) = listen.iter().find(|address| !address.is_local()) {
        let key = if settings.has("listen") { "listen" } else { "host" };
        let message = format!(
            "other machines reach {open} without TLS, so keys and answers cross the network unencrypted: set 'tls', or \
             put a proxy that ends TLS before evertoken"
        );
        settings.warn(key, message);
    }
}

fn judge_files(section: &Section<'_>, key_key: &'static str, tls: &OwnTls, sources: &Sources<'_>) {
    if !is_there(section, CERTIFICATE, &tls.certificate) || !is_there(section, key_key, &tls.key) {
        return;
    }
    let shown = |file: &SecretFile| file.path.display().to_string();
    let unusable = |key: &'static str, file: &SecretFile, why: &dyn std::fmt::Display| {
        section.error(key, format!("'{}' can't be used: {why}", shown(file)));
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
            section.error(CERTIFICATE, message);
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
        section.error(key, missing.to_string());
    }
    file.found.is_ok()
}

/// Warns about a host to listen on that the certificate is not for. An address that stands for all of them, or for this
/// machine alone, says nothing about the name that clients use.
fn warn_of_names(section: &Section<'_>, own: &Certificate, listen: &[ListenAddress]) {
    let names = own.names();
    let is_unfit = |host: &str| {
        let host = host.to_ascii_lowercase();
        !names.is_empty() && !is_unspecific(&host) && !names.iter().any(|name| covers(name, &host))
    };
    let hosts = listen.iter().filter_map(|address| match address {
        ListenAddress::Tcp { host, .. } => Some(host),
        ListenAddress::Unix { .. } => None,
    });
    for host in hosts.filter(|host| is_unfit(host)) {
        let message = format!(
            "the certificate is for {}, and not for {host}: clients that use this name refuse it",
            names.join(", ")
        );
        section.warn(CERTIFICATE, message);
    }
}

fn is_unspecific(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    crate::config::is_loopback_host(host) || address.is_ok_and(|address| address.is_unspecified())
}

/// True if the name in a certificate, perhaps `*.example.com`, is for `host`.
fn covers(name: &str, host: &str) -> bool {
    let is_wild = || {
        let (_, parent) = host.split_once('.')?;
        Some(name.strip_prefix("*.")? == parent)
    };
    name == host || is_wild() == Some(true)
}

/// The problems of a certificate at `now` that a check reports and no start refuses, with their places in `file`: a
/// clock may be wrong while a machine starts.
pub(crate) fn judge(text: &str, file: &str, own: Option<&OwnTls>, now: Timestamp) -> Vec<Problem> {
    let certificate = own.and_then(|own| own.certificate.certificate().ok()?.ok());
    let (Some(certificate), Ok(document)) = (certificate, Document::parse(text)) else {
        return Vec::new();
    };
    let section = Section::root(&document).section("settings").section("tls");
    if certificate.ends < now {
        section.error(CERTIFICATE, format!("the certificate expired at {}", certificate.ends));
    } else if now < certificate.begins {
        let begins = certificate.begins;
        section.error(CERTIFICATE, format!("the certificate is not valid before {begins}"));
    }
    document.problems(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::{document, fine, refused, told};

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
                "f:1:29: warning: the certificate in '/keys/rsa-cert.pem' names no host (subjectAltName), so clients \
                 refuse it, whatever its CN is; openssl req has -addext 'subjectAltName=DNS:NAME'",
            ),
        ] {
            let told = told(&with(settings));
            assert!(told.iter().any(|one| one == line), "{settings}: {told:?}");
        }
    }

    #[test]
    fn names_of_certificates_and_the_hosts_they_are_for() {
        for (name, host, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.a.example", false),
            ("*.example", "a.example", true),
            ("*.example", "b.a.example", false),
            ("*.example", "example", false),
            ("10.0.0.1", "10.0.0.1", true),
        ] {
            assert_eq!(covers(name, host), expected, "{name} {host}");
        }
        for host in ["127.0.0.1", "localhost", "::1", "0.0.0.0", "::"] {
            assert!(is_unspecific(host), "{host}");
        }
        assert!(!is_unspecific("10.0.0.1"));
    }
}
