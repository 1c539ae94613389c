//! `redirect_uri`: the address to which a browser returns after a login, and whether evertoken can listen there.

use crate::config::loopback::is_loopback_host;
use crate::config::url::split_url;

/// A redirect URI (RFC 6749 §3.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// An http URL on this machine: evertoken listens there (RFC 8252 §7.3).
    Loopback(Loopback),
    /// Any other URI, as written: people paste the browser's text.
    Elsewhere(String),
}

/// The parts of a loopback redirect URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loopback {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port; None where any will do.
    pub port: Option<u16>,
    /// The text after the authority, as written, because issuers compare it as text.
    pub path: String,
}

impl Redirect {
    /// Parses a URI; the error continues after the name of the key.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once(':').ok_or("must be a URI with a scheme")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || rest.is_empty() || !scheme.bytes().all(is_scheme) {
            return Err("must be a URI with a scheme");
        }
        if text.contains('#') || !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err("must not hold a '#', a blank or another byte that no URI may hold");
        }
        if !matches!(scheme, "http" | "https") {
            return Ok(Self::Elsewhere(text.to_owned()));
        }
        let (scheme, host, path) = split_url(text).ok_or("must be a URL without a user")?;
        if scheme == "https" {
            return Ok(Self::Elsewhere(text.to_owned()));
        }
        if !is_loopback_host(host) {
            return Err("must be https, since a code is sent there; http is for loopback \
                        addresses alone");
        }
        let authority = &text["http://".len()..text.len() - path.len()];
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Ok(Self::Loopback(Loopback {
            host: host.to_owned(),
            port: port.filter(|port| *port != 0),
            path: path.to_owned(),
        }))
    }
}

impl Default for Loopback {
    /// `http://127.0.0.1/callback` on any port.
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: None, path: "/callback".to_owned() }
    }
}

impl Loopback {
    /// The path of requests to it.
    pub fn request_path(&self) -> &str {
        match self.path.split('?').next() {
            None | Some("") => "/",
            Some(path) => path,
        }
    }

    /// The URI with `port`.
    pub fn uri(&self, port: u16) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("http://{host}:{port}{}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_browser_may_come_back_to() {
        let loopback = |host: &str, port, path: &str| {
            Ok(Redirect::Loopback(Loopback { host: host.into(), port, path: path.into() }))
        };
        let elsewhere = |text: &str| Ok(Redirect::Elsewhere(text.to_owned()));
        let cases = [
            ("http://localhost:54545/callback", loopback("localhost", Some(54545), "/callback")),
            ("http://127.0.0.1/cb", loopback("127.0.0.1", None, "/cb")),
            ("http://127.0.0.1:0/cb?a=b", loopback("127.0.0.1", None, "/cb?a=b")),
            ("http://[::1]:7", loopback("::1", Some(7), "")),
            ("http://localhost", loopback("localhost", None, "")),
            ("https://localhost/x", elsewhere("https://localhost/x")),
            ("https://issuer.example/show", elsewhere("https://issuer.example/show")),
            ("urn:ietf:wg:oauth:2.0:oob", elsewhere("urn:ietf:wg:oauth:2.0:oob")),
            ("com.example.app:/cb", elsewhere("com.example.app:/cb")),
        ];
        for (text, expected) in cases {
            assert_eq!(Redirect::parse(text), expected, "{text}");
        }
        for text in [
            "", "callback", ":x", "a b:c", "http://issuer.example/cb", "http://user@localhost/",
            "https://x/#a", "https://x/a b", "http://localhost:99999/",
        ] {
            assert!(Redirect::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_port_is_put_in() {
        for (text, expected) in [
            ("http://127.0.0.1/cb?x=1", "http://127.0.0.1:9/cb?x=1"),
            ("http://[::1]/", "http://[::1]:9/"),
            ("http://localhost", "http://localhost:9"),
        ] {
            let Ok(Redirect::Loopback(loopback)) = Redirect::parse(text) else { panic!("{text}") };
            assert_eq!(loopback.uri(9), expected);
            assert_eq!(loopback.request_path(), if text.contains("cb") { "/cb" } else { "/" });
        }
        assert_eq!(Loopback::default().uri(1), "http://127.0.0.1:1/callback");
    }
}
