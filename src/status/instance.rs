//! The instance that is asked: its address, the key for it, and trust in its certificate.

use std::net::IpAddr;
use std::path::Path;

use crate::config::inbound_key::own_key;
use crate::config::{Config, InboundKey, ListenAddress, OwnTrust, Settings, secret_file};
use crate::secret::Secret;
use crate::signing::Certificate;
use crate::status::broken;

/// The default address of a running instance.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// The same, in parts.
const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: u16 = 8080;

/// The port is left to the system.
#[derive(Debug, thiserror::Error)]
#[error("the port is 0, so the address is only in the log; name it with --url")]
pub(crate) struct PortUnknown;

/// The address to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of the configuration, else the default URL.
    Configured,
    /// This URL.
    Url(String),
    /// The one that `run --listen` names; the configuration tells whether it takes TLS.
    Listen(ListenAddress),
}

/// The instance to ask.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Its URLs without a path, at least one, in the order in which they are tried.
    pub urls: Vec<String>,
    /// The key to send, if needed.
    pub key: Option<Secret>,
    /// The certificate that its configuration names; None for the usual trust.
    pub certificate: Option<OwnTrust>,
}

impl Instance {
    /// The instance at `place`; with a key from `config`, else from the first line of `keys`.
    pub(crate) fn choose(
        place: &Place,
        config: Option<&Config>,
        keys: Option<&str>,
    ) -> Result<Self, PortUnknown> {
        let settings = config.map(|config| &config.settings);
        let is_tls = settings.is_some_and(|settings| settings.tls.is_some());
        let own = settings.and_then(own_certificate);
        let (urls, certificate) = match (place, settings) {
            // It may be the address of another host, or of a proxy before evertoken, so other certificates will do too.
            (Place::Url(url), _) => {
                (vec![url.clone()], own.map(|own| OwnTrust { is_only: false, ..own }))
            }
            (Place::Listen(address), _) => (vec![url_at(address, is_tls)?], own),
            (Place::Configured, Some(settings)) => (known_urls(&settings.listen, is_tls)?, own),
            (Place::Configured, None) => (vec![DEFAULT_URL.to_owned()], None),
        };
        let own = config.and_then(|config| own_key(config.settings.inbound_keys.as_ref()?));
        Ok(Self { urls, key: own.cloned().or_else(|| first_of(keys)), certificate })
    }

    /// The instance whose configuration is `text`, which can't be parsed, at the address that it listens on, or that it was
    /// `told` to; with a key from the first line of `keys`.
    pub(crate) fn guess(
        text: &str,
        told: Option<&ListenAddress>,
        keys: Option<&str>,
    ) -> Result<Self, PortUnknown> {
        let found = broken::listening(text);
        let is_tls = found.certificate.is_some();
        let written = found.listen.iter().filter_map(|text| ListenAddress::parse(text).ok());
        let mut listen: Vec<_> = told.map_or_else(|| written.collect(), |told| vec![told.clone()]);
        if listen.is_empty() {
            let host = found.host.unwrap_or_else(|| DEFAULT_HOST.to_owned());
            listen.push(ListenAddress::Tcp { host, port: found.port.unwrap_or(DEFAULT_PORT) });
        }
        let urls = known_urls(&listen, is_tls)?;
        // If it can't be read, the usual trust finds out.
        let certificate = found.certificate.and_then(|path| certificate_in(&path));
        Ok(Self { urls, key: first_of(keys), certificate })
    }
}

/// The key in the first line of `keys`.
fn first_of(keys: Option<&str>) -> Option<Secret> {
    keys?.lines().find_map(InboundKey::of_line)?.secret.text().cloned()
}

/// The URLs of those addresses that are known before the start.
fn known_urls(listen: &[ListenAddress], is_tls: bool) -> Result<Vec<String>, PortUnknown> {
    let urls: Vec<_> = listen.iter().filter_map(|address| url_at(address, is_tls).ok()).collect();
    if urls.is_empty() { Err(PortUnknown) } else { Ok(urls) }
}

/// The URL of an instance that listens on `address`, perhaps with TLS.
pub(crate) fn url_at(address: &ListenAddress, is_tls: bool) -> Result<String, PortUnknown> {
    match address {
        ListenAddress::Tcp { host, port } => url_of(scheme(is_tls), host, *port),
        ListenAddress::Unix { .. } => Ok(address.to_string()),
    }
}

/// The certificate in a file, which alone is trusted; None if there is none that can be read.
fn certificate_in(path: &Path) -> Option<OwnTrust> {
    let text = secret_file::read(path).ok()?;
    let certificate = Certificate::first_in(&text).ok()?.der().to_vec();
    Some(OwnTrust { certificate, is_only: true })
}

const fn scheme(is_tls: bool) -> &'static str {
    if is_tls { "https" } else { "http" }
}

/// The certificate of an instance with these `settings`, the only one that is trusted.
pub(crate) fn own_certificate(settings: &Settings) -> Option<OwnTrust> {
    let certificate = settings.tls.as_ref()?.certificate_der()?;
    Some(OwnTrust { certificate, is_only: true })
}

fn url_of(scheme: &str, host: &str, port: u16) -> Result<String, PortUnknown> {
    if port == 0 {
        return Err(PortUnknown);
    }
    let host = host.trim_matches(['[', ']']);
    let host = match host.parse::<IpAddr>() {
        // A server on every address listens on this one too.
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "[::1]".to_owned(),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        // With the interface of a link-local address.
        Err(_) if host.contains(':') => format!("[{host}]"),
        _ => host.to_owned(),
    };
    Ok(format!("{scheme}://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::{Sources, resolve};
    use crate::config::{Missing, OwnTls, SecretFile};

    fn config(settings: &str) -> Config {
        let sources = Sources {
            environment: &|_| Some("from-the-environment".to_owned()),
            files: &|_| Err(std::io::ErrorKind::NotFound.into()),
            now: crate::clock::Timestamp::from_secs(1_800_000_000),
            file_modes: &|_| None,
            file_mode: None,
            is_root: false,
            working_folder: None,
        };
        let text = format!(
            "settings: {{{settings}}}\nproviders: [{{name: P, type: generic, base_url: \
             \"http://127.0.0.1:1\", auth_type: none}}]"
        );
        resolve(&text, "x", &sources).unwrap().0
    }

    #[test]
    fn the_address_is_that_of_the_command_line_the_configuration_or_the_usual_one() {
        let url = |settings: &str| {
            Instance::choose(&Place::Configured, Some(&config(settings)), None)
                .map(|instance| instance.urls.join(" "))
        };
        assert_eq!(url("").unwrap(), DEFAULT_URL);
        assert_eq!(url("host: localhost, port: 81").unwrap(), "http://localhost:81");
        assert_eq!(url("host: \"::1\"").unwrap(), "http://[::1]:8080");
        assert_eq!(url("listen: ['127.0.0.1:0', 'unix:/run/s']").unwrap(), "unix:/run/s");
        assert_eq!(
            url("listen: ['unix:/run/s', '[::1]:1']").unwrap(),
            "unix:/run/s http://[::1]:1"
        );
        let open = "auth: {enabled: true}";
        assert_eq!(url(&format!("host: \"0.0.0.0\", {open}")).unwrap(), "http://127.0.0.1:8080");
        assert_eq!(url(&format!("host: \"::\", {open}")).unwrap(), "http://[::1]:8080");
        let of_link = format!("listen: ['[fe80::1%eth0]:81'], {open}");
        assert_eq!(url(&of_link).unwrap(), "http://[fe80::1%eth0]:81");
        assert!(matches!(url("port: 0"), Err(PortUnknown)));
        let named = Place::Url("http://a:1".to_owned());
        let named = Instance::choose(&named, Some(&config("port: 0")), None).unwrap();
        assert_eq!(named.urls, ["http://a:1"]);
        assert_eq!(Instance::choose(&Place::Configured, None, None).unwrap().urls, [DEFAULT_URL]);
        // Reads as much as possible of a text that is not YAML.
        let guess =
            |text: &str| Instance::guess(text, None, None).map(|instance| instance.urls.join(" "));
        assert_eq!(guess("providers: [").unwrap(), DEFAULT_URL);
        let text = "settings: {host: '::', port: 81}\nproviders: [";
        assert_eq!(guess(text).unwrap(), "http://[::1]:81");
        let text =
            "settings: {listen: ['127.0.0.1:0', 'unix:/run/s'], tls: {cert_file: c}}\nproviders: [";
        assert_eq!(guess(text).unwrap(), "unix:/run/s");
        let text = "settings:\n  listen:\n  - '0.0.0.0:81'\n  tls:\n    cert_file: c\nproviders: [";
        assert_eq!(guess(text).unwrap(), "https://127.0.0.1:81");
        let no_port = guess("settings: {port: 0}\n[").unwrap_err();
        assert!(no_port.to_string().contains("--url"), "{no_port}");
    }

    /// The container's health check asked without TLS, or would have asked at the port in the file.
    #[test]
    fn the_address_that_run_was_told_is_asked_as_the_configuration_says() {
        let place = Place::Listen(ListenAddress::parse("0.0.0.0:8080").unwrap());
        let asked = |config: Option<&Config>| Instance::choose(&place, config, None).unwrap().urls;
        let plain = ["http://127.0.0.1:8080"];
        assert_eq!(asked(None), plain);
        let mut config = config("port: 9090, auth: {enabled: true}");
        assert_eq!(asked(Some(&config)), plain);
        let file = || SecretFile { path: "/none".into(), found: Err(Missing::Credential) };
        config.settings.tls = Some(OwnTls { certificate: file(), key: file() });
        assert_eq!(asked(Some(&config)), ["https://127.0.0.1:8080"]);
        // A text that is not YAML.
        let told = ListenAddress::parse("[::]:8080").unwrap();
        let guess = |text: &str| Instance::guess(text, Some(&told), None).unwrap().urls;
        assert_eq!(guess("settings: {port: 81}\nproviders: ["), ["http://[::1]:8080"]);
        let text = "settings: {port: 0, tls: {cert_file: c}}\nproviders: [";
        assert_eq!(guess(text), ["https://[::1]:8080"]);
        let chosen = Place::Listen(ListenAddress::parse("127.0.0.1:0").unwrap());
        assert!(Instance::choose(&chosen, Some(&config), None).is_err());
    }

    #[test]
    fn the_key_is_that_of_the_configuration_or_of_the_environment() {
        let key = |config: Option<&Config>, keys| {
            let instance = Instance::choose(&Place::Configured, config, keys).unwrap();
            instance.key.map(|key| key.expose().to_owned())
        };
        assert_eq!(key(None, None), None);
        assert_eq!(key(None, Some("\n one \ntwo")), Some("one".to_owned()));
        assert_eq!(key(None, Some("me: one\ntwo")), Some("one".to_owned()));
        assert_eq!(key(Some(&config("")), Some("one")), Some("one".to_owned()));
        let own = config("auth: {enabled: true}");
        assert_eq!(key(Some(&own), Some("one")), Some("from-the-environment".to_owned()));
    }
}
