//! The other end of a unix socket.

use std::os::fd::AsFd;

use socket2::SockRef;

use crate::platform;
pub(crate) use crate::platform::PeerProcess;

/// True for a connection that was made to a unix socket with a path. A pair of sockets has none, such as the one that
/// carries a client's bytes without its TLS.
pub(crate) fn came_by_path(socket: impl AsFd) -> bool {
    let own = SockRef::from(&socket).local_addr().ok();
    own.is_some_and(|own| own.as_pathname().is_some())
}

/// The process at the other end of `socket`; None if it is no unix socket, or the system does not show the process.
pub(crate) fn of(socket: impl AsFd) -> Option<PeerProcess> {
    platform::peer_process(socket)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_pair_of_sockets_has_no_path_that_a_client_came_by() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        assert!(came_by_path(listener.accept().unwrap().0));
        let (near, _far) = UnixStream::pair().unwrap();
        assert!(!came_by_path(&near));
    }

    #[test]
    fn the_other_end_of_a_unix_socket_has_a_process_and_that_of_tcp_has_none() {
        let (near, _far) = UnixStream::pair().unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(of(&near), Some(PeerProcess { id: std::process::id(), user }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(of(&stream), None);
    }
}
