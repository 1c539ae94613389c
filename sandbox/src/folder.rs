//! The folder of a demo's configuration and state, which no other demo uses.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The most demos from one folder.
const FOLDERS_MAX: u32 = 16;
/// Locked while a demo uses the folder.
const LOCK_FILE: &str = ".in-use";

/// A folder in use until this is dropped, or its process ends.
#[derive(Debug)]
pub struct Claimed {
    /// Its path.
    pub path: PathBuf,
    _lock: File,
}

/// Claims `wanted`, or `wanted-2` and so on if it is in use.
pub fn claim(wanted: &Path) -> io::Result<Claimed> {
    for number in 1..=FOLDERS_MAX {
        let path = match number {
            1 => wanted.to_owned(),
            other => PathBuf::from(format!("{}-{other}", wanted.display())),
        };
        fs::create_dir_all(&path)?;
        let lock = File::create(path.join(LOCK_FILE))?;
        match lock.try_lock() {
            Ok(()) => return Ok(Claimed { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    let why = format!("{FOLDERS_MAX} sandboxes run in {} and beside it", wanted.display());
    Err(io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_a_folder_of_its_own_up_to_the_limit_and_one_that_was_left_is_used_again() {
        let base = tempfile::tempdir().unwrap();
        let wanted = base.path().join("deep/demo");
        let mut all: Vec<_> = (0..FOLDERS_MAX).map(|_| claim(&wanted).unwrap()).collect();
        assert_eq!(all[0].path, wanted);
        assert_eq!(all[1].path, base.path().join("deep/demo-2"));
        assert!(claim(&wanted).unwrap_err().to_string().starts_with("16 sandboxes run in "));
        all.remove(1);
        assert_eq!(claim(&wanted).unwrap().path, base.path().join("deep/demo-2"));
    }
}
