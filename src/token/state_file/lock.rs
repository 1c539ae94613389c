//! The lock that keeps two processes from refreshing one provider at once, and its holder.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::platform;
use crate::regular_file;
use crate::token::state_file::file::StateFile;
use crate::token::state_file::folder::{give_to_owner, make_folder};
use crate::token::state_file::write::remove_if_there;

/// The mode of the lock file.
const LOCK_MODE: u32 = 0o600;

/// The lock of a refresh, so that two processes never refresh one provider at once. Released when it and its copies are
/// dropped, or by the system when the process ends.
#[derive(Clone, Debug)]
pub struct StateLock(#[expect(dead_code, reason = "held for its lock")] Arc<Locked>);

/// A locked file. A child process that begins at this moment has a copy of it until it runs its program, so closing it
/// would not release the lock.
#[derive(Debug)]
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // After a failure, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

/// The outcome of a try for the lock.
#[derive(Debug)]
pub enum Locking {
    /// This process has it.
    Ours(StateLock),
    /// Another process is refreshing.
    Theirs,
    /// Nobody can hold it here: the disk is full or read-only, or does not support locks.
    Nobodys(io::Error),
}

impl StateFile {
    /// Tries for the lock without waiting.
    pub fn try_lock(&self) -> io::Result<Locking> {
        make_folder(&self.folder)?;
        try_lock(&self.lock_path(), &self.folder)
    }

    /// Removes the lock file. Only for a lock that nobody needs any more: a process that has the file open could hold
    /// the lock while another process creates the file anew and locks it too.
    pub fn remove_lock(&self) -> io::Result<()> {
        remove_if_there(&self.lock_path())
    }

    /// The process that holds the lock, if the system tells.
    pub fn lock_holder(&self) -> Option<String> {
        holder(&self.lock_path())
    }
}

/// Tries for the lock on the file `path` without waiting; creates a missing file.
fn try_lock(path: &Path, folder: &Path) -> io::Result<Locking> {
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if can_be_locked_by_nobody(path, &error) => return Ok(Locking::Nobodys(error)),
        Err(error) => return Err(error),
    };
    give_to_owner(&file, folder);
    match file.try_lock() {
        Ok(()) => Ok(Locking::Ours(StateLock(Arc::new(Locked(file))))),
        Err(TryLockError::WouldBlock) => Ok(Locking::Theirs),
        // The file is open, so its file system does not support locks.
        Err(TryLockError::Error(error)) => Ok(Locking::Nobodys(error)),
    }
}

/// True if an `error` at opening the lock file `path` says that no process can hold the lock. Any other error may hide
/// another process's lock.
fn can_be_locked_by_nobody(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull | ErrorKind::QuotaExceeded => true,
        // A missing file that can't be created because its folder is read-only for us.
        ErrorKind::PermissionDenied | ErrorKind::NotFound => {
            let there = fs::symlink_metadata(path);
            there.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        }
        _ => false,
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).write(true).truncate(false).mode(LOCK_MODE);
    let file = match regular_file::open_with(&mut options, path) {
        // An existing file can still be locked.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            regular_file::open(path).map_err(|_| error)?
        }
        opened => opened?,
    };
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & !LOCK_MODE != 0 {
        // A process that can open the file can lock it. If the file is somebody else's, its mode is its owner's
        // business.
        let _ = file.set_permissions(Permissions::from_mode(LOCK_MODE));
    }
    Ok(file)
}

/// The process that holds the lock on the file `path`, `process 123 (evertoken)`; None if the system does not tell.
fn holder(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let device = platform::device_numbers(metadata.dev());
    let id = holder_in(&platform::told_of_processes("locks")?, device, metadata.ino())?;
    let name = platform::process_name(id).unwrap_or_default();
    Some(match name.trim_end() {
        "" => format!("process {id}"),
        name => format!("process {id} ({name})"),
    })
}

/// The id of the process that holds the lock on a file, from Linux's list of all locks (proc(5)).
///
/// A process of another PID namespace is listed as 0 or −1, by which nobody could find it.
fn holder_in(locks: &str, (major, minor): (u32, u32), inode: u64) -> Option<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        // 1: FLOCK ADVISORY WRITE 123 08:01:456 0 EOF; a waiting process has an arrow before FLOCK.
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, _, id, place, ..] if place == file => {
                id.parse().ok().filter(|id| *id > 0)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::regular_file::tests::make_pipe;

    /// Seen: while a command for a credential was being started, a refresh found the lock that it had just released held.
    #[test]
    fn a_child_process_that_was_beginning_kept_a_released_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.lock");
        let held = open(&path).unwrap();
        held.try_lock().unwrap();
        let childs = held.try_clone().unwrap();
        drop(Locked(held));
        assert!(matches!(try_lock(&path, dir.path()).unwrap(), Locking::Ours(_)));
        drop(childs);
    }

    #[test]
    fn the_lock_is_exclusive_until_it_is_dropped_and_its_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.lock");
        let held = try_lock(&path, dir.path()).unwrap();
        assert!(matches!(held, Locking::Ours(_)));
        assert!(matches!(try_lock(&path, dir.path()).unwrap(), Locking::Theirs));
        if let Some(holder) = holder(&path) {
            assert!(holder.starts_with(&format!("process {} (", std::process::id())), "{holder}");
        }
        drop(held);
        assert_eq!(holder(&path), None);
        assert!(matches!(try_lock(&path, dir.path()).unwrap(), Locking::Ours(_)));
    }

    #[test]
    fn what_stands_in_the_place_of_a_lock_file_is_no_lock_that_nobody_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.lock");
        let makes: [&dyn Fn(); 5] = [
            &|| fs::create_dir(&path).unwrap(),
            &|| make_pipe(&path),
            &|| std::os::unix::fs::symlink(&path, &path).unwrap(),
            &|| std::os::unix::fs::symlink(dir.path().join("none/x"), &path).unwrap(),
            &|| std::os::unix::fs::symlink("/dev/null", &path).unwrap(),
        ];
        for (number, make) in makes.iter().enumerate() {
            make();
            assert!(try_lock(&path, dir.path()).is_err(), "{number}");
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
        let unwritable = Path::new("/proc/sys/one.lock");
        assert!(matches!(try_lock(unwritable, dir.path()), Ok(Locking::Nobodys(_))));
    }

    #[test]
    fn a_lock_file_that_others_could_open_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.lock");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        drop(try_lock(&path, dir.path()).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, LOCK_MODE);
    }

    #[test]
    fn who_holds_a_lock_is_found_in_the_list_of_all() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:456 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 12 08:01:456 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 08:02:456 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 14 08:01:456 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 0 fd:10:7 0 EOF\n\
                     6: FLOCK\n\n";
        assert_eq!(holder_in(locks, (8, 1), 456), Some(14));
        assert_eq!(holder_in(locks, (0xfd, 0x10), 7), None, "it has no id here");
        assert_eq!(holder_in(locks, (8, 1), 457), None);
    }
}
