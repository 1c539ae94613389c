//! Connections that no worker is free for: one thread reads their requests and answers all of them.
//!
//! A request takes the slot of the connection that waits longest, where one waits. Else it gets 503: at once
//! where its head is whole, and after 50 ms where it is not. The pages that say how evertoken is doing are answered as
//! ever. No read or write of the thread waits, so a client that sends or takes nothing holds up nobody.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crossbeam_channel::bounded;
use rustix::process::{Resource, getrlimit};

use crate::config::Limits;
use crate::ingress::hosting::{Door, Hosting, Word};
use crate::ingress::live::Live;
use crate::ingress::pool::Pool;
use crate::ingress::service::Service;
use crate::platform::{Interest, Poller, Wake};
use crate::thread::{self, Thread};

mod keeper;
mod visitor;

use keeper::{DoorThread, WAKE_ID};

/// Descriptors besides those of connections: state files, refreshes, signals, the log.
const OTHER_DESCRIPTORS: u64 = 64;
/// Descriptors of a served connection: the client's, and that of the connection to its provider.
const DESCRIPTORS_EACH: u64 = 2;
/// The same over TLS: a pair of sockets stands between TLS and the server.
const DESCRIPTORS_EACH_OVER_TLS: u64 = 4;
/// Descriptors of a visitor that speaks TLS: it has such a pair too.
const DESCRIPTORS_OF_TLS_VISITOR: u64 = 3;
/// The most connections at the door at once; most of them have their answer and are about to close. As many may shake
/// hands.
const VISITORS_MAX: u64 = 1024;
/// The same if descriptors are few.
const VISITORS_MIN: u64 = 16;
/// Connections that were accepted and that the thread has not seen yet.
const UNSEEN_MAX: usize = 256;
const STACK_BYTES: usize = 256 * 1024;

/// The thread. Dropping this waits until every visitor has its answer.
pub(crate) struct DoorHandle {
    door: Door,
    _thread: Thread,
}

impl Drop for DoorHandle {
    fn drop(&mut self) {
        self.door.say(Word::Stop);
    }
}

/// Starts the thread, of which `outside` tells how many connections it may hold.
pub(crate) fn start(
    limits: Arc<Limits>,
    outside: Outside,
    service: Arc<dyn Service>,
    live: Arc<Live>,
    pool: Pool,
) -> io::Result<(Hosting, DoorHandle)> {
    let (words, inbox) = bounded(UNSEEN_MAX);
    let wake = Arc::new(Wake::new()?);
    let poller = Poller::new()?;
    poller.add(&wake, WAKE_ID, Interest::Read)?;
    let door = Door { words, wake: wake.clone() };
    let hosting = Hosting { limits, service, door: door.clone(), seats: pool.seats() };
    let keeper = DoorThread {
        inbox,
        wake,
        poller,
        hosting: hosting.clone(),
        live,
        pool,
        visitors_max: outside.visitors,
        visitors: BTreeMap::new(),
        next_id: 0,
        stopping: None,
    };
    let thread = thread::spawn("door", STACK_BYTES, move || keeper.run())?;
    Ok((hosting, DoorHandle { door, _thread: thread }))
}

/// The most connections without a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// At the door.
    pub visitors: usize,
    /// In the middle of a TLS handshake.
    pub handshakes: usize,
}

impl Outside {
    /// With as many descriptors as are allowed now.
    pub(super) fn now(max_connections: usize, has_tls: bool) -> Self {
        Self::within(getrlimit(Resource::Nofile).current, max_connections, has_tls)
    }

    /// If `descriptors` are allowed: served connections and their providers come first.
    fn within(descriptors: Option<u64>, max_connections: usize, has_tls: bool) -> Self {
        let all = descriptors.unwrap_or(u64::MAX);
        let left = all.saturating_sub(descriptors_wanted(max_connections, has_tls));
        let bounded = |count: u64| {
            usize::try_from(count.clamp(VISITORS_MIN, VISITORS_MAX)).unwrap_or(usize::MAX)
        };
        if !has_tls {
            return Self { visitors: bounded(left), handshakes: 0 };
        }
        let visitors = bounded(left / 2 / DESCRIPTORS_OF_TLS_VISITOR);
        Self { visitors, handshakes: bounded(left - left / 2) }
    }
}

/// The descriptors with which `max_connections` connections, perhaps over TLS, and all else find room.
pub(crate) fn descriptors_wanted(max_connections: usize, has_tls: bool) -> u64 {
    let each = if has_tls { DESCRIPTORS_EACH_OVER_TLS } else { DESCRIPTORS_EACH };
    each * max_connections as u64 + OTHER_DESCRIPTORS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_has_the_descriptors_that_connections_leave() {
        let cases = [
            (None, 512, 1024),
            (Some(1 << 20), 512, 1024),
            (Some(2 * 512 + 64 + 1024), 512, 1024),
            (Some(2 * 512 + 64 + 1023), 512, 1023),
            (Some(2 * 512 + 64 + 16), 512, 16),
            (Some(2 * 512), 512, 16),
            (Some(64), 512, 16),
        ];
        for (descriptors, connections, visitors) in cases {
            let expected = Outside { visitors, handshakes: 0 };
            assert_eq!(
                Outside::within(descriptors, connections, false),
                expected,
                "{descriptors:?}"
            );
        }
    }

    /// It counted two for each connection, and those of visitors and handshakes twice.
    #[test]
    fn connections_over_tls_leave_fewer_descriptors() {
        const SERVED: u64 = 4 * 512 + 64;
        let cases = [
            (None, 1024, 1024),
            (Some(SERVED + 6 * 1024), 1024, 1024),
            (Some(SERVED + 6 * 1024 - 1), 1023, 1024),
            (Some(SERVED + 2 * 1024), 341, 1024),
            (Some(SERVED + 2 * 1024 - 2), 341, 1023),
            (Some(SERVED + 96), 16, 48),
            (Some(SERVED), 16, 16),
            (Some(64), 16, 16),
        ];
        for (descriptors, visitors, handshakes) in cases {
            let expected = Outside { visitors, handshakes };
            let found = Outside::within(descriptors, 512, true);
            assert_eq!(found, expected, "{descriptors:?}");
            // Within what is left, unless that is less than the least.
            let used = 3 * visitors as u64 + handshakes as u64;
            assert!(descriptors.is_none_or(|all| SERVED + used.max(64) <= all.max(SERVED + 64)));
        }
    }

    #[test]
    fn the_descriptors_that_connections_want() {
        assert_eq!(descriptors_wanted(512, false), 1088);
        assert_eq!(descriptors_wanted(512, true), 2112);
    }
}
