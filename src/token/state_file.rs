//! The place of a provider on disk: reads, replaces and locks its state file, and finds others who could read it.
//!
//! Each provider has one JSON file, `<state_dir>/<slug>.json`, with mode 0600 in a folder of mode 0700. It is replaced
//! as a whole: temporary file, fsync, rename, fsync of the folder.

mod file;
mod folder;
mod lock;
mod read;
mod whole;
mod write;

pub use file::StateFile;
pub(crate) use folder::{CLIENT_SECRET, check_writable, exposures, would_be_writable};
pub use lock::Locking;
pub(crate) use lock::StateLock;
pub(crate) use read::StoredState;
pub(crate) use whole::{sync_folder, write_in, write_secret, write_whole};

#[cfg(test)]
mod tests;
