//! TCP's own checks that the other end is still there: probes on silent connections, and a limit for
//! acknowledgements. Both legs have them, the clients' and the providers'.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use log::debug;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Socket, TcpKeepalive};

use crate::platform;

/// The silence after which the other end is probed. NAT boxes forget silent connections after 4 to 5 minutes; the
/// probes also keep them in the boxes' memory.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// The time between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// The number of probes that may stay unanswered. Linux counts them only if `UNACKNOWLEDGED_MAX` is not set; if it
/// is, one unanswered probe ends the connection 10 s later.
const PROBES_MAX: u32 = 3;
/// The longest time that sent data may stay unacknowledged.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// The place of a connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Across a network, which may lose packets silently.
    Remote,
    /// On this machine. No packet gets lost here, and the kernel reports the end of a process. But the kernel also
    /// considers a process gone that reads nothing for `UNACKNOWLEDGED_MAX`, such as one that Ctrl-Z or a debugger
    /// stopped, so that limit is not set.
    Local,
}

impl Peer {
    /// The place of `address`. A listening socket may pass its own: a loopback one has only local clients.
    pub(crate) fn at(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Self::Local } else { Self::Remote }
    }
}

/// Makes `socket` notice that its other end is gone. Sockets accepted from a listening one inherit this on Linux.
///
/// A system without these options is no reason to refuse a connection.
pub(crate) fn watch_peer(socket: &Socket, peer: Peer) {
    if let Err(error) = try_watch(socket, peer) {
        debug!("A dead connection may be noticed late: {error}");
    }
}

fn try_watch(socket: &Socket, peer: Peer) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES_MAX);
    socket.set_tcp_keepalive(&probes)?;
    platform::limit_unacknowledged(socket, (peer == Peer::Remote).then_some(UNACKNOWLEDGED_MAX))
}

/// True if `event` has happened on `socket`, without waiting for it.
pub(crate) fn has_event(socket: impl AsFd, event: PollFlags) -> bool {
    let mut fds = [PollFd::new(&socket, event)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// True if the other end of `socket` sends no more, as far as that is known now.
pub(crate) fn has_left(socket: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&socket, platform::DEPARTURE)];
    poll(&mut fds, Some(&Timespec::default())).is_ok()
        && platform::has_left(&socket, fds[0].revents())
}

#[cfg(test)]
pub(crate) mod tests {
    use socket2::{Domain, Type};

    use super::*;

    /// The settings on `socket`: whether it probes, after how long, how often, how many times, and how long
    /// data may stay unacknowledged.
    pub(crate) fn set_on(socket: &Socket) -> (bool, [u64; 3], Option<Duration>) {
        let probes = [
            socket.tcp_keepalive_time().unwrap().as_secs(),
            socket.tcp_keepalive_interval().unwrap().as_secs(),
            u64::from(socket.tcp_keepalive_retries().unwrap()),
        ];
        (socket.keepalive().unwrap(), probes, socket.tcp_user_timeout().unwrap())
    }

    #[test]
    fn loopback_addresses_are_this_machine() {
        let cases = [
            ("127.0.0.1", Peer::Local),
            ("127.9.9.9", Peer::Local),
            ("::1", Peer::Local),
            ("::ffff:127.0.0.1", Peer::Local),
            ("0.0.0.0", Peer::Remote),
            ("::", Peer::Remote),
            ("192.0.2.1", Peer::Remote),
            ("::ffff:192.0.2.1", Peer::Remote),
        ];
        for (address, expected) in cases {
            assert_eq!(Peer::at(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_peer_across_a_network_is_probed_and_its_acknowledgements_have_a_limit() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        watch_peer(&socket, Peer::Remote);
        assert_eq!(set_on(&socket), (true, [30, 10, 3], Some(Duration::from_secs(20))));
        watch_peer(&socket, Peer::Local);
        assert_eq!(set_on(&socket), (true, [30, 10, 3], None), "a paused process is not gone");
    }
}
