//! Adds a provider to a configuration file: in one step, and with its mode, owner and link as they were.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::config::raw::insert_provider;
use crate::token::state_file::sync_folder;

/// The mode of a new file.
const NEW_MODE: u32 = 0o600;

/// Adds the lines of `entry` to the providers of `file`, which is created if it does not exist. The error says why the
/// file is unchanged.
pub(super) fn rewrite(file: &Path, entry: &[String]) -> Result<(), String> {
    let target = target_of(file)?;
    let text = match fs::read(&target) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.to_string()),
    };
    let changed = insert_provider(&text, entry)?;
    replace(&target, changed.as_bytes()).map_err(|error| error.to_string())
}

/// The path to write for `file`: a link stays, and its target is replaced. The error says why that can't be done, as
/// far as that is known before.
pub(super) fn target_of(file: &Path) -> Result<PathBuf, String> {
    let target = match fs::canonicalize(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if fs::symlink_metadata(file).is_ok() {
                return Err("it is a link to a file that does not exist".to_owned());
            }
            let folder = folder_of(file);
            let exists = folder.is_dir();
            let missing = || format!("the folder {} does not exist", folder.display());
            return if exists { Ok(file.to_owned()) } else { Err(missing()) };
        }
        found => found.map_err(|error| error.to_string())?,
    };
    let mode = fs::metadata(&target).map_err(|error| error.to_string())?.mode() & 0o7777;
    // A rename needs no right to write the file, but who took that right away meant something by it.
    if mode & 0o222 == 0 { Err(format!("it is read-only (mode {mode:o})")) } else { Ok(target) }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(target);
    let mut new = tempfile::Builder::new().prefix(".providers-").tempfile_in(folder)?;
    new.write_all(bytes)?;
    match fs::metadata(target) {
        Ok(old) => {
            if (old.uid(), old.gid()) != owner(new.as_file())? {
                fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
            // After the owner, because a new owner takes some bits away.
            new.as_file().set_permissions(old.permissions())?;
        }
        Err(_) => new.as_file().set_permissions(Permissions::from_mode(NEW_MODE))?,
    }
    new.as_file().sync_all()?;
    new.persist(target).map_err(|error| error.error)?;
    sync_folder(folder)
}

fn owner(file: &File) -> io::Result<(u32, u32)> {
    let metadata = file.metadata()?;
    Ok((metadata.uid(), metadata.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mode_and_link_stay_and_a_new_file_is_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let entry = ["- name: new".to_owned()];
        let (file, link) = (folder.path().join("real.yaml"), folder.path().join("link.yaml"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        fs::write(&file, "providers:\n  - name: old # mine\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.yaml", &link).unwrap();
        rewrite(&link, &entry).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text, "providers:\n  - name: old # mine\n  - name: new\n");
        assert_eq!(mode(&file), 0o640);
        let new = folder.path().join("new.yaml");
        rewrite(&new, &entry).unwrap();
        assert_eq!(mode(&new), NEW_MODE);
        assert_eq!(fs::read_to_string(&new).unwrap(), "providers:\n  - name: new\n");
        // A file that can't be changed safely stays as it is.
        for odd in [&b"providers: [{name: x}]\n"[..], b"\xff\xfep\0"] {
            fs::write(&file, odd).unwrap();
            assert!(rewrite(&file, &entry).is_err());
            assert_eq!(fs::read(&file).unwrap(), odd);
        }
        // Neither does what somebody has protected.
        fs::write(&file, "providers: []\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o440)).unwrap();
        assert_eq!(rewrite(&link, &entry).unwrap_err(), "it is read-only (mode 440)");
        assert_eq!(fs::read_to_string(&file).unwrap(), "providers: []\n");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(target_of(&link), Ok(fs::canonicalize(&file).unwrap()));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary file is left");
    }

    #[test]
    fn a_file_that_can_not_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link.yaml");
        std::os::unix::fs::symlink("none.yaml", &link).unwrap();
        assert_eq!(target_of(&link).unwrap_err(), "it is a link to a file that does not exist");
        let told = target_of(&folder.path().join("none/new.yaml")).unwrap_err();
        assert_eq!(told, format!("the folder {}/none does not exist", folder.path().display()));
        assert_eq!(target_of(Path::new("new.yaml")), Ok("new.yaml".into()));
        let new = folder.path().join("new.yaml");
        assert_eq!(target_of(&new), Ok(new));
    }
}
