//! Starts the program anew, in its own process, after a panic that would leave the process without one of its threads.
//!
//! A panic of a worker costs one connection, and the next worker takes its place. A refresher, a listener or another
//! thread that lasts has no replacement. And a program that was built to abort (`make static`) ends with any panic. The state
//! folder is always ready for that (it is for a kill), so the remedy is that of a supervisor, which small machines often
//! lack: the same program, with the same arguments and process ID.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use log::{error, warn};
use socket2::Socket;

use crate::ingress::kept;
use crate::logger;
use crate::thread;
use crate::token::{command, uninterrupted};

/// A program that panics sooner after its start would do so again and again. It is left to its supervisor.
const UPTIME_MIN: Duration = Duration::from_secs(10);
/// The time for answers to refreshes under way, which would be lost.
const REFRESHES_MAX: Duration = Duration::from_secs(10);

/// The program, and the arguments with which it starts anew.
pub struct Program {
    /// The file of the program.
    pub file: PathBuf,
    /// Its arguments, without its own name.
    pub arguments: Vec<OsString>,
    /// The sockets that a service manager handed over, which it gets again.
    pub handed: Vec<Arc<Socket>>,
    /// Its own sockets, of which a service manager has copies. It binds the addresses anew, so these have to be closed.
    pub kept: Vec<Arc<Socket>>,
}

impl Program {
    /// The program of this process, to which a service manager `handed` sockets over, and for which it keeps others; None
    /// if the system does not say which it is.
    pub(super) fn of_process(handed: Vec<Arc<Socket>>, kept: Vec<Arc<Socket>>) -> Option<Self> {
        let file = std::env::current_exe().ok()?;
        Some(Self { file, arguments: std::env::args_os().skip(1).collect(), handed, kept })
    }

    /// From now on, starts this program after a panic that ends the process, or a thread that lasts. `uptime` returns
    /// the time for which it has run.
    pub fn start_after_panics(self, uptime: impl Fn() -> Duration + Send + Sync + 'static) {
        if cfg!(panic = "abort") {
            let log = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                log(panic);
                self.start_if_due(uptime());
            }));
        } else {
            thread::on_panic(move || self.start_if_due(uptime()));
        }
    }

    /// Takes the process over, unless it has run for less than [`UPTIME_MIN`].
    fn start_if_due(&self, uptime: Duration) {
        if uptime < UPTIME_MIN {
            return;
        }
        let _ = uninterrupted::forbid();
        uninterrupted::wait_at_most(REFRESHES_MAX);
        command::kill_all();
        warn!("Starting anew, since a thread ended by a panic; please report it");
        logger::flush();
        kept::close(self.kept.iter().map(AsRef::as_ref));
        for socket in &self.handed {
            // The environment, which stays the same, names it by its number.
            let _ = socket.set_cloexec(false);
        }
        let error = Command::new(&self.file).args(&self.arguments).exec();
        error!("{} can't be started anew: {error}", self.file.display());
        logger::flush();
        // Without one of its threads the process would look well to its supervisor.
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_panics_at_its_start_is_not_started_again_and_again() {
        let nothing = Program {
            file: "/nonexistent".into(),
            arguments: Vec::new(),
            handed: Vec::new(),
            kept: Vec::new(),
        };
        // A try would fail, and end the process of this test.
        nothing.start_if_due(Duration::ZERO);
        nothing.start_if_due(Duration::from_millis(9_999));
    }
}
