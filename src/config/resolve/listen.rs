//! `settings.listen`, and `host` and `port`, which stand for one address.

use std::net::IpAddr;

use crate::config::problem::Problem;
use crate::config::raw::{Document, Section};
use crate::config::{ADDRESSES_MAX, ListenAddress, ServerKind, listen_host};

/// The addresses to listen on, at least one.
pub(super) fn read(
    section: &Section<'_>,
    server: ServerKind,
    has_keys: bool,
) -> Vec<ListenAddress> {
    let host = section.text("host").unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = u16::try_from(section.integer("port", 8080, 0, 65_535)).unwrap_or(0);
    let written = section.texts("listen");
    if written.is_empty() {
        let address = ListenAddress::Tcp { host, port };
        check_host(section, &address, server, has_keys);
        return vec![address];
    }
    for key in ["host", "port"] {
        if section.has(key) {
            section.error_at_key(key, format!("'listen' is there, so leave out '{key}'"));
        }
    }
    let addresses = read_list(section, &written, has_keys);
    if server == ServerKind::TinyHttp && !is_one_loopback_port(&addresses) {
        section.error("server", "\"tiny_http\" is for one loopback address with a port only");
    }
    addresses
}

/// The problems that `problem_of` finds with the addresses of `settings.listen` in `text`, with their places in `file`.
pub(crate) fn judge(
    text: &str,
    file: &str,
    problem_of: impl Fn(&ListenAddress) -> Option<String>,
) -> Vec<Problem> {
    let Ok(document) = Document::parse(text) else { return Vec::new() };
    let section = Section::root(&document).section("settings");
    for (index, written) in section.texts("listen").iter().enumerate() {
        let address = ListenAddress::parse(written).ok();
        if let Some(problem) = address.and_then(|address| problem_of(&address)) {
            section.error_at("listen", index, problem);
        }
    }
    document.problems(file)
}

fn check_host(section: &Section<'_>, address: &ListenAddress, server: ServerKind, has_keys: bool) {
    let ListenAddress::Tcp { host, .. } = address else { return };
    if let Some(problem) = listen_host::problem(host) {
        section.error("host", problem);
    } else if !address.is_local() {
        if !has_keys {
            section.error("host", "a 'host' that is not a loopback address needs auth.enabled");
        }
        if server == ServerKind::TinyHttp {
            section.error("server", "\"tiny_http\" is for loopback addresses only");
        }
    }
}

fn read_list(section: &Section<'_>, written: &[String], has_keys: bool) -> Vec<ListenAddress> {
    if written.len() > ADDRESSES_MAX {
        let count = written.len();
        section.error(
            "listen",
            format!("'listen' has at most {ADDRESSES_MAX} addresses, not {count}"),
        );
    }
    let mut addresses: Vec<ListenAddress> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match ListenAddress::parse(text) {
            Err(problem) => section.error_at("listen", index, problem),
            Ok(address) if !address.is_local() && !has_keys => {
                let message =
                    format!("{address} is not a loopback address, so it needs auth.enabled");
                section.error_at("listen", index, message);
            }
            Ok(address) => {
                if let Some(problem) = conflict(&address, &addresses) {
                    section.error_at("listen", index, problem);
                } else {
                    addresses.push(address);
                }
            }
        }
    }
    addresses
}

/// The reason why `address` can't be bound besides the `earlier` ones; None if it can. A port that the system chooses
/// is always another.
fn conflict(address: &ListenAddress, earlier: &[ListenAddress]) -> Option<String> {
    let twice = || format!("{address} is listed twice");
    match address {
        ListenAddress::Tcp { port: 0, .. } => None,
        ListenAddress::Unix { path, .. } => {
            let is_same = |one: &ListenAddress| matches!(one, ListenAddress::Unix { path: other, .. } if other == path);
            earlier.iter().any(is_same).then(twice)
        }
        ListenAddress::Tcp { host, port } => earlier.iter().find_map(|one| {
            let ListenAddress::Tcp { host: other, port: other_port } = one else { return None };
            if port != other_port {
                return None;
            }
            if is_same_host(host, other) {
                return Some(twice());
            }
            let (wide, narrow) = if is_within(host, other) {
                (one, address)
            } else if is_within(other, host) {
                (address, one)
            } else {
                return None;
            };
            Some(format!("{wide} takes the connections to {narrow} too, so leave one of them out"))
        }),
    }
}

fn is_same_host(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// True if `wide` stands for all addresses of one family, and `host` is one of them.
fn is_within(host: &str, wide: &str) -> bool {
    match (host.parse::<IpAddr>(), wide.parse::<IpAddr>()) {
        (Ok(host), Ok(wide)) => wide.is_unspecified() && host.is_ipv4() == wide.is_ipv4(),
        _ => false,
    }
}

fn is_one_loopback_port(addresses: &[ListenAddress]) -> bool {
    matches!(addresses, [one @ ListenAddress::Tcp { .. }] if one.is_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::{document, fine, refused, told};

    fn shown(settings: &str) -> Vec<String> {
        let config = fine(&document(settings, "auth_type: none"));
        config.settings.listen.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_list_takes_the_place_of_host_and_port() {
        assert_eq!(shown("failure_cooldown: 1"), ["127.0.0.1:8080"]);
        assert_eq!(shown("host: '::1', port: 1"), ["[::1]:1"]);
        assert_eq!(shown("listen: []"), ["127.0.0.1:8080"]);
        assert_eq!(shown("listen: [], port: 2"), ["127.0.0.1:2"]);
        let both = "listen: ['127.0.0.1:1', '[::1]:1', 'unix:/run/s?mode=0660', 'localhost:0', 'localhost:0']";
        assert_eq!(
            shown(both),
            ["127.0.0.1:1", "[::1]:1", "unix:/run/s", "localhost:0", "localhost:0"]
        );
        assert_eq!(shown("listen: ['[::1]:1'], server: tiny_http"), ["[::1]:1"]);
        let keys = "auth: {enabled: true, api_key_env: KEYS}";
        let every = format!("listen: ['0.0.0.0:1', '[::]:1', '[::]:2', '127.0.0.1:2'], {keys}");
        let told = told(&document(&every, "auth_type: none"));
        assert!(matches!(&*told, [one] if one.contains("without TLS")), "{told:?}");
    }

    #[test]
    fn mistakes_in_a_list_have_their_place() {
        for (settings, message) in [
            ("listen: '127.0.0.1:1'", "f:1:20: 'listen' must be a list of texts"),
            (
                "listen: ['127.0.0.1:1'], host: '::1'",
                "f:1:37: 'listen' is there, so leave out 'host'",
            ),
            ("port: 1, listen: ['127.0.0.1:1']", "f:1:12: 'listen' is there, so leave out 'port'"),
            (
                "listen: ['127.0.0.1:1', '0.0.0.0:1']",
                "f:1:36: 0.0.0.0:1 is not a loopback address, so it needs auth.enabled",
            ),
            ("listen: ['unix:/s', 'unix:///s']", "f:1:32: unix:/s is listed twice"),
            ("listen: ['[::1]:80', '[0:0::0:1]:80']", "f:1:33: [0:0::0:1]:80 is listed twice"),
            ("listen: ['localhost:80', 'LOCALHOST:80']", "f:1:37: LOCALHOST:80 is listed twice"),
            (
                "listen: ['127.0.0.1:80', '0.0.0.0:80'], auth: {enabled: true, api_key_env: KEYS}",
                "f:1:37: 0.0.0.0:80 takes the connections to 127.0.0.1:80 too, so leave one of them out",
            ),
            (
                "listen: ['[::1]:80', '[::]:80'], auth: {enabled: true, api_key_env: KEYS}",
                "f:1:33: [::]:80 takes the connections to [::1]:80 too, so leave one of them out",
            ),
            (
                "listen: ['unix:/s'], server: tiny_http",
                "f:1:41: \"tiny_http\" is for one loopback address with a port only",
            ),
            (
                "listen: ['127.0.0.1:1', '127.0.0.1:2'], server: tiny_http",
                "f:1:60: \"tiny_http\" is for one loopback address with a port only",
            ),
        ] {
            refused(&document(settings, "auth_type: none"), message);
        }
        let wrong = told(&document("listen: [8080]", "auth_type: none"));
        assert!(
            wrong.iter().any(|line| line.starts_with("f:1:21: write \"127.0.0.1:8080\"")),
            "{wrong:?}"
        );
    }

    #[test]
    fn other_machines_could_read_everything_without_a_word() {
        let keys = "auth: {enabled: true, api_key_env: KEYS}";
        for (settings, place) in
            [("listen: ['::1:1', '0.0.0.0:1']", "1:20"), ("host: 0.0.0.0", "1:18")]
        {
            let settings = settings.replace("'::1:1', ", "'[::1]:1', ");
            let told = told(&document(&format!("{settings}, {keys}"), "auth_type: none"));
            let start = format!("f:{place}: warning: other machines reach 0.0.0.0:");
            assert!(matches!(&*told, [one] if one.starts_with(&start)), "{told:?}");
        }
        let local =
            document(&format!("listen: ['127.0.0.1:1', 'unix:/s'], {keys}"), "auth_type: none");
        assert_eq!(told(&local), [""; 0]);
    }

    #[test]
    fn there_is_a_limit_of_addresses() {
        let list = |count: usize| {
            let all: Vec<_> = (1..=count).map(|port| format!("'127.0.0.1:{port}'")).collect();
            format!("listen: [{}]", all.join(", "))
        };
        assert_eq!(shown(&list(ADDRESSES_MAX)).len(), ADDRESSES_MAX);
        let message = "f:1:20: 'listen' has at most 16 addresses, not 17";
        refused(&document(&list(ADDRESSES_MAX + 1), "auth_type: none"), message);
    }
}
