//! Mistakes in `settings.host`. Pure.

use std::net::IpAddr;

/// The correction for `host`; None if it is a name or an address.
pub(in crate::config) fn problem(host: &str) -> Option<String> {
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let after_scheme = host.split_once("://").map(|(_, rest)| rest);
    let authority = after_scheme.unwrap_or(host);
    let authority = authority.split('/').next().unwrap_or_default();
    let (alone, port) = parted(authority);
    let port = port.filter(|port| !port.is_empty());
    if alone.is_empty() || alone.contains(char::is_whitespace) {
        return Some("'host' must be a name or an address".to_owned());
    }
    if alone == host {
        return None;
    }
    let port = port.map(|port| format!("; the port belongs in 'port': {port}"));
    Some(format!("write the address alone in 'host', \"{alone}\"{}", port.unwrap_or_default()))
}

/// `host`, as a `Host` field has it, without its port and brackets.
pub(in crate::config) fn alone(host: &str) -> &str {
    if host.parse::<IpAddr>().is_ok() { host } else { parted(host).0 }
}

/// A host without brackets, and the port after its colon.
fn parted(authority: &str) -> (&str, Option<&str>) {
    if let Some((address, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'))
    {
        return (address, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((name, port)) if !port.contains(':') => (name, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_a_host() {
        for (host, part) in [
            ("127.0.0.1:8080", "\"127.0.0.1\"; the port belongs in 'port': 8080"),
            ("localhost:80", "\"localhost\"; the port belongs in 'port': 80"),
            ("[::1]:8080", "\"::1\"; the port belongs in 'port': 8080"),
            ("http://127.0.0.1:8080/", "\"127.0.0.1\"; the port belongs in 'port': 8080"),
            ("http://127.0.0.1", "write the address alone in 'host', \"127.0.0.1\""),
            ("[::1]", "write the address alone in 'host', \"::1\""),
            ("127.0.0.1/", "write the address alone in 'host', \"127.0.0.1\""),
            ("localhost:", "write the address alone in 'host', \"localhost\""),
            ("", "must be a name or an address"),
            (":8080", "must be a name or an address"),
            ("http://", "must be a name or an address"),
            ("a b", "must be a name or an address"),
        ] {
            let told = problem(host).unwrap_or_default();
            assert!(told.contains(part), "{host}: {told}");
        }
        for host in ["127.0.0.1", "::1", "0.0.0.0", "::", "localhost", "my-host.example"] {
            assert_eq!(problem(host), None, "{host}");
        }
    }
}
