//! Ends a command that refreshes when a signal says so: at once, or after a refresh whose answer must not be lost.

use log::warn;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::commands::common::SIGNAL_STACK_BYTES;
use crate::logger;
use crate::platform;
use crate::thread;
use crate::token::command;
use crate::token::uninterrupted;

/// Signals that end a command.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// From now on, a signal that ends this process also ends the token commands that it runs (each has a process group of
/// its own, which a terminal's Ctrl-C does not reach), and it waits until the answer to a refresh under way is stored. A
/// second signal ends this process at once. Signals that are ignored (`nohup`) stay so.
pub(super) fn end_on_signals() {
    let status = platform::told_of_processes("self/status").unwrap_or_default();
    let ignored = ignored(&status);
    let obeyed = ENDING.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let started = Signals::new(obeyed)
        .and_then(|signals| thread::spawn("signals", SIGNAL_STACK_BYTES, move || obey(signals)));
    match started {
        Ok(thread) => thread.detach(),
        Err(error) => {
            warn!("A signal would end this process in the middle of a refresh: {error}");
        }
    }
}

/// The set of ignored signals in `/proc/<id>/status` (proc(5)): bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let field = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    field.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

fn obey(mut signals: Signals) {
    let mut is_waiting = false;
    for signal in signals.forever() {
        let is_second = std::mem::replace(&mut is_waiting, true);
        // Before a command is killed: its end would end a refresh, and this process with the code of a failure.
        let is_refreshing = uninterrupted::forbid();
        let was_command = command::kill_all();
        if is_second || !is_refreshing {
            end_by(signal);
            continue;
        }
        if !was_command {
            warn!(
                "The answer to a refresh is awaited, so that no token is lost; a second signal ends this at once"
            );
        }
        let wait = move || {
            uninterrupted::wait();
            end_by(signal);
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
