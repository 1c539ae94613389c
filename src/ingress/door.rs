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
pub(crate) const OTHER_DESCRIPTORS: u64 = 64;
/// The most connections at the door at once; most of them have their answer and are about to close.
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

/// Starts the thread.
pub(crate) fn start(
    limits: Arc<Limits>,
    service: Arc<dyn Service>,
    live: Arc<Live>,
    pool: Pool,
) -> io::Result<(Hosting, DoorHandle)> {
    let (words, inbox) = bounded(UNSEEN_MAX);
    let wake = Arc::new(Wake::new()?);
    let poller = Poller::new()?;
    poller.add(&wake, WAKE_ID, Interest::Read)?;
    let visitors_max = visitors_max(limits.max_connections);
    let door = Door { words, wake: wake.clone() };
    let hosting = Hosting { limits, service, door: door.clone() };
    let keeper = DoorThread {
        inbox,
        wake,
        poller,
        hosting: hosting.clone(),
        live,
        pool,
        visitors_max,
        visitors: BTreeMap::new(),
        next_id: 0,
        stopping: None,
    };
    let thread = thread::spawn("door", STACK_BYTES, move || keeper.run())?;
    Ok((hosting, DoorHandle { door, _thread: thread }))
}

/// The most connections that wait outside, with as many descriptors as are allowed now.
pub(super) fn visitors_max(max_connections: usize) -> usize {
    visitors_within(getrlimit(Resource::Nofile).current, max_connections)
}

/// The most connections at the door if `descriptors` are allowed: served connections and their providers come first.
fn visitors_within(descriptors: Option<u64>, max_connections: usize) -> usize {
    let served = 2 * max_connections as u64 + OTHER_DESCRIPTORS;
    let left = descriptors.map_or(VISITORS_MAX, |all| all.saturating_sub(served));
    usize::try_from(left.clamp(VISITORS_MIN, VISITORS_MAX)).unwrap_or(usize::MAX)
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
        for (descriptors, connections, expected) in cases {
            assert_eq!(visitors_within(descriptors, connections), expected, "{descriptors:?}");
        }
    }
}
