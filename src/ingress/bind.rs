//! Binds the addresses to listen on.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::after;
use log::warn;
use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::bound::{Bound, connect_unix};
use crate::clock::Deadline;
use crate::config::ListenAddress;
use crate::ingress::tally::ListenerTally;
use crate::listener_owner::{self, Process};
use crate::liveness::{Peer, watch_peer};
use crate::platform;
use crate::tls::OwnCertificate;

/// Connections that the system holds until they are accepted.
const BACKLOG: i32 = 1024;
/// The wait for a place in the queue of another server, which counts as alive with a full queue too.
const OTHER_QUEUE_MAX: Duration = Duration::from_millis(1);

/// The longest wait for another evertoken that binds a socket in the same folder, and the time between two looks.
const FOLDER_LOCK_MAX: Duration = Duration::from_secs(1);
const FOLDER_LOOK_EVERY: Duration = Duration::from_millis(1);

/// A socket that listens. Dropping it removes its file.
pub struct Listener {
    pub(super) socket: Arc<Socket>,
    bound: Bound,
    /// The address as configured; None if it was handed over.
    pub(super) configured: Option<String>,
    /// Counts its connections.
    pub(super) tally: Arc<ListenerTally>,
    file: Option<SocketFile>,
    /// A service manager bound it and keeps it.
    pub(super) is_handed: bool,
    /// It is ours, and the service manager keeps a copy for the next evertoken.
    pub(super) is_kept: bool,
    /// The certificate for its clients, if they speak TLS.
    pub(super) tls: Option<Arc<OwnCertificate>>,
}

impl Listener {
    /// A socket that a service manager bound to `bound`.
    pub(super) fn handed(socket: Socket, bound: Bound) -> Self {
        if let Bound::Tcp(address) = &bound {
            watch_peer(&socket, Peer::at(address.ip()));
        }
        Self { is_handed: true, ..Self::new(socket, bound) }
    }

    /// A socket of an earlier evertoken, of which the service manager kept a copy.
    pub(super) fn kept(socket: Socket, bound: Bound) -> Self {
        Self { is_kept: true, ..Self::new(socket, bound) }
    }

    fn new(socket: Socket, bound: Bound) -> Self {
        Self {
            socket: Arc::new(socket),
            bound,
            configured: None,
            tally: Arc::default(),
            file: None,
            is_handed: false,
            is_kept: false,
            tls: None,
        }
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> Arc<Socket> {
        self.socket.clone()
    }

    /// True for a socket of an earlier evertoken, and for one that the next one will get.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// True if it goes on listening when this process has ended.
    pub(super) fn outlives_us(&self) -> bool {
        self.is_handed || self.is_kept
    }

    /// The address as bound.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Makes its clients speak TLS, unless it is a unix socket.
    pub(crate) fn speak_tls(&mut self, certificate: &Arc<OwnCertificate>) {
        if let Bound::Tcp(address) = self.bound {
            self.bound = Bound::Tls(address);
            self.tls = Some(certificate.clone());
        }
    }

    /// True if other machines reach it.
    pub(super) fn has_remote_clients(&self) -> bool {
        self.bound.port().is_some_and(|address| Peer::at(address.ip()) == Peer::Remote)
    }

    /// True for a unix socket.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.bound, Bound::Unix(_))
    }

    /// Removes the file of a unix socket, so that nobody finds it any more.
    pub(super) fn remove_file(&mut self) {
        self.file = None;
    }
}

/// Binds `address`, one of `all` that are to be bound, and listens.
pub fn bind(address: &ListenAddress, all: &[ListenAddress]) -> io::Result<Listener> {
    let listener = match address {
        ListenAddress::Tcp { host, port } => bind_tcp(host, *port, is_v6_alone(*port, all)),
        ListenAddress::Unix { path, mode } => bind_unix(path, *mode),
    };
    Ok(Listener { configured: Some(address.to_string()), ..listener? })
}

/// True if `[::]` with this port is for IPv6 alone: it takes IPv4 too, unless another one of `all` is there for that.
pub(super) fn is_v6_alone(port: u16, all: &[ListenAddress]) -> bool {
    let shares_port = |one: &&ListenAddress| matches!(one, ListenAddress::Tcp { port: other, .. } if *other == port);
    all.iter().filter(shares_port).count() > 1
}

/// Binds `host`, a name or an address.
fn bind_tcp(host: &str, port: u16, is_v6_alone: bool) -> io::Result<Listener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in (host, port).to_socket_addrs()? {
        match bind_address(address, is_v6_alone) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_address(address: SocketAddr, is_v6_alone: bool) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if is_v6_alone && address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit the options on Linux.
    socket.set_tcp_nodelay(true)?;
    watch_peer(&socket, Peer::at(address.ip()));
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Listener::new(socket, Bound::Tcp(bound)))
}

/// Binds a unix socket at `path`, in place of one on which nobody listens.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    // Between its look and its binding, another evertoken could replace the socket that this one has just made.
    let _alone = lock_folder(path);
    make_room(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Linux makes the file with the mode of the socket, less the umask; so the file is never open to more people.
    platform::set_mode_before_bind(&socket, mode)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Restores the bits that the umask took away. Nobody connects before the next line.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    let bound = Bound::Unix(path.to_owned());
    Ok(Listener { file: Some(file), ..Listener::new(socket, bound) })
}

/// Keeps other evertokens from binding in the folder of `path`; None if that can't be had, which is no reason not to
/// bind.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    let deadline = Deadline::after(FOLDER_LOCK_MAX);
    while flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
        if deadline.has_passed() {
            return None;
        }
        // Only the timer's end matters.
        let _ = after(FOLDER_LOOK_EVERY).recv();
    }
    Some(folder)
}

/// Removes a socket file on which nobody listens. Any other file is left alone, and an error.
fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let why = "a file stands there that is no socket, and it is left alone";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match connect_unix(path, OTHER_QUEUE_MAX) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(other) => Err(in_use(listener_owner::of_connection(&other))),
        // Its queue is full, or it is a socket of another kind.
        Err(_) => Err(in_use(None)),
    }
}

fn in_use(owner: Option<Process>) -> io::Error {
    let owner = owner.map_or_else(|| "another process".to_owned(), |owner| owner.to_string());
    io::Error::new(io::ErrorKind::AddrInUse, format!("the socket is in use by {owner}"))
}

/// The file of a unix socket. Dropping this removes the file, unless another one has taken its place.
struct SocketFile {
    path: PathBuf,
    /// Device and number of the file.
    id: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), id: id_of(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id_of(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!("The socket {} can't be removed: {error}", self.path.display());
        }
    }
}

fn id_of(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use socket2::SockRef;

    use super::*;
    use crate::liveness::tests::set_on;

    const LIMIT: Duration = Duration::from_secs(20);

    fn mode_of(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn accepted_connections_notice_that_their_client_is_gone() {
        for (host, limit) in [("127.0.0.1", None), ("0.0.0.0", Some(LIMIT))] {
            let listener = bind_tcp(host, 0, false).unwrap();
            let port = listener.socket.local_addr().unwrap().as_socket().unwrap().port();
            let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let accepted = listener.socket.accept().unwrap().0;
            assert_eq!(set_on(&SockRef::from(&accepted)), (true, [30, 10, 3], limit), "{host}");
        }
    }

    /// `[::]` took IPv4 too, so the second of the two was "in use by another process".
    #[test]
    fn all_addresses_of_both_families_share_a_port() {
        let connects = |host: &str, port| TcpStream::connect((host, port)).is_ok();
        for first_is_v6 in [true, false] {
            let free = bind_tcp("0.0.0.0", 0, false).unwrap();
            let port = free.bound.port().unwrap().port();
            drop(free);
            let tcp = |host: &str| ListenAddress::Tcp { host: host.to_owned(), port };
            let mut all = vec![tcp("::"), tcp("0.0.0.0")];
            if !first_is_v6 {
                all.reverse();
            }
            let Ok(bound) = all.iter().map(|one| bind(one, &all)).collect::<io::Result<Vec<_>>>()
            else {
                panic!("{all:?} can't be bound together");
            };
            assert!(connects("127.0.0.1", port) && connects("::1", port));
            drop(bound);
            // Alone, it takes both.
            let alone = bind(&tcp("::"), &all[..1]).unwrap();
            assert!(connects("127.0.0.1", port) && connects("::1", port));
            drop(alone);
        }
    }

    #[test]
    fn a_socket_file_has_its_mode_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for mode in [0o600, 0o660, 0o666] {
            let listener = bind_unix(&path, mode).unwrap();
            assert_eq!(mode_of(&path), mode);
            connect_unix(&path, LIMIT).unwrap();
            drop(listener);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_socket_on_which_nobody_listens_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let other = UnixListener::bind(&path).unwrap();
        let refused = bind_unix(&path, 0o600).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        let own = format!(", process {}", std::process::id());
        assert!(refused.to_string().ends_with(&own), "{refused}");
        drop(other);
        assert!(path.exists(), "the standard library leaves it behind");
        let first = bind_unix(&path, 0o600).unwrap();
        // A file that took its place is not removed with it.
        fs::remove_file(&path).unwrap();
        let second = bind_unix(&path, 0o600).unwrap();
        drop(first);
        connect_unix(&path, LIMIT).unwrap();
        drop(second);
        let _datagrams = UnixDatagram::bind(&path).unwrap();
        assert_eq!(bind_unix(&path, 0o600).err().unwrap().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn of_several_that_start_at_once_one_listens_and_is_reached() {
        const ROUNDS: usize = 100;
        let folder = tempfile::tempdir().unwrap();
        for round in 0..ROUNDS {
            let path = folder.path().join(round.to_string());
            // One that was killed left its socket.
            drop(UnixListener::bind(&path).unwrap());
            let (bound, all) = crossbeam_channel::unbounded();
            let start = Arc::new(std::sync::Barrier::new(8));
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let (path, bound, start) = (path.clone(), bound.clone(), start.clone());
                    let bind = move || {
                        start.wait();
                        bound.send(bind_unix(&path, 0o600).ok()).unwrap();
                    };
                    crate::thread::spawn("bind", 128 * 1024, bind).unwrap()
                })
                .collect();
            drop((bound, threads));
            let listening: Vec<_> = all.iter().flatten().collect();
            assert_eq!(listening.len(), 1, "round {round}");
            connect_unix(&path, LIMIT).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("f"), folder.path().join("l"));
        fs::write(&file, "mine").unwrap();
        std::os::unix::fs::symlink(folder.path().join("none"), &link).unwrap();
        for path in [&file, &link, &folder.path().to_owned()] {
            let refused = bind_unix(path, 0o600).err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{refused}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let nowhere = bind_unix(&folder.path().join("none/s"), 0o600).err().unwrap();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
    }
}
