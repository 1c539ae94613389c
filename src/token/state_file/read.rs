//! Reads the state file: distinguishes a missing file, an unreadable one and a senseless one, and continues with the
//! tokens of a newer version.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::record::{Salvaged, Saved, salvage};
use crate::regular_file;
use crate::secret::Secret;
use crate::shortage::Shortage;
use crate::token::state_file::file::StateFile;
use crate::token::state_file::folder::make_folder;

/// The largest state file that is read.
const STATE_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The words for a file of a newer format whose refresh token this version can't find.
const NO_REFRESH_TOKEN: &str = "no refresh token where this version looks for it";

/// The outcome of a look at the state file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StoredState {
    /// The stored record; None if there is no file.
    pub saved: Option<Saved>,
    /// Notes about the file.
    pub notes: Vec<String>,
}

impl StateFile {
    /// Reads the stored record; None if there is none. See [`StateFile::read`] for the errors.
    pub fn load(&self) -> io::Result<Option<Saved>> {
        self.read().map(|found| found.saved)
    }

    /// The same for a caller that only looks: a missing folder is not created.
    pub fn load_if_there(&self) -> io::Result<Option<Saved>> {
        if fs::symlink_metadata(&self.folder)
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            return Ok(None);
        }
        self.load()
    }

    /// Reads the stored record. The error is `InvalidData` if the file was read whole and makes no sense; any other
    /// error says that there is, or may be, an unreadable file.
    pub fn read(&self) -> io::Result<StoredState> {
        let (main, main_hash) = salvage_and_hash(&self.path())?;
        if main.is_none() {
            self.check_absence()?;
        }
        let mut found = StoredState::default();
        let older = match salvage_file(&self.older_path()) {
            Ok(older) => older,
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let path = self.older_path();
                found.notes.push(format!("{} is ignored: {error}", path.display()));
                None
            }
            // It may hold the newest tokens.
            Err(error) => return Err(self.of_older(&error)),
        };
        if let Some(newer) = main.as_ref().filter(|main| main.is_newer()) {
            if newer.saved.refresh_token.is_none() {
                let why = format!("it has format {}, and {NO_REFRESH_TOKEN}", newer.format);
                return Err(io::Error::new(ErrorKind::Unsupported, why));
            }
            found.notes.push(self.note_of_newer(newer));
        }
        let main_at = main.as_ref().map(|main| main.saved.saved_at);
        // A record that was stored next to this very file came after it, whatever the clock was then.
        let is_later = |older: &Salvaged| match &older.beside {
            Some(beside) if main_hash.is_some() => Some(beside) == main_hash.as_ref(),
            _ => Some(older.saved.saved_at) >= main_at,
        };
        let newest = older.filter(is_later).or(main);
        if let Some(newest) = newest {
            found.notes.extend(self.note_of_unread(&newest));
            found.saved = Some(newest.saved);
        }
        Ok(found)
    }

    /// The hash of the file, if it is of a newer format and the next record is to be written next to it. An error says
    /// that the file can't be read, and so must not be replaced.
    pub(super) fn of_newer_format(&self) -> io::Result<Option<String>> {
        if let Err(error) = salvage_file(&self.older_path())
            && error.kind() != ErrorKind::InvalidData
        {
            return Err(self.of_older(&error));
        }
        match salvage_and_hash(&self.path()) {
            Ok((Some(main), hash)) => Ok(hash.filter(|_| main.is_newer())),
            Ok((None, _)) => self.check_absence().map(|()| None),
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The error about the record next to a file of a newer format.
    fn of_older(&self, error: &io::Error) -> io::Error {
        match Shortage::of(error) {
            Some(shortage) => io::Error::other(shortage),
            None => {
                io::Error::other(format!("{} next to it: {error}", self.older_path().display()))
            }
        }
    }

    /// Succeeds if the file can count as never written. It can't if a link to it leads nowhere, or if its folder can't
    /// be created: the target, such as a mount, may come back.
    fn check_absence(&self) -> io::Result<()> {
        if fs::symlink_metadata(self.path()).is_ok() {
            return Err(io::Error::other("it is a link that leads nowhere"));
        }
        make_folder(&self.folder).map_err(|error| {
            let folder = self.folder.display();
            io::Error::other(format!(
                "its folder {folder} does not exist and can't be created: \
             {error}"
            ))
        })
    }

    fn note_of_newer(&self, newer: &Salvaged) -> String {
        format!(
            "The state file {} has format {}, of a newer evertoken: what can be read of it is used, it is \
             left as it is, and new tokens are stored in {}. The newer evertoken does not look there: log \
             in again when you go back to it",
            self.path().display(),
            newer.format,
            self.older_path().display()
        )
    }

    fn note_of_unread(&self, read: &Salvaged) -> Option<String> {
        (!read.unread.is_empty()).then(|| {
            format!(
                "The state file {} is used without its {}, which made no sense",
                self.path().display(),
                read.unread.join(", ")
            )
        })
    }
}

fn salvage_file(path: &Path) -> io::Result<Option<Salvaged>> {
    salvage_and_hash(path).map(|(read, _)| read)
}

fn salvage_and_hash(path: &Path) -> io::Result<(Option<Salvaged>, Option<String>)> {
    let Some(bytes) = read_bytes(path)? else { return Ok((None, None)) };
    let text = String::from_utf8(bytes)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is no text"))?;
    let read = salvage(&text).map_err(|bad| io::Error::new(ErrorKind::InvalidData, bad))?;
    let hash = read.is_newer().then(|| Secret::new(text).hash());
    Ok((Some(read), hash))
}

/// The whole file; None if it is missing.
fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match regular_file::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    file.take(STATE_FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > STATE_FILE_MAX_BYTES {
        let why = format!("{length} bytes are too many for a state file");
        return Err(io::Error::new(ErrorKind::InvalidData, why));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::record::full;
    use crate::regular_file::tests::make_pipe;

    fn place() -> (tempfile::TempDir, StateFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path().join("state"), "one");
        (dir, file)
    }

    /// True if the file counts as present and unreadable; nothing is written over it then.
    #[track_caller]
    fn is_unread(file: &StateFile) -> bool {
        match file.read() {
            Ok(_) => false,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::InvalidData, "{error}");
                assert!(file.replace(&full()).is_err(), "{error}");
                true
            }
        }
    }

    #[test]
    fn a_folder_that_can_be_made_holds_no_file_and_one_that_can_not_may_hold_one() {
        let (dir, file) = place();
        assert_eq!(file.read().unwrap(), StoredState::default());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(is_unread(&StateFile::new(dir.path().join("file"), "one")), "a file for a folder");
        assert!(is_unread(&StateFile::new(dir.path().join("file/deep"), "one")));
        symlink(dir.path().join("mount"), dir.path().join("link")).unwrap();
        assert!(is_unread(&StateFile::new(dir.path().join("link"), "one")), "a link to nothing");
    }

    type Make = fn(&Path);

    #[test]
    fn what_is_there_and_can_not_be_read_is_no_missing_file() {
        let cases: [(&str, Make); 4] = [
            ("a folder", |path| std::fs::create_dir(path).unwrap()),
            ("a link to itself", |path| symlink(path, path).unwrap()),
            ("a link to nothing", |path| symlink("nothing", path).unwrap()),
            ("a socket", |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ];
        for (what, make) in cases {
            let (_dir, file) = place();
            file.read().unwrap();
            make(&file.path());
            assert!(is_unread(&file), "{what}");
            assert!(std::fs::symlink_metadata(file.path()).is_ok(), "{what} is still there");
        }
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let (_dir, file) = place();
        file.read().unwrap();
        make_pipe(&file.path());
        assert!(is_unread(&file));
    }

    #[test]
    fn what_was_read_whole_and_makes_no_sense_is_told_apart() {
        let (_dir, file) = place();
        file.read().unwrap();
        for garbage in [b"".as_slice(), b"{", b"\0\0", b"\xff", b"[1]"] {
            std::fs::write(file.path(), garbage).unwrap();
            assert_eq!(file.read().unwrap_err().kind(), ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let (_dir, file) = place();
        file.read().unwrap();
        let text = full().to_json();
        let padded = |length: u64| {
            let mut padded = text.expose().to_owned();
            padded.push_str(&" ".repeat(usize::try_from(length).unwrap() - padded.len()));
            std::fs::write(file.path(), padded).unwrap();
        };
        padded(STATE_FILE_MAX_BYTES);
        assert!(file.load().is_ok());
        padded(STATE_FILE_MAX_BYTES + 1);
        assert_eq!(file.load().unwrap_err().kind(), ErrorKind::InvalidData);
    }

    fn newer(file: &StateFile, saved: &Saved) -> String {
        let text = saved.to_json().expose().replace("\"format\": 1", "\"format\": 2");
        std::fs::write(file.path(), &text).unwrap();
        text
    }

    #[test]
    fn a_newer_format_is_used_and_left_as_it_is() {
        let (_dir, file) = place();
        file.read().unwrap();
        let text = newer(&file, &full());
        let found = file.read().unwrap();
        assert_eq!(found.saved, Some(full()));
        assert!(found.notes[0].contains("has format 2, of a newer evertoken"), "{found:?}");
        let rotated = Saved {
            refresh_token: Some(Secret::new("rotated")),
            saved_at: full().saved_at.plus_millis(1),
            ..full()
        };
        file.replace(&rotated).unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), text);
        assert_eq!(file.load().unwrap(), Some(rotated.clone()));
        // The newer version ran again and wrote.
        let later = Saved { saved_at: full().saved_at.plus_millis(2), ..full() };
        newer(&file, &later);
        assert_eq!(file.load().unwrap(), Some(later));
        // Without the file, the record next to it counts, and moves to its place.
        std::fs::remove_file(file.path()).unwrap();
        assert_eq!(file.load().unwrap(), Some(rotated.clone()));
        file.replace(&rotated).unwrap();
        let names = |path: PathBuf| path.file_name().unwrap().to_owned();
        let left: Vec<_> = std::fs::read_dir(file.path().parent().unwrap())
            .unwrap()
            .map(|entry| names(entry.unwrap().path()))
            .collect();
        assert_eq!(left, ["one.json"]);
    }

    #[test]
    fn what_is_stored_beside_a_newer_format_counts_though_that_was_written_by_a_clock_ahead() {
        let (_dir, file) = place();
        file.read().unwrap();
        newer(&file, &full());
        let at = full().saved_at;
        let stored = |token: &str, at| Saved {
            refresh_token: Some(Secret::new(token)),
            saved_at: at,
            ..full()
        };
        let rotated = stored("rotated", at.plus_millis(-3_600_000));
        file.replace(&rotated).unwrap();
        assert_eq!(file.load().unwrap(), Some(rotated));
        // The newer version wrote again, with a correct clock.
        let again = stored("again", at.plus_millis(-7_200_000));
        newer(&file, &again);
        assert_eq!(file.load().unwrap(), Some(again));
    }

    #[test]
    fn what_is_stored_beside_a_newer_format_and_can_not_be_read_is_waited_for() {
        let (_dir, file) = place();
        file.read().unwrap();
        newer(&file, &full());
        file.replace(&full()).unwrap();
        std::fs::write(file.older_path(), "{").unwrap();
        let found = file.read().unwrap();
        assert!(found.notes[0].contains("is ignored"), "{found:?}");
        std::fs::remove_file(file.older_path()).unwrap();
        std::fs::create_dir(file.older_path()).unwrap();
        assert!(is_unread(&file), "it may hold the newest tokens");
        // With and without the newer file.
        std::fs::remove_file(file.path()).unwrap();
        assert!(is_unread(&file));
    }

    #[test]
    fn a_newer_format_without_a_refresh_token_is_no_reason_to_begin_anew() {
        let (_dir, file) = place();
        file.read().unwrap();
        newer(&file, &Saved { refresh_token: None, ..full() });
        let error = file.read().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("format 2"), "{error}");
    }

    #[test]
    fn a_file_with_a_field_of_another_type_is_used_without_it() {
        let (_dir, file) = place();
        file.read().unwrap();
        let text = full().to_json().expose().replace("\"fence\": 2", "\"fence\": \"two\"");
        std::fs::write(file.path(), text).unwrap();
        let found = file.read().unwrap();
        assert_eq!(found.saved.unwrap().refresh_token, full().refresh_token);
        assert!(
            found.notes[0].ends_with("without its fence, which made no sense"),
            "{:?}",
            found.notes
        );
    }
}
