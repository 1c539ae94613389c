//! The counts of one listener, and of each connection that it accepted.
//!
//! A connection counts its own bytes, which nobody else writes, so a read or a write costs no exchange between
//! processors. They are added up when somebody asks, and join the listener's own when the connection ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::atomic::AtomicU64;

/// The counts of a listener.
#[derive(Debug, Default)]
pub struct ListenerTally {
    accepted: AtomicU64,
    open: AtomicU64,
    failed_handshakes: AtomicU64,
    /// Of the connections that have ended.
    ended: ByteCounts,
}

/// Bytes in both directions.
#[derive(Debug, Default)]
pub(crate) struct ByteCounts {
    received: AtomicU64,
    sent: AtomicU64,
}

/// An open connection of a listener. It counts as open until it is dropped.
#[derive(Debug)]
pub struct ConnectionTally {
    listener: Arc<ListenerTally>,
    bytes: ByteCounts,
}

/// The counts of a listener at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerCounts {
    /// Connections that are open, those that shake hands included.
    pub open: u64,
    /// All connections since the start.
    pub accepted: u64,
    /// Bytes from clients, without those of TLS itself.
    pub received_bytes: u64,
    /// Bytes to clients, without those of TLS itself.
    pub sent_bytes: u64,
    /// TLS handshakes that did not succeed.
    pub failed_handshakes: u64,
}

impl ListenerTally {
    /// Counts a connection that was accepted.
    pub fn accept(self: &Arc<Self>) -> ConnectionTally {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        ConnectionTally { listener: self.clone(), bytes: ByteCounts::default() }
    }

    /// The counts, without the bytes of open connections.
    pub(crate) fn counts(&self) -> ListenerCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ListenerCounts {
            open: load(&self.open),
            accepted: load(&self.accepted),
            received_bytes: load(&self.ended.received),
            sent_bytes: load(&self.ended.sent),
            failed_handshakes: load(&self.failed_handshakes),
        }
    }
}

impl ByteCounts {
    /// Counts bytes from the client. Only the thread that has the connection may call this.
    pub(crate) fn add_received(&self, bytes: usize) {
        add(&self.received, bytes);
    }

    /// The same for bytes to the client.
    pub(crate) fn add_sent(&self, bytes: usize) {
        add(&self.sent, bytes);
    }
}

/// Not a `fetch_add`: there is one writer.
fn add(count: &AtomicU64, bytes: usize) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
}

impl ConnectionTally {
    /// The bytes of the connection.
    pub(crate) fn bytes(&self) -> &ByteCounts {
        &self.bytes
    }

    /// True if `listener` accepted it.
    pub(crate) fn is_of(&self, listener: &Arc<ListenerTally>) -> bool {
        Arc::ptr_eq(&self.listener, listener)
    }

    /// Adds its bytes to `counts`.
    pub(crate) fn add_to(&self, counts: &mut ListenerCounts) {
        counts.received_bytes += self.bytes.received.load(Ordering::Relaxed);
        counts.sent_bytes += self.bytes.sent.load(Ordering::Relaxed);
    }

    /// Adds its bytes to those of ended connections. Whoever adds up the bytes must see this and the end of the
    /// connection at once.
    pub(crate) fn settle(&self) {
        let ended = &self.listener.ended;
        ended.received.fetch_add(self.bytes.received.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        ended.sent.fetch_add(self.bytes.sent.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Counts its handshake as failed.
    pub(crate) fn fail_handshake(&self) {
        self.listener.failed_handshakes.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for ConnectionTally {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_join_those_of_the_listener_once() {
        let listener = Arc::new(ListenerTally::default());
        let (one, other) = (listener.accept(), listener.accept());
        assert!(one.is_of(&listener) && !one.is_of(&Arc::default()));
        one.bytes().add_received(3);
        one.bytes().add_received(4);
        one.bytes().add_sent(5);
        let mut counts = listener.counts();
        assert_eq!((counts.open, counts.accepted, counts.received_bytes), (2, 2, 0));
        one.add_to(&mut counts);
        assert_eq!((counts.received_bytes, counts.sent_bytes), (7, 5));
        one.settle();
        one.settle();
        other.fail_handshake();
        drop((one, other));
        let expected = ListenerCounts {
            open: 0,
            accepted: 2,
            received_bytes: 7,
            sent_bytes: 5,
            failed_handshakes: 1,
        };
        assert_eq!(listener.counts(), expected);
    }
}
