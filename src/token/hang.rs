//! Calls to a disk that may hang, such as a network mount: each runs on a thread of its own, so that its waiting caller
//! can report the wait.

use std::path::Path;
use std::time::Duration;

use log::{info, warn};

use crate::clock::Clock;
use crate::thread::on_watched_thread;
use crate::token::places::Contents;
use crate::token::waiting::{Cause, SAID_AFTER_MS, Waits};

/// The time between two looks at a call.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The number of looks after which a call counts as long: 10 s, as for any other wait.
const LONG_LOOKS: u64 = SAID_AFTER_MS / 1000;
/// The stack of the thread that makes the call.
const STACK_BYTES: usize = 128 * 1024;

/// Does `work`, and calls `tell` each second until it returns; the argument is true once the call takes long.
pub(crate) fn on_disk<T: Send>(tell: &mut dyn FnMut(bool), work: impl FnOnce() -> T + Send) -> T {
    let mut looks = 0;
    let mut look = || {
        looks += 1;
        tell(looks >= LONG_LOOKS);
    };
    on_watched_thread("disk", STACK_BYTES, LOOK_EVERY, &mut look, work)
}

/// The content of the state folder `folder`.
pub(crate) fn read_folder(folder: &Path, clock: &Clock) -> Contents {
    in_folder(folder, clock, || Contents::read(folder))
}

/// Does `work` in the state folder `folder` for a configuration that can't be used before; logs a long wait for its disk,
/// and the end of that.
pub(crate) fn in_folder<T: Send>(
    folder: &Path,
    clock: &Clock,
    work: impl FnOnce() -> T + Send,
) -> T {
    let mut waits = Waits::default();
    let mut tell = |is_long| {
        let cause = Cause::Disk { path: folder.display().to_string(), is_long };
        if let Some(told) = waits.wait(cause, clock.now()) {
            warn!("The configuration is {told}");
        }
    };
    let done = on_disk(&mut tell, work);
    if let Some(told) = waits.end(clock.now()) {
        info!("For the configuration, {told}");
    }
    done
}
