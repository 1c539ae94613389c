//! The system's resolver, asked for one family at a time; the only file that uses `dns_lookup`.

use std::net::IpAddr;
use std::path::Path;

use dns_lookup::{AddrInfoHints, LookupErrorKind, getaddrinfo};
use socket2::{Domain, Type};

use crate::regular_file;
use crate::upstream::resolver::known::{Family, LookupReply};

/// The file of names whose addresses need no name server (hosts(5)).
const HOSTS: &str = "/etc/hosts";

/// Asks for the addresses of `host` in `family`. It waits as long as the system's resolver does.
pub(super) fn ask(host: &str, family: Family) -> LookupReply {
    // Asked for one family, libc ignores a name that /etc/hosts has only in the other one, and asks a name server.
    // But a person who writes a name there wants no other address.
    let is_pinned = regular_file::read_to_string(Path::new(HOSTS))
        .is_ok_and(|hosts| has_name(&hosts, host.trim_end_matches('.')));
    let domain = match family {
        _ if is_pinned => None,
        Family::V4 => Some(Domain::IPV4),
        Family::V6 => Some(Domain::IPV6),
    };
    let hints = AddrInfoHints {
        socktype: Type::STREAM.into(),
        address: domain.map_or(0, Into::into),
        ..AddrInfoHints::default()
    };
    match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => {
            let found = found.filter_map(Result::ok).map(|one| one.sockaddr.ip());
            of_family(found, family)
        }
        Err(error) => match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => LookupReply::Nothing,
            _ => LookupReply::Failed,
        },
    }
}

fn of_family(found: impl Iterator<Item = IpAddr>, family: Family) -> LookupReply {
    let found: Vec<_> = found.filter(|address| Family::of(*address) == family).collect();
    if found.is_empty() { LookupReply::Nothing } else { LookupReply::Addresses(found) }
}

/// True if the text of a hosts file has `host`, in any family.
fn has_name(hosts: &str, host: &str) -> bool {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .flat_map(|line| line.split_ascii_whitespace().skip(1))
        .any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_hosts_file() {
        let hosts =
            "127.0.0.1 localhost\n# 192.0.2.1 commented\n192.0.2.1\tapi.example other # last\n::1";
        for (host, expected) in [
            ("localhost", true),
            ("API.example", true),
            ("other", true),
            ("commented", false),
            ("last", false),
            ("127.0.0.1", false),
            ("::1", false),
            ("api", false),
        ] {
            assert_eq!(has_name(hosts, host), expected, "{host}");
        }
    }

    #[test]
    fn addresses_of_the_other_family_are_none() {
        let found = ["192.0.2.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let of = |family| of_family(found.into_iter(), family);
        assert_eq!(of(Family::V4), LookupReply::Addresses(vec![found[0]]));
        assert_eq!(of(Family::V6), LookupReply::Addresses(vec![found[1]]));
        assert_eq!(of_family(found.into_iter().take(1), Family::V6), LookupReply::Nothing);
    }
}
