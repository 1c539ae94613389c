//! The present source address of packets to another address. No packet is sent to find it.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// The local address towards `remote`; None without a route.
pub(super) fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, None).ok()?;
    // For UDP this only chooses a route.
    socket.connect(&remote.into()).ok()?;
    socket.local_addr().ok()?.as_socket().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_to_this_machine_come_from_it() {
        assert_eq!(source_towards("127.0.0.1:1".parse().unwrap()), "127.0.0.1".parse().ok());
        // Only a socket that asked for it may send to the broadcast address.
        assert_eq!(source_towards("255.255.255.255:1".parse().unwrap()), None);
    }
}
