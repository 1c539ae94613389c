//! Recognizes this machine's own hosts, and those of its link. Pure.

use std::net::IpAddr;

/// True if `host`, a name or an address without port and brackets, is this machine's loopback.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// True if `host` is the metadata server of a cloud: a link-local address, or a name that leads to one. It is reached
/// without a router, so nobody outside the machine's host can be asked in its place, and it speaks no TLS.
pub(crate) fn is_metadata_host(host: &str) -> bool {
    if host.eq_ignore_ascii_case("metadata.google.internal") {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        // AWS has its own unique local prefix, fd00:ec2::/32.
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local() || address.segments()[..2] == [0xfd00, 0x0ec2]
        }
        Err(_) => false,
    }
}
