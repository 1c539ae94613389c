//! Adds a provider to a configuration file: in one step, and with its mode, owner and link as they were.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use crate::config::raw::insert_provider;

/// The mode of a new file.
const NEW_MODE: u32 = 0o600;

/// Adds the lines of `entry` to the providers of `file`, which is created if it does not exist. The error says why the
/// file is unchanged.
pub(super) fn rewrite(file: &Path, entry: &[String]) -> Result<(), String> {
    // A link stays, and its target is replaced.
    let target = match fs::canonicalize(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file.to_owned(),
        found => found.map_err(|error| error.to_string())?,
    };
    let text = match fs::read(&target) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error.to_string()),
    };
    let changed = insert_provider(&text, entry)?;
    replace(&target, changed.as_bytes()).map_err(|error| error.to_string())
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
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
    File::open(folder)?.sync_all()
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
        // What can't be changed safely stays as it is.
        for odd in [&b"providers: [{name: x}]\n"[..], b"\xff\xfep\0"] {
            fs::write(&file, odd).unwrap();
            assert!(rewrite(&file, &entry).is_err());
            assert_eq!(fs::read(&file).unwrap(), odd);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "no temporary file is left");
    }
}
