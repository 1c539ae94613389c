//! The state folder: made where it is missing, and looked at for who else could read or write it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::path::Path;

use rustix::fs::Access;

/// Makes the state folder, mode 0700, where it is not there yet.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Gives a file that root made in somebody's state folder to that somebody: a login by root for a
/// service that runs as another user must leave files which that user can read.
pub(super) fn give_to_owner(file: &File, folder: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Where root may not give files away, a file of root's is better than none.
    if let Ok(owner) = fs::metadata(folder) {
        let _ = fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
}

/// Whether files can be made in `folder`; it is made where it is not there yet.
pub(crate) fn check_writable(folder: &Path) -> io::Result<()> {
    make_folder(folder)?;
    tempfile::Builder::new().prefix(".check-").tempfile_in(folder).map(drop)
}

/// The same as far as it can be told without making `folder`: where it is not there yet, whether it could be made. A
/// check by root must not leave a folder of root's to a service that runs as another user.
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

/// Whether a folder could be made in `folder`, or in the nearest one above that is there.
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

/// Who besides us could read the tokens in `folder`, or put others in their place: one line each.
pub(crate) fn exposures(folder: &Path) -> Vec<String> {
    let mut exposures = Vec::new();
    exposures.extend(exposure(folder, (0o022, "700")));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            exposures.extend(exposure(&path, (0o077, "600")));
        }
    }
    exposures
}

fn exposure(path: &Path, rule: (u32, &str)) -> Option<String> {
    // What a symbolic link leads to counts; links have no rights of their own.
    let metadata = fs::metadata(path).ok()?;
    let own = rustix::process::geteuid().as_raw();
    exposure_of(path, (metadata.mode(), metadata.uid()), own, rule)
}

/// What is wrong with the mode and owner of `path` for the user `own`; `others` are the bits of the mode that others
/// must not have.
pub(super) fn exposure_of(
    path: &Path,
    (mode, owner): (u32, u32),
    own: u32,
    (others, wanted): (u32, &str),
) -> Option<String> {
    let (mode, shown) = (mode & 0o7777, path.display());
    // To root, who gives files away to the owner of the folder, that is the user of the service.
    if own != 0 && owner != own && owner != 0 {
        return Some(format!("{shown} belongs to user {owner}, not to {own}"));
    }
    (mode & others != 0).then(|| format!("{shown} has mode {mode:o}; chmod {wanted} it"))
}
