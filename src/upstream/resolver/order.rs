//! The order in which the addresses of a name are tried: RFC 6724 §6, then alternating families (RFC 8305 §4). Pure.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv6Addr};

use crate::upstream::resolver::known::Family;

/// The policy table of RFC 6724 §2.1: prefix, its length, precedence, label.
const POLICIES: [(Ipv6Addr, u32, u8, u8); 9] = [
    (Ipv6Addr::LOCALHOST, 128, 50, 0),
    (Ipv6Addr::UNSPECIFIED, 0, 40, 1),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 35, 4),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 30, 2),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 5, 5),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 3, 13),
    (Ipv6Addr::UNSPECIFIED, 96, 1, 3),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 1, 11),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 1, 12),
];

/// The bits of an IPv6 address that name its network; longer common prefixes mean nothing.
const NETWORK_BITS: u32 = 64;

/// The scope of an address (RFC 4007), as the numbers in RFC 6724 §3.1.
const LINK_LOCAL: u8 = 2;
const SITE_LOCAL: u8 = 5;
const GLOBAL: u8 = 14;

/// `addresses` in the order of attempts. `source_of` returns the source address of packets to one, None if it can't
/// be reached; `first` is a preferred family.
pub(super) fn in_order(
    addresses: Vec<IpAddr>,
    source_of: &dyn Fn(IpAddr) -> Option<IpAddr>,
    first: Option<Family>,
) -> Vec<IpAddr> {
    if addresses.len() < 2 {
        return addresses;
    }
    let mut candidates: Vec<_> = addresses.into_iter().map(|one| (one, source_of(one))).collect();
    candidates.sort_by(|one, other| compare(*one, *other));
    in_turn(candidates.into_iter().map(|(address, _)| address).collect(), first)
}

/// Alternates between the families, each in its order, beginning with `first` or the family of the first address.
fn in_turn(sorted: Vec<IpAddr>, first: Option<Family>) -> Vec<IpAddr> {
    let first = first.unwrap_or_else(|| Family::of(sorted[0]));
    let (mut these, mut others): (Vec<_>, Vec<_>) =
        sorted.into_iter().rev().partition(|address| Family::of(*address) == first);
    let mut all = Vec::with_capacity(these.len() + others.len());
    while !these.is_empty() || !others.is_empty() {
        all.extend(these.pop());
        all.extend(others.pop());
    }
    all
}

/// An address, and the source address of packets to it.
type Destination = (IpAddr, Option<IpAddr>);

/// The rules of RFC 6724 §6 that can be followed from outside the kernel; `Less` is tried first.
fn compare((one, from_one): Destination, (other, from_other): Destination) -> Ordering {
    // Rule 1: unreachable addresses come last.
    let (Some(from_one), Some(from_other)) = (from_one, from_other) else {
        return from_other.is_some().cmp(&from_one.is_some());
    };
    let ((precedence, label), (other_precedence, other_label)) = (policy(one), policy(other));
    let same_scope = |address, source| scope(address) == scope(source);
    let same_label = |label, source| label == policy(source).1;
    // Rules 2 and 5: a source of the same scope, then of the same label.
    same_scope(other, from_other)
        .cmp(&same_scope(one, from_one))
        .then(same_label(other_label, from_other).cmp(&same_label(label, from_one)))
        // Rule 6: the higher precedence. Rule 8: the smaller scope.
        .then(other_precedence.cmp(&precedence))
        .then(scope(one).cmp(&scope(other)))
        .then_with(|| compare_prefixes((one, from_one), (other, from_other)))
}

/// Rule 9: the longer common prefix with the source. Not for IPv4, where it would undo the rotation that name servers
/// apply to a name's addresses.
fn compare_prefixes(one: (IpAddr, IpAddr), other: (IpAddr, IpAddr)) -> Ordering {
    let common = |(address, source): (IpAddr, IpAddr)| match (address, source) {
        (IpAddr::V6(address), IpAddr::V6(source)) => {
            Some((address.to_bits() ^ source.to_bits()).leading_zeros().min(NETWORK_BITS))
        }
        _ => None,
    };
    match (common(one), common(other)) {
        (Some(one), Some(other)) => other.cmp(&one),
        _ => Ordering::Equal,
    }
}

/// Precedence and label of `address`: those of the longest prefix.
fn policy(address: IpAddr) -> (u8, u8) {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let fits = |prefix: Ipv6Addr, length: u32| {
        length == 0 || (bits ^ prefix.to_bits()) >> (u128::BITS - length) == 0
    };
    let fitting = POLICIES.iter().filter(|(prefix, length, ..)| fits(*prefix, *length));
    let longest = fitting.max_by_key(|(_, length, ..)| *length);
    longest.map_or((40, 1), |(_, _, precedence, label)| (*precedence, *label))
}

fn scope(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) if address.is_loopback() || address.is_link_local() => LINK_LOCAL,
        IpAddr::V6(address) if address.is_loopback() || address.is_unicast_link_local() => {
            LINK_LOCAL
        }
        IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfec0 => SITE_LOCAL,
        _ => GLOBAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses in their order; each of `given` is `address` or `address<source`.
    fn order(given: &str, first: Option<Family>) -> String {
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let pairs: Vec<(IpAddr, Option<IpAddr>)> = given
            .split(' ')
            .map(|one| match one.split_once('<') {
                Some((address, source)) => (parse(address), Some(parse(source))),
                None => (parse(one), None),
            })
            .collect();
        let source_of = |address| {
            let pair = pairs.iter().find(|(one, _)| *one == address);
            pair.and_then(|(_, source)| *source)
        };
        let all = pairs.iter().map(|(address, _)| *address).collect();
        let sorted = in_order(all, &source_of, first);
        sorted.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_examples_of_rfc_6724_section_10_2() {
        let cases = [
            // Matching scope.
            (
                "198.51.100.121<169.254.13.78 2001:db8:1::1<2001:db8:1::2",
                "2001:db8:1::1 198.51.100.121",
            ),
            ("2001:db8:1::1<fe80::1 198.51.100.121<198.51.100.117", "198.51.100.121 2001:db8:1::1"),
            // Higher precedence.
            ("10.1.2.3<10.1.2.4 2001:db8:1::1<2001:db8:1::2", "2001:db8:1::1 10.1.2.3"),
            // Smaller scope.
            ("2001:db8:1::1<2001:db8:1::2 fe80::1<fe80::2", "fe80::1 2001:db8:1::1"),
            // Longest prefix.
            (
                "2001:db8:3ffe::1<2001:db8:3f44::2 2001:db8:1::1<2001:db8:1::2",
                "2001:db8:1::1 2001:db8:3ffe::1",
            ),
            // Matching label.
            (
                "2001:db8:1::1<2002:c633:6401::2 2002:c633:6401::1<2002:c633:6401::2",
                "2002:c633:6401::1 2001:db8:1::1",
            ),
            // A unique local address and IPv4: 35 before 3.
            ("fd00::1<fd00::2 192.0.2.1<192.0.2.9", "192.0.2.1 fd00::1"),
        ];
        for (given, expected) in cases {
            assert_eq!(order(given, None), expected);
        }
    }

    #[test]
    fn a_family_without_a_route_comes_last_and_equals_keep_their_order() {
        assert_eq!(order("2001:db8::1 192.0.2.1<192.0.2.9", None), "192.0.2.1 2001:db8::1");
        assert_eq!(order("192.0.2.1 192.0.2.2<192.0.2.9", None), "192.0.2.2 192.0.2.1");
        let equal = "192.0.2.200<192.0.2.9 192.0.2.8<192.0.2.9 192.0.2.7<192.0.2.9";
        assert_eq!(order(equal, None), "192.0.2.200 192.0.2.8 192.0.2.7");
        assert_eq!(order("192.0.2.1", None), "192.0.2.1");
        assert!(in_order(Vec::new(), &|_| None, None).is_empty());
    }

    #[test]
    fn families_take_turns_and_the_one_that_worked_begins() {
        let given = "2001:db8::1<2001:db8::9 2001:db8::2<2001:db8::9 2001:db8::3<2001:db8::9 \
                     192.0.2.1<192.0.2.9 192.0.2.2<192.0.2.9";
        assert_eq!(order(given, None), "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2 2001:db8::3");
        let expected = "192.0.2.1 2001:db8::1 192.0.2.2 2001:db8::2 2001:db8::3";
        assert_eq!(order(given, Some(Family::V4)), expected);
    }

    #[test]
    fn precedences_and_labels_of_the_table() {
        let cases = [
            ("::1", (50, 0)),
            ("2001:db8::1", (40, 1)),
            ("192.0.2.1", (35, 4)),
            ("2002::1", (30, 2)),
            ("2001::1", (5, 5)),
            ("fd00::1", (3, 13)),
            ("::2", (1, 3)),
            ("fec0::1", (1, 11)),
            ("3ffe::1", (1, 12)),
        ];
        for (address, expected) in cases {
            assert_eq!(policy(address.parse().unwrap()), expected, "{address}");
        }
    }
}
