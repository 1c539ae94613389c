//! A connection that was let in and is yet to be served.

use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ingress::live::LiveConnection;

/// A connection that wants to be served, with what was read of it already.
pub struct Guest {
    /// The socket.
    pub stream: Arc<TcpStream>,
    /// Its place among the open connections.
    pub entry: LiveConnection,
    /// The first bytes of its request.
    pub read: Vec<u8>,
}

/// A guest that is taken once: by a worker, or by whoever no longer waits for one.
#[derive(Clone)]
pub(crate) struct Offer(Arc<Mutex<Option<Guest>>>);

impl Offer {
    /// Offers `guest`.
    pub(crate) fn of(guest: Guest) -> Self {
        Self(Arc::new(Mutex::new(Some(guest))))
    }

    /// Takes the guest; None if another thread did.
    pub(crate) fn take(&self) -> Option<Guest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
