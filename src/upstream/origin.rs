//! The destination of requests to one provider, from its base URL; pure.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The parts of a base URL that a connection and a request need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// True for TLS.
    pub(super) is_tls: bool,
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// The port, by default that of the scheme.
    pub(super) port: u16,
    /// The value of `Host`, and the end of a request's first line with that field, as each request needs it.
    pub(super) authority: String,
    pub(super) line_end_and_host: String,
    /// The text before each target: the base URL's path, without a slash at its end.
    pub(super) prefix: String,
    /// The unix socket to connect to instead of host and port.
    pub(super) unix: Option<PathBuf>,
}

impl Origin {
    /// A server behind a unix socket; for evertoken's own commands.
    pub(super) fn of_unix(path: PathBuf) -> Self {
        let host = "localhost".to_owned();
        let (authority, prefix) = (host.clone(), String::new());
        let line_end_and_host = line_end_and_host(&authority);
        let (is_tls, port, unix) = (false, 80, Some(path));
        Self { is_tls, host, port, authority, line_end_and_host, prefix, unix }
    }

    /// The parts of `url`, which is `http` or `https`, has no user and contains neither `?` nor `#`, as the
    /// configuration's check ensures.
    pub(super) fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => digits.parse().ok()?,
            None if port.is_empty() && is_tls => 443,
            None if port.is_empty() => 80,
            None => return None,
        };
        (!host.is_empty()).then(|| Self {
            is_tls,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            line_end_and_host: line_end_and_host(authority),
            prefix: prefix.trim_end_matches('/').to_owned(),
            unix: None,
        })
    }

    /// The text before `target`, and the rest of `target`: a `/v1` at the end of the base URL and one at the start of
    /// the target become one, because clients and providers each write it in either.
    pub(super) fn join<'a>(&'a self, target: &'a str) -> (&'a str, &'a str) {
        const VERSION: &str = "/v1";
        let rest = target.strip_prefix(VERSION).filter(|_| self.prefix.ends_with(VERSION));
        let is_whole = |rest: &&str| rest.is_empty() || rest.starts_with(['/', '?']);
        (&self.prefix, rest.filter(is_whole).unwrap_or(target))
    }

    /// Host and port as one text, as proxies expect.
    pub(super) fn host_and_port(&self) -> String {
        match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

fn line_end_and_host(authority: &str) -> String {
    format!(" HTTP/1.1\r\nhost: {authority}\r\n")
}

/// The address in `host`, if it needs no lookup.
pub(super) fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    host.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_in_both_is_one() {
        for (base, target, expected) in [
            ("http://h/v1", "/v1/x?y", "/v1/x?y"),
            ("http://h/a/v1/", "/v1/x", "/a/v1/x"),
            ("http://h/v1", "/v1", "/v1"),
            ("http://h/v1", "/v1?y", "/v1?y"),
            ("http://h/v1", "/v1beta/x", "/v1/v1beta/x"),
            ("http://h/v1", "/v11", "/v1/v11"),
            ("http://h/v1", "/x/v1", "/v1/x/v1"),
            ("http://h/v1", "//v1/x", "/v1//v1/x"),
            ("http://h/v1/a", "/v1/x", "/v1/a/v1/x"),
            ("http://h/xv1", "/v1/x", "/xv1/v1/x"),
            ("http://v1", "/v1/x", "/v1/x"),
        ] {
            let origin = Origin::of(base).unwrap();
            let (start, rest) = origin.join(target);
            assert_eq!(format!("{start}{rest}"), expected, "{base} {target}");
        }
    }

    #[test]
    fn base_urls_and_their_parts() {
        let parts = |url| {
            let origin = Origin::of(url)?;
            let together = origin.host_and_port();
            Some((
                origin.is_tls, origin.host, origin.port, origin.authority, origin.prefix, together,
            ))
        };
        let of = |tls, host: &str, port, authority: &str, prefix: &str, together: &str| {
            Some((tls, host.into(), port, authority.into(), prefix.into(), together.into()))
        };
        assert_eq!(
            parts("https://api.example.com"),
            of(true, "api.example.com", 443, "api.example.com", "", "api.example.com:443")
        );
        assert_eq!(parts("http://h:8/v1/x"), of(false, "h", 8, "h:8", "/v1/x", "h:8"));
        assert_eq!(parts("http://[::1]:80/"), of(false, "::1", 80, "[::1]:80", "", "[::1]:80"));
        assert_eq!(parts("https://[::1]"), of(true, "::1", 443, "[::1]", "", "[::1]:443"));
        for url in ["ftp://h", "h", "http://", "http://h:x", "http://h:70000", "http://[::1"] {
            assert_eq!(parts(url), None, "{url}");
        }
    }
}
