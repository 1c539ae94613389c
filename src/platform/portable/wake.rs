//! A descriptor that ends a wait: one end of a pair of sockets.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A descriptor that becomes readable when it is rung.
#[derive(Debug)]
pub(crate) struct Wake {
    heard: UnixStream,
    rung: UnixStream,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        let (heard, rung) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        Ok(Self { heard, rung })
    }

    /// Makes it readable.
    pub(crate) fn ring(&self) {
        // If it is full, it is readable anyway.
        let _ = (&self.rung).write(&[1]);
    }

    /// Makes it unreadable until it is rung again.
    pub(crate) fn clear(&self) {
        while (&self.heard).read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.heard.as_fd()
    }
}
