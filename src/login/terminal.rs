//! The person's side of a login: lines from the terminal, a browser, and unpredictable bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The longest line that is accepted: an address with a long code.
const LINE_MAX_BYTES: u64 = 16 * 1024;

/// Reads lines, with a time limit for each.
pub(crate) struct TerminalLines(BufReader<File>);

impl TerminalLines {
    /// Lines of the standard input.
    pub(crate) fn of_stdin() -> io::Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self(BufReader::new(File::from(stdin))))
    }

    /// The next line with its end; empty at the end of the input, None if nothing came in time.
    pub(crate) fn next(&mut self, allowed: Duration) -> io::Result<Option<String>> {
        if !self.0.buffer().contains(&b'\n') && !is_readable(self.0.get_ref(), allowed)? {
            return Ok(None);
        }
        let mut line = String::new();
        (&mut self.0).take(LINE_MAX_BYTES).read_line(&mut line)?;
        Ok(Some(line))
    }
}

fn is_readable(file: &File, allowed: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(allowed).map_err(io::Error::other)?;
    loop {
        let mut fds = [PollFd::new(file, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens `address` in the desktop's browser. If that fails, the person has the address.
pub(crate) fn open_browser(address: &str) {
    let mut command = Command::new("xdg-open");
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It may live as long as the browser, so nobody waits for it.
    drop(command.spawn());
}

/// Fills `bytes` from the system's source.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    SystemRandom::new().fill(bytes).map_err(|error| io::Error::other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_one_by_one_and_in_time() {
        let (reading, mut writing) = io::pipe().unwrap();
        let mut lines =
            TerminalLines(BufReader::new(File::from(std::os::fd::OwnedFd::from(reading))));
        assert_eq!(lines.next(Duration::ZERO).unwrap(), None);
        writing.write_all(b"one\ntwo\n").unwrap();
        let patience = Duration::from_secs(20);
        assert_eq!(lines.next(patience).unwrap().as_deref(), Some("one\n"));
        assert_eq!(lines.next(Duration::ZERO).unwrap().as_deref(), Some("two\n"), "read already");
        drop(writing);
        assert_eq!(lines.next(patience).unwrap().as_deref(), Some(""));
    }

    #[test]
    fn a_line_on_both_sides_of_its_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let most = usize::try_from(LINE_MAX_BYTES).unwrap();
        std::fs::write(file.path(), "x".repeat(most + 1)).unwrap();
        let mut lines = TerminalLines(BufReader::new(File::open(file.path()).unwrap()));
        let mut length = || lines.next(Duration::from_secs(20)).unwrap().unwrap().len();
        assert_eq!((length(), length(), length()), (most, 1, 0));
    }

    #[test]
    fn random_bytes_differ() {
        let (mut one, mut other) = ([0; 64], [0; 64]);
        random(&mut one).unwrap();
        random(&mut other).unwrap();
        assert_ne!(one, other);
        assert_ne!(one, [0; 64]);
    }
}
