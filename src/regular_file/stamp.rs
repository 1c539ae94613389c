//! Distinguishes the states of a file by its metadata.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::clock::Timestamp;

/// The resolution of file times (2 s on FAT, 1 s on some network disks). Two writes within it look the same, so a file
/// is read again for this long though it looks unchanged.
const TIMES_SETTLE_MS: i64 = 2_000;

/// One state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub(crate) links: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            links: metadata.nlink(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The time of the last write, by the file's own times.
    fn written_at(&self) -> Timestamp {
        Timestamp::from_secs(self.modified.0.max(self.changed.0).saturating_add(1))
    }
}

/// The state of a file that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) stamp: Stamp,
    pub(crate) first_at: Timestamp,
    pub(crate) read_at: Timestamp,
}

impl Seen {
    /// True if an unchanged look means an unchanged file: the file was seen so long after its times that a later write
    /// would have other times.
    pub(crate) fn is_settled(&self) -> bool {
        let since = |earlier: Timestamp| self.read_at.millis_since(earlier);
        since(self.first_at) >= TIMES_SETTLE_MS && since(self.stamp.written_at()) >= TIMES_SETTLE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_800_000_000);

    #[test]
    fn a_file_that_has_settled_is_not_read_again() {
        let stamp = |modified: i64| Stamp {
            device: 1,
            inode: 1,
            links: 1,
            length: 3,
            modified: (modified, 0),
            changed: (modified, 0),
        };
        let at = |millis| START.plus_millis(millis);
        let start = START.as_millis() / 1000;
        let seen = |modified: i64, first: i64, read: i64| Seen {
            stamp: stamp(modified),
            first_at: at(first),
            read_at: at(read),
        };
        // Old, and seen for two seconds.
        assert!(!seen(start - 100, 0, 1_999).is_settled());
        assert!(seen(start - 100, 0, 2_000).is_settled());
        // Written at the start: its times may be the same for a write up to a second later.
        assert!(!seen(start, 0, 2_999).is_settled());
        assert!(seen(start, 0, 3_000).is_settled());
        // A server with a fast clock.
        assert!(!seen(start + 10, 0, 12_000).is_settled());
    }
}
