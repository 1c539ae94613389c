//! A name in a certificate, and the hosts that it is for (RFC 9525). Pure.

use std::fmt;
use std::net::IpAddr;

/// A name of a certificate's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateName {
    /// A DNS name in lower case, perhaps `*.example.com`.
    Dns(String),
    /// An address.
    Address(IpAddr),
}

impl CertificateName {
    /// The DNS name `text`.
    pub(super) fn dns(text: &str) -> Self {
        Self::Dns(text.to_ascii_lowercase())
    }

    /// True if it is for `host`, a name or an address without port and brackets.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        match (self, address(host)) {
            (Self::Address(own), Some(address)) => own.to_canonical() == address,
            (Self::Dns(own), None) => is_same_or_wild(own, &host.to_ascii_lowercase()),
            // Clients look for an address among addresses alone, even if a DNS name has its digits.
            _ => false,
        }
    }

    /// True if it has the text of the address `host`, but is a DNS name, so that it is not for it.
    pub(crate) fn is_address_as_dns(&self, host: &str) -> bool {
        matches!(self, Self::Dns(own) if address(own).is_some() && address(own) == address(host))
    }
}

/// `a.example`, `*.a.example`, `192.0.2.1`, `2001:db8::1`
impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// The address that `host` is, without the interface of a link-local one.
fn address(host: &str) -> Option<IpAddr> {
    let (address, _interface) = host.split_once('%').unwrap_or((host, ""));
    address.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// A `*` stands for the first label alone, and not for all names of a top-level domain: clients refuse `*.example`.
fn is_same_or_wild(own: &str, host: &str) -> bool {
    // The root of all names.
    let host = host.strip_suffix('.').unwrap_or(host);
    let parent = || host.split_once('.').map(|(_, parent)| parent).filter(|it| it.contains('.'));
    own == host || own.strip_prefix("*.").is_some_and(|wild| Some(wild) == parent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_the_hosts_that_they_are_for() {
        let dns = CertificateName::dns;
        let ip = |text: &str| CertificateName::Address(text.parse().unwrap());
        for (name, host, expected) in [
            (dns("a.example"), "a.example", true),
            (dns("A.example"), "a.EXAMPLE", true),
            (dns("a.example"), "a.example.", true),
            (dns("a.example"), "b.a.example", false),
            (dns("*.a.example"), "b.a.example", true),
            (dns("*.a.example"), "c.b.a.example", false),
            (dns("*.a.example"), "a.example", false),
            (dns("b*.a.example"), "b.a.example", false),
            // curl, Python and Node take it for none.
            (dns("*.example"), "a.example", false),
            (dns("*"), "example", false),
            (dns("*.0.0.1"), "10.0.0.1", false),
            (dns("10.0.0.1"), "10.0.0.1", false),
            (dns("xn--bcher-kva.example"), "xn--bcher-kva.example", true),
            (ip("10.0.0.1"), "10.0.0.1", true),
            (ip("10.0.0.1"), "::ffff:10.0.0.1", true),
            (ip("10.0.0.1"), "10.0.0.2", false),
            (ip("2001:db8::1"), "2001:DB8:0:0::1", true),
            (ip("fe80::1"), "fe80::1%eth0", true),
            (ip("2001:db8::1"), "a.example", false),
        ] {
            assert_eq!(name.is_for(host), expected, "{name} {host}");
        }
        assert!(dns("10.0.0.1").is_address_as_dns("10.0.0.1"));
        assert!(dns("2001:db8::1").is_address_as_dns("2001:db8:0::1"));
        assert!(!dns("10.0.0.1").is_address_as_dns("10.0.0.2"));
        assert!(!dns("a.example").is_address_as_dns("a.example"));
        assert!(!ip("10.0.0.1").is_address_as_dns("10.0.0.1"));
    }
}
