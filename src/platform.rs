//! The calls of the system that not every Unix has: Linux's own, and plain equivalents for the others.
//!
//! The feature `portable` takes the equivalents on Linux too, so that tests can run them.

use std::path::Path;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod linux;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
#[expect(clippy::unnecessary_wraps, reason = "Linux's own calls may fail")]
mod portable;
mod values;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(crate) use linux::*;
#[cfg(any(not(target_os = "linux"), feature = "portable"))]
pub(crate) use portable::*;
pub(crate) use values::{Interest, PeerProcess, Readiness};

/// The text at `path` in the files about processes (proc(5)), `self/status`; None if it can't be read, or the system has
/// no such files.
pub(crate) fn told_of_processes(path: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(PROCESSES?).join(path)).ok()
}

#[cfg(test)]
mod tests;
