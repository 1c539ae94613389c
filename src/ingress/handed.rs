//! Listening sockets that a service manager hands over at the start (`sd_listen_fds(3)`): those that it bound itself, such as
//! systemd with a `.socket` unit, and those of an earlier evertoken that it kept (`ingress/kept.rs`). It keeps both, so no
//! connection is refused while evertoken restarts.

use std::io;
use std::os::fd::OwnedFd;

use socket2::{Socket, Type};

use crate::bound::Bound;
use crate::config::ADDRESSES_MAX;
use crate::ingress::bind::Listener;
use crate::platform;
use crate::supervisor::KEPT;

/// The number of the first descriptor.
const FIRST: usize = 3;

/// The sockets that were handed over to this process, whose environment is `variable`. It has to be called before
/// anything is opened, because the sockets are only numbers in the environment.
pub(crate) fn take(variable: impl Fn(&str) -> Option<String>) -> io::Result<Vec<Listener>> {
    let is_ours = variable("LISTEN_PID") == Some(std::process::id().to_string());
    let count = variable("LISTEN_FDS").and_then(|count| count.parse::<u64>().ok());
    if let Some(count) = count.filter(|count| is_ours && *count > ADDRESSES_MAX as u64) {
        let why =
            format!("LISTEN_FDS is {count}, and evertoken takes at most {ADDRESSES_MAX} sockets");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let handed = sd_listen_fds::get().map_err(|_| {
        let why = "LISTEN_PID or LISTEN_FDS, which a service manager sets, is not a number";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })?;
    let listener = |(index, (name, descriptor)): (
        usize,
        (Option<String>, sd_listen_fds::OwnedFd),
    )| {
        let is_kept = name.as_deref() == Some(KEPT);
        listener(descriptor.into_std(), is_kept).map_err(|why| {
            let number = FIRST + index;
            let message = format!(
                "descriptor {number}, which the service manager handed over (LISTEN_FDS), can't be used: {why}"
            );
            io::Error::new(why.kind(), message)
        })
    };
    handed.into_iter().enumerate().map(listener).collect()
}

fn listener(descriptor: OwnedFd, is_kept: bool) -> io::Result<Listener> {
    let socket = Socket::from(descriptor);
    // A command for a token must not keep it open.
    socket.set_cloexec(true)?;
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    // One of ours may have been shut down, which is for `ingress/kept.rs` to see.
    if socket.r#type()? != Type::STREAM || !(is_kept || platform::is_listener(&socket)?) {
        return Err(wrong(
            "it is no socket that listens; a .socket unit needs ListenStream= and Accept=no",
        ));
    }
    let address = socket.local_addr()?;
    let bound = match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => Bound::Tcp(address),
        (None, Some(path)) => Bound::Unix(path.to_owned()),
        (None, None) => {
            return Err(wrong("it is bound to neither an address with a port nor a file"));
        }
    };
    if let Bound::Tcp(_) = bound {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(if is_kept { Listener::kept(socket, bound) } else { Listener::handed(socket, bound) })
}
