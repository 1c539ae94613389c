//! Writes, renames and leftovers in a state folder.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::folder::exposure_of;
use super::*;
use crate::clock::Timestamp;
use crate::record::{Saved, full};

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::new(dir.path().join("deep/state"), "one");
    assert_eq!(file.load().unwrap(), None);
    for saved in [Saved::default(), full()] {
        file.replace(&saved).unwrap();
        assert_eq!(file.load().unwrap(), Some(saved));
    }
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file.path()), 0o600);
    assert_eq!(mode(dir.path().join("deep/state")), 0o700);
    let names: Vec<_> = fs::read_dir(dir.path().join("deep/state")).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left: {names:?}");
}

#[test]
fn what_root_makes_belongs_to_who_owns_the_folder() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(12_345), Some(12_346)).unwrap();
    let file = StateFile::new(dir.path(), "one");
    drop(file.try_lock().unwrap());
    file.replace(&full()).unwrap();
    for name in ["one.json", "one.lock"] {
        let metadata = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (12_345, 12_346), "{name}");
    }
}

#[test]
fn a_file_that_makes_no_sense_is_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::new(dir.path(), "one");
    fs::write(file.path(), "{").unwrap();
    assert_eq!(file.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    let aside = file.set_aside(Timestamp::from_secs(0)).unwrap();
    assert!(aside.ends_with("one.json.corrupt-1970-01-01T00:00:00.000Z"));
    assert_eq!(fs::read_to_string(aside).unwrap(), "{");
    assert_eq!(file.load().unwrap(), None);
}

#[test]
fn leftovers_of_a_kill_are_removed_and_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::new(dir.path(), "one");
    file.replace(&full()).unwrap();
    for name in [".one-AbC123.tmp", ".one-two-AbC123.tmp", ".two-AbC123.tmp", "one.lock"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    file.remove_leftovers().unwrap();
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [".one-two-AbC123.tmp", ".two-AbC123.tmp", "one.json", "one.lock"]);
}

#[test]
fn what_others_could_read_or_replace_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let file = StateFile::new(dir.path(), "one");
    file.replace(&full()).unwrap();
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set(dir.path(), 0o755);
    assert_eq!(exposures(dir.path()), Vec::<String>::new(), "files in it are private");
    set(dir.path(), 0o775);
    set(&file.path(), 0o640);
    let found = exposures(dir.path());
    assert!(found[0].ends_with("has mode 775; chmod 700 it"), "{found:?}");
    assert!(found[1].ends_with("one.json has mode 640; chmod 600 it"), "{found:?}");
    set(dir.path(), 0o700);
    set(&file.path(), 0o600);
    let secret = dir.path().join("one.client-secret");
    std::fs::write(&secret, "s").unwrap();
    set(&secret, 0o644);
    let found = exposures(dir.path());
    assert!(found[0].ends_with("one.client-secret has mode 644; chmod 600 it"), "{found:?}");
    set(&secret, 0o600);
    let beside = tempfile::tempdir().unwrap();
    let link = beside.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    assert_eq!(exposures(&link), Vec::<String>::new(), "a link has no rights of its own");
}

/// `check` by root found fault with every state folder of a service that runs as another user.
#[test]
fn the_owner_of_private_tokens_is_no_stranger_to_root() {
    let dir = Path::new("/s");
    let told = |(owner, own), mode| exposure_of(dir, (mode, owner), own, (0o022, "700"));
    for (who, mode, wrong) in [
        ((65534, 0), 0o40700, None),
        ((65534, 0), 0o40755, None),
        ((65534, 0), 0o40770, Some("/s has mode 770; chmod 700 it")),
        ((0, 0), 0o40700, None),
        ((0, 1000), 0o40700, None),
        ((1000, 1000), 0o40700, None),
        ((65534, 1000), 0o40700, Some("/s belongs to user 65534, not to 1000")),
    ] {
        assert_eq!(told(who, mode).as_deref(), wrong, "{who:?} {mode:o}");
    }
}
