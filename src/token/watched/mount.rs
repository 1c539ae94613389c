//! Tells whether a single file is mounted: a file that is renamed into its place elsewhere can't be seen here.

use std::fs;
use std::path::Path;

use crate::platform;

/// True if something is mounted on `path` itself.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    platform::told_of_processes("self/mountinfo").is_some_and(|table| lists(&table, &path))
}

/// True if `table`, in the form of `/proc/self/mountinfo`, has `path` as a mount point.
fn lists(table: &str, path: &Path) -> bool {
    let mut points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.any(|point| Path::new(&plain(point)) == path)
}

/// Decodes the octal escapes (`\040` for a blank), which stand only for ASCII.
fn plain(escaped: &str) -> String {
    let mut pieces = escaped.split('\\');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(3).unwrap_or((piece, ""));
        match u8::from_str_radix(code, 8) {
            Ok(byte) => text.push(char::from(byte)),
            Err(_) => text.push_str(code),
        }
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_files_are_found() {
        let table = "22 1 0:21 / / rw - overlay overlay rw\n\
            30 22 8:1 /home/me/auth.json /root/.codex/auth.json rw,relatime - ext4 /dev/sda1 rw\n\
            31 22 8:1 /x /with\\040blank\\134/f rw - ext4 /dev/sda1 rw\n";
        for (path, expected) in [
            ("/root/.codex/auth.json", true),
            ("/root/.codex", false),
            ("/home/me/auth.json", false),
            ("/with blank\\/f", true),
            ("/", true),
        ] {
            assert_eq!(lists(table, Path::new(path)), expected, "{path}");
        }
    }
}
