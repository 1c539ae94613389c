//! Replaces a file of the state folder in one step.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::io::Errno;

use crate::secret::Secret;
use crate::token::state_file::folder::{give_to_owner, make_folder};

/// Writes the file `path` with mode 0600: temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    replace(path, folder, tempfile::Builder::new().prefix(".new-"), bytes)?;
    sync_folder(folder)
}

/// Has the names in `folder` written to its disk after a change, if its file system can do that. The folders that virtual
/// machines share with their host, and some network disks, can't; the change is made all the same.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if is_impossible(&error) => Ok(()),
        synced => synced,
    }
}

/// True if an `error` of fsync(2) says that the system can't do it for such a file, and nothing about the disk.
fn is_impossible(error: &io::Error) -> bool {
    let code = Errno::from_io_error(error);
    code.is_some_and(|code| {
        [Errno::INVAL, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::BADF].contains(&code)
    })
}

/// Writes the file `name` in `folder`, which is created with mode 0700 if it is missing, as [`write_whole`].
pub(crate) fn write_in(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    make_folder(folder)?;
    write_whole(&folder.join(name), bytes)
}

/// Writes the file `path` with `secret` and a line end, as [`write_whole`].
pub(crate) fn write_secret(path: &Path, secret: &Secret) -> io::Result<()> {
    let line = Secret::new(format!("{}\n", secret.expose()));
    write_whole(path, line.expose().as_bytes())
}

/// The same as [`write_whole`] with a temporary file that `temporary` names, and without the fsync of the folder.
pub(super) fn replace(
    path: &Path,
    folder: &Path,
    temporary: &mut tempfile::Builder<'_, '_>,
    bytes: &[u8],
) -> io::Result<()> {
    let mut file = temporary.tempfile_in(folder)?;
    give_to_owner(file.as_file(), folder);
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_not_be_synced_is_not_taken_for_a_failing_disk() {
        for (code, expected) in [
            (Errno::INVAL, true),
            (Errno::NOTSUP, true),
            (Errno::OPNOTSUPP, true),
            (Errno::BADF, true),
            (Errno::IO, false),
            (Errno::NOSPC, false),
            (Errno::DQUOT, false),
            (Errno::ROFS, false),
            (Errno::ACCESS, false),
            (Errno::STALE, false),
        ] {
            assert_eq!(is_impossible(&code.into()), expected, "{code:?}");
        }
        assert!(!is_impossible(&io::Error::other("no code")));
        // Linux answers EINVAL for the folders of this file system.
        assert!(File::open("/proc").unwrap().sync_all().is_err());
        sync_folder(Path::new("/proc")).unwrap();
        assert!(sync_folder(Path::new("/proc/none")).is_err());
    }
}
