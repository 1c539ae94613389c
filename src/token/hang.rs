//! Calls to a disk that may hang, as a network mount does: each is done on a thread of its own, so that who waits for
//! it can say so.

use std::path::Path;
use std::time::Duration;

use log::{info, warn};

use crate::clock::Clock;
use crate::thread::aside_telling;
use crate::token::places::Contents;
use crate::token::waiting::{Cause, Waits};

/// How often it is looked whether a call has come back.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The stack of the thread that makes the call.
const STACK_BYTES: usize = 128 * 1024;

/// Does `work`, and calls `tell` each second that it has not come back.
pub fn on_disk<T: Send>(tell: &mut dyn FnMut(), work: impl FnOnce() -> T + Send) -> T {
    aside_telling("disk", STACK_BYTES, LOOK_EVERY, tell, work)
}

/// What is in the state folder `folder`.
pub fn read_folder(folder: &Path, clock: &Clock) -> Contents {
    let mut waits = Waits::default();
    let mut tell = || {
        let cause = Cause::Disk { path: folder.display().to_string() };
        if let Some(told) = waits.wait(cause, clock.now()) {
            warn!("The configuration is {told}");
        }
    };
    let contents = on_disk(&mut tell, || Contents::read(folder));
    if let Some(told) = waits.end(clock.now()) {
        info!("For the configuration, {told}");
    }
    contents
}
