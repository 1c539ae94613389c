//! Our own listening sockets, of which systemd keeps copies while evertoken restarts (`sd_pid_notify_with_fds(3)`).
//! Clients that come meanwhile wait instead of being refused. The addresses are those of the configuration, which those of
//! a `.socket` unit are not.

use std::io;
use std::net::{Ipv6Addr, Shutdown, SocketAddr, ToSocketAddrs};

use log::warn;
use socket2::Socket;

use crate::config::ListenAddress;
use crate::ingress::bind::{Listener, bind, is_v6_alone};
use crate::platform;

/// Listens at all `addresses`: with one of the `kept` sockets where it is bound there, else with a new one. The kept ones
/// that are left are closed. The error has the address that can't be bound.
pub(crate) fn bind_all(
    addresses: &[ListenAddress],
    mut kept: Vec<Listener>,
) -> Result<Vec<Listener>, (ListenAddress, io::Error)> {
    let taken: Vec<_> = addresses.iter().map(|one| take(one, addresses, &mut kept)).collect();
    // Before anything is bound, because one of them may have the same port at another address.
    close(kept.iter().map(|one| &*one.socket));
    let listener = |(address, taken): (&ListenAddress, Option<Listener>)| match taken {
        Some(listener) => Ok(listener),
        None => bind(address, addresses).map_err(|error| (address.clone(), error)),
    };
    addresses.iter().zip(taken).map(listener).collect()
}

/// Takes the socket that is bound to `address`, one of `all`, out of `kept`.
fn take(
    address: &ListenAddress,
    all: &[ListenAddress],
    kept: &mut Vec<Listener>,
) -> Option<Listener> {
    let ListenAddress::Tcp { host, port } = address else { return None };
    let wanted: Vec<SocketAddr> = (host.as_str(), *port).to_socket_addrs().ok()?.collect();
    let is_bound_there = |one: &Listener| {
        let bound = one.bound().port().filter(|bound| wanted.contains(bound));
        let is_for_same_families =
            || one.socket.only_v6().is_ok_and(|only| only == is_v6_alone(*port, all));
        bound.is_some_and(|bound| bound.ip() != Ipv6Addr::UNSPECIFIED || is_for_same_families())
            && platform::is_listener(&one.socket).unwrap_or(false)
    };
    let found = kept.iter().position(is_bound_there)?;
    let mut listener = kept.swap_remove(found);
    listener.configured = Some(address.to_string());
    Some(listener)
}

/// Ends listening at these sockets in all processes that have them. systemd forgets its copies then.
pub(crate) fn close<'a>(sockets: impl IntoIterator<Item = &'a Socket>) {
    for socket in sockets {
        // One that was closed before is as wanted.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// Gives copies of our own sockets with a port to the service manager, by `keep`.
pub(crate) fn hand_in(listeners: &mut [Listener], keep: &dyn Fn(&Socket) -> io::Result<()>) {
    let is_ours = |one: &&mut Listener| !one.outlives_us() && one.bound().port().is_some();
    for one in listeners.iter_mut().filter(is_ours) {
        match keep(&one.socket) {
            Ok(()) => one.is_kept = true,
            Err(error) => warn!(
                "systemd can't keep the socket of {}, so a restart will refuse connections: {error}",
                one.bound()
            ),
        }
    }
}
