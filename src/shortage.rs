//! Resources that this process or the machine has run out of: descriptors, threads, memory. No provider is to blame.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use log::error;
use rustix::io::Errno;

use crate::clock::Stopwatch;

/// The time between two log lines about a shortage.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// The exhausted resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Descriptors of this process.
    #[error("evertoken has no descriptors left")]
    Descriptors,
    /// Descriptors of the machine.
    #[error("the machine has no descriptors left")]
    DescriptorsOfAll,
    /// Threads.
    #[error("the system gives evertoken no more threads")]
    Threads,
    /// The system's memory for sockets and files.
    #[error("the system has no memory left")]
    Memory,
}

impl Shortage {
    /// The resource whose exhaustion `error` reports; None for any other error.
    pub fn of(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        if inner.is_some() {
            return inner.copied();
        }
        match Errno::from_io_error(error)? {
            Errno::MFILE => Some(Self::Descriptors),
            Errno::NFILE => Some(Self::DescriptorsOfAll),
            Errno::NOMEM | Errno::NOBUFS => Some(Self::Memory),
            _ => None,
        }
    }

    /// The exhausted resource when a thread could not be started with `error`.
    pub fn of_thread(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            // The limit of threads, or no address space for the stack: pthread_create(3) has one code for both.
            Errno::AGAIN => Some(Self::Threads),
            _ => Self::of(error),
        }
    }

    /// Logs the shortage and the operation that it prevented; at most every ten seconds for all.
    pub fn say(self, kept_from: &str) {
        static SAID: Mutex<Option<Stopwatch>> = Mutex::new(None);
        let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            *said = Some(Stopwatch::start());
            error!("{self}: {kept_from}; {}", self.advice());
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Descriptors => {
                "raise the limit (ulimit -n, LimitNOFILE=), or lower settings.max_connections"
            }
            Self::DescriptorsOfAll => "see what holds them, or raise fs.file-max",
            Self::Threads => {
                "raise the limit (ulimit -u, TasksMax=, pids of the container), or lower \
                 settings.max_connections"
            }
            Self::Memory => "give the machine or the container more memory",
        }
    }
}

/// The error of an operation that the shortage prevented.
impl From<Shortage> for io::Error {
    fn from(shortage: Shortage) -> Self {
        Self::other(shortage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_out_is_told_from_what_failed() {
        let of = |errno: Errno| Shortage::of(&errno.into());
        let of_thread = |errno: Errno| Shortage::of_thread(&errno.into());
        assert_eq!(of(Errno::MFILE), Some(Shortage::Descriptors));
        assert_eq!(of(Errno::NFILE), Some(Shortage::DescriptorsOfAll));
        assert_eq!(of(Errno::NOMEM), Some(Shortage::Memory));
        assert_eq!(of(Errno::NOBUFS), Some(Shortage::Memory));
        for errno in [Errno::AGAIN, Errno::CONNREFUSED, Errno::NOENT, Errno::ADDRNOTAVAIL] {
            assert_eq!(of(errno), None, "{errno}");
        }
        assert_eq!(of_thread(Errno::AGAIN), Some(Shortage::Threads));
        assert_eq!(of_thread(Errno::NOMEM), Some(Shortage::Memory));
        assert_eq!(of_thread(Errno::PERM), None);
        assert_eq!(Shortage::of(&io::Error::other("x")), None);
        let carried = io::Error::from(Shortage::Threads);
        assert_eq!(Shortage::of(&carried), Some(Shortage::Threads));
        assert_eq!(carried.to_string(), "the system gives evertoken no more threads");
    }
}
