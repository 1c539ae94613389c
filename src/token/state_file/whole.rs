//! Replaces a file of the state folder in one step.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use crate::secret::Secret;
use crate::token::state_file::folder::{give_to_owner, make_folder};

/// Writes the file `path` with mode 0600: temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    replace(path, folder, tempfile::Builder::new().prefix(".new-"), bytes)?;
    File::open(folder)?.sync_all()
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
