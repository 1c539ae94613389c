//! The waits of a refresher: the cause, the start, and the time to log them. Pure.

use std::mem;

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, Timestamp};
use crate::shortage::Shortage;

/// A wait is logged once it has lasted this long; a wait for a state file is logged at once.
pub(crate) const SAID_AFTER_MS: u64 = 10_000;

/// The cause of a wait, in words that follow "waiting for".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    /// Another process holds the lock on a file.
    #[error("another process, {}which holds the lock {path}", holder_words(holder.as_deref()))]
    Lock {
        /// The lock file.
        path: String,
        /// The holding process, if the system tells.
        holder: Option<String>,
    },
    /// Another host holds the lease, or may still come back with an answer.
    #[error(
        "another host, which is refreshing this provider or may still bring the answer to a refresh that \
         it began"
    )]
    Lease,
    /// The token store can't be used.
    #[error("the token store {place}, which can't be used ({why})")]
    Store {
        /// The store's address.
        place: String,
        /// The error.
        why: String,
    },
    /// A lock file can't be opened. Logged at once.
    #[error(
        "the lock {path}, which can't be used ({why}); until it can, nothing is refreshed, because \
         another process could be refreshing this provider"
    )]
    LockFile {
        /// The lock file.
        path: String,
        /// The error.
        why: String,
    },
    /// An unreadable file or folder may hold the tokens of a provider without a state file of its own. Logged at once.
    #[error(
        "{path}, which can't be read ({why}) and may hold the tokens of this provider, as after a change \
         of its name; until it can, no refresh token is used"
    )]
    Unseen {
        /// The state folder, or a file in it.
        path: String,
        /// The error.
        why: String,
    },
    /// The state file exists and can't be read. Logged at once.
    #[error(
        "the state file {path}, which can't be read ({why}); until it can, no refresh token is used and \
         nothing is written there"
    )]
    StateFile {
        /// The state file.
        path: String,
        /// The error.
        why: String,
    },
    /// A call to the disk that holds the state file has not come back.
    #[error("the disk of the state file {path}, which does not answer")]
    Disk {
        /// The state file.
        path: String,
        /// True if the call takes long, measured by the call itself and not by the clock of tokens.
        is_long: bool,
    },
    /// A resource ran out that reading the state file needs. Logged at once.
    #[error("what has run out: {0}")]
    Shortage(Shortage),
    /// The wall clock shows a time that has passed already.
    #[error("the wall clock to be set; it shows {shown}, a time that has already passed")]
    Clock {
        /// The time it shows.
        shown: Timestamp,
    },
}

/// A published wait, for refusals and for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("waiting since {since} for {what}")]
pub struct Waiting {
    /// The cause.
    #[serde(rename = "for")]
    pub what: String,
    /// The start of the wait.
    pub since: Timestamp,
    /// The advice.
    pub advice: String,
}

/// The wait of one refresher.
#[derive(Debug, Default)]
pub(crate) struct Waits(Option<Wait>);

#[derive(Debug)]
struct Wait {
    cause: Cause,
    since: Moment,
    is_said: bool,
}

/// The words for the process, if it is known, to stand before "which".
fn holder_words(holder: Option<&str>) -> String {
    holder.map_or_else(String::new, |holder| format!("{holder}, "))
}

impl Cause {
    fn advice(&self) -> &'static str {
        match self {
            Self::Lock { .. } => {
                "If that process hangs, end it: that releases its lock, and the refresh continues \
                 by itself."
            }
            Self::Lease => "Nothing to do unless the wait lasts; then check the other host.",
            Self::Store { .. } => "Check the token store; the refresh continues by itself.",
            Self::StateFile { .. } => {
                "Check the disk, the mount or the permissions; evertoken tries the file again by \
                 itself. If it holds nothing you need, move it away: then the configured refresh \
                 token is used."
            }
            Self::LockFile { .. } => {
                "Correct the permissions, or remove the lock while no evertoken runs; evertoken \
                 tries it again by itself."
            }
            Self::Unseen { .. } => {
                "Correct the permissions, or move the file away if it holds nothing you need; \
                 evertoken tries it again by itself."
            }
            Self::Disk { .. } => {
                "Check the disk or the mount; the refresh continues by itself once the disk \
                 answers."
            }
            Self::Shortage(_) => {
                "Give evertoken more of it (the log says how), or lower settings.max_connections."
            }
            Self::Clock { .. } => "Set the clock, or refresh this provider by hand.",
        }
    }

    /// True if the cause is an unusable file, which is logged at once.
    pub(crate) fn is_of_file(&self) -> bool {
        matches!(
            self,
            Self::Shortage(_)
                | Self::StateFile { .. }
                | Self::Unseen { .. }
                | Self::LockFile { .. }
        )
    }

    fn is_same_kind(&self, other: &Self) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
    }
}

impl Wait {
    fn waited_ms(&self, now: Moment) -> u64 {
        now.steady_ms.saturating_sub(self.since.steady_ms)
    }

    fn is_long(&self, now: Moment) -> bool {
        match self.cause {
            Cause::Disk { is_long, .. } => is_long,
            _ => self.cause.is_of_file() || self.waited_ms(now) >= SAID_AFTER_MS,
        }
    }
}

impl Waits {
    /// Notes a wait for `cause`. Returns the log line, once for each wait, when the wait has lasted for
    /// [`SAID_AFTER_MS`].
    pub(crate) fn wait(&mut self, cause: Cause, now: Moment) -> Option<String> {
        let wait = match &mut self.0 {
            Some(wait) if wait.cause.is_same_kind(&cause) => wait,
            place => place.insert(Wait { cause: cause.clone(), since: now, is_said: false }),
        };
        if let Cause::Disk { .. } = cause
            && !wait.is_said
        {
            wait.cause = cause.clone();
        }
        if wait.is_said || !wait.is_long(now) {
            return None;
        }
        (wait.cause, wait.is_said) = (cause, true);
        Some(format!("waiting since {} for {}", wait.since.wall, wait.cause))
    }

    /// True if a wait has just become long enough for the log.
    pub(crate) fn is_to_be_said(&self, now: Moment) -> bool {
        self.0.as_ref().is_some_and(|wait| !wait.is_said && wait.is_long(now))
    }

    /// Notes the end of a wait. Returns the log line, if the log reported the wait.
    pub(crate) fn end(&mut self, now: Moment) -> Option<String> {
        let wait = self.0.take().filter(|wait| wait.is_said)?;
        let waited_secs = wait.waited_ms(now) / 1000;
        Some(format!("the wait for {} is over after {waited_secs} s", wait.cause))
    }

    /// True if the log reports the cause once for all providers.
    pub(crate) fn is_said_for_all(&self) -> bool {
        let cause = self.0.as_ref().map(|wait| &wait.cause);
        matches!(cause, Some(Cause::Store { .. } | Cause::Shortage(_)))
    }

    /// The wait, if it has lasted long enough for the log.
    pub(crate) fn said(&self) -> Option<Waiting> {
        let wait = self.0.as_ref().filter(|wait| wait.is_said)?;
        Some(Waiting {
            what: wait.cause.to_string(),
            since: wait.since.wall,
            advice: wait.cause.advice().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(steady_ms: u64) -> Moment {
        let wall = Timestamp::from_secs(1_800_000_000);
        Moment { wall: wall.plus_millis(i64::try_from(steady_ms).unwrap()), steady_ms }
    }

    fn lock(holder: Option<&str>) -> Cause {
        Cause::Lock { path: "/s/p.lock".into(), holder: holder.map(str::to_owned) }
    }

    #[test]
    fn a_wait_is_said_once_after_10_s_and_once_when_it_ends() {
        let mut waits = Waits::default();
        assert_eq!(waits.wait(lock(None), at(0)), None);
        assert_eq!(waits.wait(lock(None), at(SAID_AFTER_MS - 1)), None);
        assert_eq!(waits.said(), None);
        assert!(
            !waits.is_to_be_said(at(SAID_AFTER_MS - 1)) && waits.is_to_be_said(at(SAID_AFTER_MS))
        );
        let told = waits.wait(lock(Some("7 (x)")), at(SAID_AFTER_MS)).unwrap();
        assert_eq!(
            told,
            "waiting since 2027-01-15T08:00:00.000Z for another process, 7 (x), which holds the lock \
             /s/p.lock"
        );
        assert_eq!(waits.said().unwrap().to_string(), told);
        assert_eq!(waits.wait(lock(None), at(SAID_AFTER_MS + 1)), None, "said once");
        assert!(!waits.is_to_be_said(at(SAID_AFTER_MS + 1)));
        assert_eq!(waits.said().unwrap().to_string(), told, "the holder is kept");
        let over = waits.end(at(61_500)).unwrap();
        assert!(over.ends_with("is over after 61 s"), "{over}");
        assert_eq!((waits.end(at(61_500)), waits.said()), (None, None));
    }

    #[test]
    fn a_short_wait_is_not_said_and_another_cause_begins_another_wait() {
        let mut waits = Waits::default();
        waits.wait(lock(None), at(0));
        assert_eq!(waits.end(at(9_999)), None);
        waits.wait(Cause::Lease, at(10_000));
        waits.wait(lock(None), at(15_000));
        assert_eq!(waits.wait(lock(None), at(24_999)), None);
        assert!(waits.wait(lock(None), at(25_000)).is_some());
        assert_eq!(waits.wait(Cause::Lease, at(30_000)), None);
        assert_eq!(waits.said(), None, "the new wait is not long enough yet");
        let file = Cause::StateFile { path: "/s/p.json".into(), why: "I/O error".into() };
        assert!(waits.wait(file, at(30_001)).is_some(), "a state file is said at once");
        for cause in [
            Cause::Store { place: "redis://h".into(), why: "no connection".into() },
            Cause::Clock { shown: Timestamp::from_secs(0) },
        ] {
            waits.wait(cause.clone(), at(40_000));
            assert!(waits.wait(cause, at(50_000)).unwrap().contains(" for the "));
            assert!(!waits.said().unwrap().advice.is_empty());
        }
    }

    #[test]
    fn a_call_to_the_disk_is_said_once_it_takes_long_itself() {
        let mut waits = Waits::default();
        let disk = |is_long| Cause::Disk { path: "/s/p.json".into(), is_long };
        assert_eq!(waits.wait(disk(false), at(0)), None);
        assert_eq!(waits.wait(disk(false), at(3_600_000)), None, "the clock was moved");
        let told = waits.wait(disk(true), at(3_600_000)).unwrap();
        assert!(told.contains(" for the disk "), "{told}");
        assert_eq!(waits.wait(disk(true), at(3_600_000)), None, "said once");
        assert!(waits.end(at(3_600_000)).is_some());
    }
}
