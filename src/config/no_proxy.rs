//! The hosts in the variable `no_proxy`, which are reached without a proxy. Pure.

use std::net::IpAddr;

use crate::config::url::split_port;

/// The entries of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Exception>);

/// Hosts in a list, with the port if the entry is for one port only.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// `*`.
    All,
    /// Addresses whose first bits, so many of them, equal this one's.
    Network(IpAddr, u32),
    /// This name, and those that end with a dot and this name.
    Name(String),
}

impl NoProxy {
    /// Reads a list separated by commas or blanks: names, suffixes with or without a leading dot or `*.`, addresses,
    /// networks (`10.0.0.0/8`), each with or without a port, and `*`.
    pub fn parse(text: &str) -> Self {
        let entries = text.split([',', ' ', '\t', '\n', '\r']).filter(|entry| !entry.is_empty());
        Self(entries.filter_map(entry).collect())
    }

    /// True if `host`, a name or an address without brackets, is reached at `port` without a proxy.
    pub fn covers(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse().map(|address: IpAddr| address.to_canonical()).ok();
        self.0.iter().any(|entry| {
            entry.port.is_none_or(|only| only == port) && entry.hosts.hold(&host, address)
        })
    }
}

impl Hosts {
    fn hold(&self, host: &str, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::All, _) => true,
            (Self::Network(network, bits), Some(address)) => is_within(address, *network, *bits),
            (Self::Name(name), None) => {
                let before = host.strip_suffix(name.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            (Self::Network(..), None) | (Self::Name(_), Some(_)) => false,
        }
    }
}

/// One entry; None if it matches nothing.
fn entry(text: &str) -> Option<Exception> {
    let (host, port) = host_and_port(text)?;
    let hosts = match host {
        "*" => Hosts::All,
        _ => network(host)
            .map(|(address, bits)| Hosts::Network(address, bits))
            .or_else(|| name(host).map(Hosts::Name))?,
    };
    Some(Exception { hosts, port })
}

/// Host and port of an entry; an IPv6 address without a port needs no brackets.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    if !text.starts_with('[') && text.matches(':').count() > 1 {
        return Some((text, None));
    }
    let (host, port) = split_port(text)?;
    Some((host, port.map(str::parse).transpose().ok()?))
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { u32::BITS } else { u128::BITS };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((address, bits))
}

fn name(text: &str) -> Option<String> {
    let text = text.strip_prefix('*').unwrap_or(text).trim_matches('.');
    (!text.is_empty() && !text.contains(['*', '/'])).then(|| text.to_ascii_lowercase())
}

fn is_within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let differs = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(u32::BITS - bits).unwrap_or(0) != 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (address.to_bits() ^ network.to_bits()).checked_shr(u128::BITS - bits).unwrap_or(0) != 0
        }
        _ => true,
    };
    !differs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_reached_without_a_proxy() {
        let cases = [
            ("api.test", "api.test", 443, true),
            ("api.test", "API.Test.", 443, true),
            ("api.test", "eu.api.test", 443, true),
            ("api.test", "myapi.test", 443, false),
            ("api.test", "test", 443, false),
            (".api.test", "api.test", 443, true),
            (".api.test", "eu.api.test", 443, true),
            ("*.api.test", "eu.api.test", 443, true),
            (".API.test.", "eu.api.test", 443, true),
            ("api.test:8443", "api.test", 8443, true),
            ("api.test:8443", "api.test", 443, false),
            ("a.test, b.test", "b.test", 443, true),
            ("a.test b.test", "b.test", 443, true),
            (",,a.test,", "a.test", 443, true),
            ("*", "anybody.test", 443, true),
            ("*:80", "anybody.test", 443, false),
            ("192.0.2.1", "192.0.2.1", 443, true),
            ("192.0.2.1", "192.0.2.10", 443, false),
            ("192.0.2.1:80", "192.0.2.1", 443, false),
            ("192.0.2.1", "::ffff:192.0.2.1", 443, true),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("10.0.0.0/8", "api.test", 443, false),
            ("0.0.0.0/0", "198.51.100.1", 443, true),
            ("0.0.0.0/0", "2001:db8::1", 443, false),
            ("192.0.2.0/31", "192.0.2.1", 443, true),
            ("192.0.2.0/31", "192.0.2.2", 443, false),
            ("2001:db8::/32", "2001:db8:1::1", 443, true),
            ("2001:db8::/32", "2001:db9::1", 443, false),
            ("::/0", "2001:db9::1", 443, true),
            ("2001:db8::1", "2001:db8::1", 443, true),
            ("[2001:db8::1]", "2001:db8::1", 443, true),
            ("[2001:db8::1]:80", "2001:db8::1", 80, true),
            ("[2001:db8::1]:80", "2001:db8::1", 443, false),
            // An impossible entry matches nothing.
            ("10.0.0.0/33", "10.0.0.1", 443, false),
            ("api.test:http", "api.test", 443, false),
            ("*api.test*", "api.test", 443, false),
            (".", "api.test", 443, false),
            ("", "api.test", 443, false),
            ("2.1", "192.0.2.1", 443, false),
        ];
        for (list, host, port, expected) in cases {
            assert_eq!(NoProxy::parse(list).covers(host, port), expected, "{list}: {host}:{port}");
        }
    }
}
