//! A provider's place on disk: how its state file is read, replaced and locked, and who else could read it.
//!
//! One JSON file a provider, `<state_dir>/<slug>.json`, mode 0600 in a folder of mode 0700; it is
//! replaced as a whole: temporary file, fsync, rename, fsync of the folder.

mod file;
mod folder;
mod lock;
mod read;
mod write;

pub use file::StateFile;
pub(crate) use folder::{check_writable, exposures, would_be_writable};
pub use lock::Locking;
pub(crate) use lock::StateLock;
pub(crate) use read::Found;

#[cfg(test)]
mod tests;
