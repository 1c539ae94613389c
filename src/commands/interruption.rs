//! Ends a command that refreshes, or the start of the server, when a signal says so: at once, or after a refresh whose
//! answer must not be lost.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{info, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::low_level::{emulate_default_handler, exit};

use crate::commands::common::SIGNAL_STACK_BYTES;
use crate::logger;
use crate::platform;
use crate::thread::{self, Thread};
use crate::token::command;
use crate::token::uninterrupted;

/// Signals that end a command.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];
/// Signals that end the server. SIGHUP orders a reload, which comes after the start.
const STOPPING: [i32; 2] = [SIGINT, SIGTERM];

/// From now on, a signal that ends this process also ends the token commands that it runs (each has a process group of
/// its own, which a terminal's Ctrl-C does not reach), and it waits until the answer to a refresh under way is stored. A
/// second signal ends this process at once. Signals that are ignored (`nohup`) stay so.
pub(super) fn end_on_signals() {
    let status = platform::told_of_processes("self/status").unwrap_or_default();
    let ignored = ignored(&status);
    let obeyed = ENDING.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    match start(obeyed, end_by) {
        Ok(obeying) => obeying.thread.detach(),
        Err(error) => {
            warn!("A signal would end this process in the middle of a refresh: {error}");
        }
    }
}

/// The thread that obeys signals during a start, and the way to end it.
pub(super) struct EndedStart(Option<Obeying>);

impl Drop for EndedStart {
    /// From now on, a signal ends nothing here. If one has come already, and the process only waits for a refresh before it
    /// ends, this never returns: the start would go on, and the end would cut off its clients.
    fn drop(&mut self) {
        let Some(Obeying { handle, thread, heard }) = self.0.take() else { return };
        if !heard.load(Ordering::SeqCst) {
            handle.close();
            // Waits for its end.
            drop(thread);
        }
        while heard.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}

/// A thread that obeys signals.
struct Obeying {
    /// Ends it.
    handle: Handle,
    thread: Thread,
    /// A signal has come.
    heard: Arc<AtomicBool>,
}

/// As [`end_on_signals`], for the start of the server, whose disk may not answer: until the returned value is dropped,
/// SIGTERM and SIGINT end the process as a stop does. It must be dropped before anything is served.
pub(super) fn end_start_on_signals() -> EndedStart {
    let started = start(STOPPING, end_as_stopped);
    let unheard =
        |error: io::Error| warn!("A signal to stop is heard only after the start ({error})");
    EndedStart(started.map_err(unheard).ok())
}

/// Obeys `signals` on a thread of its own, until the returned handle is closed.
fn start(signals: impl IntoIterator<Item = i32>, end: fn(i32)) -> io::Result<Obeying> {
    let signals = Signals::new(signals)?;
    let handle = signals.handle();
    let heard = Arc::new(AtomicBool::new(false));
    let of_thread = heard.clone();
    let obey = move || obey(signals, &of_thread, end);
    let thread = thread::spawn("signals", SIGNAL_STACK_BYTES, obey)?;
    Ok(Obeying { handle, thread, heard })
}

/// The set of ignored signals in `/proc/<id>/status` (proc(5)): bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let field = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    field.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

fn obey(mut signals: Signals, heard: &AtomicBool, end: fn(i32)) {
    for signal in signals.forever() {
        let is_second = heard.swap(true, Ordering::SeqCst);
        // Before a command is killed: its end would end a refresh, and this process with the code of a failure.
        let is_refreshing = uninterrupted::forbid();
        let was_command = command::kill_all();
        if is_second || !is_refreshing {
            end(signal);
            continue;
        }
        if !was_command {
            warn!(
                "The answer to a refresh is awaited, so that no token is lost; a second signal ends this at once"
            );
        }
        let wait = move || {
            uninterrupted::wait();
            end(signal);
        };
        // Without a thread left to wait in, it takes that second signal.
        if let Ok(thread) = thread::spawn("ending", SIGNAL_STACK_BYTES, wait) {
            thread.detach();
        }
    }
}

/// Ends this process as `signal` does without a handler.
fn end_by(signal: i32) {
    logger::flush();
    // Only this process is left to end.
    let _ = emulate_default_handler(signal);
}

/// Ends this process as the server ends that has stopped, except that the files of unix sockets stay until the next start.
fn end_as_stopped(_: i32) {
    info!("Stopped before the start was over");
    logger::flush();
    exit(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_of_ignored_signals() {
        assert_eq!(ignored("SigBlk:\t0000000000000004\nSigIgn:\t0000000000001003\n"), 0x1003);
        assert_eq!(ignored(""), 0);
        assert_eq!(ignored("SigIgn:\tx"), 0);
    }
}
