//! Reads regular files, and nothing that could block: no pipe without a writer, socket, device or folder.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

pub(crate) mod stamp;

/// All bytes of a regular file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The whole text of a regular file.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a regular file for reading. The error names the kind of any other file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    open_with(File::options().read(true), path)
}

/// Opens a regular file with `options`. The error names the kind of any other file.
pub(crate) fn open_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = open_without_waiting(options, path)?;
    let file_type = file.metadata()?.file_type();
    match kind(file_type) {
        None => Ok(file),
        Some(kind) => {
            let why = format!("it is {kind}, no regular file");
            let is_folder = file_type.is_dir();
            Err(io::Error::new(
                if is_folder { ErrorKind::IsADirectory } else { ErrorKind::Other },
                why,
            ))
        }
    }
}

/// Opens a file with `options`. It also opens a pipe, without waiting.
pub(crate) fn open_without_waiting(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    options.custom_flags(flags).open(path)
}

/// The kind of a file that is not regular.
fn kind(file_type: FileType) -> Option<&'static str> {
    match file_type {
        _ if file_type.is_file() => None,
        _ if file_type.is_fifo() => Some("a pipe"),
        _ if file_type.is_dir() => Some("a folder"),
        _ if file_type.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// Makes a named pipe without a child process, which would hold the locks of other tests until it runs another
    /// program.
    pub(crate) fn make_pipe(path: &Path) {
        mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
    }

    #[test]
    fn regular_files_are_read_and_nothing_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&file, "text").unwrap();
        assert_eq!(read_to_string(&file).unwrap(), "text");
        make_pipe(&pipe);
        for (path, kind) in [
            (pipe.as_path(), "a pipe"),
            (dir.path(), "a folder"),
            (Path::new("/dev/null"), "a device"),
        ] {
            let error = read_to_string(path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("it is {kind}, ")), "{error}");
        }
        assert_eq!(
            read_to_string(&dir.path().join("none")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
