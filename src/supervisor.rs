//! What systemd is told (`sd_notify`): ready, reloading, stopping, alive. Without systemd, nothing.

use std::sync::Arc;
use std::time::Duration;

use log::warn;
use sd_notify::NotifyState;

pub mod watchdog;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Requests are served; this line says how. Also ends what `Reloading` began.
    Ready(String),
    /// The configuration is read again.
    Reloading,
    /// No more connections are taken; what is in flight is finished.
    Stopping,
    /// The watchdog may wait on; the line is as with `Ready`.
    Alive(String),
}

/// Who is told, and how often it wants to hear that we are alive.
#[derive(Clone)]
pub struct Supervisor {
    tell: Arc<dyn Fn(&Stage) + Send + Sync>,
    /// After this long without a word we are taken for dead; None where nobody waits for one.
    pub watchdog: Option<Duration>,
}

impl Supervisor {
    /// systemd, where it started us: it says so by `$NOTIFY_SOCKET`, and by `$WATCHDOG_USEC` with
    /// `$WATCHDOG_PID` how often it wants to hear from us.
    pub fn systemd() -> Self {
        Self::from_fn(tell_systemd, sd_notify::watchdog_enabled())
    }

    /// Nobody.
    pub fn nobody() -> Self {
        Self::from_fn(|_| {}, None)
    }

    /// Whatever `tell` is: for tests.
    pub fn from_fn(
        tell: impl Fn(&Stage) + Send + Sync + 'static,
        watchdog: Option<Duration>,
    ) -> Self {
        Self { tell: Arc::new(tell), watchdog }
    }

    /// Tells it.
    pub fn tell(&self, stage: &Stage) {
        (self.tell)(stage);
    }
}

fn tell_systemd(stage: &Stage) {
    let told = match stage {
        Stage::Ready(status) => {
            sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])
        }
        // Since systemd 253 the time is asked for (Type=notify-reload): it tells the READY=1 that ends
        // this reload from one that was under way before.
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
