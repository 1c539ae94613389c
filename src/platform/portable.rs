//! Plain equivalents of Linux's own calls, of what POSIX has.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::SendFlags;
use socket2::{SockAddr, Socket};

use crate::platform::values::PeerProcess;

mod departure;
mod poller;
mod wake;

pub(crate) use departure::{DEPARTURE, DEPARTURE_BEHIND_BYTES, has_left};
pub(crate) use poller::{Events, Poller};
pub(crate) use wake::Wake;

/// The flags of a write that never waits. Rust's runtime ignores the signal of a broken connection.
pub(crate) const SEND: SendFlags = SendFlags::DONTWAIT;

/// True if a shutdown of a listening socket ends a wait for connections.
pub(crate) const SHUTDOWN_ENDS_ACCEPT: bool = false;

/// The processor that received the last packet: not told, so all count as one.
pub(crate) fn incoming_processor(_socket: &TcpStream) -> usize {
    0
}

/// The processor of this thread: not told, so all count as one.
pub(crate) fn current_processor() -> usize {
    0
}

/// Lets no connection begin at a listening socket any more: nothing but closing it does, which resets those that have
/// begun too.
pub(crate) fn let_in_no_newcomers(_socket: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Prepares a socket of our own, which listens, for [`accept`]: the connection that a poll told of may be gone by then.
pub(crate) fn prepare_to_accept(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)
}

/// Takes a connection.
pub(crate) fn accept(socket: &Socket) -> io::Result<(Socket, SockAddr)> {
    let (stream, from) = socket.accept()?;
    // Some systems let it inherit what `prepare_to_accept` set.
    stream.set_nonblocking(false)?;
    Ok((stream, from))
}

/// True for a socket that listens.
#[cfg(not(target_vendor = "apple"))]
pub(crate) fn is_listener(socket: &Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// True for a socket that listens: not told, so one that was handed over counts as such.
#[cfg(target_vendor = "apple")]
pub(crate) fn is_listener(_socket: &Socket) -> io::Result<bool> {
    Ok(true)
}

/// Gives the file of a unix socket this mode from its first moment on: not done here. It gets its mode before the socket
/// listens, and nobody can connect earlier.
pub(crate) fn set_mode_before_bind(_socket: &Socket, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Sets the longest time that sent data may stay unacknowledged: the system's own limit stays.
pub(crate) fn limit_unacknowledged(_socket: &Socket, _limit: Option<Duration>) -> io::Result<()> {
    Ok(())
}

/// The files about processes: there are none.
pub(crate) const PROCESSES: Option<&str> = None;

/// The process's name by `ps`, which each Unix has; None if there is no such process. On macOS `ps` says the path of the
/// program.
pub(crate) fn process_name(process: u32) -> Option<String> {
    let mut command = Command::new("ps");
    command.args(["-o", "comm=", "-p"]).arg(process.to_string()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().rsplit('/').next().map(str::to_owned)
}

/// The process at the other end of a unix socket: not told.
pub(crate) fn peer_process(_socket: impl AsFd) -> Option<PeerProcess> {
    None
}

/// The numbers of a file's device, as a list of locks would have them: there is no such list.
pub(crate) fn device_numbers(_device: u64) -> (u32, u32) {
    (0, 0)
}
