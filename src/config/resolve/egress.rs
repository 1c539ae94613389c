//! `proxy`, `tls_roots` and `ca_file`, in `settings` for all providers and in one provider.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::raw::Section;
use crate::config::resolve::sources::Sources;
use crate::config::{Egress, NoProxy, ProxyRule};
use crate::secret::Secret;

/// The beginnings of a proxy's URL.
const SCHEMES: [&str; 6] =
    ["http://", "https://", "socks4://", "socks4a://", "socks5://", "socks5h://"];

/// The system's trusted roots in one file: Debian, Alpine and Arch; Fedora and RHEL; openSUSE; older RHEL; Alpine
/// without its package.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The mark of a certificate in a PEM file.
pub(super) const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The trusted roots, besides those in a `ca_file`.
#[derive(Clone, Copy)]
enum RootsChoice {
    BuiltIn,
    System,
}

/// Reads the keys in `settings` for all providers.
pub(super) fn read_shared(section: &Section<'_>, sources: &Sources<'_>) -> Egress {
    let proxy = match section.text("proxy").as_deref() {
        None | Some("none") => ProxyRule::Direct,
        Some("env") => of_environment(section, sources),
        Some(url) => {
            check(section, url, &format!("'proxy' must be {WANTED}"));
            let url = Some(Secret::new(url));
            ProxyRule::Shared { https: url.clone(), http: url, except: exceptions(sources) }
        }
    };
    let choice = section.choice(
        "tls_roots",
        &[("built_in", RootsChoice::BuiltIn), ("system", RootsChoice::System)],
    );
    let system_roots_pem = match choice {
        RootsChoice::BuiltIn => None,
        RootsChoice::System => read_system_roots(section, sources),
    };
    Egress { proxy, system_roots_pem, ..Egress::default() }
}

/// Reads a provider's own keys; the rest comes from `shared`.
pub(super) fn read(section: &Section<'_>, sources: &Sources<'_>, shared: &Egress) -> Egress {
    let proxy = match section.text("proxy").as_deref() {
        None => shared.proxy.clone(),
        Some("none") => ProxyRule::Direct,
        Some("env") => of_environment(section, sources),
        Some(url) => {
            check(section, url, &format!("'proxy' must be {WANTED}"));
            ProxyRule::Always(Secret::new(url))
        }
    };
    let extra_roots_pem = sources.path(section, "ca_file").and_then(|path| {
        let read = read_pem(&path, sources);
        if let Err(problem) = &read {
            let shown = path.display();
            let start = if path.is_relative() {
                "; a path that does not begin with / starts at the folder that evertoken is started in"
            } else {
                ""
            };
            section.error("ca_file", format!("'ca_file' can't be used: '{shown}': {problem}{start}"));
        }
        read.ok()
    });
    Egress {
        proxy,
        system_roots_pem: shared.system_roots_pem.clone(),
        extra_roots_pem,
        ..Egress::default()
    }
}

const WANTED: &str = "an http://… or socks5://… URL, \"env\" or \"none\"";

/// Reports a wrong proxy URL, without showing it, because it may contain a password.
fn check(section: &Section<'_>, url: &str, problem: &str) {
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len()) {
        section.error("proxy", problem);
    }
}

/// The proxies in the variables that most programs follow.
fn of_environment(section: &Section<'_>, sources: &Sources<'_>) -> ProxyRule {
    let first = |names: &[&'static str]| {
        let found = names.iter().find_map(|name| Some((*name, sources.variable(name)?)));
        found.map(|(name, value)| {
            // A proxy without a scheme is an HTTP proxy, as everywhere.
            let url = if value.contains("://") { value } else { format!("http://{value}") };
            let problem =
                format!("'proxy' is \"env\", but the variable '{name}' does not hold an http://… or socks5://… URL");
            check(section, &url, &problem);
            Secret::new(url)
        })
    };
    // `HTTP_PROXY` is not read, as in curl: a web server sets it for CGI programs from a request's field `Proxy`.
    ProxyRule::Shared {
        https: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        http: first(&["http_proxy", "all_proxy", "ALL_PROXY"]),
        except: exceptions(sources),
    }
}

fn exceptions(sources: &Sources<'_>) -> NoProxy {
    let list = sources.variable("no_proxy").or_else(|| sources.variable("NO_PROXY"));
    NoProxy::parse(&list.unwrap_or_default())
}

/// The system's trusted roots, or those in `SSL_CERT_FILE`.
fn read_system_roots(section: &Section<'_>, sources: &Sources<'_>) -> Option<Arc<str>> {
    const VARIABLE: &str = "SSL_CERT_FILE";
    if let Some(path) = sources.variable(VARIABLE).map(PathBuf::from) {
        let read = read_pem(&path, sources);
        if let Err(problem) = &read {
            let message = format!(
                "'tls_roots' is \"system\", but the file {} of the variable '{VARIABLE}' can't be used: {problem}",
                path.display()
            );
            section.error("tls_roots", message);
        }
        return read.ok().map(Arc::from);
    }
    let found = BUNDLES.iter().find_map(|path| read_pem(Path::new(path), sources).ok());
    if found.is_none() {
        let message = format!(
            "'tls_roots' is \"system\", but none of these files holds certificates: {}; install the \
             package ca-certificates, or name a file with the variable '{VARIABLE}'",
            BUNDLES.join(", ")
        );
        section.error_of_unset("tls_roots", message, &[VARIABLE]);
    }
    found.map(Arc::from)
}

/// The text of a file with certificates.
fn read_pem(path: &Path, sources: &Sources<'_>) -> io::Result<String> {
    match (sources.files)(path) {
        Ok(pem) if !pem.contains(CERTIFICATE) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "there is no PEM certificate in it"))
        }
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::resolve::resolve;
    use crate::config::resolve::tests::{PEM, document};

    /// The result for these `settings` and lines of a provider, with these variables and files.
    fn resolved(
        settings: &str,
        provider: &str,
        variables: &[(&str, &str)],
        files: &[(&str, &str)],
    ) -> Result<Config, String> {
        let sources = Sources {
            environment: &|name| {
                let found = variables.iter().find(|(own, _)| *own == name);
                found.map(|(_, value)| (*value).to_owned())
            },
            files: &|path| {
                let found = files.iter().find(|(own, _)| Path::new(own) == path);
                let text = found.map(|(_, text)| (*text).to_owned());
                text.ok_or_else(|| io::ErrorKind::NotFound.into())
            },
            now: crate::clock::Timestamp::from_secs(1_800_000_000),
            file_modes: &|_| None,
            file_mode: None,
            is_root: false,
            working_folder: None,
        };
        let settings = format!("state_dir: /s, {settings}");
        let text = document(&settings, &format!("auth_type: none\n{provider}"));
        let outcome = resolve(&text, "f", &sources);
        outcome.map(|(config, _)| config).map_err(|problems| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })
    }

    /// The proxies for https and http URLs of a host on another machine.
    fn proxies(settings: &str, provider: &str, variables: &[(&str, &str)]) -> [Option<String>; 2] {
        let config = resolved(settings, provider, variables, &[]).unwrap();
        let rule = &config.providers[0].egress.proxy;
        [true, false].map(|is_tls| {
            let url = rule.url(is_tls).filter(|_| rule.is_for("api.test", 443));
            url.map(|url| url.expose().to_owned())
        })
    }

    #[test]
    fn a_provider_goes_through_its_own_proxy_else_that_of_settings() {
        let [own, shared] = ["socks5://own", "http://shared"].map(str::to_owned).map(Some);
        let both = |one: &Option<String>| [one.clone(), one.clone()];
        let settings = "proxy: 'http://shared'";
        assert_eq!(proxies(settings, "", &[]), both(&shared));
        assert_eq!(proxies(settings, "proxy: null", &[]), both(&shared));
        assert_eq!(proxies(settings, "proxy: 'socks5://own'", &[]), both(&own));
        assert_eq!(proxies(settings, "proxy: none", &[]), both(&None));
        assert_eq!(proxies(settings, "proxy: env", &[]), both(&None), "no variable is set");
        assert_eq!(proxies("", "", &[("https_proxy", "http://x")]), both(&None), "nobody said env");
        assert_eq!(proxies("proxy: none", "", &[]), both(&None));
        assert_eq!(proxies("proxy: null", "", &[]), both(&None));
    }

    #[test]
    fn variables_and_which_of_them_counts() {
        type Case =
            (&'static [(&'static str, &'static str)], Option<&'static str>, Option<&'static str>);
        let cases: [Case; 10] = [
            (&[("https_proxy", "http://a"), ("HTTPS_PROXY", "http://b")], Some("http://a"), None),
            (&[("HTTPS_PROXY", "http://b")], Some("http://b"), None),
            (&[("http_proxy", "http://c")], None, Some("http://c")),
            (&[("HTTP_PROXY", "http://c")], None, None),
            (&[("all_proxy", "socks5h://d")], Some("socks5h://d"), Some("socks5h://d")),
            (
                &[("ALL_PROXY", "http://d"), ("http_proxy", "http://c")],
                Some("http://d"),
                Some("http://c"),
            ),
            (&[("https_proxy", "proxy:3128")], Some("http://proxy:3128"), None),
            (
                &[("https_proxy", " "), ("all_proxy", "http://d")],
                Some("http://d"),
                Some("http://d"),
            ),
            (&[("https_proxy", "http://a"), ("no_proxy", "api.test")], None, None),
            (&[("https_proxy", "http://a"), ("NO_PROXY", ".test:443")], None, None),
        ];
        for (variables, https, http) in cases {
            let expected = [https, http].map(|url| url.map(str::to_owned));
            assert_eq!(proxies("proxy: env", "", variables), expected, "{variables:?}");
            assert_eq!(proxies("", "proxy: env", variables), expected, "{variables:?}");
        }
        let variables = [("no_proxy", "api.test")];
        assert_eq!(proxies("proxy: 'http://a'", "", &variables), [None, None]);
        let own = Some("http://a".to_owned());
        assert_eq!(proxies("", "proxy: 'http://a'", &variables), [own.clone(), own]);
    }

    #[test]
    fn what_is_no_proxy_is_said_without_a_word_of_it() {
        let secret = "user:pass-word@proxy";
        let url = format!("ftp://{secret}");
        for (settings, provider, message) in [
            (
                format!("proxy: '{url}'"),
                String::new(),
                "'proxy' must be an http://… or socks5://… URL, \"env\" or \"none\"",
            ),
            (
                String::new(),
                format!("proxy: '{url}'"),
                "'proxy' must be an http://… or socks5://… URL, \"env\" or \"none\"",
            ),
            (
                "proxy: env".to_owned(),
                String::new(),
                "'proxy' is \"env\", but the variable 'HTTPS_PROXY' does not hold",
            ),
        ] {
            let told = resolved(&settings, &provider, &[("HTTPS_PROXY", &url)], &[]).unwrap_err();
            assert!(told.contains(message), "{told}");
            assert!(!told.contains("pass-word"), "{told}");
        }
    }

    #[test]
    fn the_systems_roots_are_those_of_a_variable_else_the_first_bundle_with_certificates() {
        let other = format!("# other\n{PEM}");
        let roots = |variables: &[(&str, &str)], files: &[(&str, &str)]| {
            let config = resolved("tls_roots: system", "", variables, files)?;
            Ok(config.providers[0].egress.system_roots_pem.as_deref().map(str::to_owned))
        };
        let (debian, fedora) = (BUNDLES[0], BUNDLES[1]);
        let variable = [("SSL_CERT_FILE", "/own.pem")];
        let pem = Ok(Some(PEM.to_owned()));
        assert_eq!(roots(&[], &[(debian, PEM), (fedora, &other)]), pem);
        assert_eq!(roots(&[], &[(debian, "nothing"), (fedora, PEM)]), pem);
        assert_eq!(roots(&variable, &[(debian, &other), ("/own.pem", PEM)]), pem);
        let told = |outcome: Result<Option<String>, String>| outcome.unwrap_err();
        let none = told(roots(&[], &[]));
        assert!(
            none.starts_with("f:1:") && none.contains(debian) && none.contains("'SSL_CERT_FILE'"),
            "{none}"
        );
        let gone = told(roots(&variable, &[(debian, PEM)]));
        assert!(
            gone.contains("the file /own.pem of the variable 'SSL_CERT_FILE' can't be used: "),
            "{gone}"
        );
        let empty = told(roots(&variable, &[("/own.pem", "")]));
        assert!(empty.contains("there is no PEM certificate in it"), "{empty}");
        for settings in ["tls_roots: built_in", ""] {
            let config = resolved(settings, "", &variable, &[]).unwrap();
            assert_eq!(config.providers[0].egress.system_roots_pem, None);
        }
    }
}
