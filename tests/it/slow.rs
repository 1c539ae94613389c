//! The slow tests, against the real binary: floods, faults of the disk and of the clock, browsers.
//! `make hostile` runs them; they need root, strace, faketime, chromium, promtool and redis-server.

mod browser; // pages of another origin, in headless Chromium
mod bytes; // the cases of tests/data/hostile, cut at every position
mod chromium; // a browser to look through
mod clients; // slow, silent, deaf and leaving clients; no descriptors
mod clock; // a real clock that jumps
mod disk; // full, read-only and vanished folders; kills in the middle of a write
mod engine; // the token store's rules on a real server, and every way to reach one
mod fleet; // several hosts: different seeds, a lost chain, orders at once
mod keys; // limits of keys on several hosts
mod lan; // a network of a test's own, with a name server
mod metrics; // under promtool
mod networks; // dead addresses, silent name servers, packets that get lost, an address that goes
mod page; // the page for people, in headless Chromium
mod quotas; // of several hosts on one token store, and of a binary that is killed
mod shortage; // descriptors and threads run out; a reload hangs
mod subject; // the binary under test, and what it must be after each
mod troubles; // a token store that refuses commands

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One at a time: those that load the machine, look how soon somebody is served under load, or live by tokens of
/// two seconds. What they wait for afterwards, and all others, may go on beside them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // The lock guards nothing that a failed test could have left half done.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
