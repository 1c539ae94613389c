//! The address that packets to another one would come from at the moment. No packet is sent for it.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// The local address towards `remote`; None where there is no route.
pub(super) fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, None).ok()?;
    // For UDP this chooses a route, and nothing else.
    socket.connect(&remote.into()).ok()?;
    socket.local_addr().ok()?.as_socket().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_to_this_machine_come_from_it() {
        assert_eq!(source_towards("127.0.0.1:1".parse().unwrap()), "127.0.0.1".parse().ok());
        // Only a socket that asked for it may send to everybody.
        assert_eq!(source_towards("255.255.255.255:1".parse().unwrap()), None);
    }
}
