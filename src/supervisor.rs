//! Messages to systemd (`sd_notify`): ready, reloading, stopping, alive, and sockets to keep. Without systemd, it does nothing.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use sd_notify::NotifyState;
use socket2::Socket;

pub(crate) mod watchdog;

/// The name with which systemd keeps our sockets, and hands them over again.
pub(crate) const KEPT: &str = "kept";

/// The message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Requests are served, with this line of status. Also ends `Reloading`.
    Ready(String),
    /// The configuration is being read again.
    Reloading,
    /// No new connections are accepted, and requests in flight are finished.
    Stopping,
    /// evertoken is alive; the line is as with `Ready`.
    Alive(String),
}

/// The receiver of messages, and its interval for signs of life.
#[derive(Clone)]
pub struct Supervisor {
    tell: Arc<dyn Fn(&Stage) + Send + Sync>,
    /// Gives a copy of a listening socket to the service manager, for the next evertoken; None if it keeps none.
    pub(crate) keep: Option<fn(&Socket) -> io::Result<()>>,
    /// The silence after which the service manager considers evertoken dead; None if nobody watches.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// systemd, if it started this process: `$NOTIFY_SOCKET` says so, and `$WATCHDOG_USEC` with `$WATCHDOG_PID` set
    /// the interval for signs of life. `$FDSTORE`, which is `room` here, is the number of sockets that it keeps.
    pub fn systemd(room: Option<&str>) -> Self {
        let keeps = room.and_then(|room| room.parse::<u64>().ok()).is_some_and(|room| room > 0);
        let keep = keeps.then_some(keep_by_systemd as fn(&Socket) -> io::Result<()>);
        Self { keep, ..Self::from_fn(tell_systemd, sd_notify::watchdog_enabled()) }
    }

    /// A receiver that ignores everything.
    pub fn nobody() -> Self {
        Self::from_fn(|_| {}, None)
    }

    /// A receiver that calls `tell`, for tests.
    pub fn from_fn(
        tell: impl Fn(&Stage) + Send + Sync + 'static,
        watchdog: Option<Duration>,
    ) -> Self {
        Self { tell: Arc::new(tell), keep: None, watchdog }
    }

    /// Sends the message.
    pub fn tell(&self, stage: &Stage) {
        (self.tell)(stage);
    }
}

fn keep_by_systemd(socket: &Socket) -> io::Result<()> {
    let message = [NotifyState::FdStore, NotifyState::FdName(KEPT)];
    sd_notify::notify_with_fds(&message, &[socket.as_fd()])
}

fn tell_systemd(stage: &Stage) {
    let told = match stage {
        Stage::Ready(status) => {
            sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])
        }
        // Since systemd 253 the message has the time (Type=notify-reload), which distinguishes the READY=1 of this
        // reload from an earlier one.
        Stage::Reloading => NotifyState::monotonic_usec_now().and_then(|since| {
            let status = NotifyState::Status("Reading the configuration again");
            sd_notify::notify(&[NotifyState::Reloading, since, status])
        }),
        Stage::Stopping => {
            let status = NotifyState::Status("Finishing what is in flight");
            sd_notify::notify(&[NotifyState::Stopping, status])
        }
        Stage::Alive(status) => {
            sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(status)])
        }
    };
    if let Err(error) = told {
        warn!("systemd can't be told {stage:?}: {error}");
    }
}
