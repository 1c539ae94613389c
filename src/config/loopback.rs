//! Recognizes this machine's own hosts. Pure.

use std::net::IpAddr;

/// True if `host`, a name or an address without port and brackets, is this machine's loopback.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
