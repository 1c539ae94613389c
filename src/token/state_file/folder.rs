//! The state folder: creates it, and finds others who could read or write it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::path::Path;

use rustix::fs::Access;

/// The end of the name of a file with a registered client's secret.
pub(crate) const CLIENT_SECRET: &str = "client-secret";

/// Creates the state folder with mode 0700 if it is missing.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Gives a file that root created to the owner of the state folder: after a login by root, the service, which runs as
/// that user, must be able to read the file.
pub(super) fn give_to_owner(file: &File, folder: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (Ok(owner), Ok(own)) = (fs::metadata(folder), file.metadata()) else { return };
    // Even if the owner stays the same, the file's time of change would be written to the disk.
    if (own.uid(), own.gid()) != (owner.uid(), owner.gid()) {
        // If root may not give files away, a file of root's is better than none.
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

/// The least room that a state file needs: a block of most file systems.
const ROOM_MIN_BYTES: usize = 4096;

/// Succeeds if files can be created in `folder`, and one of them has room; creates a missing folder.
pub(crate) fn check_writable(folder: &Path) -> io::Result<()> {
    make_folder(folder)?;
    let mut file = tempfile::Builder::new().prefix(".check-").tempfile_in(folder)?;
    // Some file systems take the bytes and find no room for them later.
    file.write_all(&[0; ROOM_MIN_BYTES])?;
    file.as_file().sync_data()
}

/// The same, as far as it can be told without creating `folder`: for a missing folder, succeeds if it could be created.
/// A check by root must not leave a folder of root's to a service that runs as another user.
pub(crate) fn would_be_writable(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder) {
        Ok(_) => check_writable(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(folder).is_ok() {
                return Err(io::Error::other("it is a link that leads nowhere"));
            }
            let parent = folder.parent().filter(|parent| *parent != Path::new(""));
            could_hold(parent.unwrap_or(Path::new(".")))
        }
        Err(error) => Err(error),
    }
}

/// Succeeds if a folder could be created in `folder`, or in its nearest existing parent.
fn could_hold(folder: &Path) -> io::Result<()> {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {
            rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(Into::into)
        }
        Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
        Err(error) => match folder.parent() {
            Some(parent) if error.kind() == io::ErrorKind::NotFound => {
                could_hold(if parent == Path::new("") { Path::new(".") } else { parent })
            }
            _ => Err(error),
        },
    }
}

/// Others who could read the tokens in `folder`, or replace them: one line each.
pub(crate) fn exposures(folder: &Path) -> Vec<String> {
    let mut exposures = Vec::new();
    exposures.extend(exposure(folder, (0o022, "700")));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let holds_secrets = |extension| extension == "json" || extension == CLIENT_SECRET;
        if path.extension().is_some_and(holds_secrets) {
            exposures.extend(exposure(&path, (0o077, "600")));
        }
    }
    exposures
}

fn exposure(path: &Path, rule: (u32, &str)) -> Option<String> {
    // The target of a symbolic link counts; links have no rights of their own.
    let metadata = fs::metadata(path).ok()?;
    let own = rustix::process::geteuid().as_raw();
    exposure_of(path, (metadata.mode(), metadata.uid()), own, rule)
}

/// The fault of the mode and owner of `path` for the user `own`; `others` are the bits of the mode that others must not
/// have.
pub(super) fn exposure_of(
    path: &Path,
    (mode, owner): (u32, u32),
    own: u32,
    (others, wanted): (u32, &str),
) -> Option<String> {
    let (mode, shown) = (mode & 0o7777, path.display());
    // For root, which gives files to the owner of the folder, the owner is the service's user.
    if own != 0 && owner != own && owner != 0 {
        return Some(format!("{shown} belongs to user {owner}, not to {own}"));
    }
    (mode & others != 0).then(|| format!("{shown} has mode {mode:o}; chmod {wanted} it"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The lock file of each refresh was written to the disk, if root ran evertoken.
    #[test]
    fn a_file_of_the_right_owner_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.lock");
        let file = File::create(&path).unwrap();
        // Any change of the owner takes this bit away.
        file.set_permissions(Permissions::from_mode(0o4600)).unwrap();
        give_to_owner(&file, folder.path());
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o4600);
    }
}
