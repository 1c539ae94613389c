//! The names in the certificate for clients, compared with the hosts under which clients come. Pure.
//!
//! The file says these hosts in `listen` (or `host`) and in `allowed_hosts`. A load balancer or a forwarded port has another
//! name, which only `allowed_hosts` can tell.

use std::net::IpAddr;

use crate::config::{ListenAddress, is_loopback_host, listen_host};
use crate::signing::{Certificate, CertificateName};

/// The most names in a message.
const SHOWN_MAX: usize = 5;
/// The name of this machine alone.
const LOCAL_NAME: &str = "localhost";

/// A host that the certificate is not for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) message: String,
    /// True if it is for no host at all under which a client can come, as far as the file says.
    pub(super) is_certain: bool,
}

/// The settings that say under which hosts clients come.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientHosts<'a> {
    pub(super) listen: &'a [ListenAddress],
    pub(super) allowed: &'a [String],
    /// True if the file has `listen` or `host`. Otherwise other addresses may come by `--listen` or from a service manager.
    pub(super) are_written: bool,
    /// True if clients need keys; then any `Host` is answered.
    pub(super) has_keys: bool,
}

/// The hosts that `own` is not for.
pub(super) fn mismatches(own: &Certificate, hosts: ClientHosts<'_>) -> Vec<Mismatch> {
    let mut names = own.names();
    let has_names = !names.is_empty();
    if !has_names {
        // Some clients fall back to it; that the others refuse the certificate is told elsewhere.
        names.extend(own.common_name());
    }
    of_names(&names, has_names, hosts)
}

fn of_names(names: &[CertificateName], has_names: bool, hosts: ClientHosts<'_>) -> Vec<Mismatch> {
    let is_for = |host: &str| names.iter().any(|name| name.is_for(host));
    if hosts.allowed.iter().any(|host| is_for(listen_host::alone(host))) {
        return Vec::new();
    }
    let listening: Vec<&str> = hosts.listen.iter().filter_map(ListenAddress::host).collect();
    let is_open = |host: &&str| is_every_address(host);
    let (local, others): (Vec<&str>, Vec<&str>) =
        listening.iter().copied().partition(|host: &&str| is_loopback_host(host));
    let shown = shown(names, has_names);
    if others.is_empty() {
        let is_for_this_machine =
            || names.iter().any(is_local) || local.iter().any(|host| is_for(host));
        // Without keys, no address of another kind can come.
        let may_be_others = hosts.has_keys && !hosts.are_written;
        let Some(host) = local.first().filter(|_| !may_be_others && !is_for_this_machine()) else {
            return Vec::new();
        };
        let own = if *host == LOCAL_NAME { String::new() } else { format!(" or {host}") };
        let message = format!(
            "the certificate is for {shown}, and not for {LOCAL_NAME}{own}: clients that use this name refuse it. If they \
             come under a name of the certificate, add that to allowed_hosts"
        );
        // Without keys, a request for any other name is refused as well.
        return vec![Mismatch { message, is_certain: !hosts.has_keys }];
    }
    let fits_one = listening.iter().any(|host| is_for(host));
    let is_certain = !fits_one && !listening.iter().any(is_open);
    let unfit = others.iter().filter(|host| !is_open(host) && !is_for(host));
    let mismatch = |host: &&str| Mismatch { message: words(names, &shown, host), is_certain };
    let mut all: Vec<_> = unfit.map(mismatch).collect();
    if all.is_empty() && !fits_one && !hosts.allowed.is_empty() {
        // It may have the names of a proxy before evertoken, which asks under another one.
        let message = format!(
            "the certificate is for {shown}, and for no name in allowed_hosts: clients that use one of these refuse it"
        );
        all.push(Mismatch { message, is_certain: false });
    }
    all
}

/// The mismatch with a host that other machines reach.
fn words(names: &[CertificateName], shown: &str, host: &str) -> String {
    if names.iter().any(|name| name.is_address_as_dns(host)) {
        return format!(
            "the certificate has {host} as a DNS name, where clients look for an address: write IP:{host} instead of \
             DNS:{host} in its subjectAltName"
        );
    }
    format!(
        "the certificate is for {shown}, and not for {host}: clients that use this name refuse it. If they come under a \
         name of the certificate, add that to allowed_hosts"
    )
}

/// `a.example, b.example and 3 more`
fn shown(names: &[CertificateName], has_names: bool) -> String {
    let some: Vec<_> = names.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    match (names.len(), has_names) {
        (0, _) => "no host".to_owned(),
        (_, false) => format!("no host but its CN {}", some.join(", ")),
        (count, true) if count > SHOWN_MAX => {
            format!("{} and {} more", some.join(", "), count - SHOWN_MAX)
        }
        (_, true) => some.join(", "),
    }
}

/// True for a name of this machine alone.
fn is_local(name: &CertificateName) -> bool {
    match name {
        CertificateName::Dns(name) => name == LOCAL_NAME,
        CertificateName::Address(address) => address.to_canonical().is_loopback(),
    }
}

/// True for an address that stands for all of them: it says nothing about the name that clients use.
fn is_every_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mismatches of a certificate with `names`, which are separated by spaces.
    fn told(names: &str, listen: &[&str], allowed: &[&str], has_keys: bool) -> Vec<(String, bool)> {
        let name = |text: &str| match text.parse() {
            Ok(address) => CertificateName::Address(address),
            Err(_) => CertificateName::Dns(text.strip_prefix("DNS:").unwrap_or(text).to_owned()),
        };
        let names: Vec<_> = names.split_whitespace().map(name).collect();
        let listen: Vec<_> = listen.iter().map(|one| ListenAddress::parse(one).unwrap()).collect();
        let allowed: Vec<_> = allowed.iter().map(|one| (*one).to_owned()).collect();
        let hosts = ClientHosts { listen: &listen, allowed: &allowed, are_written: true, has_keys };
        let all = of_names(&names, true, hosts).into_iter();
        all.map(|one| (one.message, one.is_certain)).collect()
    }

    #[test]
    fn a_certificate_for_none_of_the_hosts_is_certainly_the_wrong_one() {
        let name = "a.example";
        for (names, listen) in [
            (name, "192.0.2.1:1"),
            (name, "b.example:1"),
            ("*.example", "c.b.example:1"),
            ("192.0.2.2", "192.0.2.1:1"),
            ("2001:db8::2 a.example", "[2001:db8::1]:1"),
            ("DNS:192.0.2.1", "192.0.2.1:1"),
            ("", "b.example:1"),
        ] {
            let told = told(names, &[listen], &[], true);
            assert!(matches!(&*told, [(_, true)]), "{names} {listen}: {told:?}");
        }
        for (names, listen) in [
            (name, "a.example:1"),
            (name, "A.Example.:1"),
            ("*.a.example", "b.a.example:1"),
            ("192.0.2.1", "192.0.2.1:1"),
            ("2001:db8::1", "[2001:DB8::0:1]:1"),
            // Nobody knows the name behind these.
            (name, "0.0.0.0:1"),
            (name, "[::]:1"),
            (name, "unix:/s"),
        ] {
            assert_eq!(told(names, &[listen], &[], true), [], "{names} {listen}");
        }
        // Names of a proxy before evertoken, perhaps.
        let told = told(name, &["0.0.0.0:1"], &["b.example"], true);
        assert!(
            matches!(&*told, [(words, false)] if words.contains("for no name in allowed_hosts")),
            "{told:?}"
        );
    }

    #[test]
    fn another_name_of_clients_is_told_in_allowed_hosts() {
        for allowed in ["a.example", "A.EXAMPLE:8443"] {
            assert_eq!(told("a.example", &["192.0.2.1:1"], &[allowed], true), []);
        }
        assert_eq!(told("192.0.2.9", &["192.0.2.1:1"], &["192.0.2.9"], true), []);
        assert_eq!(told("2001:db8::9", &["192.0.2.1:1"], &["[2001:db8::9]:1"], true), []);
        assert!(told("a.example", &["192.0.2.1:1"], &["b.example"], true)[0].1);
    }

    #[test]
    fn a_certificate_for_one_of_the_hosts_is_only_doubtful() {
        let both = ["a.example:1", "192.0.2.1:2"];
        let of_other = told("a.example", &both, &[], true);
        assert!(
            matches!(&*of_other, [(words, false)] if words.contains("not for 192.0.2.1:")),
            "{of_other:?}"
        );
        let neither = told("b.example", &both, &[], true);
        assert!(matches!(&*neither, [(_, true), (_, true)]), "{neither:?}");
        let with_every = told("b.example", &["a.example:1", "0.0.0.0:2"], &[], true);
        assert!(matches!(&*with_every, [(_, false)]), "{with_every:?}");
        assert_eq!(told("a.example", &["a.example:1", "127.0.0.1:2"], &[], true), []);
        let local = told("localhost", &["a.example:1", "localhost:2"], &[], true);
        assert!(matches!(&*local, [(_, false)]), "{local:?}");
    }

    #[test]
    fn on_this_machine_alone_it_is_certain_where_no_other_host_is_answered() {
        for local in ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.0.0.2:1"] {
            for has_keys in [false, true] {
                let told = told("a.example", &[local], &[], has_keys);
                assert!(
                    matches!(&*told, [(_, certain)] if *certain != has_keys),
                    "{local}: {told:?}"
                );
            }
            for names in ["localhost", "127.0.0.1", "::1", "a.example localhost"] {
                assert_eq!(told(names, &[local], &[], false), [], "{local} {names}");
            }
            assert_eq!(told("a.example", &[local], &["a.example"], false), []);
        }
        // The usual address of a file without one, for which another may come.
        let usual = [ListenAddress::parse("127.0.0.1:8080").unwrap()];
        for (has_keys, count) in [(false, 1), (true, 0)] {
            let hosts = ClientHosts { listen: &usual, allowed: &[], are_written: false, has_keys };
            let told = of_names(&[CertificateName::Dns("a.example".into())], true, hosts);
            assert_eq!(told.len(), count, "{has_keys}");
        }
        assert_eq!(
            told("a.example", &["localhost:1"], &[], false)[0].0,
            "the certificate is for a.example, and not for \
            localhost: clients that use this name refuse it. If they come under a name of the certificate, add that to \
            allowed_hosts"
        );
    }

    #[test]
    fn the_names_in_a_message_are_few() {
        let names = "a b c d e f g";
        let told = told(names, &["h:1"], &[], true);
        assert!(
            told[0]
                .0
                .starts_with("the certificate is for a, b, c, d, e and 2 more, and not for h:"),
            "{told:?}"
        );
        let words = |names: &str| self::told(names, &["192.0.2.1:1"], &[], true)[0].0.clone();
        assert!(words("DNS:192.0.2.1").contains("write IP:192.0.2.1 instead of DNS:192.0.2.1"));
        assert!(words("").starts_with("the certificate is for no host, and not for 192.0.2.1"));
    }
}
