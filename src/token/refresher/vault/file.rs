//! The state file of a refresher: its path, its content, and any unwritten record. A senseless file is moved aside; for
//! an unreadable one, the refresher waits, and nothing is refreshed or written meanwhile.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crossbeam_channel::Sender;

use crate::clock::Moment;
use crate::record::Saved;
use crate::shortage::Shortage;
use crate::token::places::{Seeker, Sought, Unseen};
use crate::token::refresher::desk::Desk;
use crate::token::refresher::setup::TICK_MS;
use crate::token::refresher::vault::locks::{Locks, NoLock};
use crate::token::state_file::{Locking, StateFile, StateLock, StoredState};
use crate::token::waiting::Cause;

/// The first wait for an unreadable state file; each wait is twice as long as the one before.
const UNREAD_RETRY_MIN_MS: u64 = 1_000;
/// The longest such wait.
const UNREAD_RETRY_MAX_MS: u64 = 30_000;

pub(crate) struct File {
    pub(crate) state: StateFile,
    /// False for tokens that are never stored: the file is neither read, written nor locked.
    pub(crate) is_kept: bool,
    pub(crate) seeker: Seeker,
    locks: Locks,
    /// The file exists and can't be read.
    unread: Option<UnreadableFile>,
    /// The notes of the last look at it.
    notes: Vec<String>,
    /// The unwritten record.
    pub(super) unsaved: Option<Saved>,
    /// The files that reloads left, and the channels that are told of their removal.
    pub(crate) left: Vec<(StateFile, Sender<()>)>,
}

/// A state file that exists and can't be read.
#[derive(Debug)]
struct UnreadableFile {
    /// The number of failed reads.
    tries: u32,
    /// The time of the next read, on the steady clock.
    retry_at_ms: u64,
}

/// The outcome of a look.
pub(super) struct Look {
    /// The chain in the file; None if there is none.
    pub(super) stored: Option<Saved>,
    /// Another chain uses the file; the tokens are kept in another file from now on.
    pub(super) displaced: Option<Displaced>,
}

/// The owner of the chain in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Displaced {
    /// A chain of another issuer or client.
    ByStranger,
    /// A chain of another provider, which now has the refresh token that the chain began with.
    ByProvider,
}

impl UnreadableFile {
    /// The state after one more try at `now`. A try before its time does not make the next wait longer.
    fn again(before: Option<&Self>, now: Moment) -> Self {
        let tries = match before {
            Some(unread) if now.steady_ms < unread.retry_at_ms => unread.tries,
            Some(unread) => unread.tries.saturating_add(1),
            None => 0,
        };
        let wait_ms = (UNREAD_RETRY_MIN_MS << tries.min(10)).min(UNREAD_RETRY_MAX_MS);
        Self { tries, retry_at_ms: now.steady_ms + wait_ms }
    }
}

impl File {
    /// The file at its first look, which removes leftovers of a kill unless another process uses the file.
    pub(crate) fn open(
        state: StateFile,
        seeker: Seeker,
        is_kept: bool,
        desk: &mut Desk,
    ) -> (Self, Option<Saved>) {
        let mut file = Self {
            state,
            is_kept,
            seeker,
            locks: Locks::default(),
            unread: None,
            notes: Vec::new(),
            unsaved: None,
            left: Vec::new(),
        };
        if !is_kept {
            return (file, None);
        }
        let lock = desk.on_disk(&file.state, StateFile::try_lock);
        let is_ours = matches!(lock, Ok(Locking::Ours(_)));
        if is_ours && let Err(error) = desk.on_disk(&file.state, StateFile::remove_leftovers) {
            desk.warn(format_args!(
                "Temporary files next to {} can't be removed: {error}",
                file.state.path().display()
            ));
        }
        let stored = file.look(is_ours, desk).and_then(|look| look.stored);
        (file, stored)
    }

    /// Reads the file. If it exists and can't be read, notes that and returns None. `may_set_aside` says that nobody
    /// can be writing it now.
    pub(super) fn look(&mut self, may_set_aside: bool, desk: &mut Desk) -> Option<Look> {
        if !self.is_kept {
            return Some(Look { stored: None, displaced: None });
        }
        let (read, notes) = self.read(may_set_aside, desk);
        let followed = read.map_err(Unseen::from).and_then(|stored| self.follow(stored, desk));
        match followed {
            Ok(look) => {
                self.note_read(notes, desk);
                Some(look)
            }
            Err(unseen) => {
                self.note_unread(&unseen, desk);
                None
            }
        }
    }

    fn read(&self, may_set_aside: bool, desk: &mut Desk) -> Read {
        let read = desk.on_disk(&self.state, StateFile::read);
        understand(&self.state, read, may_set_aside, desk)
    }

    /// Finds the chain, which is in another file if the own file holds nothing or another chain; that other file is
    /// used from now on.
    fn follow(&mut self, stored: Option<Saved>, desk: &mut Desk) -> Result<Look, Unseen> {
        let seeker = &self.seeker;
        if !seeker.is_needed(stored.as_ref()) {
            return Ok(Look { stored, displaced: None });
        }
        let sought = desk.on_disk(&self.state, |state| seeker.look(state, stored.as_ref()));
        let usable = stored.filter(|stored| !seeker.is_foreign(stored));
        let (slug, displaced) = match sought {
            Sought::Unseen(unseen) if usable.is_none() => return Err(unseen),
            Sought::At(slug) if !self.is_left(&slug) => (slug, None),
            Sought::Instead(slug) if usable.is_some() => (slug, Some(Displaced::ByProvider)),
            Sought::Instead(slug) => (slug, Some(Displaced::ByStranger)),
            _ => return Ok(Look { stored: usable, displaced: None }),
        };
        let place = self.state.beside(slug);
        let read = desk.on_disk(&place, StateFile::read);
        let stored = match understand(&place, read, false, desk).0 {
            // The chain in memory is given up once this file is read. Until then, the next look begins anew.
            Err(error) if displaced.is_some() => {
                return Err(Unseen { elsewhere: Some(place.path()), error });
            }
            stored => stored,
        };
        self.go_to(place, displaced, desk);
        Ok(Look { stored: stored?, displaced })
    }

    /// True if the file called `slug` is our own from before a reload: the tokens in memory are newer, and go to the
    /// new place.
    fn is_left(&self, slug: &str) -> bool {
        let path = self.state.beside(slug).path();
        self.left.iter().any(|(left, _)| left.path() == path)
    }

    /// Keeps the tokens in another file: the chain's, or a new one if the chain is `displaced`.
    fn go_to(&mut self, place: StateFile, displaced: Option<Displaced>, desk: &Desk) {
        let before = self.state.path();
        self.state = place;
        let now = self.state.path();
        let (before, name, now) = (before.display(), &desk.name, now.display());
        match displaced {
            None => desk.info(format_args!(
                "The tokens of provider {name} are in {now}, where another process or provider keeps them; that file is used"
            )),
            Some(Displaced::ByProvider) => desk.info(format_args!(
                "The state file {before} holds the chain of a refresh token that another provider has now; the tokens of \
                 provider {name} are kept in {now}"
            )),
            Some(Displaced::ByStranger) => desk.warn(format_args!(
                "The state file {before} holds tokens of another token_url or client_id than provider {name} has: they are \
                 neither used nor replaced, and its own are kept in {now}. Give each of two processes its own state_dir \
                 or slug"
            )),
        }
    }

    /// Notes that the file was read, or is missing; logs each of its notes once.
    fn note_read(&mut self, notes: Vec<String>, desk: &mut Desk) {
        for note in notes.iter().filter(|note| !self.notes.contains(note)) {
            desk.warn(format_args!("{note} (provider: {})", desk.name));
        }
        self.notes = notes;
        if self.unread.take().is_some() {
            desk.is_file_unread = false;
            desk.wait_is_over();
        }
    }

    /// Notes that the file, or one that may exist, can't be read.
    fn note_unread(&mut self, unseen: &Unseen, desk: &mut Desk) {
        let now = desk.clock.now();
        desk.is_file_unread = true;
        if let Some(shortage) = Shortage::of(&unseen.error) {
            // The shortage passes and says nothing about the file, so the waits do not grow.
            self.unread = Some(UnreadableFile::again(None, now));
            shortage.say(&format!("provider {} can't be refreshed", desk.name));
            return desk.wait_for(Cause::Shortage(shortage));
        }
        self.unread = Some(UnreadableFile::again(self.unread.as_ref(), now));
        let why = unseen.error.to_string();
        desk.wait_for(match &unseen.elsewhere {
            Some(path) => Cause::Unseen { path: path.display().to_string(), why },
            None => Cause::StateFile { path: self.state.path().display().to_string(), why },
        });
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// The time until the next read of an unreadable file.
    pub(crate) fn unread_wait_ms(&self, now: Moment) -> u64 {
        self.unread
            .as_ref()
            .map_or(u64::MAX, |unread| unread.retry_at_ms.saturating_sub(now.steady_ms))
    }

    /// The lock of the file; None if the state folder can't hold locks.
    pub(super) fn lock(&mut self, desk: &mut Desk) -> Result<Option<StateLock>, NoLock> {
        let state = self.state.clone();
        self.lock_of(&state, desk)
    }

    /// As [`File::lock`], for `state`.
    pub(crate) fn lock_of(
        &mut self,
        state: &StateFile,
        desk: &mut Desk,
    ) -> Result<Option<StateLock>, NoLock> {
        if !self.is_kept {
            return Ok(None);
        }
        let error = match self.locks.take(state, desk) {
            Ok(Locking::Ours(lock)) => return Ok(Some(lock)),
            Ok(Locking::Theirs) => return Err(NoLock::Busy),
            Ok(Locking::Nobodys(error)) => {
                self.locks.warn_of_no_lock(&self.state.path(), &error, desk);
                return Ok(None);
            }
            Err(error) => error,
        };
        if Shortage::of(&error).is_some() {
            self.note_unread(&error.into(), desk);
        } else {
            let path = state.lock_path().display().to_string();
            desk.wait_for(Cause::LockFile { path, why: error.to_string() });
        }
        Err(NoLock::Unknown)
    }

    /// Gives back the `lock` at `path`, or keeps it until the file holds the newest record.
    pub(crate) fn keep_while_unsaved(&mut self, lock: Option<StateLock>, path: PathBuf) {
        if self.unsaved.is_none() {
            self.locks.clear();
        } else {
            self.locks.keep(lock, path);
        }
    }

    /// Writes `saved`; keeps an unwritten record for the next try.
    pub(crate) fn store(&mut self, saved: Saved, desk: &mut Desk) {
        if !self.is_kept {
            return;
        }
        match desk.on_disk(&self.state, |state| state.replace(&saved)) {
            Ok(()) => {
                self.locks.clear();
                if self.unsaved.is_some() {
                    desk.info(format_args!(
                        "The state file of provider {} is written again",
                        desk.name
                    ));
                }
                self.give_up_unsaved(desk);
            }
            Err(error) => {
                if self.unsaved.is_none() {
                    desk.error(format_args!(
                        "The state file {} can't be written ({error}); the token of provider {} is \
                         used from memory and would be lost at a restart; trying again every {} s",
                        self.state.path().display(),
                        desk.name,
                        TICK_MS / 1000
                    ));
                }
                self.note_unsaved(saved, error.to_string(), desk);
            }
        }
    }

    /// Writes `saved` for a command, whose memory ends with it. The error says why nothing may be sent.
    pub(super) fn store_now(&mut self, saved: &Saved, desk: &mut Desk) -> Result<(), String> {
        if !self.is_kept {
            return Ok(());
        }
        desk.on_disk(&self.state, |state| state.replace(saved)).map_err(|error| {
            format!(
                "the state file {} can't be written ({error}), so the refresh token is not used, because the next one \
                 would be lost; make it writable, or set settings.state_dir",
                self.state.path().display()
            )
        })
    }

    pub(crate) fn note_unsaved(&mut self, saved: Saved, why: String, desk: &mut Desk) {
        self.unsaved = Some(saved);
        desk.draft.disk_error = Some(why);
    }

    pub(crate) fn is_unsaved(&self) -> bool {
        self.unsaved.is_some()
    }

    /// Forgets the unwritten record, which is useless by now, or written.
    pub(super) fn give_up_unsaved(&mut self, desk: &mut Desk) {
        self.locks.clear();
        self.unsaved = None;
        desk.draft.disk_error = None;
    }
}

/// The stored record or the error of reading it, and notes about it.
type Read = (io::Result<Option<Saved>>, Vec<String>);

/// A complete file that makes no sense counts as missing. It is moved aside if nobody can be writing it now.
fn understand(
    state: &StateFile,
    read: io::Result<StoredState>,
    may_set_aside: bool,
    desk: &Desk,
) -> Read {
    let error = match read {
        Ok(found) => return (Ok(found.saved), found.notes),
        Err(error) => error,
    };
    if error.kind() != ErrorKind::InvalidData {
        return (Err(error), Vec::new());
    }
    if may_set_aside {
        set_aside(state, &error, desk);
    }
    (Ok(None), Vec::new())
}

/// Reads the record in `state`, for the holder of its lock.
pub(crate) fn load(state: &StateFile, desk: &Desk) -> io::Result<Option<Saved>> {
    understand(state, state.read(), true, desk).0
}

fn set_aside(state: &StateFile, error: &io::Error, desk: &Desk) {
    let path = state.path();
    match state.set_aside(desk.clock.wall()) {
        Ok(aside) => desk.error(format_args!(
            "The state file {} can't be used ({error}); it is kept as {}, and the refresh token \
             of the configuration is tried",
            path.display(),
            aside.display()
        )),
        Err(rename) => desk.error(format_args!(
            "The state file {} can't be used ({error}) and can't be moved aside ({rename})",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_file_that_can_not_be_read_is_tried_again_after_1_s_to_30_s() {
        let at = |steady_ms| Moment { wall: Timestamp::from_secs(1_800_000_000), steady_ms };
        let mut now_ms = 5;
        let mut unread = UnreadableFile::again(None, at(now_ms));
        for wait_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(unread.retry_at_ms - now_ms, wait_ms);
            // An event comes in between.
            unread = UnreadableFile::again(Some(&unread), at(now_ms + 1));
            assert_eq!(unread.retry_at_ms - now_ms, wait_ms + 1);
            now_ms = unread.retry_at_ms;
            unread = UnreadableFile::again(Some(&unread), at(now_ms));
        }
    }
}
