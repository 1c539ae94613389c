//! Moves the state files of chains to their names, each under its lock.

use std::time::Duration;

use log::{info, warn};

use crate::clock::Timestamp;
use crate::token::places::contents::{Contents, FoundFile, numbered};
use crate::token::state_file::{Locking, StateFile, StateLock};

/// The number of tries for the lock of a file to be moved, and the wait between them.
const LOCK_TRIES_MAX: u32 = 20;
const LOCK_RETRY: Duration = Duration::from_millis(250);

/// The move of one chain's files.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    /// The names of its providers.
    pub name: String,
    /// Its files.
    pub found: FoundFile,
    /// The new name of its file.
    pub home: String,
}

impl Contents {
    /// Sorts the folder: moves older files aside, and the chains' files to their names.
    pub(crate) fn settle(&self, moves: &[Move], now: Timestamp, wait: &dyn Fn(Duration)) {
        let file = |slug: &str| StateFile::new(&self.folder, slug);
        for one in moves {
            for slug in &one.found.stale {
                set_aside(&file(slug), &one.name, now);
            }
        }
        // Two chains may exchange places, so all files are taken away before the first is put down.
        let mut carried = Vec::new();
        for one in moves {
            let from = one.found.slug.as_ref().filter(|slug| **slug != one.home);
            let between = numbered(&one.home).find(|slug| !self.has(slug));
            if let Some((from, between)) = from.zip(between)
                && rename(&file(from), &file(&between), &one.name, wait)
            {
                carried.push((one, from, between));
            }
        }
        for (one, from, between) in carried {
            let home = file(&one.home);
            if home.path().exists() {
                set_aside(&home, &one.name, now);
            }
            if rename(&file(&between), &home, &one.name, wait) {
                info!(
                    provider = one.name.as_str();
                    "The tokens of provider {} are kept in {} now; they were in {}",
                    one.name,
                    home.path().display(),
                    file(from).path().display()
                );
            }
        }
    }
}

/// Renames a state file under its lock; logs a failure and returns false.
fn rename(from: &StateFile, to: &StateFile, name: &str, wait: &dyn Fn(Duration)) -> bool {
    let Ok(_lock) = lock(from, wait) else { return false };
    let renamed = from.rename_to(to);
    if let Err(error) = &renamed {
        warn!(
            provider = name;
            "The tokens of provider {name} are in {}, which can't be renamed to {}: {error}",
            from.path().display(),
            to.path().display()
        );
    }
    renamed.is_ok()
}

fn set_aside(file: &StateFile, name: &str, now: Timestamp) {
    let path = file.path();
    match file.set_aside_as_superseded(now) {
        Ok(aside) => warn!(
            provider = name;
            "The state file {} does not hold the newest tokens of provider {name}; it is kept as {}",
            path.display(),
            aside.display()
        ),
        Err(error) => warn!(
            provider = name;
            "The state file {} does not hold the newest tokens of provider {name}, and can't be moved \
             aside: {error}",
            path.display()
        ),
    }
}

/// Another process has the lock, or the holder is unknown. The log says so.
struct NotLocked;

/// Takes the lock; None if nobody can hold one there.
fn lock(file: &StateFile, wait: &dyn Fn(Duration)) -> Result<Option<StateLock>, NotLocked> {
    for _ in 0..LOCK_TRIES_MAX {
        match file.try_lock() {
            Ok(Locking::Ours(lock)) => return Ok(Some(lock)),
            Ok(Locking::Nobodys(_)) => return Ok(None),
            Ok(Locking::Theirs) => wait(LOCK_RETRY),
            Err(error) => {
                warn!("The state file {} can't be locked: {error}", file.path().display());
                return Err(NotLocked);
            }
        }
    }
    warn!("The state file {} is locked by another process", file.path().display());
    Err(NotLocked)
}
